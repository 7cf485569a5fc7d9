"""A tenant's usage at published prices, put there by the real ingest."""

from datetime import UTC, datetime
from uuid import UUID

from billing.invoicing.models import Invoice, InvoiceLine
from billing.pricing.book import ModelPrices
from billing.pricing.publish import create_draft, publish
from meterplane.contracts.usage import Settle
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.metering.ingest import ingest_segment
from tenants.scoping import tenant_scope
from tests.metering.segments import message, settle

# tiny-lm: 2 millionths per input, 6 per output token, 1 hundredth per request.
PRICES = {
    "tiny-lm": ModelPrices(2_000_000, 6_000_000, 10_000_000_000),
    "minilm": ModelPrices(500_000, 0, 0),
}


def utc(month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    """An instant of 2026."""
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


def publish_prices(prices: dict[str, ModelPrices] = PRICES) -> UUID:
    """Publish a version of the standard book; its id."""
    draft = create_draft(book="standard", currency="USD", prices=prices)
    return publish(draft.id, confirm=["gap"]).version_id


def used(
    tenant,
    version: UUID,
    at: datetime,
    model: str = "tiny-lm",
    tier: str = "standard",
    **counts: int,
) -> Settle:
    """One request at `at`: 1 request, no tokens, unless told otherwise."""
    at_ms = clock.to_ms(at)
    values = {"tokens_in": 0, "tokens_out": 0, "requests": 1} | counts
    return settle(
        tenant,
        at_ms=at_ms,
        request_id=uuid7(at_ms),
        model=model,
        price_version_id=version,
        service_tier=tier,
        **values,
    )


def ingest(*events: Settle) -> None:
    """Take the events in as one journal segment."""
    ingest_segment(message(list(events)))


def lines_of(tenant_id: UUID, invoice: Invoice) -> list[tuple[str, str, str, int, int]]:
    """(month, model, meter, quantity, cents) of each line, in order; late ones marked."""
    with tenant_scope(tenant_id):
        return [
            (
                f"{line.period_start:%m}{' late' if line.is_late else ''}",
                line.model,
                line.meter,
                line.quantity,
                line.amount_minor,
            )
            for line in InvoiceLine.objects.filter(invoice_id=invoice.id).order_by("position")
        ]
