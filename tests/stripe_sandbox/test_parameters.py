"""What each call of the sandbox takes, held against what the installed SDK can send there.

The sandbox may take less than Stripe, never more, and must require what Stripe requires. Answers
are judged wherever tests get them, by `tests.stripe_schema`.
"""

from collections.abc import Iterable, Mapping

import pytest
import stripe

from stripe_sandbox import API_VERSION, params
from stripe_sandbox.routes import ENDPOINTS, Endpoint
from tests.stripe_sandbox.conformance.deviations import DEVIATIONS
from tests.stripe_schema.exchange import installed
from tests.stripe_schema.kinds import UNSET, Either, Kind, Mapped, Named, OneOf, Rows, Scalar

# Texts where Stripe has an enumeration.
LOOSER = {"enabled_events[]": DEVIATIONS["event_names_are_checked"]}


def _more(taken: object, kind: Kind, where: str) -> list[str]:
    """Where a parameter of the sandbox takes what Stripe does not."""
    options = kind.options if isinstance(kind, Either) else (kind,)
    match taken:
        case params.Shape():
            named = [option for option in options if isinstance(option, Named)]
            found = _more_members(taken.fields, taken.required, named, where)
            unsets = UNSET in options or not taken.unsets
            return found if unsets else [*found, f"{where} cannot be unset at Stripe"]
        case params.Rows():
            rows = [option.item for option in options if isinstance(option, Rows)]
            return _more(taken.item, rows[0], f"{where}[]") if rows else [f"{where} is no array"]
        case params.Choice():
            known = {value for option in options if isinstance(option, OneOf)
                     for value in option.values}  # fmt: skip
            return [f"{where}={value}" for value in taken.values if value not in known]
        case params.Span():
            return [] if Scalar.WHOLE in options and len(options) == 2 else [f"{where} no range"]
        case params.Metadata():
            return [] if any(isinstance(each, Mapped) for each in options) else [f"{where} no map"]
        case params.Flag():
            return [] if Scalar.FLAG in options else [f"{where} is no boolean"]
        case params.Integer():
            return [] if Scalar.WHOLE in options else [f"{where} is no whole number"]
        case params.DecimalText():
            is_decimal = {Scalar.DECIMAL, Scalar.NUMBER} & set(options)
            return [] if is_decimal else [f"{where} is no decimal"]
        case params.Text() | params.Reference() | params.Currency() | params.Link():
            is_text = Scalar.TEXT in options or where in LOOSER
            return [] if is_text else [f"{where} is no text"]
    return [f"{where}: {type(taken).__name__} is compared with nothing"]


def _more_members(
    taken: Mapping[str, params.Parameter], required: Iterable[str], named: list[Named], where: str
) -> list[str]:
    if not named:
        return [f"{where} is no object"]
    members = installed().kinds.structure(named[0]).fields
    found = [
        each
        for name, parameter in taken.items()
        for each in (
            _more(parameter, members[name].kind, f"{where}[{name}]" if where else name)
            if name in members
            else [f"{where}[{name}] is unknown"]
        )
    ]
    needed = {name for name, field in members.items() if field.required}
    return found + [f"{where}[{name}] is required" for name in sorted(needed - set(required))]


def more_than_stripe(endpoint: Endpoint) -> list[str]:
    """What a call of the sandbox takes and Stripe's does not, or does without."""
    operation = installed().operations.find(endpoint.method, endpoint.path)
    if operation is None:
        return [f"{endpoint.method} {endpoint.path} does not exist"]
    named = installed().operations.parameters(operation)
    if named is None:
        return [f"{name} is unknown" for name in endpoint.takes.fields]
    return _more_members(endpoint.takes.fields, endpoint.takes.required, [named], "")


def test_the_sandbox_speaks_the_version_of_the_installed_sdk(client: stripe.StripeClient):
    """A new major of the SDK fails here, and wherever a field that moved was used."""
    assert stripe.api_version == API_VERSION
    answer = client.raw_request("get", "/v1/customers")
    assert answer.headers["Stripe-Version"] == API_VERSION


def test_no_call_takes_more_than_stripes():
    said = [f"{each.method} {each.path}: {more}"
            for each in ENDPOINTS for more in more_than_stripe(each)]  # fmt: skip
    assert said == []


@pytest.mark.parametrize(
    ("fields", "required", "says"),
    [
        ({"emial": params.Text()}, ("customer",), "[emial] is unknown"),
        ({"auto_advance": params.Integer()}, (), "auto_advance is no whole number"),
        ({"status": params.Text()}, (), "[status] is unknown"),
        ({"collection_method": params.Choice(("send_invoice", "cash"))}, (),
         "collection_method=cash"),
        ({"custom_fields": params.Text()}, (), "custom_fields is no text"),
        ({"issuer": params.Shape({"type": params.Choice(("self",))})}, (),
         "issuer[type] is required"),
        ({"issuer": params.Shape({"type": params.Choice(("self",))}, ("type",), unsets=True)}, (),
         "issuer cannot be unset at Stripe"),
    ],
)  # fmt: skip
def test_a_call_that_took_more_would_be_found(fields, required, says):
    takes = params.Takes(fields, required)
    assert says in more_than_stripe(Endpoint("POST", "/v1/invoices", takes, act=lambda _: {}))


def test_a_call_that_stripe_does_not_have_would_be_found():
    made_up = Endpoint("POST", "/v1/invoices/{id}/settle", params.Takes(), act=lambda _: {})
    assert more_than_stripe(made_up) == ["POST /v1/invoices/{id}/settle does not exist"]
    lax = Endpoint("POST", "/v1/invoices/{id}/add_lines", params.Takes(), act=lambda _: {})
    assert more_than_stripe(lax) == ["[lines] is required"]
