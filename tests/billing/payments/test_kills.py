"""A worker process is killed at every call of every act: what was wanted is there exactly once.

Each call in turn, at both moments: before it leaves, and when its answer has come and is not noted.
Whoever sweeps next finds a lease, a step that was sent and nothing else, and goes on.
"""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from billing.invoicing.models import InvoiceLine
from billing.ledger.audit import audit
from billing.payments import tasks
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from billing.payments.run import LEASE
from billing.payments.stripe import Stripe
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.ledger.rig import held
from tests.billing.payments.processes import Workers
from tests.billing.payments.rig import Faulty, Killed, There, read, steps_of
from tests.billing.payments.test_collect import assert_collected
from tests.billing.payments.test_credit_notes import credited, notes_there, paid, refunds_of
from tests.billing.payments.test_refunds import asked as refund_asked
from tests.billing.payments.test_refunds import charge_of
from tests.billing.payments.test_withdraw import asked as withdrawal_asked
from tests.billing.payments.test_withdraw import opened
from tests.stripe_sandbox.rig import Sandbox

pytestmark = pytest.mark.django_db(transaction=True)

MOMENTS = ("before_send", "after_answer")
CALLS_MAX = 40


@dataclass(frozen=True)
class Scene:
    """What the acts are made with."""

    tenant: Any
    billed: Callable[..., Any]
    stripe: Stripe
    there: There


@pytest.fixture
def workers(sandbox: Sandbox, tmp_path: Path) -> Iterator[Workers]:
    own = Workers(sandbox, tmp_path / "workers.log")
    yield own
    own.end()


def first_invoice(scene: Scene) -> Any:
    """Of somebody the provider does not know, and who has no card."""
    return scene.billed(scene.tenant)


def charged_invoice(scene: Scene) -> Any:
    attach_test_card(scene.tenant.id, scene.stripe)
    return scene.billed(scene.tenant)


def noted_before_it_is_charged(scene: Scene) -> Any:
    """A credit note of an invoice that waits for a card, which there is now."""
    invoice = opened(scene.tenant, scene.billed, scene.stripe)
    credited(scene.tenant, invoice, 100)
    attach_test_card(scene.tenant.id, scene.stripe)
    return invoice


def noted_after_it_was_paid(scene: Scene) -> Any:
    invoice = paid(scene.tenant, scene.billed, scene.stripe)
    credited(scene.tenant, invoice, 100, "refund")
    return invoice


def refunded(scene: Scene) -> Any:
    invoice = paid(scene.tenant, scene.billed, scene.stripe)
    refund_asked(scene.tenant, invoice, 100)
    return invoice


def voided(scene: Scene) -> Any:
    invoice = opened(scene.tenant, scene.billed, scene.stripe)
    withdrawal_asked(scene.tenant, invoice, "void")
    return invoice


def written_off(scene: Scene) -> Any:
    invoice = opened(scene.tenant, scene.billed, scene.stripe)
    withdrawal_asked(scene.tenant, invoice, "uncollectible")
    return invoice


def assert_one(scene: Scene, invoice: Any, **wanted: Any) -> None:
    """One invoice there with exactly our lines, and both sides as wanted."""
    [theirs] = scene.there.invoices(scene.tenant)
    ours = read(scene.tenant.id, invoice)
    with tenant_scope(scene.tenant.id):
        lines = [
            (str(line.id), line.amount_minor, line.description)
            for line in InvoiceLine.objects.filter(invoice_id=invoice.id)
        ]
    assert sorted(scene.there.lines(theirs.id)) == sorted(lines)
    assert (theirs.total, theirs.subtotal) == (ours.total_minor, ours.total_minor)
    found = {
        "status": ours.status,
        "state": ours.collection_state,
        "paid": theirs.amount_paid,
        "notes": [note.total for note in notes_there(scene.there, scene.tenant)],
        "refunds": refunds_of(scene.tenant),
        "payments": held(scene.tenant.id).get("payments", 0),
    }
    assert theirs.status == ours.status
    assert found == {"state": "done", "paid": 0, "notes": [], "refunds": [], "payments": 0} | wanted
    assert [(each.check, each.findings) for each in audit() if each.findings] == []


def assert_opened(scene: Scene, invoice: Any) -> None:
    assert_one(scene, invoice, status="open", state="awaiting_payment")


def assert_charged(scene: Scene, invoice: Any) -> None:
    assert_collected(scene.tenant, invoice, scene.there)


def assert_noted_before(scene: Scene, invoice: Any) -> None:
    assert_one(scene, invoice, status="paid", paid=201, notes=[100], payments=201)


def assert_noted_after(scene: Scene, invoice: Any) -> None:
    back = [("note", "succeeded", 100, 100, 0)]
    assert_one(scene, invoice, status="paid", paid=301, notes=[100], refunds=back, payments=201)
    assert charge_of(scene.tenant, invoice, scene.stripe).refundable_minor == 201


def assert_refunded(scene: Scene, invoice: Any) -> None:
    back = [("operator", "succeeded", 100, 0, 0)]
    assert_one(scene, invoice, status="paid", paid=301, refunds=back, payments=201)
    assert charge_of(scene.tenant, invoice, scene.stripe).refundable_minor == 201


def assert_voided(scene: Scene, invoice: Any) -> None:
    assert_one(scene, invoice, status="void")
    assert held(scene.tenant.id) == {}


def assert_written_off(scene: Scene, invoice: Any) -> None:
    assert_one(scene, invoice, status="uncollectible")
    assert held(scene.tenant.id)["bad_debt"] == 301


# What is there before, what must be afterwards, and the sends that must be among the calls.
ACTS: dict[str, tuple[Callable[[Scene], Any], Callable[[Scene, Any], None], set[str]]] = {
    "open": (first_invoice, assert_opened, {"customer", "draft", "lines", "finalise"}),
    "charge": (charged_invoice, assert_charged, {"draft", "lines", "finalise", "pay"}),
    "note, then charge": (noted_before_it_is_charged, assert_noted_before, {"credit_note", "pay"}),
    "charge, then note": (noted_after_it_was_paid, assert_noted_after, {"credit_note"}),
    "refund": (refunded, assert_refunded, {"refund"}),
    "void": (voided, assert_voided, {"void"}),
    "write off": (written_off, assert_written_off, {"write_off"}),
}


def kill_and_go_on(act: str, scene: Scene, workers: Workers, moment: str, at: int) -> bool:
    """Have a worker die at its `at`-th call, if it makes so many; then another sweeps. True if it
    died."""
    before, afterwards, sends = ACTS[act]
    invoice = before(scene)
    worker = workers.start("--sweeps", "1", dies_at=f"payments.call.{moment}@{at}")
    code = workers.finish(worker)
    assert code in (0, -signal.SIGKILL), workers.said()
    for _ in range(2):  # the second finds nothing to do, or what the first could only begin
        with clock.frozen(clock.now() + LEASE + timedelta(seconds=1)):
            tasks.sweep()
    afterwards(scene, invoice)
    found = steps_of(scene.tenant.id)
    assert sends <= {kind for kind, _, state in found if state == "done"}
    assert {state for _, _, state in found} == {"done"}
    return code != 0


@pytest.mark.long
def test_a_killed_worker_leaves_a_draft_that_the_next_one_fills(
    organisation, billed, stripe, there, workers
):
    scene = Scene(organisation, billed, stripe, there)
    assert kill_and_go_on("charge", scene, workers, "after_answer", 1)


@pytest.mark.parametrize("last", ["finalise", "pay"])
def test_a_call_that_the_next_one_need_not_make_is_not_left_without_an_outcome(
    organisation, billed, stripe, there, last
):
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)
    with pytest.raises(Killed):
        collect(organisation.id, invoice.id, Faulty(stripe, last, after=True, fail=Killed))
    assert (last, 1, "sent") in steps_of(organisation.id)
    tasks.sweep()
    assert_collected(organisation, invoice, there)
    assert {state for _, _, state in steps_of(organisation.id)} == {"done"}


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("act", ACTS)
def test_a_worker_killed_at_any_call_leaves_what_ends_as_one(
    onboard, billed, stripe, there, workers, act, moment
):
    for at in range(1, CALLS_MAX):
        scene = Scene(onboard(f"tenant-{at}"), billed, stripe, there)
        if not kill_and_go_on(act, scene, workers, moment, at):
            break
    print(f"{act}: killed {moment} at each of {at - 1} calls")
    assert len(ACTS[act][2]) < at < CALLS_MAX
