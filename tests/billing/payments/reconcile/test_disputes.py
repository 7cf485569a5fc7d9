"""Disputes are compared both ways: one we never heard of is brought in, a parked one is told."""

from dataclasses import replace
from datetime import timedelta

import pytest

from billing.payments.models import PaymentFinding, PaymentRun
from billing.payments.reconcile.days import reconcile_day
from meterplane.kernel import clock
from tenants.scoping import system_scope, tenant_scope
from tests.billing.credits.rig import booked
from tests.billing.payments.disputing import Bank, dispute_of
from tests.billing.payments.test_credit_notes import paid

pytestmark = pytest.mark.django_db(transaction=True)


class Only:
    """A provider with this tenant's disputes alone: others of the sandbox are other tests'."""

    def __init__(self, stripe, *ids: str) -> None:
        self._stripe, self.ids, self.more = stripe, ids, 0

    def __getattr__(self, name):
        return getattr(self._stripe, name)

    def dispute(self, their_id):
        found = self._stripe.dispute(their_id)
        moved = [replace(each, fee_minor=each.fee_minor + self.more) for each in found.transactions]
        return replace(found, transactions=tuple(moved))

    def disputes_made(self, start, end):
        made = self._stripe.disputes_made(start, end)
        return [self.dispute(each.provider_dispute_id) for each in made if self._has(each)]

    def _has(self, each) -> bool:
        return each.provider_dispute_id in self.ids


def found(provider) -> list[tuple[str, str, str]]:
    """(problem, id there, what is said) of open findings, after today was compared."""
    for day in {clock.now().date(), (clock.now() - timedelta(minutes=10)).date()}:
        reconcile_day(provider, day)
    with system_scope("test"):
        rows = PaymentFinding.objects.filter(kind="dispute", closed_at=None)
        return list(rows.values_list("problem", "their_id", "said"))


def test_what_was_never_told_is_brought_in_and_what_differs_is_found(
    organisation, billed, stripe, there
):
    invoice, bank = paid(organisation, billed, stripe), Bank(there, stripe, reads=False)
    their_id = bank.disputes(bank.charge(organisation, invoice))
    provider = Only(stripe, their_id)
    assert found(provider) == []
    assert booked(organisation)["disputed"] == 301
    bank.decides(their_id, "lost")
    assert found(provider) == []
    assert dispute_of(their_id).status == "lost"
    provider.more = 5  # a fee there that is not in our books: what is written stays as it is
    [(problem, about, said)] = found(provider)
    assert (problem, about) == ("different", their_id)
    assert "amount ours 18.01 USD, theirs 18.06 USD" in said  # with the fee
    provider.more = 0
    assert found(provider) == []


def test_a_parked_one_is_told_until_its_payment_is_known(organisation, billed, stripe, there):
    invoice, bank = paid(organisation, billed, stripe), Bank(there, stripe, reads=False)
    their_id = bank.disputes(bank.charge(organisation, invoice))
    provider = Only(stripe, their_id)
    with tenant_scope(organisation.id):
        runs = PaymentRun.objects.filter(invoice_id=invoice.id)
        their_invoice = runs.get().provider_invoice_id
        runs.update(provider_invoice_id="in_not_it")
    [(problem, about, said)] = found(provider)
    assert (problem, about) == ("different", their_id)
    assert "status ours parked, theirs needs_response" in said
    with tenant_scope(organisation.id):
        runs.update(provider_invoice_id=their_invoice)
    assert found(provider) == []
    assert booked(organisation)["disputed"] == 301
