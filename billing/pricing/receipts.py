"""The signed receipt of a request: its usage event, at the prices it was admitted under.

Guarantees: the same event signed with the same key is the same bytes every time; events and
published prices never change. Knows nothing of invoices: a line there sums thousands of these.
"""

from dataclasses import replace
from uuid import UUID

from django.conf import settings

from billing.pricing.queries import prices_of
from meterplane.contracts import receipt
from meterplane.contracts.receipt import UnitPrices
from meterplane.contracts.usage import ServiceTier
from meterplane.metering.settled import settled_request


def receipt_of(request_id: UUID, project_id: UUID | None = None) -> bytes | None:
    """The receipt of a request of the open door, and of this project if one is named."""
    found = settled_request(request_id)
    if found is None:
        return None
    settled, version_id = found
    if project_id not in (None, settled.project_id):
        return None
    prices = unit_prices_of(version_id, settled.model, settled.service_tier)
    priced = replace(settled, prices=prices)
    newest = receipt.signing_keys(settings.RECEIPT_SIGNING_KEYS)[0]
    return receipt.receipt(priced, newest)


def unit_prices_of(version_id: UUID, model: str, tier: ServiceTier) -> UnitPrices | None:
    """What a request was priced at; None where the version does not say."""
    book = prices_of(version_id)
    prices = book.prices.get(model) if book else None
    if prices is None:
        return None
    tokens_in, tokens_out, requests = (
        prices.of("input_tokens", tier),
        prices.of("output_tokens", tier),
        prices.of("requests", tier),
    )
    if tokens_in is None or tokens_out is None or requests is None:
        return None
    return UnitPrices(version_id, tokens_in, tokens_out, requests)
