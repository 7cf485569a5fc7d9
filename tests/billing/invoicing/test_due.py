"""Everybody's month is closed once, by however many workers; one that cannot be stops nobody."""

from io import StringIO
from threading import Thread
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from billing.invoicing import due
from billing.invoicing.models import BillingPeriod, Invoice
from meterplane.kernel import clock
from tenants.models import Organisation
from tenants.scoping import system_scope
from tests.billing.world import ingest, used, utc

pytestmark = pytest.mark.django_db(transaction=True)
END = utc(11, 1)


@pytest.fixture
def customers(late_november, onboard, prices):
    """Twelve that used something in October; the demo and one that came later are not due."""
    made = []
    with clock.frozen(utc(9, 10)):
        made = [onboard(f"customer-{number}") for number in range(12)]
        demo = onboard("demo")
    with clock.frozen(utc(11, 10)):
        onboard("newcomer")
    with system_scope("test"):
        Organisation.objects.filter(id=demo.id).update(is_demo=True)
    ingest(*(used(each, prices, utc(10, 5), requests=100) for each in made))
    return made


def closed() -> dict:
    """How many periods end with October, and invoices there are, by organisation."""
    with system_scope("test"):
        periods = list(
            BillingPeriod.objects.filter(ends_at=END).values_list("tenant_id", flat=True)
        )
        invoices = list(Invoice.objects.values_list("tenant_id", flat=True))
    return {each: (periods.count(each), invoices.count(each)) for each in {*periods, *invoices}}


def close_all() -> list[due.Closed]:
    return [each for shard in range(due.SHARDS) for each in due.close_shard(END, shard)]


def test_a_month_is_due_an_hour_after_its_end():
    assert due.month_due(utc(11, 1, 0, 59)) == utc(10, 1)
    assert due.month_due(utc(11, 1, 1)) == utc(11, 1)


def test_everybody_is_closed_once_by_workers_that_do_the_same(customers):
    assert due.count_due(END) == 12

    def work() -> None:
        try:
            with clock.frozen(clock.now()):
                close_all()
        finally:
            connections.close_all()

    threads = [Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert closed() == {each.id: (1, 1) for each in customers}
    assert due.count_due(END) == 0
    assert close_all() == []


def test_what_was_stopped_is_taken_up_where_it_was(customers):
    shard = next(n for n in range(due.SHARDS) if len(list(_due_in(n))) > 1)
    done = []
    for each in due.close_shard(END, shard, stop=lambda: len(done) == 1):
        done.append(each)
    assert due.count_due(END) == 11
    close_all()
    assert closed() == {each.id: (1, 1) for each in customers}


def _due_in(shard: int):
    return due._page(END, shard, UUID(int=0))


def test_one_that_cannot_be_rated_is_named_and_the_others_are_closed(customers):
    unlucky = customers[4]
    ingest(used(unlucky, uuid4(), utc(10, 6)))  # of a price version nobody published
    output = StringIO()
    with pytest.raises(CommandError, match="1 could not be closed"):
        call_command("close_months", until="2026-11-01", processes=2, stdout=output)
    told = output.getvalue()
    assert "12 organisations are to be closed up to 2026-11-01" in told
    assert "closed 11 of 12" in told
    assert str(unlucky.id) in told
    assert "there is no such price version" in told
    assert closed() == {each.id: (1, 1) for each in customers if each is not unlucky}


def test_the_command_refuses_a_month_that_is_not_over_and_says_when_nothing_is_due(late_november):
    for wrong in ({"until": "2026-12-01"}, {"until": "soon"}, {"processes": 0}):
        with pytest.raises(CommandError):
            call_command("close_months", **wrong)
    output = StringIO()
    call_command("close_months", stdout=output)
    assert "Nobody is due" in output.getvalue()
