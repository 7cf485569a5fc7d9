"""Closing a period: what was used, once, whatever is repeated, raced or late."""

import random
from itertools import pairwise
from threading import Barrier, Thread

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from billing.invoicing.close import close_period
from billing.invoicing.models import BillingPeriod, Invoice, InvoiceLine
from billing.invoicing.queries import invoice_with_lines, list_invoices, upcoming_invoice
from billing.invoicing.taxation import assign_rates, create_rate, exempt
from billing.pricing.book import ModelPrices
from billing.rating.rate import UsageCannotBeRated
from meterplane.contracts.usage import cost_nano
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import TenantScopeMissing, tenant_scope
from tests.billing.credits.rig import give
from tests.billing.world import ingest, lines_of, publish_prices, used, utc

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)  # other connections must see it


def invoices(tenant) -> list[Invoice]:
    with tenant_scope(tenant.id):
        return list(Invoice.objects.order_by("period_end"))


def periods(tenant) -> list[tuple[str, str]]:
    with tenant_scope(tenant.id):
        return [
            (f"{period.starts_at:%m-%d %H}", f"{period.ends_at:%m-%d %H}")
            for period in BillingPeriod.objects.order_by("starts_at")
        ]


def test_each_month_is_a_period_and_owes_its_own_usage(acme, prices):
    ingest(
        used(acme, prices, utc(9, 30, 23, 59), tokens_in=1_000_000),  # 2.00 and 0.01
        used(acme, prices, utc(10, 1), tokens_out=500_000),  # 3.00 and 0.01
        used(acme, prices, utc(10, 31, 23), "minilm", tokens_in=3_000_000),  # 1.50
        used(acme, prices, utc(11, 2, 5)),
    )
    october = close_period(acme.id, utc(11, 1))
    assert october is not None
    assert periods(acme) == [("09-01 00", "10-01 00"), ("10-01 00", "11-01 00")]
    september = invoices(acme)[0]
    assert lines_of(acme.id, september) == [
        ("09", "tiny-lm", "input_tokens", 1_000_000, 200),
        ("09", "tiny-lm", "requests", 1, 1),
    ]
    assert lines_of(acme.id, october) == [
        ("10", "minilm", "input_tokens", 3_000_000, 150),
        ("10", "tiny-lm", "output_tokens", 500_000, 300),
        ("10", "tiny-lm", "requests", 1, 1),
    ]
    assert (september.total_minor, october.total_minor) == (201, 451)
    assert (october.status, october.number, october.currency) == ("draft", None, "USD")


def test_closing_again_gives_the_same_invoice(acme, prices):
    ingest(used(acme, prices, utc(10, 5)))
    first = close_period(acme.id, utc(11, 1))
    again = close_period(acme.id, utc(11, 1))
    assert first is not None
    assert again is not None
    assert (again.id, again.content_hash) == (first.id, first.content_hash)
    assert len(invoices(acme)) == 1


def test_an_early_close_splits_the_month_and_loses_nothing(acme, prices):
    ingest(used(acme, prices, utc(10, 10, 7, 30)), used(acme, prices, utc(10, 10, 7, 31)))
    early = close_period(acme.id, utc(10, 10, 7, 31))
    rest = close_period(acme.id, utc(11, 1))
    assert early is not None
    assert rest is not None
    assert lines_of(acme.id, early) == [("10", "tiny-lm", "requests", 1, 1)]
    assert lines_of(acme.id, rest) == [("10", "tiny-lm", "requests", 1, 1)]
    assert rest.period_start == early.period_end == utc(10, 10, 7, 31)


def test_a_period_without_usage_is_closed_without_an_invoice(acme, prices):
    assert close_period(acme.id, utc(11, 1)) is None
    assert periods(acme) == [("09-01 00", "10-01 00"), ("10-01 00", "11-01 00")]
    assert invoices(acme) == []
    assert close_period(acme.id, utc(11, 1)) is None
    ingest(used(acme, prices, utc(11, 3)))
    november = close_period(acme.id, clock.now())
    assert november is not None
    assert november.period_start == utc(11, 1)


def test_usage_older_than_the_organisation_opens_an_older_period(acme, prices):
    ingest(used(acme, prices, utc(7, 15)))
    close_period(acme.id, utc(8, 1))
    assert periods(acme) == [("07-01 00", "08-01 00")]


@pytest.mark.parametrize(
    ("until", "code"),
    [
        (utc(11, 24, 13), "period_not_over"),
        (utc(11, 24).replace(tzinfo=None), "period_not_over"),
        (utc(10, 15), "period_already_closed"),
    ],
)
def test_what_is_not_over_or_closed_already_is_refused(acme, prices, until, code):
    close_period(acme.id, utc(11, 1))
    with pytest.raises(CallerError) as refused:
        close_period(acme.id, until)
    assert refused.value.code == code


def test_before_the_first_period_there_is_nothing_to_close(acme, prices):
    assert close_period(acme.id, utc(8, 1)) is None
    assert periods(acme) == []


def test_late_usage_is_a_line_of_the_next_invoice_exactly_once(acme, prices):
    ingest(used(acme, prices, utc(9, 20)), used(acme, prices, utc(10, 20)))
    close_period(acme.id, utc(11, 1))
    ingest(
        used(acme, prices, utc(9, 21)),
        used(acme, prices, utc(10, 21), tokens_in=1_000_000),
        used(acme, prices, utc(10, 22), "minilm", tokens_out=9),  # free: never a line
        used(acme, prices, utc(11, 3)),
    )
    middle = close_period(acme.id, utc(11, 20))
    assert middle is not None
    assert lines_of(acme.id, middle) == [
        ("11", "tiny-lm", "requests", 1, 1),
        ("09 late", "tiny-lm", "requests", 1, 1),
        ("10 late", "tiny-lm", "input_tokens", 1_000_000, 200),
        ("10 late", "tiny-lm", "requests", 1, 1),
    ]
    with tenant_scope(acme.id):
        late = InvoiceLine.objects.filter(invoice_id=middle.id, is_late=True).first()
        assert late is not None
        assert "used from 2026-09-01 until 2026-10-01, arrived later" in late.description
    ingest(used(acme, prices, utc(9, 22)), used(acme, prices, utc(11, 1)))
    last = close_period(acme.id, clock.now())
    assert last is not None
    assert lines_of(acme.id, last) == [
        ("09 late", "tiny-lm", "requests", 1, 1),
        ("11 late", "tiny-lm", "requests", 1, 1),
    ]
    with tenant_scope(acme.id):
        assert upcoming_invoice(clock.now()) is None


def test_usage_from_before_the_first_period_that_comes_after_it_is_late_too(acme, prices):
    close_period(acme.id, utc(10, 1))
    ingest(used(acme, prices, utc(7, 15)), used(acme, prices, utc(8, 15)))
    october = close_period(acme.id, utc(11, 1))
    assert october is not None
    assert lines_of(acme.id, october) == [
        ("07 late", "tiny-lm", "requests", 1, 1),
        ("08 late", "tiny-lm", "requests", 1, 1),
    ]
    assert close_period(acme.id, clock.now()) is None


def test_lines_keep_the_prices_their_usage_was_admitted_at(acme, prices):
    dearer = publish_prices({"tiny-lm": ModelPrices(0, 0, 5 * 10**12)})
    ingest(used(acme, prices, utc(10, 5)), used(acme, dearer, utc(10, 6)))
    october = close_period(acme.id, utc(11, 1))
    assert october is not None
    assert sorted(line[4] for line in lines_of(acme.id, october)) == [1, 500]


def test_a_batch_is_billed_at_half_on_lines_of_its_own_and_late_ones_once(acme, late_november):
    halved = {"tiny-lm": ModelPrices(2_000_000, 6_000_000, 10**10, 1_000_000, 3_000_000, 5 * 10**9)}
    version = publish_prices(halved)
    counts = {"tokens_in": 1_000_000, "tokens_out": 100_000}
    ingest(
        used(acme, version, utc(10, 5), **counts),
        used(acme, version, utc(10, 5), tier="batch", **counts),
    )
    october = close_period(acme.id, utc(11, 1))
    assert october is not None
    assert lines_of(acme.id, october) == [
        ("10", "tiny-lm", "input_tokens", 1_000_000, 200),
        ("10", "tiny-lm", "output_tokens", 100_000, 60),
        ("10", "tiny-lm", "requests", 1, 1),
        ("10", "tiny-lm", "input_tokens", 1_000_000, 100),
        ("10", "tiny-lm", "output_tokens", 100_000, 30),
        ("10", "tiny-lm", "requests", 1, 1),  # half a cent is one
    ]
    with tenant_scope(acme.id):
        view = invoice_with_lines(october.id)
    assert view is not None
    assert [line.service_tier for line in view.lines] == ["standard"] * 3 + ["batch"] * 3
    assert "batch input tokens" in view.lines[3].description
    # Late usage of one tier is not hidden by what was invoiced of the other.
    ingest(used(acme, version, utc(10, 6), tier="batch", requests=4))
    november = close_period(acme.id, utc(11, 20))
    assert november is not None
    assert lines_of(acme.id, november) == [("10 late", "tiny-lm", "requests", 4, 2)]


def test_a_batch_under_a_version_without_batch_prices_stops_the_close(acme, prices):
    ingest(used(acme, prices, utc(10, 5), tier="batch"))
    with pytest.raises(UsageCannotBeRated, match="no batch prices"):
        close_period(acme.id, utc(11, 1))
    assert invoices(acme) == []


@pytest.mark.parametrize("tier", ["standard", "batch"])
def test_lines_owe_what_the_events_cost_up_to_the_rounding_of_each(acme, late_november, tier):
    prices = ModelPrices(123_457, 654_321, 1_000_003, 61_729, 327_161, 500_002)
    version = publish_prices({"tiny-lm": prices})
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    events = []
    for _ in range(50):
        counts = [chance.randrange(10**8), chance.randrange(10**8), 1]
        cost = cost_nano(*counts, **unit_prices(prices, tier))
        events.append(
            used(
                acme, version, utc(10, 5, chance.randrange(24)), tier=tier,
                tokens_in=counts[0], tokens_out=counts[1], cost_nano=cost, reserved_nano=cost,
            )
        )  # fmt: skip
    ingest(*events)
    october = close_period(acme.id, utc(11, 1))
    assert october is not None
    # Half a cent for each of three lines, half a nano for each event.
    allowed_nano = 3 * 5_000_000 + len(events)
    owed_nano = october.total_minor * 10_000_000
    assert abs(owed_nano - sum(event.cost_nano for event in events)) <= allowed_nano


def unit_prices(prices: ModelPrices, tier) -> dict[str, int]:
    """What the gateway pins for a request of this tier."""
    meters = {"input_token": "input_tokens", "output_token": "output_tokens", "request": "requests"}
    return {f"{unit}_pico": prices.of(meter, tier) for unit, meter in meters.items()}


def test_usage_without_a_price_stops_the_close_and_leaves_no_trace(acme, prices):
    ingest(used(acme, prices, utc(10, 5), "unheard-of"))
    with pytest.raises(UsageCannotBeRated, match="unheard-of"):
        close_period(acme.id, utc(11, 1))
    assert invoices(acme) == []
    assert periods(acme) == [("09-01 00", "10-01 00")]


@committing
def test_two_closers_at_once_make_one_invoice(acme, prices):
    ingest(used(acme, prices, utc(10, 5)))
    barrier, made, failed = Barrier(2), [], []

    def closer():
        barrier.wait()
        try:
            made.append(close_period(acme.id, utc(11, 1)))
        except Exception as failure:
            failed.append(failure)
        finally:
            connections.close_all()

    threads = [Thread(target=closer) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len({invoice.id for invoice in made if invoice}) == 1
    assert len(invoices(acme)) == 1


def test_the_upcoming_invoice_says_what_credit_and_taxes_make_of_it_and_writes_nothing(
    acme, prices
):
    made = [
        create_rate(name="VAT", percentage="19", mode="exclusive"),
        create_rate(name="GST", percentage="5", mode="inclusive"),
    ]
    with tenant_scope(acme.id):
        assign_rates([rate.id for rate in made])
    give(acme, 100, "welcome", effective_at=utc(9, 10))
    ingest(used(acme, prices, utc(9, 12), tokens_in=1_005_000))  # 2.01 and 0.01
    with CaptureQueriesContext(connection) as queries, tenant_scope(acme.id):
        upcoming = upcoming_invoice(utc(10, 1))
    assert upcoming is not None
    assert (upcoming.used_minor, upcoming.credit_minor, upcoming.subtotal_minor) == (202, -100, 102)
    # 5 % in 1.02: 0.0486 of 0.97; 19 % on 0.97: 0.1846.
    told = [(tax.label, tax.taxable_minor, tax.amount_minor) for tax in upcoming.taxes]
    assert told == [("GST 5 %", 97, 5), ("VAT 19 %", 97, 18)]
    assert (upcoming.total_minor, upcoming.tax_inclusive_minor) == (120, 5)
    written = ("INSERT", "UPDATE", "DELETE", "pg_advisory")
    assert not [each["sql"] for each in queries if any(word in each["sql"] for word in written)]
    closed = close_period(acme.id, utc(10, 1))
    assert closed is not None
    assert (closed.subtotal_minor, closed.total_minor) == (102, 120)
    with tenant_scope(acme.id):
        exempt("exempt", "a charity")
    ingest(used(acme, prices, utc(10, 2)))
    with tenant_scope(acme.id):
        upcoming = upcoming_invoice(utc(10, 3))
    assert upcoming is not None
    assert (upcoming.total_minor, upcoming.taxes) == (1, ())
    assert upcoming.tax_note == "Exempt from tax: a charity"


def test_the_upcoming_invoice_is_the_one_that_closing_gives(acme, prices):
    ingest(used(acme, prices, utc(11, 2), tokens_in=777_777), used(acme, prices, utc(10, 2)))
    close_period(acme.id, utc(11, 1))
    ingest(used(acme, prices, utc(10, 3)))
    with tenant_scope(acme.id):
        upcoming = upcoming_invoice()
    november = close_period(acme.id, clock.now())
    assert upcoming is not None
    assert november is not None
    assert (upcoming.total_minor, upcoming.content_hash) == (
        november.total_minor,
        november.content_hash,
    )
    with tenant_scope(acme.id):
        view = invoice_with_lines(november.id)
        listed = list_invoices()
    assert view is not None
    assert [line.description for line in view.lines] == [
        line.description for line in upcoming.lines
    ]
    assert sum(line.amount_minor for line in view.lines) == view.total_minor
    assert [each.period_start for each in listed] == [utc(11, 1), utc(10, 1)]


@pytest.mark.parametrize("seed", range(6))
def test_however_it_is_cut_and_however_late_it_comes_all_usage_is_invoiced_once(acme, prices, seed):
    chance = random.Random(seed)
    first_ms, last_ms = clock.to_ms(utc(9, 1)), clock.to_ms(clock.now())
    instants = sorted(clock.from_ms(chance.randrange(first_ms, last_ms)) for _ in range(4))
    count = 0
    for until in [*instants, clock.now()]:
        # Whatever the period, some of its usage and some of older ones arrives before each close.
        arriving = [
            used(acme, prices, clock.from_ms(chance.randrange(first_ms, clock.to_ms(until))))
            for _ in range(chance.randrange(5))
        ]
        ingest(*arriving)
        count += len(arriving)
        close_period(acme.id, until)
    with tenant_scope(acme.id):
        assert sum(line.quantity for line in InvoiceLine.objects.all()) == count
        chain = list(BillingPeriod.objects.order_by("starts_at"))
    assert all(one.ends_at == two.starts_at for one, two in pairwise(chain))
    assert chain[-1].ends_at == clock.now()


@committing
def test_an_invoice_is_written_once(acme, prices):
    ingest(used(acme, prices, utc(10, 5)))
    october = close_period(acme.id, utc(11, 1))
    assert october is not None
    with tenant_scope(acme.id):
        rows = Invoice.objects.filter(id=october.id)
        lines = InvoiceLine.objects.filter(invoice_id=october.id)
        forbidden = [
            lambda: rows.update(total_minor=0),
            lambda: rows.update(currency="EUR"),
            lambda: rows.update(content_hash="x"),
            lambda: rows.update(status="paid", number="X-1", finalised_at=utc(11, 1)),
            lambda: rows._raw_delete("default"),
            lambda: lines.update(amount_minor=0),
            lambda: lines._raw_delete("default"),
            lambda: BillingPeriod.objects.update(closed_at=utc(11, 2)),
        ]
        for attempt in forbidden:
            with pytest.raises(IntegrityError), transaction.atomic():
                attempt()
    smuggled = InvoiceLine(**LINE, tenant_id=acme.id, invoice=october, price_version_id=prices)
    with (
        pytest.raises(IntegrityError, match="add up to 8, its total is 1"),
        tenant_scope(acme.id),
    ):
        smuggled.save(force_insert=True)


LINE = {
    "position": 99,
    "model": "tiny-lm",
    "meter": "input_tokens",
    "description": "smuggled",
    "quantity": 1,
    "unit_price_pico": 1,
    "amount_minor": 7,
    "period_start": utc(10, 1),
    "period_end": utc(11, 1),
}


@pytest.mark.parametrize(
    ("starts_at", "ends_at", "follows_at"),
    [
        (utc(10, 15), utc(11, 15), None),  # a second beginning
        (utc(11, 2), utc(11, 15), utc(11, 2)),  # a gap
        (utc(10, 1), utc(11, 20), utc(10, 1)),  # an overlap
        (utc(11, 1), utc(11, 20), utc(10, 1)),  # follows another than it says
        (utc(11, 1), utc(11, 1), utc(11, 1)),  # empty
    ],
)
def test_postgresql_refuses_periods_that_overlap_or_leave_a_gap(
    acme, prices, starts_at, ends_at, follows_at
):
    close_period(acme.id, utc(11, 1))
    with pytest.raises(IntegrityError), tenant_scope(acme.id):
        BillingPeriod.objects.create(
            tenant_id=acme.id,
            starts_at=starts_at,
            ends_at=ends_at,
            follows_at=follows_at,
            content_hash="",
        )


def test_another_tenants_invoice_is_not_there(acme, prices, onboard):
    ingest(used(acme, prices, utc(10, 5)))
    october = close_period(acme.id, utc(11, 1))
    assert october is not None
    other = onboard("other")
    with tenant_scope(other.id):
        assert list_invoices() == []
        assert invoice_with_lines(october.id) is None
        # Without our filter, PostgreSQL alone hides it.
        assert Invoice._base_manager.filter(id=october.id).count() == 0
        assert InvoiceLine._base_manager.count() == 0
    with pytest.raises(TenantScopeMissing):
        Invoice.objects.count()
    # Nor can a line be hung on it from outside, whatever the door says.
    hung = InvoiceLine(**LINE, tenant_id=other.id, invoice=october, price_version_id=prices)
    with (
        pytest.raises(IntegrityError, match="invoice_line_invoice_same_tenant"),
        tenant_scope(other.id),
    ):
        hung.save(force_insert=True)
