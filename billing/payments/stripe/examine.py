"""Whether a Stripe account is as we need it, found out by reading alone; for `manage.py doctor`.

Guarantees: nothing is changed there; whatever is not well comes with what to do; it ends within
`WITHIN_S` and one call, also where Stripe is away or slow. Does not know whether a restricted key
may write: Stripe says so only when it is tried, so the right to give is named beside each resource.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import stripe

from billing.payments.process import EVENTS_NEEDED
from billing.payments.stripe.amounts import MINIMUM_CHARGE_MINOR
from billing.payments.stripe.client import Client, Patience
from billing.payments.stripe.events import SIGNATURE_AGE_S_MAX
from billing.payments.stripe_settings import (
    API_VERSION,
    LOOPBACK_HOSTS,
    RESTRICTED_PREFIX,
    is_live,
)
from meterplane.kernel import clock
from meterplane.kernel.finding import Finding, Verdict

WITHIN_S = 20.0
HURRIED = Patience(connect_s=3, read_s=5, retries=0, pauses_s=())
SKEW_S_COMFORT, SKEW_S_MAX = 5, 60  # the rest of a signature's 300 s is for its way here
EVENTS_SHOWN = 6
DENIED, NOT_OURS = 403, 401
_ACCOUNT = re.compile(r"on account '(acct_[A-Za-z0-9]+)'")
_RIGHT = re.compile(r"'(rak_[a-z_]+)'")
_KEYS = "in Stripe's dashboard under Developers, API keys"
_WEBHOOKS = "in Stripe's dashboard under Developers, Webhooks"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What this installation expects. An empty account id: any; no currencies: none is sold in."""

    webhook_url: str
    account_id: str = ""
    currencies: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object that we read, the harmless call that tries it, and the right it takes."""

    title: str
    path: str
    right: str


ACCOUNT = "/v1/account"
ENDPOINTS = "/v1/webhook_endpoints"
PORTALS = "/v1/billing_portal/configurations"
# All that the adapter calls. Rights are those its calls need, of which reading is tried.
RESOURCES = (
    Resource("customers", "/v1/customers", "rak_customer_write"),
    Resource("invoices", "/v1/invoices", "rak_invoice_write"),
    Resource("invoice payments", "/v1/invoice_payments", "rak_invoice_write"),
    Resource("credit notes", "/v1/credit_notes", "rak_credit_note_write"),
    Resource("payments", "/v1/payment_intents", "rak_payment_intent_write"),
    Resource("payment methods", "/v1/payment_methods", "rak_payment_method_write"),
    Resource("checkout", "/v1/checkout/sessions", "rak_checkout_session_write"),
    Resource("customer portal", PORTALS, "rak_customer_portal_write"),
    Resource("refunds", "/v1/refunds", "rak_charge_write"),
    Resource("disputes", "/v1/disputes", "rak_dispute_read"),
    Resource("tax rates", "/v1/tax_rates", "rak_tax_rate_read"),
    Resource("events", "/v1/events", "rak_event_read"),
    Resource("webhook endpoints", ENDPOINTS, "rak_webhook_read"),
)


@dataclass(frozen=True, slots=True)
class _Read:
    """How one call was answered; status 0 where nobody did."""

    status: int
    said: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        return list(self.body.get("data") or [])


class _Account(Client):
    """Reads, and nothing else."""

    def read(self, path: str, **query: Any) -> _Read:
        try:
            found = self._client.raw_request("get", path, **query)
        except stripe.APIConnectionError as away:
            return _Read(0, _first_sentence(str(away)))
        except stripe.StripeError as refused:
            headers = {name.lower(): value for name, value in (refused.headers or {}).items()}
            return _Read(refused.http_status or 0, str(refused.user_message), headers=headers)
        headers = {name.lower(): value for name, value in found.headers.items()}
        return _Read(found.code, body=found.data, headers=headers)


def examine(key: str, base: str, wanted: Wanted) -> Iterator[Finding]:
    """What there is to say. Raises `ProviderNotConfigured` for a key that cannot be meant."""
    deadline = time.monotonic() + WITHIN_S
    account = _Account(key, base, patience=HURRIED)
    first = account.read(ACCOUNT)
    yield _reached(first, base)
    if first.status in (0, NOT_OURS):
        return
    yield _key(key)
    yield _whose(first, wanted.account_id)
    yield _able(first)
    yield _skew(first)
    reads: dict[str, _Read] = {}
    for resource in RESOURCES:
        if time.monotonic() > deadline:
            fix = "Stripe answers slowly now: run this again later."
            yield Finding("Stripe", "note", f"{resource.title} and more not looked at", fix)
            break
        reads[resource.path] = account.read(resource.path, limit=100)
        yield _allowed(resource, reads[resource.path], key)
    if (endpoints := reads.get(ENDPOINTS)) and endpoints.status == 200:
        yield _webhook(endpoints.rows, wanted.webhook_url, key, base)
    if (portals := reads.get(PORTALS)) and portals.status == 200:
        yield _portal(portals.rows)
    yield _minimums(wanted.currencies)
    yield _telemetry()


def _reached(first: _Read, base: str) -> Finding:
    where = base or "https://api.stripe.com"
    if first.status == 0:
        fix = "Check STRIPE_API_BASE and this machine's way out (DNS, proxy, firewall)."
        return Finding("Stripe", "broken", f"{where} cannot be reached: {first.said}", fix)
    if first.status == NOT_OURS:
        fix = f"Set STRIPE_API_KEY to a key that is there {_KEYS}."
        return Finding("Stripe", "broken", f"{where} does not know this key", fix)
    spoken = first.headers.get("stripe-version", API_VERSION)
    if spoken != API_VERSION:
        fix = "Put nothing in between that changes the Stripe-Version header."
        return Finding("Stripe", "broken", f"answers as {spoken}, not {API_VERSION}", fix)
    what = "the sandbox at " if urlsplit(base).hostname in LOOPBACK_HOSTS else ""
    return Finding("Stripe", "ok", f"{what}{where} answers, API version {API_VERSION}")


def _key(key: str) -> Finding:
    mode = "live" if is_live(key) else "test"
    kind = "restricted" if key.startswith(RESTRICTED_PREFIX) else "secret"
    return Finding("Stripe key", "ok", f"{mode} mode, a {kind} key")


def _whose(first: _Read, wanted_id: str) -> Finding:
    """A refusal names the account too."""
    named = _ACCOUNT.search(first.said)
    found = str(first.body.get("id") or (named[1] if named else ""))
    if not found:
        right = "rak_accounts_kyc_basic_read"
        return Finding("Stripe account", "note", "the key may not read whose it is", _give(right))
    if wanted_id and found != wanted_id:
        fix = "Set STRIPE_ACCOUNT_ID to it, or STRIPE_API_KEY to a key of the account you mean."
        saying = f"the key is of {found}, STRIPE_ACCOUNT_ID says {wanted_id}"
        return Finding("Stripe account", "broken", saying, fix)
    told = "as STRIPE_ACCOUNT_ID says" if wanted_id else "STRIPE_ACCOUNT_ID names none"
    return Finding("Stripe account", "ok", f"{found}, {told}")


def _able(first: _Read) -> Finding:
    subject = "Stripe charges"
    if first.status != 200:
        saying = "the key may not read whether the account may charge"
        return Finding(subject, "note", saying, _give("rak_accounts_kyc_basic_read"))
    off = [
        said
        for name, said in (("charges_enabled", "charge"), ("payouts_enabled", "be paid out"))
        if not first.body.get(name)
    ]
    if off:
        fix = "Finish the account's activation in Stripe's dashboard."
        return Finding(subject, "broken", f"the account cannot {' or '.join(off)} yet", fix)
    return Finding(subject, "ok", "the account can charge and be paid out")


def _skew(first: _Read) -> Finding:
    subject = "Stripe clock"
    try:
        theirs = parsedate_to_datetime(first.headers.get("date", ""))
    except ValueError:
        return Finding(subject, "note", "the answer does not say when it was sent")
    theirs = theirs.replace(tzinfo=UTC) if theirs.tzinfo is None else theirs
    skew_s = round((clock.now() - theirs).total_seconds())
    saying = f"ours is {abs(skew_s)} s {'ahead of' if skew_s > 0 else 'behind'} Stripe's"
    fix = (
        "Let this machine take its time from an NTP source: webhooks whose signature looks older"
        f" than {SIGNATURE_AGE_S_MAX} s are refused."
    )
    if abs(skew_s) > SKEW_S_MAX:
        return Finding(subject, "broken", saying, fix)
    if abs(skew_s) > SKEW_S_COMFORT:
        return Finding(subject, "note", saying, fix)
    return Finding(subject, "ok", "ours and Stripe's agree")


def _allowed(resource: Resource, read: _Read, key: str) -> Finding:
    subject = f"Stripe: {resource.title}"
    if read.status == DENIED:
        named = _RIGHT.search(read.said)
        also = f" (Stripe names {named[1]})" if named and named[1] != resource.right else ""
        return Finding(subject, "broken", "not allowed", _give(resource.right) + also)
    if read.status != 200:
        saying = f"answered {read.status or 'nothing'}: {read.said}"
        return Finding(subject, "note", saying, "Run this again later.")
    if resource.right.endswith("_write") and key.startswith(RESTRICTED_PREFIX):
        return Finding(subject, "ok", f"may be read; writing takes {resource.right}")
    return Finding(subject, "ok", "allowed")


def _give(right: str) -> str:
    return f"Give the restricted key {right}, {_KEYS}."


def _webhook(endpoints: Sequence[Mapping[str, Any]], url: str, key: str, base: str) -> Finding:
    subject = "Stripe webhook"
    ours = [each for each in endpoints if each["url"] == url]
    if not ours and urlsplit(url).hostname in LOOPBACK_HOSTS and not _is_here(base):
        verdict: Verdict = "broken" if is_live(key) else "note"
        fix = "Set PUBLIC_WEB_URL to an address Stripe can reach; until then events come hourly."
        return Finding(subject, verdict, f"Stripe cannot reach {url}", fix)
    if not ours:
        others = ", ".join(str(each["url"]) for each in endpoints) or "none"
        fix = f"Add an endpoint of version {API_VERSION} for {url}, {_WEBHOOKS}."
        return Finding(subject, "broken", f"no endpoint is for {url}; there: {others}", fix)
    able = [each for each in ours if each["status"] == "enabled"]
    if not able:
        fix = f"Enable it, {_WEBHOOKS}."
        return Finding(subject, "broken", f"{ours[0]['id']} is {ours[0]['status']}", fix)
    return _as_we_need(subject, able)


def _as_we_need(subject: str, able: Sequence[Mapping[str, Any]]) -> Finding:
    first = able[0]
    version = first["api_version"]
    if version not in (None, API_VERSION):
        fix = f"Make a new endpoint of version {API_VERSION}: a version cannot be changed."
        saying = f"{first['id']} sends version {version}, which is refused here"
        return Finding(subject, "broken", saying, fix)
    missing = missing_events(first["enabled_events"])
    if missing:
        shown = ", ".join(missing[:EVENTS_SHOWN])
        more = len(missing) - EVENTS_SHOWN
        fix = f"Add them, {_WEBHOOKS}: {shown}{f' and {more} more' if more > 0 else ''}."
        return Finding(subject, "broken", f"{first['id']} lacks {len(missing)} events", fix)
    if version is None:
        fix = f"Make a new endpoint of version {API_VERSION}, and set its secret."
        saying = f"{first['id']} follows the account's version, which may move"
        return Finding(subject, "note", saying, fix)
    if len(able) > 1:
        fix = f"Remove all but one, {_WEBHOOKS}."
        return Finding(subject, "note", f"{len(able)} endpoints send the same events", fix)
    return Finding(subject, "ok", f"{first['id']} sends all we need, version {version}")


def missing_events(enabled: Sequence[str]) -> list[str]:
    """Types of events that we act on and that are not sent."""
    if "*" in enabled:
        return []
    needed = {each for types in EVENTS_NEEDED.values() for each in types}
    return sorted(needed - set(enabled))


def _portal(configurations: Sequence[Mapping[str, Any]]) -> Finding:
    if any(each["is_default"] and each["active"] for each in configurations):
        return Finding("Stripe portal", "ok", "customers can manage cards there")
    fix = "Save its settings once, in Stripe's dashboard under Settings, Billing, Customer portal."
    return Finding("Stripe portal", "note", "has no default settings: it cannot open", fix)


def _minimums(currencies: Sequence[str]) -> Finding:
    unknown = sorted(set(currencies) - set(MINIMUM_CHARGE_MINOR))
    subject = "Stripe minimums"
    if unknown:
        fix = "Amounts below Stripe's own smallest charge would become customer balance there."
        return Finding(subject, "note", f"no smallest charge is known in {', '.join(unknown)}", fix)
    return Finding(subject, "ok", "the smallest charge is known in every currency sold in")


def _telemetry() -> Finding:
    if stripe.enable_telemetry:
        fix = "Something in this process switched it on again: set stripe.enable_telemetry = False."
        return Finding("Stripe telemetry", "broken", "is on", fix)
    return Finding("Stripe telemetry", "ok", "off")


def _is_here(base: str) -> bool:
    return urlsplit(base).hostname in LOOPBACK_HOSTS


def _first_sentence(text: str) -> str:
    """Of the SDK's advice, which goes on for a paragraph."""
    return text.split("\n", 1)[0].split(". ", 1)[0].strip()
