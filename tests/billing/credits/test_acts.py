"""Grant, give back, expire, roll over, refund: each once, exactly, with its entry in the ledger."""

from dataclasses import replace
from datetime import timedelta

import pytest

from billing.credits import queries
from billing.credits.grant import grant
from billing.credits.models import CreditGrant
from billing.credits.refund import refund_credit
from billing.credits.restore import restore_credit
from billing.credits.terms import AMOUNT_MINOR_MAX, GrantTerms
from billing.invoicing.advance import News, advance
from billing.invoicing.close import close_period
from billing.invoicing.models import Invoice
from billing.invoicing.tasks import expire_credits
from billing.ledger.audit import audit
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import (
    booked,
    check_conservation,
    give,
    moved,
    remaining,
    spend,
)
from tests.billing.world import utc

pytestmark = pytest.mark.django_db
MOMENT = timedelta(microseconds=1)
TERMS = GrantTerms(kind="purchased", currency="USD", amount_minor=500)


@pytest.fixture
def november(acme, prices):
    """The tenant on 2 November, its October closed."""
    close_period(acme.id, utc(11, 1))
    with clock.frozen(utc(11, 2)):
        yield acme


def granted(tenant, terms=TERMS, key="k"):
    return grant(tenant_id=tenant.id, terms=terms, idempotency_key=key, created_by="tests")


def drawn(tenant, prices, cents) -> Invoice:
    """An invoice over so many cents, closed on the next day."""
    at = clock.now() + timedelta(hours=1)
    spend(tenant, prices, at, cents)
    with clock.frozen(at + timedelta(hours=1)):
        invoice = close_period(tenant.id, clock.now())
    assert invoice is not None
    return invoice


def void(tenant, invoice) -> bool:
    """A day later."""
    with clock.frozen(clock.now() + timedelta(days=1)), tenant_scope(tenant.id):
        return advance(invoice.id, News("void", clock.now()))


def test_a_grant_asked_for_again_is_the_same_grant(november):
    assert granted(november) == granted(november)
    assert remaining(november) == {"": 500}
    assert booked(november) == {"payments": 500, "credits:purchased": -500}


@pytest.mark.parametrize(
    "change",
    [
        {"amount_minor": 501},
        {"kind": "promotional"},
        {"models_only": ("minilm",)},
        {"expires_at": utc(12, 1)},
        {"reason": "other"},
    ],
)
def test_a_key_that_names_another_grant_is_refused(november, change):
    granted(november)
    with pytest.raises(CallerError) as refused:
        granted(november, replace(TERMS, **change))
    assert (refused.value.code, refused.value.status) == ("idempotency_key_reused", 409)
    assert remaining(november) == {"": 500}


CANNOT_BE_GRANTED = [
    ({"kind": "stolen"}, "kind"),
    ({"currency": "EUR"}, "currency"),
    ({"amount_minor": 0}, "amount"),
    ({"amount_minor": -1}, "amount"),
    ({"amount_minor": AMOUNT_MINOR_MAX + 1}, "amount"),
    ({"priority": 101}, "priority"),
    ({"priority": -1}, "priority"),
    ({"expires_at": utc(11, 2)}, "expires_at"),
    ({"expires_at": utc(11, 5), "effective_at": utc(11, 5)}, "expires_at"),
    ({"expires_at": utc(12, 5).replace(tzinfo=None)}, "expires_at"),
    ({"expires_at": utc(12, 5).replace(year=9999)}, "expires_at"),
    ({"models_only": ("a", "a")}, "models"),
    ({"models_only": ("",)}, "models"),
    ({"meters_only": tuple(str(n) for n in range(51))}, "meters"),
    ({"rollover_max_minor": 5}, "rollover_max"),
    ({"rollover_max_minor": 501, "expires_at": utc(12, 1)}, "rollover_max"),
    ({"reason": "x" * 201}, "reason"),
]


def test_what_cannot_be_granted_is_refused_by_its_field(november):
    for change, field in CANNOT_BE_GRANTED:
        with pytest.raises(CallerError) as refused:
            granted(november, replace(TERMS, **change))
        assert (refused.value.code, refused.value.field) == ("credit_invalid", field), change
    assert (remaining(november), booked(november)) == ({}, {})


def test_the_balance_counts_a_grant_up_to_its_expiry_and_not_at_it(november):
    give(november, 100, "soon", effective_at=utc(11, 5), expires_at=utc(11, 10))
    at = {
        utc(11, 5) - MOMENT: 0,
        utc(11, 5): 100,
        utc(11, 10) - MOMENT: 100,
        utc(11, 10): 0,
    }
    with tenant_scope(november.id):
        assert {instant: queries.balance(instant).total_minor for instant in at} == at


def test_what_is_unused_at_its_expiry_is_breakage_once(november):
    give(november, 100, "bought", kind="purchased", expires_at=utc(11, 10))
    give(november, 70, "given", expires_at=utc(11, 10))
    with clock.frozen(utc(11, 10) - timedelta(milliseconds=1)):
        expire_credits()
    assert moved(november) == []
    with clock.frozen(utc(11, 10)):
        expire_credits()
        expire_credits()
    assert sorted(moved(november)) == [("expired", "bought", 100), ("expired", "given", 70)]
    assert booked(november) == {"payments": 100, "breakage": -100}
    check_conservation(november)


def test_credit_that_ends_with_a_month_is_not_written_off_before_the_month_is_closed(acme, prices):
    close_period(acme.id, utc(10, 1))
    with clock.frozen(utc(10, 2)):
        give(acme, 100, "october's", expires_at=utc(11, 1))
        spend(acme, prices, utc(10, 20), 30)
    with clock.frozen(utc(11, 3)):
        expire_credits()
        assert moved(acme) == []
        invoice = close_period(acme.id, utc(11, 1))
        assert invoice is not None
        assert invoice.total_minor == 0
        expire_credits()
    assert moved(acme) == [("drawn", "october's", 30), ("expired", "october's", 70)]


def test_what_rolls_over_lasts_as_long_again_and_once(november):
    give(november, 100, "month", expires_at=utc(11, 12), rollover_max_minor=60, priority=7,
         models_only=("minilm",))  # fmt: skip
    with clock.frozen(utc(11, 13)):
        expire_credits()
    assert moved(november) == [("rolled_over", "month", 60), ("expired", "month", 40)]
    with tenant_scope(november.id):
        successor = CreditGrant.objects.get(rolled_from__isnull=False)
    assert (successor.effective_at, successor.expires_at) == (utc(11, 12), utc(11, 22))
    assert (successor.amount_minor, successor.priority) == (60, 7)
    assert (successor.models_only, successor.rollover_max_minor) == (["minilm"], None)
    assert booked(november) == {"credits:promotional": -60, "promotions": 60}
    with clock.frozen(utc(11, 22)):
        expire_credits()
    assert moved(november)[2:] == [("expired", "month", 60)]
    check_conservation(november)


def test_a_voided_invoice_gives_back_what_it_drew_in_reverse_once(november, prices):
    for minor, key, priority in ((30, "first", 1), (50, "last", 3), (40, "second", 2)):
        give(november, minor, key, priority=priority)
    before = remaining(november)
    invoice = drawn(november, prices, 100)
    assert [each[1:] for each in moved(november)] == [("first", 30), ("second", 40), ("last", 30)]
    assert void(november, invoice)
    assert not void(november, invoice)
    assert moved(november)[3:] == [
        ("restored", "last", 30),
        ("restored", "second", 40),
        ("restored", "first", 30),
    ]
    assert remaining(november) == before
    assert booked(november) == {"credits:promotional": -120, "promotions": 120}
    check_conservation(november)


def test_a_correction_gives_a_part_back_last_drawn_first(november, prices):
    give(november, 30, "first", priority=1)
    give(november, 50, "second", priority=2)
    invoice = drawn(november, prices, 60)
    note, other = uuid7(), uuid7()
    with clock.frozen(utc(11, 2, 5)), tenant_scope(november.id):
        arguments = {"tenant_id": november.id, "invoice_id": invoice.id}
        assert restore_credit(**arguments, source_id=note, amount_minor=40) == 40
        assert restore_credit(**arguments, source_id=note, amount_minor=40) == 40
        with pytest.raises(CallerError, match="another amount"):
            restore_credit(**arguments, source_id=note, amount_minor=41)
        with pytest.raises(CallerError) as too_much:
            restore_credit(**arguments, source_id=other, amount_minor=21)
        assert too_much.value.code == "restore_too_large"
    assert moved(november)[2:] == [("restored", "second", 30), ("restored", "first", 10)]
    assert void(november, invoice)
    assert moved(november)[4:] == [("restored", "first", 20)]
    assert remaining(november) == {"first": 30, "second": 50}


def test_what_is_given_back_after_its_expiry_is_written_off(november, prices):
    give(november, 30, "short", expires_at=utc(11, 4))
    invoice = drawn(november, prices, 30)
    with clock.frozen(utc(11, 5)):
        assert void(november, invoice)
    with clock.frozen(utc(11, 7)):
        expire_credits()
    assert [each[0] for each in moved(november)] == ["drawn", "restored", "expired"]
    check_conservation(november)


@pytest.mark.parametrize("on_the_way", [["paid"], ["uncollectible", "void"], ["void"]])
def test_however_an_invoice_ends_nothing_is_left_in_receivable(november, prices, on_the_way):
    give(november, 30, "some", kind="purchased")
    invoice = drawn(november, prices, 100)
    for status in on_the_way:
        with tenant_scope(november.id):
            assert advance(invoice.id, News(status, clock.now()))
    books = booked(november)
    assert "receivable" not in books
    assert "bad_debt" not in books
    assert books["credits:purchased" if "void" in on_the_way else "revenue:input_tokens"] < 0
    assert [verdict.check for verdict in audit() if not verdict.holds] == []


def test_what_is_left_of_bought_credit_is_refunded_once(november, prices):
    bought = give(november, 100, "bought", kind="purchased")
    drawn(november, prices, 30)
    assert refund_credit(tenant_id=november.id, grant_id=bought) == 70
    assert refund_credit(tenant_id=november.id, grant_id=bought) == 70
    assert remaining(november) == {}
    assert booked(november) == {"payments": 100, "receivable": -30, "refunds": -70}
    check_conservation(november)


@pytest.mark.parametrize(
    ("terms", "later", "said"),
    [
        ({"kind": "promotional"}, utc(11, 3), "not paid back"),
        ({"kind": "purchased", "expires_at": utc(11, 10)}, utc(11, 10), "expired"),
    ],
)
def test_given_and_expired_credit_is_not_refunded(november, terms, later, said):
    grant_id = give(november, 100, "x", **terms)
    with clock.frozen(later), pytest.raises(CallerError, match=said) as refused:
        refund_credit(tenant_id=november.id, grant_id=grant_id)
    assert (refused.value.code, refused.value.status) == ("credit_not_refundable", 409)
    assert remaining(november) == {"x": 100}


def test_used_up_and_unknown_credit_is_not_refunded(november, prices):
    used_up = give(november, 30, "bought", kind="purchased")
    drawn(november, prices, 30)
    for grant_id, code in ((used_up, "credit_not_refundable"), (uuid7(), "credit_not_found")):
        with pytest.raises(CallerError) as refused:
            refund_credit(tenant_id=november.id, grant_id=grant_id)
        assert refused.value.code == code


def test_the_audit_misses_an_entry_of_credit_that_is_not_there(november):
    give(november, 100, "bought", kind="purchased")
    assert [verdict.check for verdict in audit() if not verdict.holds] == []
    with tenant_scope(november.id):
        CreditGrant.objects.create(
            tenant_id=november.id, kind="promotional", currency="USD", amount_minor=5,
            effective_at=clock.now(), created_by="nobody", idempotency_key="bare",
            request_digest="",
        )  # fmt: skip
    [verdict] = [each for each in audit() if not each.holds]
    assert verdict.check == "credit_grants"
