"""JSON whose numbers keep their value: read as `Decimal`, written with every digit, never a float.

Reading never fails because of one value of many: what cannot be kept (NaN, a name that is there
twice, a number of 5,000 digits) is read as `Unusable`, and whoever uses it refuses that part.
`canonical` is one text for one value, whatever the order of its names and the spelling of its
numbers: 1, 1.0 and 1e0 are one number.
"""

import json
from decimal import Decimal, InvalidOperation
from typing import Any

WHOLE_DIGITS_MAX = 38
FRACTION_DIGITS_MAX = 18
DEPTH_MAX = 8
_TEXT_MAX = 64  # of one number: 38 + 18 digits, a sign, a point and an exponent


class Unusable:
    """A value that JSON can write and nobody should count by. `reason` ends "a value …"."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class NotKept(ValueError):
    """A value cannot be kept as sent. `where` is its path, `reason` what is wrong with it."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where} {reason}")
        self.where = where
        self.reason = reason


def decode(body: bytes) -> Any:
    """The value. Raises `ValueError` with a sentence for what is no JSON in UTF-8."""
    try:
        return _decoder.decode(body.decode())
    except UnicodeDecodeError as wrong:
        raise ValueError(f"The body is not UTF-8 (byte {wrong.start}).") from None
    except RecursionError:
        raise ValueError("The body is nested deeper than anything that is read here.") from None
    except json.JSONDecodeError as wrong:
        raise ValueError(f"The body is not JSON: {wrong}.") from None


def canonical(value: Any, where: str = "data", depth: int = 0) -> str:
    """The one text of a value. Raises `NotKept`."""
    if depth > DEPTH_MAX:
        raise NotKept(where, f"is nested deeper than {DEPTH_MAX} levels")
    match value:
        case None | True | False:
            return "null" if value is None else "true" if value else "false"
        case str():
            return _text(value, where)
        case int() | Decimal():
            return _plain(Decimal(value), where)
        case list():
            inner = (canonical(each, f"{where}[{n}]", depth + 1) for n, each in enumerate(value))
            return f"[{','.join(inner)}]"
        case dict():
            named = (
                f"{_text(name, where)}:{canonical(value[name], f'{where}.{name[:40]}', depth + 1)}"
                for name in sorted(value)
            )
            return f"{{{','.join(named)}}}"
        case Unusable():
            raise NotKept(where, value.reason)
    raise TypeError(f"{type(value)} is nothing that JSON holds")


def _text(text: str, where: str) -> str:
    if "\0" in text:
        raise NotKept(where, "holds a NUL character, which cannot be stored")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise NotKept(where, "holds half of a surrogate pair, which is no text")
    return json.dumps(text, ensure_ascii=False)


def _plain(number: Decimal, where: str) -> str:
    exponent = number.as_tuple().exponent
    if (
        not isinstance(exponent, int)
        or number.adjusted() >= WHOLE_DIGITS_MAX
        or exponent < -FRACTION_DIGITS_MAX
    ):
        raise NotKept(where, _too_long())
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _number(text: str) -> Decimal | Unusable:
    try:
        return Decimal(text) if len(text) <= _TEXT_MAX else Unusable(_too_long())
    except InvalidOperation:  # an exponent of more than 18 digits
        return Unusable(_too_long())


def _whole(text: str) -> int | Unusable:
    return int(text) if len(text) <= _TEXT_MAX else Unusable(_too_long())


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Unusable:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    names = [name for name, _ in pairs]
    twice = next(name for number, name in enumerate(names) if name in names[:number])
    return Unusable(f"says {twice[:40]!r} twice; nobody can tell which one counts")


def _too_long() -> str:
    return (
        f"is a number of more than {WHOLE_DIGITS_MAX} digits before or {FRACTION_DIGITS_MAX}"
        " after its point"
    )


_decoder = json.JSONDecoder(
    parse_float=_number,
    parse_int=_whole,
    parse_constant=lambda name: Unusable(f"is {name}, which JSON does not know"),
    object_pairs_hook=_object,
)
