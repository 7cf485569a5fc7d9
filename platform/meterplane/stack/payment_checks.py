"""The doctor's look at the payment provider: what is set, and the account itself.

The account is looked at through the adapter, which needs Django, and so only where an environment
of our processes is there: of the running stack, or of a deployment. Before a first start there are
only a key and an address to judge.
"""

import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
from pydantic import ValidationError

from billing.payments import stripe_settings
from meterplane.stack.finding import Finding, Patient

STRIPE = "https://api.stripe.com"
CONNECT_WITHIN_S = 3
SUBJECT = "Stripe settings"


def findings(patient: Patient) -> Iterator[Finding]:
    """Ends within seconds, whatever answers."""
    if _told(patient, "PAYMENT_PROVIDER") == stripe_settings.NO_PROVIDER:
        yield Finding("Stripe", "ok", "PAYMENT_PROVIDER is none: nothing is collected through it")
        return
    if not patient.stripe:
        yield Finding("Stripe", "ok", "the sandbox, to be started")
        return
    if fault := _fault(patient):
        yield Finding(SUBJECT, "broken", *_parted(fault))
        return
    if not patient.told:
        yield _reachable(patient.stripe)
        return
    wrong = _configure(patient)
    yield from (Finding("Settings", "broken", *_parted(each)) for each in wrong)
    if not wrong:
        yield from _account(patient)


def _told(patient: Patient, name: str) -> str:
    return patient.told.get(name, "") if patient.told else os.environ.get(name, "")


def _fault(patient: Patient) -> str:
    # A stack is for development unless it is told otherwise; what is deployed is the reverse.
    is_deployed = bool(patient.told) and not patient.layout.secrets.exists()
    usual = stripe_settings.PRODUCTION if is_deployed else "development"
    environment = _told(patient, "METERPLANE_ENV") or usual
    fault = stripe_settings.account_fault(patient.stripe_key, _base(patient), environment)
    if patient.told and not fault:
        fault = stripe_settings.secrets_fault(_told(patient, "STRIPE_WEBHOOK_SECRET"))
    return fault


def _base(patient: Patient) -> str:
    return "" if patient.stripe == STRIPE else patient.stripe


def _parted(sentence: str) -> tuple[str, str]:
    """What is wrong, and what to do, of a sentence that says both."""
    said, colon, advice = sentence.rpartition(": ")
    return (said, advice[:1].upper() + advice[1:]) if colon else (sentence, "")


def _reachable(url: str) -> Finding:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=CONNECT_WITHIN_S).close()
    except OSError:
        fix = "Check STRIPE_API_BASE and this machine's way out (DNS, proxy, firewall)."
        return Finding("Stripe", "broken", f"{url} cannot be reached", fix)
    fix = "The account is looked at when the stack runs."
    return Finding("Stripe", "note", f"{url} can be reached", fix)


def _configure(patient: Patient) -> list[str]:
    """Set Django up as our processes have it; what is wrong with their settings."""
    import django
    from django.apps import apps

    if apps.ready:
        return []
    os.environ.update(patient.told)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "meterplane.settings")
    try:
        django.setup()
    except ValidationError as wrong:
        return [_sentence(str(each["loc"][0]).upper(), each["msg"]) for each in wrong.errors()]
    return []


def _sentence(variable: str, said: str) -> str:
    """Our own already name the variable."""
    said = said.removeprefix("Value error, ")
    return said if said.startswith(variable) else f"{variable}: {said[:1].lower()}{said[1:]}"


def _account(patient: Patient) -> Iterator[Finding]:
    from billing.payments.stripe.examine import Wanted, examine

    web_url = _told(patient, "PUBLIC_WEB_URL").rstrip("/")
    wanted = Wanted(
        f"{web_url}{stripe_settings.WEBHOOK_PATH}",
        _told(patient, "STRIPE_ACCOUNT_ID"),
        _currencies(patient.database),
    )
    yield from examine(patient.stripe_key, _base(patient), wanted)


def _currencies(database: str) -> list[str]:
    """Of the price books. None where the database cannot say: that is a finding of its own."""
    try:
        with psycopg.connect(database, connect_timeout=CONNECT_WITHIN_S) as connection:
            rows = connection.execute("SELECT DISTINCT currency FROM price_book ORDER BY 1")
            return [str(row[0]) for row in rows]
    except psycopg.Error:
        return []
