"""Terms of decoded JSON, read strictly: every complaint names the path of the field.

Needs the catalog's tables for the meters that entries name.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from billing.pricing.contract import Terms
from billing.pricing.entry import ambiguous
from billing.pricing.entry_read import read_entries
from billing.pricing.exact_fields import FieldInvalid, Fields, read_amount, read_currency, read_text
from meterplane.kernel.decimals import ZERO
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_digits
from meterplane.metering.external.shape import read_instant

PERCENT_DIGITS = 6
_HUNDRED = Decimal(100)
_MINOR_MAX = 10**15  # ten thousand billion dollars in cents
_FIELDS = frozenset({
    "note", "book", "currency", "starts_at", "ends_at", "pinned_version", "pinned_until",
    "discount_percent", "commitment", "minimum_spend", "maximum_spend", "entries",
})  # fmt: skip


def read_terms(
    value: Mapping[str, Any], contract_id: UUID, *, book: str, currency: str, now: datetime
) -> Terms:
    """Terms of decoded JSON; `book`, `currency` and `now` are what it need not say.

    Raises `CallerError` naming the field.
    """
    fields = Fields(value, "", _FIELDS)
    agreed = fields.get_or("currency", read_currency, currency)
    digits = minor_digits(agreed)

    def minor(each: object, path: str) -> int | None:
        return None if each is None else _minor(each, path, digits)

    terms = Terms(
        note=fields.get_or("note", _text_or_none, None) or "",
        book=fields.get_or("book", read_text, book),
        currency=agreed,
        starts_at=fields.get_or("starts_at", _instant, None) or now,
        ends_at=fields.get_or("ends_at", _instant, None),
        pinned_version_id=fields.get_or("pinned_version", _uuid, None),
        pinned_until=fields.get_or("pinned_until", _instant, None),
        discount_percent=fields.get_or("discount_percent", _percent, ZERO),
        commitment_minor=fields.get_or("commitment", minor, None),
        minimum_minor=fields.get_or("minimum_spend", minor, None),
        maximum_minor=fields.get_or("maximum_spend", minor, None),
        entries=tuple(read_entries(value.get("entries", []), now, contract_id=contract_id)),
    )
    check_terms(terms)
    return terms


def check_terms(terms: Terms) -> None:
    """What must hold between fields. Raises `CallerError` naming one of them."""
    if terms.ends_at is not None and terms.ends_at <= terms.starts_at:
        raise _refused("ends_at", "A contract ends after it starts.")
    if terms.pinned_until is not None:
        if terms.pinned_version_id is None:
            raise _refused("pinned_until", "Say which pinned_version is kept until then.")
        if terms.pinned_until <= terms.starts_at:
            raise _refused("pinned_until", "A version is pinned until after the contract starts.")
    most = terms.maximum_minor
    for name, least in (
        ("minimum_spend", terms.minimum_minor),
        ("commitment", terms.commitment_minor),
    ):
        if most is not None and least is not None and least > most:
            raise _refused(name, f"{name} is above maximum_spend.")
    for found in ambiguous(terms.entries):
        raise CallerError(
            "entries_ambiguous",
            f"{found.one.display_name!r} ({found.one}) and {found.other.display_name!r}"
            f" ({found.other}) are equally specific for some usage.",
            status=422,
            field="entries",
        )


def _refused(field: str, message: str) -> CallerError:
    return CallerError("contract_invalid", message, status=422, field=field)


def _minor(value: object, path: str, digits: int) -> int:
    scaled = read_amount(value, path).scaleb(digits)
    if scaled != scaled.to_integral_value():
        raise FieldInvalid(path, f"has more than the {digits} decimals of the currency")
    if scaled > _MINOR_MAX:
        raise FieldInvalid(path, "is too large")
    return int(scaled)


def _percent(value: object, path: str) -> Decimal:
    percent = read_amount(value, path)
    if percent > _HUNDRED or percent.scaleb(PERCENT_DIGITS) % 1:
        raise FieldInvalid(path, f"must be from 0 to 100, with at most {PERCENT_DIGITS} decimals")
    return percent


def _instant(value: object, path: str) -> datetime | None:
    return None if value is None else read_instant(value, path)


def _text_or_none(value: object, path: str) -> str | None:
    return None if value in (None, "") else read_text(value, path)


def _uuid(value: object, path: str) -> UUID | None:
    if value is None:
        return None
    try:
        return UUID(str(value))
    except ValueError:
        raise FieldInvalid(path, "must be the id of a price-book version") from None
