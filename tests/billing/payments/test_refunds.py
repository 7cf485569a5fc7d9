"""Money paid back, by whom ever: once, with a row and an entry, and taken back when it fails."""

from contextlib import suppress
from dataclasses import replace

import pytest
from django.db import IntegrityError

from billing.ledger.audit import audit
from billing.payments import refunds, tasks
from billing.payments.models import PaymentRun, Refund, WebhookEvent
from billing.payments.process import process_event
from billing.payments.provider import ProviderFault, ProviderUnavailable
from meterplane.kernel.errors import CallerError, WorldError
from tenants.scoping import system_scope, tenant_scope
from tests.billing.credits.rig import booked
from tests.billing.payments.rig import Faulty, Killed, steps_of
from tests.billing.payments.test_credit_notes import assert_sound, credited, paid, refunds_of

pytestmark = pytest.mark.django_db(transaction=True)


def asked(tenant, invoice, cents=None, key: str = "k", reason: str = "sorry") -> Refund:
    with tenant_scope(tenant.id):
        return refunds.ask(invoice.id, amount_minor=cents, reason=reason, idempotency_key=key)


def charge_of(tenant, invoice, stripe):
    with tenant_scope(tenant.id):
        return stripe.charge_of(PaymentRun.objects.get(invoice_id=invoice.id).provider_invoice_id)


def test_what_an_operator_pays_back_goes_to_the_card_once(organisation, billed, stripe, there):
    invoice = paid(organisation, billed, stripe)
    first = asked(organisation, invoice, 100)
    assert asked(organisation, invoice, 100).id == first.id
    assert booked(organisation)["payments"] == 301
    tasks.sweep()
    tasks.sweep()
    assert refunds_of(organisation) == [("operator", "succeeded", 100, 0, 0)]
    assert charge_of(organisation, invoice, stripe).refundable_minor == 201
    books = booked(organisation)
    assert (books["payments"], books["goodwill"]) == (201, 100)
    asked(organisation, invoice, key="the rest")
    tasks.sweep()
    assert booked(organisation)["goodwill"] == 301
    assert "payments" not in booked(organisation)
    assert_sound()


def test_it_is_taken_from_what_was_promised_first(organisation, billed, stripe, there):
    invoice = paid(organisation, billed, stripe)
    credited(organisation, invoice, 100, "refund")
    tasks.sweep()
    # The bank sends the note's refund back: the promise stands again.
    [made] = stripe.refunds(charge_of(organisation, invoice, stripe).payment_intent_id)

    class Failing:
        name = "stripe"

        def __getattr__(self, name):
            return getattr(stripe, name)

        def refunds(self, payment_intent_id):
            return [
                replace(each, state="failed", failure="lost_or_stolen_card")
                if each.provider_refund_id == made.provider_refund_id
                else each
                for each in stripe.refunds(payment_intent_id)
            ]

    refunds.mirror_refunds(organisation.id, invoice.id, Failing())
    books = booked(organisation)
    assert (books["payments"], books["refunds"]) == (301, -100)
    assert refunds_of(organisation) == [("note", "failed", 100, 100, 0)]
    assert_sound()
    # What failed stays failed, whatever is read later.
    refunds.mirror_refunds(organisation.id, invoice.id, stripe)
    assert booked(organisation) == books
    refund = asked(organisation, invoice, 150)
    assert (refund.owed_minor, refund.goodwill_minor) == (100, 50)
    refunds.send(organisation.id, refund.id, Failing())
    books = booked(organisation)
    assert (books["payments"], books["goodwill"]) == (151, 50)
    assert "refunds" not in books
    assert_sound()


@pytest.mark.parametrize("calls", [range(2, 3), pytest.param(range(1, 20), marks=pytest.mark.long)])
def test_a_failure_at_any_call_pays_back_once(organisation, billed, stripe, there, calls):
    failures = [Killed, lambda: ProviderFault("fault", "500"), lambda: ProviderUnavailable("a", "")]
    invoice = paid(organisation, billed, stripe)
    total = 0
    for at in calls:
        for after in (True, False):
            refund = asked(organisation, invoice, 1, key=f"{at} {after}")
            total += 1
            faulty = Faulty(stripe, at, after=after, fail=failures[at % 3])
            with suppress(Killed, WorldError):
                refunds.send(organisation.id, refund.id, faulty)
            tasks.sweep()
            assert charge_of(organisation, invoice, stripe).refundable_minor == 301 - total
            assert [each[1] for each in refunds_of(organisation)] == ["succeeded"] * total
        if not faulty.has_failed:
            break
    assert faulty.calls.count("refund") == 1
    assert len(calls) == 1 or not faulty.has_failed
    assert booked(organisation)["goodwill"] == total
    assert_sound()


def test_a_refund_of_the_providers_own_pages_is_mirrored(organisation, billed, stripe, there):
    invoice = paid(organisation, billed, stripe)
    charge = charge_of(organisation, invoice, stripe)
    there.client.v1.refunds.create({"charge": charge.charge_id, "amount": 70})
    with system_scope("what the provider tells"):
        for n, about in enumerate(
            (
                {"object": "charge", "id": charge.charge_id, "amount_refunded": 70},
                {"object": "refund", "id": "re_1"},
                {"object": "refund", "id": "re_1", "payment_intent": "pi_unknown"},
                {"object": "charge", "id": charge.charge_id, "amount_refunded": 0},
            )
        ):
            told = {"payment_intent": charge.payment_intent_id} | about
            WebhookEvent.objects.create(
                event_id=f"evt_{n}", type="charge.refunded", payload={"data": {"object": told}}
            )
    outcomes = [process_event(f"evt_{n}", stripe) for n in range(4)]
    assert outcomes == [
        "1 refunds", "1 refunds", "not of an invoice of ours", "nothing went back",
    ]  # fmt: skip
    assert refunds_of(organisation) == [("provider", "succeeded", 70, 0, 0)]
    assert booked(organisation)["goodwill"] == 70
    assert_sound()


def test_what_cannot_be_paid_back_is_refused(organisation, billed, stripe, there):
    unpaid = billed(organisation)
    with pytest.raises(CallerError) as refused:
        asked(organisation, unpaid, 1)
    assert refused.value.code == "invoice_not_paid"
    tasks.sweep()
    invoice = paid(organisation, billed, stripe)
    asked(organisation, invoice, 300)
    for cents, key, reason, code in (
        (2, "more", "sorry", "refund_exceeds_payment"),
        (0, "nothing", "sorry", "refund_exceeds_payment"),
        (-1, "less", "sorry", "refund_exceeds_payment"),
        (1, "k", "sorry", "idempotency_conflict"),
        (1, " ", "sorry", "idempotency_key_invalid"),
        (1, "x" * 101, "sorry", "idempotency_key_invalid"),
        (1, "why", " ", "reason_invalid"),
    ):
        with pytest.raises(CallerError) as refused:
            asked(organisation, invoice, cents, key, reason)
        assert refused.value.code == code, key
    # Somebody refunds it there first: a definite no, and the books stay as they are.
    charge = charge_of(organisation, invoice, stripe)
    there.client.v1.refunds.create({"charge": charge.charge_id, "amount": 50})
    tasks.sweep()
    assert sorted(refunds_of(organisation)) == [
        ("operator", "refused", 300, 0, 0),
        ("provider", "succeeded", 50, 0, 0),
    ]
    assert steps_of(organisation.id)[-1] == ("refund", 1, "failed")
    assert_sound()


def test_postgresql_holds_what_a_refund_is(organisation, billed, stripe):
    invoice = paid(organisation, billed, stripe)
    refund = asked(organisation, invoice, 100)
    for change in (
        {"amount_minor": 99},
        {"owed_minor": 1},
        {"owed_minor": 60, "balance_minor": 60},
        {"state": "succeeded"},
        {"origin": "provider"},
    ):
        with pytest.raises(IntegrityError), tenant_scope(organisation.id):
            Refund.objects.filter(id=refund.id).update(**change)
    tasks.sweep()
    with pytest.raises(IntegrityError), tenant_scope(organisation.id):
        Refund.objects.filter(id=refund.id).update(state="asked", made_at=None)
    assert [each.check for each in audit() if each.findings] == []
