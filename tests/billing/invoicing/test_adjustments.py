"""Tiers through the database: months in parts, late usage by amount, and rating again."""

from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from billing.invoicing.close import close_period, describe, open_period, rate_open
from billing.invoicing.models import Invoice, InvoiceLine
from billing.invoicing.queries import invoice_with_lines
from billing.invoicing.rerate import rerate
from billing.pricing.entry_read import read_entries
from billing.pricing.publish import create_draft, publish
from meterplane.catalog.meters_change import create_meter
from meterplane.catalog.meters_check import read_definition
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.rating.agreements import GRADUATED, VOLUME
from tests.billing.world import ingest, used, utc
from tests.metering.external.sent import event, send

pytestmark = pytest.mark.django_db
ZERO = {"type": "unit", "unit_amount": "0"}
FREE = [{"meter": meter, "price_model": ZERO} for meter in ("input_tokens", "output_tokens")]


def publish_entries(*entries):
    """A version of the standard book in which requests are priced as told, and tokens are free."""
    read = read_entries([*FREE, *entries], clock.now())
    draft = create_draft(book="standard", currency="USD", entries=read)
    return publish(draft.id, confirm=["gap"]).version_id


def requests(model, name="Requests"):
    return {"meter": "requests", "price_model": model, "display_name": name}


def told(tenant, invoice):
    """(month, kind, quantity, cents) of each line; late ones marked."""
    with tenant_scope(tenant.id):
        return [
            (
                f"{line.period_start:%m}{' late' if line.is_late else ''}",
                line.kind,
                int(line.quantity),
                line.amount_minor,
            )
            for line in InvoiceLine.objects.filter(invoice_id=invoice.id).order_by("position")
        ]


def test_tiers_are_a_line_that_shows_them_and_are_free_below_a_free_tier(acme, late_november):
    version = publish_entries(requests(GRADUATED, "Calls"))
    ingest(
        used(acme, version, utc(10, 3), requests=800, tokens_in=10**6),
        used(acme, version, utc(10, 4), "minilm", requests=700),
        used(acme, version, utc(10, 5), "minilm", tier="batch", requests=500),
    )
    october = close_period(acme.id, utc(11, 1))
    assert october is not None
    assert told(acme, october) == [("10", "usage", 2000, 1500)]
    with tenant_scope(acme.id):
        view = invoice_with_lines(october.id)
    assert view is not None
    (line,) = view.lines
    assert (line.model, line.display_name, line.quantity) == ("", "Calls", 2000)
    assert line.description == "Calls: 2,000 requests: 1,000 x $0.01 + 1,000 x $0.005 = $15.00"
    assert line.price_model is not None
    assert line.breakdown is not None
    amounts = [Decimal(each["amount"]) for each in line.breakdown["tiers"]]
    assert sum(amounts) == Decimal(line.breakdown["exact"]) == 15


def test_late_usage_reprices_a_volume_and_the_difference_may_be_negative(acme, late_november):
    version = publish_entries(requests(VOLUME))
    ingest(used(acme, version, utc(10, 3), requests=900))
    october = close_period(acme.id, utc(11, 1))
    ingest(
        used(acme, version, utc(10, 4), "minilm", requests=300),
        used(acme, version, utc(11, 4), requests=100),
    )
    november = close_period(acme.id, utc(11, 20))
    assert october is not None
    assert november is not None
    assert (october.total_minor, november.total_minor) == (900, -200)
    # 1,200 x 0.005 = 6.00, of which 9.00 were billed.
    assert told(acme, november) == [
        ("11", "usage", 100, 100),
        ("10 late", "adjustment", 300, -300),
    ]
    with tenant_scope(acme.id):
        late = InvoiceLine.objects.get(invoice_id=november.id, is_late=True)
    assert "less $9.00 billed before = -$3.00" in late.description
    assert "used from 2026-10-01 until 2026-11-01, arrived later" in late.description
    assert close_period(acme.id, clock.now()) is None  # and not once more


def test_a_month_in_three_parts_with_late_usage_owes_what_it_owes_in_one(acme, late_november):
    version = publish_entries(requests(GRADUATED))
    ingest(used(acme, version, utc(10, 3), requests=900))
    close_period(acme.id, utc(10, 10))
    ingest(
        used(acme, version, utc(10, 4), requests=50),  # late in the first part
        used(acme, version, utc(10, 15), requests=300),
    )
    close_period(acme.id, utc(10, 20))
    ingest(used(acme, version, utc(10, 25), requests=250))
    close_period(acme.id, utc(11, 1))
    with tenant_scope(acme.id):
        totals = [each.total_minor for each in Invoice.objects.order_by("period_end")]
    # 900; 1,250 in all are 11.25; 1,500 in all are 12.50.
    assert totals == [900, 225, 125]


def test_a_declared_meter_is_billed_by_its_parts_and_an_amendment_is_an_adjustment(
    acme, late_november
):
    definition = {
        "name": "GPU seconds", "unit": "second", "event_type": "com.acme.training",
        "aggregation": "sum", "field": "data.gpu_seconds", "dimensions": ["data.gpu"],
    }  # fmt: skip
    create_meter("gpu_seconds", read_definition(definition), by="tests")
    publish_entries(
        requests(ZERO),
        {"meter": "gpu_seconds", "price_model": {"type": "unit", "unit_amount": "0.001"}},
        {
            "meter": "gpu_seconds",
            "match": {"gpu": "h200"},
            "price_model": {"type": "unit", "unit_amount": "0.01"},
        },
    )

    def used_gpu(event_id, seconds, gpu, at):
        data = {"gpu_seconds": seconds, "gpu": gpu}
        send(event(event_id, time=at.isoformat(), data=data))

    with clock.frozen(utc(11, 1)):
        used_gpu("1", "120.5", "h200", utc(10, 20))
        used_gpu("2", "1000", "a100", utc(10, 21))
        october = close_period(acme.id, utc(11, 1))
    assert october is not None
    assert told(acme, october) == [
        ("10", "usage", 1000, 100),
        ("10", "usage", 120, 121),
    ]
    with clock.frozen(utc(11, 2)):
        used_gpu("3", "79.5", "h200", utc(10, 22))
        november = close_period(acme.id, utc(11, 2))
    assert november is not None
    assert told(acme, november) == [("10 late", "adjustment", 79, 79)]
    with tenant_scope(acme.id):
        view = invoice_with_lines(november.id)
    assert view is not None
    assert view.lines[0].quantity == Decimal("79.5")


def test_a_replay_gives_the_same_hash_until_something_comes_late_which_is_shown(
    acme, late_november
):
    version = publish_entries(requests(VOLUME))
    ingest(used(acme, version, utc(10, 3), requests=900))
    october = close_period(acme.id, utc(11, 1))
    assert october is not None
    with tenant_scope(acme.id):
        (_, before) = rerate()
    assert before.hash_equal
    assert (before.invoiced_minor, before.replayed_minor, before.difference_minor) == (900, 900, 0)
    ingest(used(acme, version, utc(10, 4), requests=300))
    with tenant_scope(acme.id):
        (_, after) = rerate()
        running = open_period()
        owed = [describe(line) for line in rate_open(running, clock.now(), "USD").lines]
    assert not after.hash_equal
    assert (after.billed_minor, after.replayed_minor, after.difference_minor) == (900, 600, -300)
    assert [each.description for each in after.differences] == owed
    out = StringIO()
    call_command("rerate", "--dry-run", "--organisation", "acme", "--period", "2026-10", stdout=out)
    assert "9.00 USD, replayed 6.00 (another hash); owed and not billed -3.00" in out.getvalue()
    assert "2026-09" not in out.getvalue()
    close_period(acme.id, clock.now())
    with tenant_scope(acme.id):
        assert [each.difference_minor for each in rerate()] == [0, 0, 0]
        assert [each.hash_equal for each in rerate()] == [True, False, True]
    with pytest.raises(CommandError, match="--dry-run"):
        call_command("rerate")


def test_postgresql_refuses_lines_that_do_not_say_what_they_are(acme, late_november):
    version = publish_entries(requests(VOLUME))
    ingest(used(acme, version, utc(10, 3), requests=900))
    october = close_period(acme.id, utc(11, 1))
    assert october is not None
    said = {
        "tenant_id": acme.id, "invoice_id": october.id, "description": "x", "amount_minor": 0,
        "period_start": utc(10, 1), "period_end": utc(11, 1),
    }  # fmt: skip
    wrong = [
        {"kind": "usage", "quantity": 0, "unit_price_pico": 1, "price_version_id": version},
        {"kind": "usage", "quantity": 1},
        {"kind": "gift", "quantity": 0},
        {"kind": "discount", "quantity": 0},
        {"kind": "discount", "quantity": 1, "contract_id": october.id},
        {"kind": "adjustment", "quantity": 0, "contract_id": october.id},  # no such contract
    ]
    for position, each in enumerate(wrong, start=90):
        with pytest.raises(IntegrityError), transaction.atomic(), tenant_scope(acme.id):
            InvoiceLine.objects.create(**said, **each, position=position)


def test_usage_is_rated_at_the_version_it_was_admitted_with_and_tiers_begin_anew(
    acme, late_november
):
    old = publish_entries(requests(GRADUATED))
    with clock.frozen(utc(11, 10)):
        new = publish_entries(requests(VOLUME))
    ingest(used(acme, old, utc(11, 5), requests=1500), used(acme, new, utc(11, 12), requests=1500))
    november = close_period(acme.id, clock.now())
    assert november is not None
    assert sorted(told(acme, november)) == [
        ("11", "usage", 1500, 750),
        ("11", "usage", 1500, 1250),
    ]
