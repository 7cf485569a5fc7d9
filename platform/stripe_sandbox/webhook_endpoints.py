"""Webhook endpoints: where events go, which ones, and the secret they are signed with.

The secret is shown once, in the answer that creates the endpoint. Only plain HTTP on this machine
is a possible destination: a sandbox must not be a way to send requests elsewhere.
"""

import ipaddress
from urllib.parse import urlsplit

from stripe_sandbox import API_VERSION, ids
from stripe_sandbox.call import Call
from stripe_sandbox.errors import missing_parameter, refused
from stripe_sandbox.lists import PAGE, page
from stripe_sandbox.params import Choice, Flag, Metadata, Rows, Takes, Text, merged_metadata
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

MAX_ENDPOINTS = 16  # Stripe's own bound per account

_URL = Text(max_chars=2_048, keeps=True)
_EVENTS = Rows(Text(max_chars=100, keeps=True), max_rows=200)

CREATE = Takes(
    {
        "api_version": Choice((API_VERSION,)),
        "connect": Flag(only=False),
        "description": Text(),
        "enabled_events": _EVENTS,
        "metadata": Metadata(),
        "url": _URL,
    },
    required=("enabled_events", "url"),
)
UPDATE = Takes(
    {
        "description": Text(),
        "disabled": Flag(),
        "enabled_events": _EVENTS,
        "metadata": Metadata(),
        "url": _URL,
    }
)
RETRIEVE = Takes()
DELETE = Takes()
LIST = Takes(PAGE)


def create(call: Call) -> Document:
    if len(call.store.select("webhook_endpoint", limit=MAX_ENDPOINTS)) == MAX_ENDPOINTS:
        raise refused(f"You have reached the maximum of {MAX_ENDPOINTS} webhook endpoints.")
    secret = ids.secret("whsec")
    endpoint: Document = {
        "id": ids.new("we"),
        "object": "webhook_endpoint",
        "api_version": call.params.get("api_version"),
        "application": None,
        "created": call.now,
        "description": call.params.get("description"),
        "enabled_events": _some(call.params["enabled_events"]),
        "livemode": False,
        "metadata": merged_metadata({}, call.params.get("metadata", {})),
        "status": "enabled",
        "url": _loopback_url(call.params["url"]),
        "_secret": secret,
    }
    call.store.insert(endpoint, created=call.now)
    return {**public(call, endpoint), "secret": secret}


def retrieve(call: Call) -> Document:
    return public(call, call.in_path("webhook_endpoint"))


def update(call: Call) -> Document:
    endpoint = call.in_path("webhook_endpoint")
    for name, value in call.params.items():
        if name == "metadata":
            endpoint["metadata"] = merged_metadata(endpoint["metadata"], value)
        elif name == "disabled":
            endpoint["status"] = "disabled" if value else "enabled"
        elif name == "enabled_events":
            endpoint["enabled_events"] = _some(value)
        elif name == "url":
            endpoint["url"] = _loopback_url(value)
        elif name == "description":
            endpoint["description"] = value
    call.store.put(endpoint)
    return public(call, endpoint)


def delete(call: Call) -> Document:
    """What was still on its way to it is dropped."""
    endpoint = call.in_path("webhook_endpoint")
    call.store.remove(endpoint["id"])
    call.store.connection.execute("DELETE FROM delivery WHERE endpoint = ?", (endpoint["id"],))
    return {"id": endpoint["id"], "object": "webhook_endpoint", "deleted": True}


def list_all(call: Call) -> Document:
    found = page(call, "webhook_endpoint", "/v1/webhook_endpoints")
    found["data"] = [public(call, endpoint) for endpoint in found["data"]]
    return found


def _some(events: list[str]) -> list[str]:
    if not events:
        raise missing_parameter("enabled_events")
    return events


def _loopback_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        port_is_valid = False
    if not port_is_valid or parts.scheme not in ("http", "https") or not parts.hostname:
        raise refused("Invalid URL: An explicit scheme (such as https) must be provided.",
                      code="url_invalid", param="url")  # fmt: skip
    if parts.scheme != "http" or not is_loopback(parts.hostname):
        raise refused(
            "Invalid URL: the sandbox delivers over plain http to this machine only "
            "(localhost, 127.0.0.0/8 or ::1).",
            code="url_invalid",
            param="url",
        )
    return url


def is_loopback(host: str) -> bool:
    """True for names and addresses that can only mean this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
