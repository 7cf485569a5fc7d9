"""The hash of a rating: SHA-256 over its canonical inputs and outputs. Pure.

A bill of plain unit prices alone has form 1, as every bill had before there was anything else: its
hash can be replayed for ever. Any other has form 2, which also holds what was billed before, what
each entry matched, and what the contracts say.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from billing.pricing.contract import Contract
from billing.pricing.entry_json import entry_to_json
from billing.rating.tiered import TieredKey, TieredSum
from billing.rating.values import Billed, RatedLine
from meterplane.kernel.decimals import decimal_to_text
from meterplane.kernel.money import pico_to_text


def fingerprint_of_plain(currency: str, rated: Iterable[RatedLine], total_minor: int) -> str:
    """Form 1. Each line carries its input (quantity, price) and its output (amounts)."""
    return _hash(
        {
            "rating": 1,
            "currency": currency,
            "lines": [_plain(line) for line in rated],
            "total_minor": str(total_minor),
        }
    )


def fingerprint(
    currency: str,
    plain: Iterable[RatedLine],
    others: Iterable[RatedLine],
    sums: Mapping[TieredKey, TieredSum],
    billed: Iterable[Billed],
    contracts: Iterable[Contract],
    total_minor: int,
) -> str:
    """Form 2."""
    return _hash(
        {
            "rating": 2,
            "currency": currency,
            "lines": [_plain(line) | _told_apart(line) for line in plain],
            "other_lines": [_other(line) for line in others],
            "matched": sorted((_matched(*each) for each in sums.items()), key=_text),
            "billed": sorted((_billed(each) for each in billed), key=_text),
            "contracts": [_contract(each) for each in sorted(contracts, key=_since)],
            "total_minor": str(total_minor),
        }
    )


def _plain(line: RatedLine) -> dict[str, Any]:
    """The tier only of what is not standard: bills from before there were tiers keep their hash."""
    told = {} if line.service_tier == "standard" else {"tier": line.service_tier}
    return {
        "from": line.period.starts_at.isoformat(),
        "until": line.period.ends_at.isoformat(),
        "late": line.period.is_late,
        "model": line.model,
        "meter": line.meter,
        "price_version": str(line.price_version_id),
        "quantity": str(line.quantity),
        "unit_price": pico_to_text(line.unit_price_pico or 0),
        "amount": pico_to_text(line.amount_pico or 0),
        "amount_minor": str(line.amount_minor),
    } | told


def _told_apart(line: RatedLine) -> dict[str, Any]:
    return {
        "kind": line.kind,
        "entry": str(line.entry_id),
        "contract": str(line.contract_id),
    }


def _other(line: RatedLine) -> dict[str, Any]:
    return _told_apart(line) | {
        "from": line.period.starts_at.isoformat(),
        "until": line.period.ends_at.isoformat(),
        "late": line.period.is_late,
        "price_version": str(line.price_version_id),
        "quantity": _number(line.quantity),
        "amount_minor": str(line.amount_minor),
        "explanation": line.explanation,
        "breakdown": line.breakdown,
    }


def _matched(key: TieredKey, used: TieredSum) -> dict[str, Any]:
    return {
        "month": key.month.isoformat(),
        "price_version": str(key.price_version_id),
        "contract": str(key.contract_id),
        "entry": entry_to_json(used.entry),
        "parts": [[*each, _number(units)] for each, units in sorted(used.parts.items())],
    }


def _billed(each: Billed) -> dict[str, Any]:
    return {
        "from": each.period.starts_at.isoformat(),
        "until": each.period.ends_at.isoformat(),
        "kind": each.kind,
        "model": each.model,
        "meter": each.meter,
        "tier": each.service_tier,
        "price_version": str(each.price_version_id),
        "entry": str(each.entry_id),
        "contract": str(each.contract_id),
        "quantity": _number(each.quantity),
        "amount_minor": str(each.amount_minor),
    }


def _since(contract: Contract) -> tuple[datetime, int]:
    return contract.terms.starts_at, contract.number


def _contract(contract: Contract) -> dict[str, Any]:
    """What decides amounts. That it was ended later changes only what came after."""
    terms = contract.terms
    return {
        "id": str(contract.id),
        "from": terms.starts_at.isoformat(),
        "discount_percent": decimal_to_text(terms.discount_percent),
        "commitment_minor": str(terms.commitment_minor),
        "minimum_minor": str(terms.minimum_minor),
        "maximum_minor": str(terms.maximum_minor),
        "entries": [entry_to_json(entry) for entry in terms.entries],
    }


def _number(value: Any) -> str:
    return str(value) if isinstance(value, int) else decimal_to_text(value)


def _text(canonical: dict[str, Any]) -> str:
    return json.dumps(canonical, sort_keys=True)


def _hash(canonical: dict[str, Any]) -> str:
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
