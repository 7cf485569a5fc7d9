"""An entry of a price list as the fields of a form, and back. No I/O but for the meters' names.

Each field is called by the path of what it holds in the entry's JSON, as
`price_model.tiers[1].up_to`: the reader of that JSON, which names the path of whatever it refuses,
so says beside which field its sentence belongs. Nothing is checked here a second time.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from billing.pricing.dimensions import priced_meter
from billing.pricing.entry import Entry
from billing.pricing.entry_json import entry_to_json
from billing.pricing.entry_read import read_entries
from billing.pricing.price_model import price_model_to_json, read_price_model
from meterplane.kernel.errors import CallerError
from meterplane.metering.external.exact_json import decode

TIERS_MAX = 200  # rows of the form, of three fields each; more are pasted as JSON
# What each type of price model is made of, and what a person calls it.
TYPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "unit": ("Each unit", ("unit_amount", "free_units")),
    "flat": ("A flat amount", ("amount",)),
    "graduated": ("Graduated: each part at its tier", ()),
    "volume": ("Volume: all at the tier reached", ()),
    "package": ("Packages, started ones are due", ("package_size", "package_amount", "free_units")),
    "dynamic": ("Measured cost, times a markup", ("multiplier",)),
}
TIERED = ("graduated", "volume")
BOUNDS = ("minimum_amount", "maximum_amount")
CONVERSION = ("divide_by", "rounding", "decimals")
_PATH = "entry[0]."
_TIER = re.compile(r"price_model\.tiers\[([0-9]{1,3})\]\.(?:up_to|unit_amount|flat_amount)")

Said = dict[str, str]


@dataclass(slots=True)
class Read:
    """What became of a form: the entry, or what is wrong by field; "" is of the whole."""

    said: Said
    entry: Entry | None = None
    errors: dict[str, str] = field(default_factory=dict)


def read_form(said: Mapping[str, str], at: datetime) -> Read:
    """The entry that the fields say, by the check that the control API uses."""
    read = Read({name: text.strip() for name, text in said.items()})
    try:
        (read.entry,) = read_entries([entry_json(read.said)], at, path="entry")
    except CallerError as refused:
        place, message = in_place(refused)
        read.errors[place] = message
    return read


def in_place(refused: CallerError) -> tuple[str, str]:
    """The field a refusal belongs to, and its sentence without the field's path."""
    path = refused.field or ""
    message = refused.message
    if path and message.startswith(path):
        message = f"This{message[len(path) :]}"
    return path.removeprefix(_PATH), message.replace(_PATH, "")


def entry_json(said: Mapping[str, str]) -> dict[str, Any]:
    """The entry as it would be sent to the control API; an empty field is not sent."""
    named = said.get("price_model.type", "")
    _, names = TYPES.get(named, ("", ()))
    model: dict[str, Any] = {"type": named}
    for name in (*names, *BOUNDS):
        if text := said.get(f"price_model.{name}"):
            model[name] = text
    if named in TIERED:
        model["tiers"] = [_tier(said, number) for number in range(tiers_said(said))]
    conversion = {
        name: text
        for name in CONVERSION
        if (text := said.get(f"price_model.unit_conversion.{name}"))
    }
    if conversion:
        model["unit_conversion"] = conversion | _decimals(conversion)
    match = {name[6:]: text for name, text in said.items() if name.startswith("match.") and text}
    entry: dict[str, Any] = {"meter": said.get("meter", ""), "match": match, "price_model": model}
    if shown := said.get("display_name"):
        entry["display_name"] = shown
    return entry


def fields_of(entry: Mapping[str, Any]) -> Said:
    """The fields of an entry's JSON in its one form."""
    said = {"meter": entry["meter"], "display_name": entry["display_name"]}
    said |= {f"match.{name}": text for name, text in entry["match"].items()}
    return said | _model_fields(entry["price_model"])


def paste(text: str, said: Said, at: datetime) -> Said:
    """The fields with a pasted entry, or a pasted price model, in them.

    Raises `CallerError` naming `json`.
    """
    try:
        value = decode(text.encode())
        if isinstance(value, dict) and "price_model" not in value:
            model = price_model_to_json(read_price_model(value, "price_model"))
            kept = {
                name: each for name, each in said.items() if not name.startswith("price_model.")
            }
            return _bounded(kept | _model_fields(model))
        (entry,) = read_entries([value], at, path="entry")
        return _bounded(fields_of(entry_to_json(entry)))
    except CallerError as refused:
        message = refused.message.replace(_PATH, "").replace("entry[0]", "This")
        raise CallerError(refused.code, message, field="json") from None
    except ValueError as wrong:
        message = str(wrong).replace("The body", "This")
        if isinstance(wrong, UnicodeError):
            message = "This holds half of a character."
        raise CallerError("json_invalid", message, field="json") from None


def tiers_said(said: Mapping[str, str]) -> int:
    """How many rows of tiers there are; one at least."""
    found = [int(match[1]) for name in said if (match := _TIER.fullmatch(name))]
    return min(max(found, default=0) + 1, TIERS_MAX)


def add_tier(said: Said) -> Said:
    """One more row, after those that are there."""
    count = min(tiers_said(said), TIERS_MAX - 1)
    return said | {f"price_model.tiers[{count}].unit_amount": ""}


def remove_tier(said: Said, number: int) -> Said:
    """Without that row; the last one of the others has no end."""
    rows = [row for row in range(tiers_said(said)) if row != number] or [0]
    kept = {name: text for name, text in said.items() if not _TIER.fullmatch(name)}
    for new, old in enumerate(rows):
        for name in ("up_to", "unit_amount", "flat_amount"):
            text = said.get(f"price_model.tiers[{old}].{name}", "")
            is_end = name == "up_to" and new == len(rows) - 1
            kept[f"price_model.tiers[{new}].{name}"] = "" if is_end else text
    return kept


def dimensions_of(meter: str, at: datetime) -> tuple[str, ...]:
    """What usage of the meter can be matched by; nothing of no meter."""
    try:
        return tuple(priced_meter(meter, at, "meter").dimensions)
    except CallerError:
        return ()


def _tier(said: Mapping[str, str], number: int) -> dict[str, Any]:
    path = f"price_model.tiers[{number}]"
    tier: dict[str, Any] = {"up_to": said.get(f"{path}.up_to") or None}
    for name in ("unit_amount", "flat_amount"):
        if text := said.get(f"{path}.{name}"):
            tier[name] = text
    return tier


def _decimals(conversion: Mapping[str, str]) -> dict[str, Any]:
    """A count of digits is a JSON number; what is none is left for the reader to refuse."""
    text = conversion.get("decimals", "")
    return {"decimals": int(text)} if text.isascii() and text.isdigit() and len(text) < 9 else {}


def _model_fields(model: Mapping[str, Any]) -> Said:
    said = {f"price_model.{name}": text for name, text in model.items() if isinstance(text, str)}
    for number, tier in enumerate(model.get("tiers", ())):
        for name, text in tier.items():
            said[f"price_model.tiers[{number}].{name}"] = text or ""
    for name, value in model.get("unit_conversion", {}).items():
        said[f"price_model.unit_conversion.{name}"] = str(value)
    return said


def _bounded(said: Said) -> Said:
    if any(f"price_model.tiers[{TIERS_MAX}].{name}" in said for name in ("up_to", "unit_amount")):
        message = f"The form has room for {TIERS_MAX} tiers: send more through the control API."
        raise CallerError("tiers_too_many", message, field="json")
    return said
