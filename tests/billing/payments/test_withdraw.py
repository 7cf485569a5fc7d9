"""An invoice that is voided or written off here is so at the provider, once, and in the ledger."""

from functools import partial

import pytest

from billing.ledger.audit import audit
from billing.payments import tasks
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from billing.payments.provider import ProviderFault, ProviderUnavailable
from billing.payments.withdraw import ask
from meterplane.kernel.errors import CallerError, WorldError
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import booked
from tests.billing.payments.rig import Faulty, Killed, read, steps_of

pytestmark = pytest.mark.django_db(transaction=True)

KINDS = {"void": "void", "uncollectible": "write_off"}


def asked(tenant, invoice, status: str, reason: str = "It was a test") -> None:
    with tenant_scope(tenant.id):
        ask(invoice.id, status, reason)


def opened(tenant, billed, stripe):
    """An invoice of 3.01 that waits for a card."""
    invoice = billed(tenant)
    assert collect(tenant.id, invoice.id, stripe).status == "open"
    return invoice


@pytest.mark.parametrize("status", ["void", "uncollectible"])
def test_the_sweep_does_there_what_was_asked_here(organisation, billed, stripe, there, status):
    invoice = opened(organisation, billed, stripe)
    asked(organisation, invoice, status)
    asked(organisation, invoice, status)  # once is enough
    assert read(organisation.id, invoice).status == "open"
    attach_test_card(organisation.id, stripe)  # what was asked for is not charged any more
    tasks.sweep()
    [theirs] = there.invoices(organisation)
    ours = read(organisation.id, invoice)
    assert (theirs.status, theirs.amount_paid) == (status, 0)
    assert (ours.status, ours.collection_state) == (status, "done")
    assert "It was a test" in ours.collection_note
    assert steps_of(organisation.id)[-1] == (KINDS[status], 1, "done")
    assert booked(organisation).get("receivable", 0) == 0
    assert booked(organisation).get("bad_debt", 0) == (301 if status == "uncollectible" else 0)
    assert [each.check for each in audit() if each.findings] == []


def test_what_is_written_off_can_be_voided(organisation, billed, stripe, there):
    invoice = opened(organisation, billed, stripe)
    for status in ("uncollectible", "void"):
        asked(organisation, invoice, status)
        tasks.sweep()
        [theirs] = there.invoices(organisation)
        assert (theirs.status, read(organisation.id, invoice).status) == (status, status)
    assert booked(organisation) == {}
    assert [each.check for each in audit() if each.findings] == []


FAULT = partial(ProviderFault, "fault", "HTTP 500")
AWAY = partial(ProviderUnavailable, "away", "no answer")


@pytest.mark.parametrize(
    ("fail", "after"),
    [
        (FAULT, True),
        (Killed, True),
        pytest.param(Killed, False, marks=pytest.mark.long),
        pytest.param(FAULT, False, marks=pytest.mark.long),
        pytest.param(AWAY, True, marks=pytest.mark.long),
    ],
)
def test_a_call_that_fails_voids_it_once(organisation, billed, stripe, there, fail, after):
    invoice = opened(organisation, billed, stripe)
    asked(organisation, invoice, "void")
    faulty = Faulty(stripe, 1, after=after, fail=fail)
    with pytest.raises((Killed, WorldError)):
        collect(organisation.id, invoice.id, faulty)
    assert faulty.calls == ["void"]
    collect(organisation.id, invoice.id, stripe)
    [theirs] = there.invoices(organisation)
    ours = read(organisation.id, invoice)
    assert (theirs.status, ours.status, ours.collection_state) == ("void", "void", "done")
    done = [step for step in steps_of(organisation.id) if step[0] == "void" and step[2] == "done"]
    assert len(done) == 1


def test_who_paid_a_moment_before_has_paid(organisation, billed, stripe, there):
    invoice = opened(organisation, billed, stripe)
    asked(organisation, invoice, "void")
    attach_test_card(organisation.id, stripe)
    [theirs] = there.invoices(organisation)
    there.client.v1.invoices.pay(theirs.id)
    tasks.sweep()
    ours = read(organisation.id, invoice)
    assert (ours.status, ours.collection_state) == ("paid", "done")
    assert ours.collection_note.startswith("Not voided: it is paid there")
    assert steps_of(organisation.id)[-1] == ("void", 1, "failed")
    assert booked(organisation)["payments"] == 301


def test_what_cannot_be_asked_is_refused_and_changes_nothing(organisation, billed, stripe):
    invoice = billed(organisation)
    for status, reason, code in (
        ("void", "It was a test", "invoice_not_open"),
        ("void", " ", "reason_invalid"),
        ("uncollectible", "x" * 201, "reason_invalid"),
    ):
        with pytest.raises(CallerError) as refused:
            asked(organisation, invoice, status, reason)
        assert refused.value.code == code
    assert collect(organisation.id, invoice.id, stripe).status == "open"
    asked(organisation, invoice, "uncollectible")
    with pytest.raises(CallerError) as refused:
        asked(organisation, invoice, "void")
    assert refused.value.code == "asked_otherwise"
