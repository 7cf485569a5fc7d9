"""The signed receipt of a request: its usage event, at the prices it was admitted under.

Guarantees: the same event signed with the same key is the same bytes every time; events and
published prices never change. Knows nothing of invoices: a line there sums thousands of these.
"""

from uuid import UUID

from django.conf import settings

from billing.pricing.queries import prices_of
from meterplane.contracts import receipt
from meterplane.contracts.receipt import SettledRequest, UnitPrices
from meterplane.contracts.usage import ServiceTier
from meterplane.metering.queries import RequestRow, request_by_id


def receipt_of(request_id: UUID, project_id: UUID | None = None) -> bytes | None:
    """The receipt of a request of the open door, and of this project if one is named."""
    row = request_by_id(request_id)
    if row is None or project_id not in (None, row.project_id):
        return None
    newest = receipt.signing_keys(settings.RECEIPT_SIGNING_KEYS)[0]
    return receipt.receipt(_settled(row), newest)


def _settled(row: RequestRow) -> SettledRequest:
    return SettledRequest(
        request_id=row.request_id,
        tenant_id=row.tenant_id,
        project_id=row.project_id,
        key_id=row.key_id,
        requested_model=row.requested_model,
        model=row.model,
        surface=row.surface,
        stream=row.stream,
        service_tier=row.service_tier,
        status=row.status,
        http_status=row.http_status,
        # Events of before that was kept: their id was minted as they came in.
        admitted_at=row.admitted_at or row.event_at,
        first_byte_ms=row.first_byte_ms,
        settled_at=row.settled_at,
        tokens_in=row.tokens_in,
        tokens_out=row.tokens_out,
        requests=row.requests,
        provenance=row.provenance,
        tags=row.tags,
        prices=unit_prices_of(row.price_version_id, row.model, row.service_tier),
        currency=row.currency,
        reserved_nano=row.reserved_nano,
        cost_nano=row.cost_nano,
        segment_id=row.segment_id,
    )


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
