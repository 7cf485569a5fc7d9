"""A contract as JSON, as it is shown and as its events keep it. Amounts are decimal text."""

from datetime import datetime
from typing import Any

from billing.pricing.contract import Contract
from billing.pricing.entry_json import entry_to_json
from meterplane.kernel.decimals import decimal_to_text
from meterplane.kernel.money import minor_to_text


def contract_to_json(contract: Contract) -> dict[str, Any]:
    """Every field; null where nothing was agreed."""
    terms = contract.terms

    def amount(minor: int | None) -> str | None:
        return None if minor is None else minor_to_text(minor, terms.currency)

    return {
        "id": str(contract.id),
        "number": contract.number,
        "note": terms.note,
        "book": terms.book,
        "currency": terms.currency,
        "starts_at": _instant(terms.starts_at),
        "ends_at": _instant(terms.ends_at),
        "pinned_version": None if (pin := terms.pinned_version_id) is None else str(pin),
        "pinned_until": _instant(terms.pinned_until),
        "discount_percent": decimal_to_text(terms.discount_percent),
        "commitment": amount(terms.commitment_minor),
        "minimum_spend": amount(terms.minimum_minor),
        "maximum_spend": amount(terms.maximum_minor),
        "entries": [entry_to_json(entry) for entry in terms.entries],
        "supersedes": None if (old := contract.supersedes_id) is None else str(old),
        "created_at": _instant(contract.created_at),
        "created_by": contract.created_by,
    }


def _instant(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat().replace("+00:00", "Z")
