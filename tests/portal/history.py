"""A tenant with a past: the demo's usage through the real ingest, invoiced by the real close."""

from datetime import timedelta

from billing.invoicing.advance import News, advance
from billing.invoicing.close import close_period
from billing.invoicing.models import Invoice
from billing.pricing.catalog_prices import publish_catalog_prices
from billing.pricing.queries import published_version
from meterplane.catalog.sync import sync_catalog
from meterplane.contracts.usage import Settle
from meterplane.kernel import clock
from meterplane.metering.ingest import ingest_segment
from meterplane.stack.demo import CATALOG
from meterplane.stack.demo_usage import Caller, Habit, UnitPrices, history
from tenants.keys import issue_key
from tenants.scoping import tenant_scope
from tests.metering.segments import message

FRAMES_PER_SEGMENT = 1_000  # of about 600 bytes: a segment holds a megabyte
HABITS: dict[str, Habit] = {
    "Assistant, production": "support",
    "Search API": "search",
    "Notebooks": "notebook",
}


def offer() -> None:
    """The sample models and their published prices."""
    with clock.frozen(clock.now() - timedelta(days=90)):
        sync_catalog(CATALOG)
        publish_catalog_prices(CATALOG)


def unit_prices() -> dict[str, UnitPrices]:
    """The published prices, as demo usage wants them."""
    book = published_version(clock.now())
    assert book is not None
    return {
        name: UnitPrices(
            book.version_id,
            book.currency,
            price.input_token_pico,
            price.output_token_pico,
            price.request_pico,
        )
        for name, price in book.prices.items()
    }


def live_through(tenant, days: int) -> list[Settle]:
    """Usage of the last `days` days up to now, of three keys; all of it, oldest first."""
    callers = [
        Caller(
            tenant.id,
            tenant.project_id,
            issue_key(tenant_id=tenant.id, project_id=tenant.project_id, name=name).key.id,
            habit,
        )
        for name, habit in HABITS.items()
    ]
    end = clock.now()
    start = end.replace(minute=0, second=0, microsecond=0) - timedelta(days=days)
    settles = [settle for _, settle in history(callers, unit_prices(), start, end)]
    for first in range(0, len(settles), FRAMES_PER_SEGMENT):
        ingest_segment(message(list(settles[first : first + FRAMES_PER_SEGMENT])))
    return settles


def invoice_last_month(tenant, *, paid: bool = True) -> Invoice:
    """Close everything up to the first of this month; the invoice, open or paid."""
    until = clock.now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    invoice = close_period(tenant.id, until)
    assert invoice is not None
    news = News("paid" if paid else "open", clock.now(), "http://127.0.0.1:8703/i/in_1")
    with tenant_scope(tenant.id):
        advance(invoice.id, news)
        found: Invoice = Invoice.objects.get(id=invoice.id)
    return found
