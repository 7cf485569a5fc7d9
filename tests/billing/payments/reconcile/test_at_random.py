"""Random lives of invoices: both sides agree after each, and one change made there is all that is
found."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from billing.invoicing.models import Invoice
from billing.payments.models import PaymentRun, PaymentStep, Refund
from tenants.scoping import tenant_scope
from tests.billing.payments.reconcile.rig import differing
from tests.billing.payments.reconcile.rig import sandbox as sandbox
from tests.billing.payments.test_walks import Walk

pytestmark = pytest.mark.django_db(transaction=True)

# What is done to which, and what is found then.
Tampering = tuple[str, str, dict[str, Any], tuple[str, str]]


def tamperings(walk: Walk) -> list[Tampering]:
    """All that could be done to what a tenant has there."""
    with tenant_scope(walk.tenant.id):
        parked = Invoice.objects.filter(collection_state="parked").values("id")
        runs = PaymentRun.objects.exclude(invoice_id__in=parked).select_related("invoice")
        invoices = [(str(run.provider_invoice_id), run.invoice) for run in runs]
        notes = PaymentStep.objects.filter(kind=PaymentStep.Kind.CREDIT_NOTE, state="done")
        refunds = Refund.objects.filter(state="succeeded")
        found: list[Tampering] = [
            *(("alter", each, {"total": of.total_minor + 1}, ("invoice", "different"))
              for each, of in invoices),
            *(("double", each, {}, ("invoice", "missing_here")) for each, _ in invoices),
            *(("alter", each.result_id, {"total": 7}, ("credit_note", "different"))
              for each in notes),
            *(("double", each.result_id, {}, ("credit_note", "missing_here")) for each in notes),
            *(("remove", each.result_id, {}, ("credit_note", "missing_there")) for each in notes),
            *(("alter", str(each.provider_refund_id), {"amount": each.amount_minor + 1},
               ("refund", "different")) for each in refunds),
            *(("alter", str(each.provider_refund_id), {"currency": "eur"}, ("refund", "different"))
              for each in refunds),
            *(("remove", str(each.provider_refund_id), {}, ("refund", "missing_there"))
              for each in refunds),
        ]  # fmt: skip
    for each, of in invoices:
        if of.status == "paid":
            for link in walk.there.client.v1.invoice_payments.list({"invoice": each}).data:
                if link.status == "paid":
                    more = {"amount_paid": link.amount_paid + 1}
                    found.append(("alter", link.id, more, ("payment", "different")))
    return found


def lived(seed: int, steps: int, onboard: Callable[..., Any], billed, stripe, there) -> str:
    """A life, a look, one change there, another look; what was changed."""
    chance = random.Random(seed)
    walk = Walk(chance, onboard(f"walk-{seed}"), billed, stripe, there)
    acts = [walk.step() for _ in range(steps)]
    walk.settled()
    with tenant_scope(walk.tenant.id):
        parked = Invoice.objects.filter(collection_state="parked").count()
    before = differing(stripe)
    assert before == [], (seed, acts)
    if not (possible := tamperings(walk)):
        return "everything is parked"
    how, object_id, body, wanted = chance.choice(possible)
    path = f"/objects/{object_id}{'/double' if how == 'double' else ''}"
    method = "DELETE" if how == "remove" else "POST"
    there.sandbox.control(path, body, method)
    found = differing(stripe)
    assert [each[:2] for each in found] == [wanted], (seed, acts, how, object_id, body, found)
    return f"{how} {' '.join(wanted)}{', one is parked' if parked else ''}"


def test_a_random_life_agrees_and_one_change_is_found(onboard, billed, stripe, there):
    seed = random.randrange(10**6)
    print("seed", seed)
    print(lived(seed, 4, onboard, billed, stripe, there))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("n", range(20))
def test_many_random_lives_agree_and_one_change_is_found(onboard, billed, stripe, there, n):
    seed = random.randrange(10**6)
    print("seed", seed)
    print(lived(seed, 25, onboard, billed, stripe, there))
