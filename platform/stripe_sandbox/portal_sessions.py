"""Billing portal: a page for one customer, to replace the card and see the invoices.

A session is a link that works for an hour. There is always a default configuration, made when it
is first needed, as an account has after its portal settings were saved once. Only what the page
can do may be switched on: subscriptions are not simulated.
"""

from collections.abc import Mapping
from typing import Any

from stripe_sandbox import ids
from stripe_sandbox.call import Call
from stripe_sandbox.errors import missing_parameter
from stripe_sandbox.events import emit, emit_change
from stripe_sandbox.lists import PAGE, page
from stripe_sandbox.params import (
    Choice,
    Flag,
    Link,
    Metadata,
    Parameter,
    Reference,
    Shape,
    Takes,
    Text,
    merged_metadata,
)
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

OPEN_S = 3600

_ONLY_OFF = Shape({"enabled": Flag(only=False)}, required=("enabled",))
_SWITCH = Shape({"enabled": Flag()}, required=("enabled",))
_FEATURES = Shape(
    {
        "customer_update": _ONLY_OFF,
        "invoice_history": _SWITCH,
        "payment_method_update": _SWITCH,
        "subscription_cancel": _ONLY_OFF,
        "subscription_update": _ONLY_OFF,
    }
)
_CONFIGURABLE: Mapping[str, Parameter] = {
    "business_profile": Shape(
        {
            "headline": Text(max_chars=60),
            "privacy_policy_url": Text(),
            "terms_of_service_url": Text(),
        }
    ),
    "default_return_url": Text(),
    "features": _FEATURES,
    "metadata": Metadata(),
    "name": Text(max_chars=100),
}
CREATE = Takes(
    {
        "configuration": Reference(),
        "customer": Reference(),
        "flow_data": Shape(
            {
                "after_completion": Shape(
                    {
                        "type": Choice(("portal_homepage", "redirect")),
                        "redirect": Shape({"return_url": Link()}, required=("return_url",)),
                    },
                    required=("type",),
                ),
                "type": Choice(("payment_method_update",)),
            },
            required=("type",),
        ),
        "locale": Choice(("auto", "en")),
        "return_url": Link(),
    }
)
CREATE_CONFIGURATION = Takes(_CONFIGURABLE, required=("features",))
UPDATE_CONFIGURATION = Takes({**_CONFIGURABLE, "active": Flag()})
RETRIEVE_CONFIGURATION = Takes()
LIST_CONFIGURATIONS = Takes({**PAGE, "active": Flag(), "is_default": Flag()})

_SESSION, _CONFIGURATION = "billing_portal.session", "billing_portal.configuration"


def create(call: Call) -> Document:
    customer = call.named("customer", "customer")
    if customer is None:
        raise missing_parameter("customer")
    configuration = call.named(_CONFIGURATION, "configuration") or _default(call)
    token = ids.secret("test")
    session: Document = {
        "id": ids.new("bps"),
        "object": _SESSION,
        "after_expiration": None,
        "configuration": configuration["id"],
        "created": call.now,
        "customer": customer["id"],
        "customer_account": None,
        "flow": _flow(call.params.get("flow_data")),
        "livemode": False,
        "locale": call.params.get("locale"),
        "on_behalf_of": None,
        "return_url": call.params.get("return_url") or configuration["default_return_url"],
        "url": f"{call.base_url}/p/session/{token}",
        "_page_token": token,
    }
    call.store.insert(session, created=call.now)
    emit(call, "billing_portal.session.created", public(call, session))
    return public(call, session)


def _flow(asked: Mapping[str, Any] | None) -> Document | None:
    if asked is None:
        return None
    after = asked.get("after_completion") or {"type": "portal_homepage"}
    return {
        "after_completion": {
            "hosted_confirmation": None,
            "redirect": after.get("redirect"),
            "type": after["type"],
        },
        "customer_update": None,
        "subscription_cancel": None,
        "subscription_pause": None,
        "subscription_update": None,
        "subscription_update_confirm": None,
        "type": asked["type"],
    }


def create_configuration(call: Call) -> Document:
    configuration = _blank(call, is_default=False)
    _apply(configuration, call.params)
    call.store.insert(configuration, created=call.now)
    emit(call, f"{_CONFIGURATION}.created", public(call, configuration))
    return public(call, configuration)


def retrieve_configuration(call: Call) -> Document:
    return public(call, call.in_path(_CONFIGURATION))


def update_configuration(call: Call) -> Document:
    configuration = call.in_path(_CONFIGURATION)
    before = public(call, configuration)
    _apply(configuration, call.params)
    configuration["updated"] = call.now
    call.store.put(configuration)
    emit_change(call, f"{_CONFIGURATION}.updated", before, public(call, configuration))
    return public(call, configuration)


def list_configurations(call: Call) -> Document:
    _default(call)
    where = [
        # The name is one of the two literals below; the value is bound.
        (f"json_extract(body, '$.{name}') = ?", call.params[name])
        for name in ("active", "is_default")
        if name in call.params
    ]
    found = page(call, _CONFIGURATION, "/v1/billing_portal/configurations", where)
    found["data"] = [public(call, configuration) for configuration in found["data"]]
    return found


def _default(call: Call) -> Document:
    where = [("json_extract(body, '$.is_default') = ?", True)]
    rows = call.store.select(_CONFIGURATION, where, limit=1)
    if rows:
        return rows[0]
    configuration = _blank(call, is_default=True)
    _apply(
        configuration,
        {
            "features": {
                "invoice_history": {"enabled": True},
                "payment_method_update": {"enabled": True},
            }
        },
    )
    call.store.insert(configuration, created=call.now)
    return configuration


def _blank(call: Call, *, is_default: bool) -> Document:
    off = {"enabled": False}
    return {
        "id": ids.new("bpc"),
        "object": _CONFIGURATION,
        "active": True,
        "application": None,
        "business_profile": dict.fromkeys(
            ("headline", "privacy_policy_url", "terms_of_service_url")
        ),
        "created": call.now,
        "default_return_url": None,
        "features": {
            "customer_update": {**off, "allowed_updates": []},
            "invoice_history": dict(off),
            "payment_method_update": {**off, "payment_method_configuration": None},
            "subscription_cancel": {
                **off,
                "cancellation_reason": {**off, "options": []},
                "mode": "at_period_end",
                "proration_behavior": "none",
            },
            "subscription_pause": {
                **off,
                "duration": {"interval_options": [], "type": "indefinite"},
            },
            "subscription_update": {
                **off,
                "billing_cycle_anchor": None,
                "default_allowed_updates": [],
                "products": [],
                "proration_behavior": "none",
                "schedule_at_period_end": {"conditions": []},
                "trial_update_behavior": "end_trial",
            },
        },
        "is_default": is_default,
        "livemode": False,
        "login_page": {**off, "url": None},
        "metadata": {},
        "name": None,
        "updated": call.now,
    }


def _apply(configuration: Document, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name == "features":
            for feature, settings in value.items():
                configuration["features"][feature].update(settings)
        elif name == "metadata":
            configuration["metadata"] = merged_metadata(configuration["metadata"], value)
        elif name == "business_profile":
            configuration["business_profile"].update(value)
        elif name != "expand":
            configuration[name] = value
