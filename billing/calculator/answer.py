"""One question in, one answer out: prices, proration, commitments, credits, splits, roundings.

Guarantees: whatever the question, the answer is a result or `{"error": {code, message, field}}`;
a question has no effect on another. Every field is read strictly: one that is not asked for is
refused. Amounts leave as text with the currency's digits, exact values as plain decimals.

These are the functions that rate and close; nothing is reckoned here. What has been billed, spent
or granted is whole minor units, because nothing else can have been.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, cast

from billing.credits.draw import Grant, GrantKind, Part, draw, restore
from billing.pricing.exact_fields import (
    TEXT_CHARS_MAX,
    FieldInvalid,
    Fields,
    read_amount,
    read_choice,
    read_currency,
    read_decimal,
    read_flag,
    read_instant,
    read_list,
    read_text,
    read_whole,
)
from billing.pricing.price_model import read_price_model
from billing.rating.allocate import allocate
from billing.rating.commitment import commitment
from billing.rating.price import TierLine, price
from billing.rating.prorate import By, Span, change, prorate
from meterplane.kernel.decimals import (
    EXACT,
    FRACTION_DIGITS_MAX,
    decimal_to_text,
    scaled_half_away,
)
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_digits, minor_to_text

Answer = dict[str, Any]
PRIORITY_MAX = 2**31 - 1


def answer(question: object) -> Answer:
    """The result, or what is wrong with a question that was read by `exact_json.decode`."""
    try:
        return result(question)
    except CallerError as wrong:
        return error(wrong)


def error(wrong: CallerError) -> Answer:
    """The answer to a question that cannot be used."""
    return {"error": {"code": wrong.code, "message": wrong.message, "field": wrong.field}}


def result(question: object) -> Answer:
    """The result. Raises `CallerError` for a question that cannot be used as sent."""
    if not isinstance(question, dict):
        Fields(question, "", frozenset())  # says why it is no object
    named = cast("dict[str, Any]", question).get("op")
    if not isinstance(named, str) or named not in OPERATIONS:
        what = "is missing" if named is None else "is not known here"
        raise FieldInvalid("op", f"{what}; there are {', '.join(OPERATIONS)}", "op_unknown")
    allowed, operation = OPERATIONS[named]
    return operation(Fields(question, "", allowed))


def _price(fields: Fields) -> Answer:
    currency = fields.get("currency", read_currency)
    model = fields.get("model", read_price_model)
    quantity = fields.get("quantity", read_amount)
    final = fields.get_or("final", read_flag, False)
    billed_minor = fields.get_or("already_billed", _minor_amount(currency), None)
    billed_quantity = fields.get_or("already_quantity", read_amount, None)
    priced = price(model, quantity, currency, final=final)
    if billed_minor is None and billed_quantity is not None:
        billed_minor = price(model, billed_quantity, currency).amount_minor
    answered: Answer = {
        "amount": minor_to_text(priced.amount_minor, currency),
        "exact": decimal_to_text(priced.exact),
    }
    if billed_minor is not None:
        answered["net"] = minor_to_text(priced.amount_minor - billed_minor, currency)
    if final:
        answered["true_up"] = minor_to_text(priced.true_up_minor, currency)
    answered["lines"] = [_line(each) for each in priced.lines]
    return answered


def _line(line: TierLine) -> Answer:
    told: Answer = {
        "tier": line.tier,
        "quantity": decimal_to_text(line.quantity),
        "amount": decimal_to_text(line.amount),
    }
    if line.kind != "usage":
        told["kind"] = line.kind
    return told


def _prorate(fields: Fields) -> Answer:
    currency = fields.get("currency", read_currency)
    amount_minor = prorate(
        fields.get("amount", read_decimal),
        Span(fields.get("from", read_instant), fields.get("to", read_instant)),
        fields.get("period", _period),
        fields.get("by", _by),
        currency,
    )
    return {"amount": minor_to_text(amount_minor, currency)}


def _change(fields: Fields) -> Answer:
    currency = fields.get("currency", read_currency)
    changed = change(
        fields.get("old", read_amount),
        fields.get("new", read_amount),
        fields.get("at", read_instant),
        fields.get("period", _period),
        fields.get("by", _by),
        currency,
    )
    return {
        "credit": minor_to_text(changed.credit_minor, currency),
        "charge": minor_to_text(changed.charge_minor, currency),
        "net": minor_to_text(changed.net_minor, currency),
    }


def _commit(fields: Fields) -> Answer:
    currency = fields.get("currency", read_currency)
    found = commitment(
        fields.get("committed", read_amount),
        fields.get("spent", _minor_amount(currency)),
        fields.get("period", _period),
        fields.get("by", _by),
        currency,
        fields.get_or("from", read_instant, None),
    )
    return {
        "commitment": minor_to_text(found.commitment_minor, currency),
        "true_up": minor_to_text(found.true_up_minor, currency),
    }


def _credits(fields: Fields) -> Answer:
    currency = fields.get("currency", read_currency)
    minor = _minor_amount(currency)
    grants = [
        _grant(each, f"grants[{number}]", minor)
        for number, each in enumerate(fields.get("grants", read_list))
    ]
    drawn = draw(grants, fields.get("amount", minor), fields.get("at", read_instant))

    def told(parts: tuple[Part, ...]) -> list[Answer]:
        return [{"id": each.id, "amount": minor_to_text(each.amount, currency)} for each in parts]

    return {
        "applied": told(drawn.applied),
        "remaining": told(drawn.remaining),
        "due": minor_to_text(drawn.due, currency),
        "expired": told(drawn.expired),
    }


def _grant(value: object, path: str, minor: Callable[[object, str], int]) -> Grant:
    fields = Fields(value, path, _GRANT)
    return Grant(
        id=fields.get("id", read_text),
        amount=fields.get("amount", minor),
        priority=fields.get_or("priority", _priority, 0),
        expires_at=fields.get_or("expires_at", read_instant, None),
        kind=cast("GrantKind", fields.get_or("kind", _grant_kind, "purchased")),
        created_at=fields.get_or("created_at", read_instant, None),
    )


def _credits_restore(fields: Fields) -> Answer:
    consumed = [
        _consumed(Fields(each, f"consumed[{number}]", _CONSUMED))
        for number, each in enumerate(fields.get("consumed", read_list))
    ]
    restored = restore(consumed, _finest(fields.get("amount", read_amount)))
    return {
        "restored": [
            {
                "id": each.id,
                "amount": decimal_to_text(EXACT.scaleb(Decimal(each.amount), -FRACTION_DIGITS_MAX)),
            }
            for each in restored
        ]
    }


def _consumed(fields: Fields) -> Part:
    return Part(fields.get("id", read_text), _finest(fields.get("amount", read_amount)))


def _finest(amount: Decimal) -> int:
    """Of no currency, so of no minor unit: as many of the smallest amounts that can be written."""
    return int(EXACT.scaleb(amount, FRACTION_DIGITS_MAX))


def _allocate(fields: Fields) -> Answer:
    currency = fields.get("currency", read_currency)
    total_minor = fields.get("total", _minor(currency))
    parts = allocate(total_minor, fields.get("weights", _weights))
    return {"parts": {key: minor_to_text(part, currency) for key, part in parts.items()}}


def _weights(value: object, path: str) -> dict[str, Decimal]:
    if not isinstance(value, dict):
        Fields(value, path, frozenset())  # says why it is no object
    weights = {}
    for key, weight in cast("dict[str, Any]", value).items():
        if not key.isprintable() or len(key) > TEXT_CHARS_MAX:
            raise FieldInvalid(path, "has a key that is too long, or cannot be printed")
        weights[key] = read_amount(weight, f"{path}.{key}")
    return weights


def _round(fields: Fields) -> Answer:
    currency = fields.get("currency", read_currency)
    amount = fields.get("amount", read_decimal)
    amount_minor = scaled_half_away(amount, minor_digits(currency))
    return {"amount": minor_to_text(amount_minor, currency)}


def _minor(currency: str) -> Callable[[object, str], int]:
    """A reader of amounts in whole minor units of the currency."""
    digits = minor_digits(currency)

    def read(value: object, path: str) -> int:
        scaled = EXACT.scaleb(read_decimal(value, path), digits)
        if scaled != scaled.to_integral_value():
            raise FieldInvalid(path, f"has more digits than {currency}, which has {digits}")
        return int(scaled)

    return read


def _minor_amount(currency: str) -> Callable[[object, str], int]:
    """The same, of what cannot be negative."""
    minor = _minor(currency)

    def read(value: object, path: str) -> int:
        read_amount(value, path)
        return minor(value, path)

    return read


def _period(value: object, path: str) -> Span:
    sent = read_list(value, path)
    if len(sent) != 2:
        raise FieldInvalid(path, "must be a list of two: its start, and its end, which is outside")
    span = Span(read_instant(sent[0], f"{path}[0]"), read_instant(sent[1], f"{path}[1]"))
    if span.starts_at >= span.ends_at:
        raise FieldInvalid(f"{path}[1]", "must be after the start of the period")
    return span


def _by(value: object, path: str) -> By:
    return cast("By", _day_or_second(value, path))


_day_or_second = read_choice("day", "second")
_grant_kind = read_choice("purchased", "promotional")
_priority = read_whole(-PRIORITY_MAX, PRIORITY_MAX)
_GRANT = frozenset({"id", "amount", "priority", "expires_at", "kind", "created_at"})
_CONSUMED = frozenset({"id", "amount"})


def _takes(names: str) -> frozenset[str]:
    return frozenset({"op", *names.split()})


OPERATIONS: dict[str, tuple[frozenset[str], Callable[[Fields], Answer]]] = {
    "price": (
        _takes("model quantity currency already_billed already_quantity final"),
        _price,
    ),
    "prorate": (_takes("amount from to period by currency"), _prorate),
    "change": (_takes("old new at period by currency"), _change),
    "commit": (_takes("committed spent period from by currency"), _commit),
    "credits": (_takes("currency grants amount at"), _credits),
    "credits_restore": (_takes("consumed amount"), _credits_restore),
    "allocate": (_takes("total weights currency"), _allocate),
    "round": (_takes("amount currency"), _round),
}
