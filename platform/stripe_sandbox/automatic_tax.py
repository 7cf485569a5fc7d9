"""Automatic tax, by a small table of rates: enough to try the flow, never to file a tax return.

The customer's address decides (in the United States its state too; a state not listed collects
nothing). Without a country, or without a state there, the location is unusable: a draft says
`requires_location_inputs` and its finalization fails with `customer_tax_location_invalid`.
"""

from typing import Any

from stripe_sandbox import tax_rates
from stripe_sandbox.call import Call
from stripe_sandbox.errors import StripeError, refused
from stripe_sandbox.store import Document

# Country, or country and state -> what the tax is called, its type, its percentage.
RATES: dict[tuple[str, str | None], tuple[str, str, str]] = {
    ("AT", None): ("VAT", "vat", "20"),
    ("AU", None): ("GST", "gst", "10"),
    ("BE", None): ("VAT", "vat", "21"),
    ("CA", None): ("GST", "gst", "5"),
    ("CH", None): ("VAT", "vat", "8.1"),
    ("DE", None): ("VAT", "vat", "19"),
    ("ES", None): ("VAT", "vat", "21"),
    ("FR", None): ("VAT", "vat", "20"),
    ("GB", None): ("VAT", "vat", "20"),
    ("IE", None): ("VAT", "vat", "23"),
    ("IT", None): ("VAT", "vat", "22"),
    ("JP", None): ("JCT", "jct", "10"),
    ("NL", None): ("VAT", "vat", "21"),
    ("NZ", None): ("GST", "gst", "15"),
    ("SE", None): ("VAT", "vat", "25"),
    ("US", "CA"): ("Sales tax", "sales_tax", "7.25"),
    ("US", "NY"): ("Sales tax", "sales_tax", "4"),
    ("US", "TX"): ("Sales tax", "sales_tax", "6.25"),
    ("US", "WA"): ("Sales tax", "sales_tax", "6.5"),
}


def rate_for(call: Call, customer: Document) -> Document | None:
    """The rate where the customer is, stored as a tax rate; None where none is collected."""
    country, state = _location(customer)
    named = RATES.get((country, state)) or RATES.get((country, None))
    if named is None:
        return None
    display_name, tax_type, percentage = named
    return found_or_made(
        call,
        {
            "active": False,
            "country": country,
            "display_name": display_name,
            "inclusive": False,
            "jurisdiction": state if country == "US" else country,
            "jurisdiction_level": "state" if country == "US" else "country",
            "percentage": percentage,
            "state": state if country == "US" else None,
            "tax_type": tax_type,
        },
    )


def found_or_made(call: Call, fields: dict[str, Any]) -> Document:
    """A tax rate of exactly these fields; Stripe reuses them too."""
    where = [
        # Names are keys that this package declares; values are bound.
        (f"json_extract(body, '$.{name}') IS ?", value)
        for name, value in fields.items()
        if name != "percentage"
    ]
    where.append(("json_extract(body, '$._percentage') = ?", fields["percentage"]))
    rows = call.store.select("tax_rate", where, limit=1)
    return rows[0] if rows else tax_rates.make(call, fields)


def has_location(customer: Document) -> bool:
    """Whether the address says enough to decide."""
    country, state = _location(customer)
    return bool(country) and (country != "US" or bool(state))


def no_location() -> StripeError:
    """400 at finalization."""
    return refused(
        "The customer's location isn't recognized. Set a valid customer address in order to "
        "automatically calculate tax.",
        code="customer_tax_location_invalid",
    )


def _location(customer: Document) -> tuple[str, str | None]:
    shipping = customer["shipping"] or {}
    address = shipping.get("address") or customer["address"] or {}
    return (address.get("country") or "").upper(), (address.get("state") or "").upper() or None
