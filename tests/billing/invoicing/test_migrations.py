"""Invoices and published books of before entries, contracts, credit and the ledger are kept."""

import psycopg
import pytest

from billing.invoicing.advance import News, advance
from billing.invoicing.close import close_period
from billing.invoicing.models import Invoice, InvoiceLine
from billing.ledger.audit import audit, post_missing
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.scoping import tenant_scope
from tests import environment
from tests.billing.ledger.rig import held
from tests.billing.world import ingest, used, utc
from tests.metering.test_migrations import migrate

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

OLD_INVOICE = """
INSERT INTO billing_period (id, tenant_id, starts_at, ends_at, follows_at, closed_at, content_hash)
VALUES (%(period)s, %(tenant)s, '2026-09-01Z', '2026-10-01Z', NULL, '2026-10-01Z', repeat('0', 64));
INSERT INTO invoice (id, tenant_id, period_id, number, period_start, period_end, status, currency,
    total_minor, content_hash, hosted_url, payment_attempts, collection_state, collection_note,
    created_at, finalised_at)
VALUES (%(invoice)s, %(tenant)s, %(period)s, NULL, '2026-09-01Z', '2026-10-01Z', 'draft', 'USD',
    2, repeat('0', 64), '', 0, 'pending', '', '2026-10-01Z', NULL);
INSERT INTO invoice_line (id, tenant_id, invoice_id, position, model, service_tier, meter,
    description, quantity, unit_price_pico, price_version_id, amount_minor, period_start,
    period_end, is_late)
VALUES (gen_random_uuid(), %(tenant)s, %(invoice)s, 1, 'tiny-lm', 'standard', 'requests',
    '2 requests x $0.01 = $0.02', 2, 10000000000, %(version)s, 2, '2026-09-01Z', '2026-10-01Z',
    false);
INSERT INTO invoice_series (id, tenant_id, prefix, last_number)
VALUES (gen_random_uuid(), %(tenant)s, 'ACME', 1);
UPDATE invoice SET status = 'open', number = 'ACME-000001', finalised_at = '2026-10-02Z'
 WHERE id = %(invoice)s;
"""


def test_an_invoice_of_before_is_kept_and_what_comes_late_is_the_difference(acme, prices):
    ingest(*[used(acme, prices, utc(9, 20)) for _ in range(2)])
    migrate("ledger", "zero")
    migrate("invoicing", "0002_line_tier")
    migrate("pricing", "0002_batch_prices")
    migrate("metering", "0014_days_in_files")
    old = {"tenant": acme.id, "version": prices, "period": uuid7(), "invoice": uuid7()}
    try:
        with psycopg.connect(environment.database_url("postgres")) as admin:
            psycopg.ClientCursor(admin).execute(OLD_INVOICE, old)
    finally:
        migrate()
    with tenant_scope(acme.id):
        line = InvoiceLine.objects.get(invoice_id=old["invoice"])
        assert (line.kind, line.quantity, line.amount_minor) == ("usage", 2, 2)
        assert Invoice.objects.get(id=old["invoice"]).subtotal_minor == 2
    assert post_missing() == 1
    ingest(*[used(acme, prices, utc(9, 21)) for _ in range(3)], used(acme, prices, utc(10, 2)))
    october = close_period(acme.id, utc(11, 1))
    with tenant_scope(acme.id):
        lines = InvoiceLine.objects.filter(invoice=october).order_by("position")
        told = [(each.quantity, each.amount_minor, each.is_late) for each in lines]
        advance(old["invoice"], News("paid", clock.now()))
        advance(october.id, News("open", clock.now()))
    assert told == [(1, 1, False), (3, 3, True)]
    assert held(acme.id) == {"payments": 2, "receivable": 4, "revenue:requests": -6}
    assert all(verdict.holds for verdict in audit())
