"""Tax rates: a percentage with up to four decimals, on top of an amount or inside it.

A rate's percentage and direction never change, so an invoice that used it can be read for ever;
a rate is archived with `active=false`.
"""

from collections.abc import Mapping
from typing import Any

from stripe_sandbox import ids
from stripe_sandbox.call import Call
from stripe_sandbox.events import emit, emit_change
from stripe_sandbox.lists import PAGE, created_in, page
from stripe_sandbox.params import (
    Choice,
    DecimalText,
    Flag,
    Metadata,
    Parameter,
    Span,
    Takes,
    Text,
    merged_metadata,
)
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

PERCENTAGE_PLACES = 4

_EDITABLE: Mapping[str, Parameter] = {
    "active": Flag(),
    "country": Text(max_chars=2),
    "description": Text(),
    "display_name": Text(max_chars=50, keeps=True),
    "jurisdiction": Text(max_chars=50),
    "metadata": Metadata(),
    "state": Text(max_chars=5),
    "tax_type": Choice(("gst", "hst", "jct", "pst", "qst", "sales_tax", "vat")),
}
CREATE = Takes(
    {
        **_EDITABLE,
        "inclusive": Flag(),
        "percentage": DecimalText(places=PERCENTAGE_PLACES, high=100),
    },
    required=("display_name", "inclusive", "percentage"),
)
UPDATE = Takes(_EDITABLE)
RETRIEVE = Takes()
LIST = Takes({**PAGE, "active": Flag(), "created": Span(), "inclusive": Flag()})


def create(call: Call) -> Document:
    rate = make(call, call.params)
    return public(call, rate)


def make(call: Call, fields: Mapping[str, Any]) -> Document:
    """A stored rate of the given fields; also behind automatic tax."""
    percentage = fields["percentage"]
    rate: Document = {
        "id": ids.new("txr"),
        "object": "tax_rate",
        "active": fields.get("active", True),
        "country": fields.get("country"),
        "created": call.now,
        "description": fields.get("description"),
        "display_name": fields["display_name"],
        "effective_percentage": fields.get("effective_percentage"),
        "flat_amount": None,
        "inclusive": fields["inclusive"],
        "jurisdiction": fields.get("jurisdiction"),
        "jurisdiction_level": fields.get("jurisdiction_level"),
        "livemode": False,
        "metadata": merged_metadata({}, fields.get("metadata", {})),
        # Stripe answers a JSON number; figures are computed from the exact text beside it.
        "percentage": float(percentage),
        "rate_type": "percentage",
        "state": fields.get("state"),
        "tax_type": fields.get("tax_type"),
        "_percentage": percentage,
    }
    call.store.insert(rate, created=call.now)
    emit(call, "tax_rate.created", public(call, rate))
    return rate


def retrieve(call: Call) -> Document:
    return public(call, call.in_path("tax_rate"))


def update(call: Call) -> Document:
    rate = call.in_path("tax_rate")
    before = public(call, rate)
    for name, value in call.params.items():
        if name == "metadata":
            rate["metadata"] = merged_metadata(rate["metadata"], value)
        elif name != "expand":
            rate[name] = value
    call.store.put(rate)
    emit_change(call, "tax_rate.updated", before, public(call, rate))
    return public(call, rate)


def list_all(call: Call) -> Document:
    where: list[tuple[str, Any]] = created_in(call.params.get("created"))
    for name in ("active", "inclusive"):
        if name in call.params:
            # The name is one of the two literals above; the value is bound.
            where.append((f"json_extract(body, '$.{name}') = ?", call.params[name]))
    found = page(call, "tax_rate", "/v1/tax_rates", where)
    found["data"] = [public(call, rate) for rate in found["data"]]
    return found
