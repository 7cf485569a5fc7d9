"""What a grant or a recurrence is to say, checked before anything is written.

A repeated request is known by the digest of its terms as they were given: a default that is filled
in later, such as the present instant, is not part of it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from billing.credits.models import (
    METER_LENGTH_MAX,
    MODEL_LENGTH_MAX,
    PRIORITY_DEFAULT,
    CreditGrant,
    CreditRecurrence,
    Kind,
)
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError

AMOUNT_MINOR_MAX = 10**15  # ten trillion of a currency with two digits
SCOPE_NAMES_MAX = 50
TEXT_MAX = 200
NAME_MAX = 120
AHEAD_MAX = timedelta(days=36_525)  # a century: what is further is a slip of the keyboard
STARTED_BEFORE_MAX = timedelta(days=366)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantTerms:
    """One grant. Without `effective_at` it is live at once; without `expires_at`, for ever."""

    kind: str
    currency: str
    amount_minor: int
    priority: int = PRIORITY_DEFAULT
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    models_only: tuple[str, ...] = ()
    meters_only: tuple[str, ...] = ()
    rollover_max_minor: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrenceTerms:
    """A grant each month from `starts_at` on, and none at or after `ends_at`."""

    kind: str
    currency: str
    amount_minor: int
    starts_at: datetime
    ends_at: datetime | None = None
    term_months: int | None = 1
    priority: int = PRIORITY_DEFAULT
    models_only: tuple[str, ...] = ()
    meters_only: tuple[str, ...] = ()
    rollover_max_minor: int | None = None
    reason: str = ""


def check_grant(terms: GrantTerms, organisation_currency: str) -> None:
    """Raises `CallerError` `credit_invalid` naming the field."""
    _check_what(terms, organisation_currency)
    for field, instant in (("effective_at", terms.effective_at), ("expires_at", terms.expires_at)):
        _check_instant(field, instant)
    if terms.expires_at is not None and terms.expires_at <= clock.now():
        raise _refuse("expires_at", "Choose an expiry in the future.")
    begins_at = terms.effective_at or clock.now()
    if terms.expires_at is not None and terms.expires_at <= begins_at:
        raise _refuse("expires_at", "A grant expires after it becomes effective.")
    if terms.rollover_max_minor is not None and terms.expires_at is None:
        raise _refuse("rollover_max", "What never expires does not roll over: name its expiry.")


def check_recurrence(terms: RecurrenceTerms, organisation_currency: str) -> None:
    """Raises `CallerError` `credit_invalid` naming the field."""
    _check_what(terms, organisation_currency)
    _check_instant("starts_at", terms.starts_at)
    if terms.ends_at is not None:
        check_end(starts_at=terms.starts_at, ends_at=terms.ends_at, ended_at=None)
    if terms.starts_at < clock.now() - STARTED_BEFORE_MAX:
        raise _refuse("starts_at", "A recurrence starts no more than a year back.")
    if terms.term_months is not None and not 1 <= terms.term_months <= 120:
        raise _refuse("term_months", "Choose a term of 1 to 120 months, or none.")
    if terms.rollover_max_minor is not None and terms.term_months is None:
        raise _refuse("rollover_max", "What never expires does not roll over: name a term.")


def check_end(*, starts_at: datetime, ends_at: datetime, ended_at: datetime | None) -> None:
    """Raises `CallerError` `credit_invalid`: an end is only ever brought forward."""
    _check_instant("ends_at", ends_at)
    if ends_at <= starts_at:
        raise _refuse("ends_at", "A recurrence ends after it starts.")
    if ended_at is not None and ends_at > ended_at:
        raise _refuse("ends_at", "This recurrence ends earlier already; grant anew instead.")


def check_names(*, idempotency_key: str, created_by: str) -> None:
    """Raises `CallerError` `credit_invalid` naming the field."""
    if not 1 <= len(idempotency_key) <= NAME_MAX:
        raise _refuse("idempotency_key", f"Name the grant in 1 to {NAME_MAX} characters.")
    if not 1 <= len(created_by) <= NAME_MAX:
        raise _refuse("created_by", f"Say who grants it in 1 to {NAME_MAX} characters.")


def same_request(found: CreditGrant | CreditRecurrence, digest: str) -> None:
    """Raises `CallerError` 409 `idempotency_key_reused` if the key named something else."""
    if found.request_digest != digest:
        raise CallerError(
            "idempotency_key_reused",
            f"{found.idempotency_key!r} named another grant; choose another key.",
            status=409,
            field="idempotency_key",
        )


def digest_of(terms: GrantTerms | RecurrenceTerms) -> str:
    """SHA-256 (hex) of the terms as they were given."""
    return hashlib.sha256(msgspec.json.encode(asdict(terms), order="sorted")).hexdigest()


def _check_what(terms: GrantTerms | RecurrenceTerms, organisation_currency: str) -> None:
    if terms.kind not in Kind.values:
        raise _refuse("kind", "Choose purchased or promotional.")
    if terms.currency != organisation_currency:
        raise _refuse(
            "currency", f"Credit is in the organisation's currency, {organisation_currency}."
        )
    if not 1 <= terms.amount_minor <= AMOUNT_MINOR_MAX:
        raise _refuse("amount", "Grant more than nothing, and no more than ten trillion.")
    if not 0 <= terms.priority <= 100:
        raise _refuse("priority", "Choose a priority of 0 (drawn first) to 100.")
    _check_scope("models", terms.models_only, MODEL_LENGTH_MAX)
    _check_scope("meters", terms.meters_only, METER_LENGTH_MAX)
    rollover = terms.rollover_max_minor
    if rollover is not None and not 1 <= rollover <= terms.amount_minor:
        raise _refuse("rollover_max", "Roll over more than nothing, and no more than the amount.")
    if len(terms.reason) > TEXT_MAX:
        raise _refuse("reason", f"Give a reason of at most {TEXT_MAX} characters.")


def _check_scope(field: str, names: Sequence[str], length_max: int) -> None:
    if len(names) > SCOPE_NAMES_MAX:
        raise _refuse(field, f"Name at most {SCOPE_NAMES_MAX}.")
    if len(set(names)) != len(names):
        raise _refuse(field, "Name each once.")
    if not all(1 <= len(name) <= length_max for name in names):
        raise _refuse(field, f"A name has 1 to {length_max} characters.")


def _check_instant(field: str, instant: Any) -> None:
    if instant is not None and instant.tzinfo is None:
        raise _refuse(field, "An instant needs its offset from UTC, such as Z.")
    if instant is not None and abs(instant - clock.now()) > AHEAD_MAX:
        raise _refuse(field, "Choose an instant of this century.")


def _refuse(field: str, message: str) -> CallerError:
    return CallerError("credit_invalid", message, field=field)
