"""What every page shares: the SANDBOX frame, its headers, its forms, cards to choose, amounts.

Cards are chosen from the published test numbers, never typed: a page must not invite a real one.
No script runs, what is shown is escaped, and a form is taken from the sandbox's own pages only.
"""

import datetime
import re
from collections.abc import Iterable
from html import escape
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from stripe_sandbox import access, clock
from stripe_sandbox.call import Call
from stripe_sandbox.cards import BY_NUMBER, TestCard
from stripe_sandbox.errors import StripeError
from stripe_sandbox.store import Store

if TYPE_CHECKING:
    from stripe_sandbox.app import Sandbox

MAX_FORM_BYTES = 1_024

_STYLE = resources.files("stripe_sandbox").joinpath("page.css").read_text()
_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'{to}; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_NETWORK_LOCATION = re.compile(r"^[A-Za-z0-9.:\[\]-]+$")

# Offered on the pages, with what each will do.
TO_PAY = (
    ("4242424242424242", "pays"),
    ("4000002760003184", "asks to authenticate"),
    ("4000000000000341", "is declined"),
    ("4000000000009995", "has insufficient funds"),
    ("4000000000000259", "pays and is disputed"),
)
TO_SAVE = (
    ("4242424242424242", "is saved and pays"),
    ("4000002500003155", "asks to authenticate, once"),
    ("4000000000000341", "is saved, then declines"),
    ("4000000000000002", "cannot be saved"),
)

_NO_MINOR = frozenset(
    (
        *("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga"),
        *("pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf"),
    )
)
_THREE_DIGITS = frozenset(["bhd", "jod", "kwd", "omr", "tnd"])
_SIGNS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}


def money(amount_minor: int, currency: str) -> str:
    """`$1,234.50`; integers only, so what is shown is what is owed."""
    digits = 0 if currency in _NO_MINOR else 3 if currency in _THREE_DIGITS else 2
    whole, rest = divmod(abs(amount_minor), 10**digits)
    number = f"{whole:,}" + (f".{rest:0{digits}d}" if digits else "")
    minus = "−" if amount_minor < 0 else ""  # noqa: RUF001 (a true minus sign is meant)
    sign = _SIGNS.get(currency)
    return f"{minus}{sign}{number}" if sign else f"{minus}{number} {currency.upper()}"


def day(instant: int) -> str:
    """`24 November 2026`, in UTC."""
    at = datetime.datetime.fromtimestamp(instant, datetime.UTC)
    return f"{at.day} {at:%B %Y}"


def moment(instant: int) -> str:
    """`2026-11-24 15:04:05`, in UTC."""
    return f"{datetime.datetime.fromtimestamp(instant, datetime.UTC):%Y-%m-%d %H:%M:%S}"


def framed(
    title: str, body: str, status: int = 200, leads_to: Iterable[str | None] = ()
) -> Response:
    """A page; `leads_to` are other origins that its forms may end at."""
    mark = " SANDBOX" * 120
    origins = "".join(f" {origin}" for origin in map(_origin, leads_to) if origin)
    return HTMLResponse(
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)} · Stripe sandbox</title><style>{_STYLE}</style>"
        "<div class=banner role=note>SANDBOX — not Stripe. No money moves here.</div>"
        f"<main><div class=paper><div class=watermark aria-hidden=true>{mark}</div>{body}</div>"
        "</main></html>",
        status_code=status,
        headers={**_HEADERS, "Content-Security-Policy": _POLICY.format(to=origins)},
    )


def nothing_here(status: int = 404) -> Response:
    """No such page, or not for whoever asks."""
    return framed(
        "Not found",
        "<h1>Nothing here</h1><p class=quiet>This page does not exist in the sandbox.</p>",
        status,
    )


def sent_to(url: str) -> Response:
    """On to another page after a form."""
    return RedirectResponse(url, status_code=303, headers=_HEADERS)


def stranger(request: Request) -> Response | None:
    """The refusal of a name that is not this machine, or of a form from another site."""
    from_elsewhere = request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    if not access.host_is_local(request.headers):
        return nothing_here(403)
    if request.method == "POST" and from_elsewhere:
        return nothing_here(403)
    return None


async def form(request: Request) -> dict[str, str]:
    """The fields of a small form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise StripeError(413, "The form is too large.")
    fields = parse_qs(body.decode("utf-8", "replace"))
    return {name: values[0] for name, values in fields.items()}


def chosen(fields: dict[str, str], offered: tuple[tuple[str, str], ...]) -> TestCard:
    """The offered card that a form names; 400 for any other number."""
    number = fields.get("card", "")
    if number not in dict(offered):
        raise StripeError(400, "Choose one of the test cards offered.")
    return BY_NUMBER[number]


def sandbox_of(request: Request) -> "Sandbox":
    """The running sandbox."""
    sandbox: Sandbox = request.app.state.sandbox
    return sandbox


def call_of(request: Request, store: Store) -> Call:
    """A call made from a page, now."""
    return Call(store=store, now=clock.now_s(), base_url=sandbox_of(request).settings.base_url)


def cards(offered: tuple[tuple[str, str], ...]) -> str:
    """Radio buttons of test cards, the first one chosen."""
    return (
        "<fieldset>"
        + "".join(
            f"<label><input type=radio name=card value={number}{' checked' if place == 0 else ''}>"
            f"<span>{BY_NUMBER[number].brand.capitalize()} •••• {number[-4:]}</span>"
            f"<small>{what}</small></label>"
            for place, (number, what) in enumerate(offered)
        )
        + "</fieldset>"
    )


def bank_asks(action: str) -> str:
    """The issuer's question to the holder, as the form it is answered with."""
    return (
        "<h2>Your bank wants to know it is you</h2>"
        f"<form method=post action='{escape(action)}'>"
        "<button name=answer value=approve>Complete authentication</button>"
        "<button class=second name=answer value=fail>Fail authentication</button></form>"
    )


def facts(rows: Iterable[tuple[str, str | None]]) -> str:
    """A list of named values; empty ones are left out."""
    shown = "".join(f"<dt>{name}<dd>{escape(value)}" for name, value in rows if value)
    return f"<dl>{shown}</dl>"


def alert(message: str | None) -> str:
    """What went wrong, or nothing."""
    return f"<p class='note bad' role=alert>{escape(message)}</p>" if message else ""


def _origin(url: str | None) -> str | None:
    parts = urlsplit(url or "")
    if parts.scheme in ("http", "https") and _NETWORK_LOCATION.match(parts.netloc):
        return f"{parts.scheme}://{parts.netloc}"
    return None
