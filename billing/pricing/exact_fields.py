"""What a decoded JSON object says, read strictly: every complaint names the path of the field.

Guarantees: whatever the value, reading ends in a typed value or in a `CallerError`. A field that
is not asked for is refused, a float is refused wherever it stands, and so are `true` for 1, NaN,
names that are there twice and texts that cannot be written again. An integer may be a number.

Knows JSON as `exact_json.decode` reads it (a fraction is a `Decimal`, what cannot be kept is
`Unusable`) and as others do (a fraction is a float): both mean that the sender wrote a JSON float.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

from meterplane.kernel.decimals import TEXT_MAX, ZERO, NotExact, decimal_to_text, text_to_decimal
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import MINOR_DIGITS
from meterplane.metering.external.exact_json import Unusable

NAME_CHARS_SHOWN = 40  # of a name nobody asked for, in the message that refuses it
TEXT_CHARS_MAX = 200

_Value = TypeVar("_Value")
_Default = TypeVar("_Default")
Read = Callable[[Any, str], _Value]
_WHOLE_MAX = 10**TEXT_MAX
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2}))?"
)


class FieldInvalid(CallerError):
    """A field cannot be used as sent; `field` is its path from the root."""

    def __init__(self, field: str, what: str, code: str = "field_invalid") -> None:
        super().__init__(
            code, f"{field or 'What was sent'} {what}.", status=422, field=field or None
        )


class Fields:
    """The fields of one object. `path` is where it stands, empty for the root.

    Raises `FieldInvalid` if `value` is no object, or has a field beyond `allowed`.
    """

    __slots__ = ("_path", "_values")

    def __init__(self, value: object, path: str, allowed: frozenset[str]) -> None:
        self._path = f"{path}." if path else ""
        if not isinstance(value, dict):
            raise FieldInvalid(path, _not(value, "a JSON object"))
        self._values: dict[str, Any] = value
        if not value.keys() <= allowed:
            self._refuse_unknown(allowed)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str, read: Read[_Value]) -> _Value:
        """The field, which must be there."""
        try:
            value = self._values[name]
        except KeyError:
            raise FieldInvalid(self._path + name, "is missing") from None
        return read(value, self._path + name)

    def get_or(self, name: str, read: Read[_Value], default: _Default) -> _Value | _Default:
        """The field, or `default` where it is not there, or null."""
        value = self._values.get(name)
        return default if value is None else read(value, self._path + name)

    def path(self, name: str) -> str:
        """Where a field of this object stands."""
        return self._path + name

    def _refuse_unknown(self, allowed: frozenset[str]) -> None:
        name = next(each for each in self._values if each not in allowed)
        shown = name[:NAME_CHARS_SHOWN].encode("ascii", "backslashreplace").decode()
        raise FieldInvalid(
            self._path + shown, f"is not known here; known are {', '.join(sorted(allowed))}"
        )


def read_decimal(value: object, path: str) -> Decimal:
    """Decimal text, or a JSON integer: both are exact."""
    if isinstance(value, str):
        try:
            return text_to_decimal(value)
        except NotExact as wrong:
            raise FieldInvalid(path, str(wrong)) from None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _WHOLE_MAX:
        return read_decimal(str(value), path)
    raise FieldInvalid(path, _not(value, 'decimal text such as "0.5"'))


def read_amount(value: object, path: str) -> Decimal:
    """A decimal that is not negative."""
    number = read_decimal(value, path)
    if number < ZERO:
        raise FieldInvalid(path, f"must not be negative, and is {decimal_to_text(number)}")
    return number


def read_positive(value: object, path: str) -> Decimal:
    """A decimal above zero."""
    number = read_decimal(value, path)
    if number <= ZERO:
        raise FieldInvalid(path, f"must be above 0, and is {decimal_to_text(number)}")
    return number


def read_whole(least: int, most: int) -> Read[int]:
    """A reader of JSON integers from `least` to `most`."""

    def read(value: object, path: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise FieldInvalid(path, _not(value, f"a whole JSON number from {least} to {most}"))
        return value

    return read


def read_choice(*choices: str) -> Read[str]:
    """A reader of one of `choices`."""

    def read(value: object, path: str) -> str:
        if not isinstance(value, str) or value not in choices:
            raise FieldInvalid(path, _not(value, f"one of {', '.join(choices)}"))
        return value

    return read


def read_flag(value: object, path: str) -> bool:
    """`true` or `false`."""
    if not isinstance(value, bool):
        raise FieldInvalid(path, _not(value, "true or false"))
    return value


def read_text(value: object, path: str) -> str:
    """A text that is not empty and can be printed."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise FieldInvalid(path, _not(value, "a printable text"))
    if len(value) > TEXT_CHARS_MAX:
        raise FieldInvalid(path, f"is longer than {TEXT_CHARS_MAX} characters")
    return value


def read_list(value: object, path: str) -> Sequence[object]:
    """A JSON list."""
    if not isinstance(value, list):
        raise FieldInvalid(path, _not(value, "a JSON list"))
    return value


def read_instant(value: object, path: str) -> datetime:
    """A day, which is its first instant in UTC, or an RFC 3339 instant with its zone; in UTC."""
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        try:
            instant = datetime.fromisoformat(value.upper())
            return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
        except (ValueError, OverflowError):  # the 30th of February; before the year 1 in UTC
            pass
    raise FieldInvalid(
        path, _not(value, "a day like 2026-03-15, or an instant like 2026-03-15T12:00:00Z")
    )


def read_currency(value: object, path: str) -> str:
    """An ISO 4217 code of a currency this installation bills in."""
    if not isinstance(value, str) or value not in MINOR_DIGITS:
        raise FieldInvalid(
            path,
            f"must be a currency this installation bills in: {', '.join(sorted(MINOR_DIGITS))}",
            "currency_unknown",
        )
    return value


def _not(value: object, wanted: str) -> str:
    """What is wrong with a value that is not `wanted`."""
    if isinstance(value, Unusable):
        return value.reason
    if isinstance(value, Decimal | _FLOAT):
        return f"is a JSON float, of which digits get lost; it must be {wanted}"
    return f"must be {wanted}"


_FLOAT = type(1 / 2)
