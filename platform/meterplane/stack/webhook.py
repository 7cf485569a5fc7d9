"""Tell Stripe, the sandbox or the real one, where to send its events.

Against the sandbox the endpoint is made anew whenever the portal's address changed, and the signing
secret it answers with is kept. A real Stripe cannot reach a loopback address: there the endpoint is
the user's, made in Stripe's dashboard, and `STRIPE_WEBHOOK_SECRET` says its secret.
"""

import json
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlencode, urlsplit

from billing.payments.stripe_settings import API_VERSION, LOOPBACK_HOSTS, WEBHOOK_PATH
from meterplane.stack import installation
from meterplane.stack.component import NotStarted
from meterplane.stack.layout import Layout
from meterplane.stack.servers import Servers

PATIENCE_S = 10.0


def register(layout: Layout, servers: Servers) -> None:
    """Make sure an endpoint for this stack exists and its secret is known."""
    if servers.stripe_webhook_secret:
        return
    if urlsplit(servers.stripe_api_base).hostname not in LOOPBACK_HOSTS:
        raise NotStarted(
            "STRIPE_API_BASE is not on this machine, so its events cannot reach this stack by "
            "themselves: make a webhook endpoint in Stripe and set STRIPE_WEBHOOK_SECRET."
        )
    wanted = f"{servers.web_url}{WEBHOOK_PATH}"
    known = installation.load(layout)
    listed = _call(servers, "GET", "/v1/webhook_endpoints?limit=100")["data"]
    for endpoint in listed:
        if endpoint["id"] == known.stripe_webhook_endpoint and endpoint["url"] == wanted:
            return
        if urlsplit(endpoint["url"]).path == WEBHOOK_PATH:
            _call(servers, "DELETE", f"/v1/webhook_endpoints/{endpoint['id']}")
    made = _call(
        servers,
        "POST",
        "/v1/webhook_endpoints",
        [("url", wanted), ("enabled_events[]", "*"), ("api_version", API_VERSION)],
    )
    installation.update(
        layout, stripe_webhook_secret=made["secret"], stripe_webhook_endpoint=made["id"]
    )


def _call(
    servers: Servers, method: str, path: str, form: list[tuple[str, str]] | None = None
) -> dict[str, Any]:
    parts = urlsplit(servers.stripe_api_base)
    connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=PATIENCE_S)
    headers = {
        "Authorization": f"Bearer {servers.stripe_api_key}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    try:
        connection.request(method, path, urlencode(form or []), headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, HTTPException) as failure:
        raise NotStarted(f"{servers.stripe_api_base} does not answer: {failure}") from None
    finally:
        connection.close()
    if answer.status != 200:
        text = body.decode(errors="replace")
        raise NotStarted(f"{method} {path} was answered {answer.status}: {text}")
    content: dict[str, Any] = json.loads(body)
    return content
