"""What recurs is granted once a month, whoever looks, however late."""

from datetime import timedelta
from threading import Barrier, Thread

import pytest
from django.db import connections

from billing.credits.models import CreditGrant
from billing.credits.recur import (
    end_recurrence,
    grant_due,
    grant_monthly,
    months_after,
    tenants_with_credit_due,
)
from billing.credits.tasks import grant_due_credit
from billing.credits.terms import RecurrenceTerms
from billing.invoicing.close import close_period
from billing.invoicing.tasks import expire_credits
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import check_conservation, moved, spend
from tests.billing.world import utc

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)  # other connections must see it
NOW = utc(11, 24, 12)


def monthly(tenant, starts_at, key="monthly", **terms):
    values = {"kind": "promotional", "currency": "USD", "amount_minor": 100} | terms
    return grant_monthly(
        tenant_id=tenant.id,
        terms=RecurrenceTerms(starts_at=starts_at, **values),
        idempotency_key=key,
        created_by="tests",
    )


def lives(tenant) -> list[tuple[str, str]]:
    """From when until when each grant is live, in order."""
    with tenant_scope(tenant.id):
        return [
            (f"{row.effective_at:%m-%d}", f"{row.expires_at:%m-%d}" if row.expires_at else "")
            for row in CreditGrant.objects.order_by("effective_at")
        ]


@pytest.mark.parametrize(
    ("first", "months", "then"),
    [
        (utc(1, 31), 1, utc(2, 28)),
        (utc(1, 31), 2, utc(3, 31)),
        (utc(1, 30, 23, 59), 13, utc(2, 28, 23, 59).replace(year=2027)),
        (utc(1, 29), 25, utc(2, 29 - 1).replace(year=2028, day=29)),
        (utc(12, 1), 1, utc(1, 1).replace(year=2027)),
        (utc(3, 15), 0, utc(3, 15)),
    ],
)
def test_months_after_keeps_the_day_where_the_month_has_it(first, months, then):
    assert months_after(first, months) == then


def test_each_month_is_granted_at_its_instant_and_ends_with_the_next(acme):
    with clock.frozen(utc(9, 30)):
        monthly(acme, utc(10, 1))
        grant_due_credit()
        assert lives(acme) == []
    with clock.frozen(utc(10, 1)):
        grant_due_credit()
        grant_due_credit()
        assert lives(acme) == [("10-01", "11-01")]
    assert tenants_with_credit_due() == [acme.id]
    grant_due_credit()  # on 24 November: a worker that was away
    assert lives(acme) == [("10-01", "11-01"), ("11-01", "12-01")]


def test_it_is_made_once_and_what_is_due_is_granted_with_it(acme):
    first = monthly(acme, utc(9, 30))
    assert monthly(acme, utc(9, 30)) == first
    assert lives(acme) == [("09-30", "10-30"), ("10-30", "11-30")]
    with pytest.raises(CallerError) as refused:
        monthly(acme, utc(9, 30), amount_minor=101)
    assert refused.value.code == "idempotency_key_reused"


def test_nothing_begins_at_its_end_or_after_it(acme):
    recurrence = monthly(acme, utc(9, 1), ends_at=utc(11, 1), term_months=None)
    assert lives(acme) == [("09-01", ""), ("10-01", "")]
    with pytest.raises(CallerError, match="earlier already"):
        end_recurrence(tenant_id=acme.id, recurrence_id=recurrence, ends_at=utc(11, 2))
    other = monthly(acme, utc(11, 20), "other")
    end_recurrence(tenant_id=acme.id, recurrence_id=other, ends_at=utc(11, 21))
    with clock.frozen(utc(12, 25)):
        assert tenants_with_credit_due() == []
        assert grant_due(acme.id) == 0


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"amount_minor": 0}, "amount"),
        ({"ends_at": utc(11, 1)}, "ends_at"),
        ({"term_months": 0}, "term_months"),
        ({"term_months": None, "rollover_max_minor": 5}, "rollover_max"),
        ({"starts_at": utc(11, 1).replace(year=2024)}, "starts_at"),
    ],
)
def test_what_cannot_recur_is_refused_by_its_field(acme, terms, field):
    with pytest.raises(CallerError) as refused:
        monthly(acme, **{"starts_at": utc(11, 1)} | terms)
    assert (refused.value.code, refused.value.field) == ("credit_invalid", field)
    assert lives(acme) == []


def test_a_months_credit_pays_its_month_and_what_is_left_rolls_over(acme, prices):
    close_period(acme.id, utc(10, 1))
    with clock.frozen(utc(10, 1)):
        monthly(acme, utc(10, 1), rollover_max_minor=50)
    spend(acme, prices, utc(10, 15), 30)
    spend(acme, prices, utc(11, 15), 120)
    with clock.frozen(utc(11, 1)):
        grant_due_credit()
        october = close_period(acme.id, utc(11, 1))
        expire_credits()
    assert october is not None
    assert october.total_minor == 0
    assert [(kind, amount) for kind, _, amount in moved(acme)] == [
        ("drawn", 30), ("rolled_over", 50), ("expired", 20),
    ]  # fmt: skip
    november = close_period(acme.id, NOW)
    assert november is not None
    assert november.total_minor == 0
    # Of both, what expires first: November's own (1 December) before what rolled over (2 December).
    assert [(kind, amount) for kind, _, amount in moved(acme)][3:] == [
        ("drawn", 100),
        ("drawn", 20),
    ]
    check_conservation(acme)


def test_the_database_finds_what_is_due_at_its_instant(acme):
    starts_at = utc(1, 31, 13, 5)
    with clock.frozen(starts_at):
        monthly(acme, starts_at)
    for months in range(1, 14):
        due_at = months_after(starts_at, months)
        with clock.frozen(due_at - timedelta(milliseconds=1)):
            assert tenants_with_credit_due() == []
        with clock.frozen(due_at):
            assert tenants_with_credit_due() == [acme.id]
            assert grant_due(acme.id) == 1


@committing
def test_two_workers_grant_each_occurrence_once(acme):
    with clock.frozen(utc(1, 1)):
        monthly(acme, utc(1, 1), term_months=None)
    barrier, counts, failed = Barrier(2), [], []

    def worker():
        barrier.wait()
        try:
            counts.append(grant_due(acme.id))
        except Exception as failure:
            failed.append(failure)
        finally:
            connections.close_all()

    threads = [Thread(target=worker) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(counts) == [0, 10]
    assert lives(acme) == [(f"{month:02}-01", "") for month in range(1, 12)]
