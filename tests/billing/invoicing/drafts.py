"""Draft invoices with whatever lines a test wants, written as a close writes them."""

from datetime import timedelta
from uuid import UUID

from billing.invoicing.models import BillingPeriod, Invoice, InvoiceLine
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.conftest import OnboardedOrganisation

DAY = timedelta(days=1)


def draft(
    tenant: OnboardedOrganisation,
    version: UUID,
    lines: list[tuple[str, int]],
    currency: str = "USD",
) -> Invoice:
    """An invoice of the tenant's next day, of (meter, amount) lines; every other one is late."""
    with tenant_scope(tenant.id):
        last = BillingPeriod.objects.order_by("-ends_at").first()
        starts_at = last.ends_at if last else clock.now() - 20 * DAY
        span = {"starts_at": starts_at, "ends_at": starts_at + DAY}
        period = BillingPeriod.objects.create(
            tenant_id=tenant.id, follows_at=last and last.ends_at, content_hash="", **span
        )
        invoice: Invoice = Invoice.objects.create(
            tenant_id=tenant.id,
            period=period,
            period_start=starts_at,
            period_end=starts_at + DAY,
            currency=currency,
            total_minor=sum(amount for _, amount in lines),
            content_hash="",
        )
        InvoiceLine.objects.bulk_create(
            InvoiceLine(
                tenant_id=tenant.id,
                invoice=invoice,
                position=position,
                model=f"model-{position}",
                meter=meter,
                description="a line",
                quantity=1,
                unit_price_pico=1,
                price_version_id=version,
                amount_minor=amount,
                period_start=starts_at - DAY if position % 2 else starts_at,
                period_end=starts_at if position % 2 else starts_at + DAY,
                is_late=bool(position % 2),
            )
            for position, (meter, amount) in enumerate(lines, start=1)
        )
    return invoice
