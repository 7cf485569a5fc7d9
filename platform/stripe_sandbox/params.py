"""Declared parameters: what a call takes, and how a string of the form becomes a value.

A call's declaration is data, so a test can hold it against the installed SDK. Reading happens
before anything is executed: what fails here leaves no idempotent result behind, as at Stripe.
An empty string reads as None ("unset") where the parameter allows it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from stripe_sandbox.errors import empty_parameter, missing_parameter, refused, unknown_parameter
from stripe_sandbox.forms import Raw

MAX_TEXT_CHARS = 5_000
MAX_AMOUNT_MINOR = 999_999_999_999
MAX_INSTANT_S = 4_102_444_800  # 2100-01-01
MAX_METADATA_PAIRS = 50
MAX_METADATA_KEY_CHARS = 40
MAX_METADATA_VALUE_CHARS = 500

_INTEGER = re.compile(r"^[+-]?\d{1,18}$")
_DECIMAL = re.compile(r"^-?\d{1,18}(\.\d{1,18})?$")
_CURRENCY = re.compile(r"^[a-z]{3}$")


class Parameter(Protocol):
    """Reads one raw value found under `name`; raises StripeError 400."""

    def read(self, raw: Raw, name: str) -> Any: ...


def _scalar(raw: Raw, name: str) -> str:
    if isinstance(raw, dict):
        raise refused(f"Invalid string: {{...}} for {name}", param=name)
    return raw


@dataclass(frozen=True, slots=True)
class Text:
    """A string; empty unsets it unless `keeps` says that it cannot be unset."""

    max_chars: int = MAX_TEXT_CHARS
    keeps: bool = False

    def read(self, raw: Raw, name: str) -> str | None:
        text = _scalar(raw, name)
        if text == "":
            if self.keeps:
                raise empty_parameter(name)
            return None
        if len(text) > self.max_chars:
            raise refused(
                f"Invalid string: {text[:20]}...; must be at most {self.max_chars} characters",
                param=name,
            )
        return text


@dataclass(frozen=True, slots=True)
class Link:
    """A web address somebody is sent to."""

    def read(self, raw: Raw, name: str) -> str:
        text = Text(keeps=True).read(raw, name) or ""
        if not text.lower().startswith(("http://", "https://")):
            raise refused(
                "Invalid URL: An explicit scheme (such as https) must be provided.",
                code="url_invalid",
                param=name,
            )
        return text


@dataclass(frozen=True, slots=True)
class Reference:
    """The id of another object."""

    unsets: bool = False

    def read(self, raw: Raw, name: str) -> str | None:
        return Text(max_chars=255, keeps=not self.unsets).read(raw, name)


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number; `1.5` and `1E3` are refused."""

    low: int = -MAX_AMOUNT_MINOR
    high: int = MAX_AMOUNT_MINOR

    def read(self, raw: Raw, name: str) -> int:
        text = _scalar(raw, name)
        if text == "":
            raise empty_parameter(name)
        if not _INTEGER.match(text):
            raise refused(
                f"Invalid integer: {text[:40]}", code="parameter_invalid_integer", param=name
            )
        value = int(text)
        if not self.low <= value <= self.high:
            raise refused(
                f"Invalid integer: {value}; must be between {self.low} and {self.high}",
                code="parameter_invalid_integer",
                param=name,
            )
        return value


@dataclass(frozen=True, slots=True)
class DecimalText:
    """A plain decimal of at most `places` digits after the point, kept as its text.

    `1E-7` is refused, as Stripe refuses it: clients print small decimals that way unless told.
    """

    places: int
    high: int = MAX_AMOUNT_MINOR

    def read(self, raw: Raw, name: str) -> str:
        text = _scalar(raw, name)
        if text == "":
            raise empty_parameter(name)
        if not _DECIMAL.match(text):
            raise refused(f"Invalid decimal: {text[:40]}", param=name)
        if len(text.partition(".")[2]) > self.places:
            raise refused(
                f"Invalid decimal: {text[:40]}; at most {self.places} decimal places", param=name
            )
        if not 0 <= Decimal(text) <= self.high:
            raise refused(f"Invalid decimal: {text[:40]}; must be 0 to {self.high}", param=name)
        return text


INSTANT = Integer(0, MAX_INSTANT_S)


@dataclass(frozen=True, slots=True)
class Flag:
    """`true` or `false`; with `only`, the one value that is simulated."""

    only: bool | None = None

    def read(self, raw: Raw, name: str) -> bool:
        text = _scalar(raw, name)
        if text not in ("true", "false"):
            raise refused(f"Invalid boolean: {text[:40]}", param=name)
        value = text == "true"
        if self.only is not None and value is not self.only:
            raise refused(f"The sandbox does not simulate {name}={text}.", param=name)
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of an enumeration."""

    values: tuple[str, ...]

    def read(self, raw: Raw, name: str) -> str:
        text = _scalar(raw, name)
        if text == "":
            raise empty_parameter(name)
        if text not in self.values:
            raise refused(f"Invalid {name}: must be one of {', '.join(self.values)}", param=name)
        return text


@dataclass(frozen=True, slots=True)
class Currency:
    """A three-letter code; upper case is accepted and lowered."""

    def read(self, raw: Raw, name: str) -> str:
        text = _scalar(raw, name)
        if text == "":
            raise empty_parameter(name)
        if not _CURRENCY.match(text.lower()):
            raise refused(f"Invalid currency: {text[:40]}", param=name)
        return text.lower()


@dataclass(frozen=True, slots=True)
class Metadata:
    """Keys to set; a None value removes its key, and None instead of a map removes all."""

    def read(self, raw: Raw, name: str) -> dict[str, str | None] | None:
        if raw == "":
            return None
        if isinstance(raw, str):
            raise refused(f"Invalid hash: {raw[:40]}", param=name)
        if len(raw) > MAX_METADATA_PAIRS:
            raise refused(f"Metadata can have up to {MAX_METADATA_PAIRS} keys.", param=name)
        found: dict[str, str | None] = {}
        for key, value in raw.items():
            text = _scalar(value, f"{name}[{key}]")
            if len(key) > MAX_METADATA_KEY_CHARS:
                raise refused(
                    f"Metadata keys can have up to {MAX_METADATA_KEY_CHARS} characters.", param=name
                )
            if len(text) > MAX_METADATA_VALUE_CHARS:
                raise refused(
                    f"Metadata values can have up to {MAX_METADATA_VALUE_CHARS} characters, but "
                    f"you passed in a value that is {len(text)} characters.",
                    param=f"{name}[{key}]",
                )
            found[key] = text or None
        return found


@dataclass(frozen=True, slots=True)
class Shape:
    """A fixed set of named parameters."""

    fields: Mapping[str, Parameter]
    required: tuple[str, ...] = ()
    unsets: bool = False

    def read(self, raw: Raw, name: str) -> dict[str, Any] | None:
        if raw == "" and self.unsets:
            return None
        if isinstance(raw, str):
            raise refused(f"Invalid object: {raw[:40]}", param=name)
        read: dict[str, Any] = {}
        for key, value in raw.items():
            inner = f"{name}[{key}]" if name else key
            parameter = self.fields.get(key)
            if parameter is None:
                raise unknown_parameter(inner)
            read[key] = parameter.read(value, inner)
        for key in self.required:
            if key not in read:
                raise missing_parameter(f"{name}[{key}]" if name else key)
        return read


@dataclass(frozen=True, slots=True)
class Rows:
    """An array of at most `max_rows`; empty string reads as an empty array."""

    item: Parameter
    max_rows: int

    def read(self, raw: Raw, name: str) -> list[Any]:
        if raw == "":
            return []
        if isinstance(raw, str):
            raise refused(f"Invalid array: {raw[:40]}", param=name)
        if not all(key.isdecimal() for key in raw):
            raise refused(f"Invalid array: {name}", param=name)
        if len(raw) > self.max_rows:
            raise refused(f"{name} can have up to {self.max_rows} entries.", param=name)
        return [
            self.item.read(raw[key], f"{name}[{place}]")
            for place, key in enumerate(sorted(raw, key=int))
        ]


@dataclass(frozen=True, slots=True)
class Span:
    """An instant, or bounds `gt gte lt lte`: always reads as a map of bounds (or `eq`)."""

    def read(self, raw: Raw, name: str) -> dict[str, int]:
        if isinstance(raw, str):
            return {"eq": INSTANT.read(raw, name)}
        bounds = Shape(dict.fromkeys(("gt", "gte", "lt", "lte"), INSTANT)).read(raw, name)
        return bounds or {}


ADDRESS = Shape(
    {name: Text() for name in ("city", "country", "line1", "line2", "postal_code", "state")},
    unsets=True,
)
EXPAND = Rows(Text(max_chars=200, keeps=True), max_rows=20)


@dataclass(frozen=True, slots=True)
class Takes:
    """What one call takes; `expand` is understood by every call."""

    fields: Mapping[str, Parameter] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    """Parameters of earlier versions, refused with a code that says so."""

    def read(self, raw: dict[str, Raw]) -> dict[str, Any]:
        """Values by name; only those that were sent."""
        for name in self.gone:
            if name in raw:
                raise refused(
                    f"The parameter {name} is no longer supported in this API version.",
                    code=f"{name}_no_longer_supported",
                    param=name,
                )
        shape = Shape({**self.fields, "expand": EXPAND}, self.required)
        return shape.read(raw, "") or {}


def merged_metadata(
    old: Mapping[str, str], change: Mapping[str, str | None] | None
) -> dict[str, str]:
    """Stripe's rule: named keys are set or removed, others stay; None clears everything."""
    if change is None:
        return {}
    merged = {**old, **{key: value for key, value in change.items() if value is not None}}
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
    if len(merged) > MAX_METADATA_PAIRS:
        raise refused(f"Metadata can have up to {MAX_METADATA_PAIRS} keys.", param="metadata")
    return merged
