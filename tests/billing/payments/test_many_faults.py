"""Many invoices while the provider stumbles at three calls in ten: in the end both sides agree.

The sandbox is told to fail before and after it has done what it was asked, to hang, to tear its
answers, to say "later", and to replay errors that it has stored. Half-way there is an outage of 25
hours: what was sent before has keys that are forgotten by then. Stripe's own client tries nothing
again here, so that every fault comes through. `METERPLANE_FAULTY_INVOICES` says how many invoices.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from billing.invoicing.models import Invoice
from billing.ledger.audit import audit
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from billing.payments.models import PaymentStep
from billing.payments.reconcile.look import UNDER_WAY, look
from billing.payments.stripe import Stripe
from billing.payments.stripe import client as stripe_client
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError
from tenants.scoping import system_scope
from tests.billing.ledger.rig import held
from tests.stripe_sandbox.rig import KEY, Sandbox
from tests.stripe_schema import recording

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.long,
    pytest.mark.timeout(7200),  # a second for each invoice of 300, and of 10,000 somewhat less
]

INVOICES = int(os.environ.get("METERPLANE_FAULTY_INVOICES", "300"))
TENANTS = 10
FAULTS = 0.3  # of all calls that change something
KINDS = (
    *("drop_before", "drop_after", "timeout_after", "reset_mid_body"),
    *("error_500", "error_500_stored", "conflict_409", "rate_limit"),
)
OUTAGE = timedelta(hours=25)
ROUNDS = 2  # under faults, after the outage
CONVERGED_WITHIN_S = 600


@pytest.fixture
def sandbox(tmp_path_factory):
    """Its own: faults and an outage are nobody else's."""
    running = Sandbox(tmp_path_factory.mktemp("stripe") / "stripe.sqlite3").start()
    yield running
    running.stop()


@pytest.fixture
def bare(sandbox, monkeypatch) -> Stripe:
    """Our adapter, without the second tries of Stripe's client and without waiting."""
    monkeypatch.setattr(stripe_client, "NETWORK_RETRIES", 0)
    monkeypatch.setattr(stripe_client, "PAUSES_S", (0,))
    return Stripe(KEY, sandbox.url)


def work(waiting: Sequence[tuple[UUID, UUID]], provider: Stripe, chance: random.Random) -> Counter:
    """One try of each, in any order; how they ended."""
    ended: Counter[str] = Counter()
    for tenant_id, invoice_id in chance.sample(waiting, len(waiting)):
        try:
            outcome = collect(tenant_id, invoice_id, provider, retry=True)
            ended[outcome.collection_state] += 1
        except WorldError as away:
            ended[away.code] += 1
    assert recording.complaints() == []
    return ended


def unfinished() -> list[tuple[UUID, UUID]]:
    with system_scope("test"):
        return list(Invoice.objects.exclude(collection_state="done").values_list("tenant_id", "id"))


def test_both_sides_agree_after_faults_and_an_outage(onboard, billed, bare, there, sandbox):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}, {INVOICES} invoices")
    chance = random.Random(seed)
    tenants = [onboard(f"tenant-{n}") for n in range(TENANTS)]
    for tenant in tenants:
        attach_test_card(tenant.id, bare)
    for n in range(INVOICES):
        billed(tenants[n % TENANTS], requests=chance.randrange(1, 5_000))
    began = clock.now()
    disturb(sandbox, chance)
    early = chance.sample(unfinished(), INVOICES // 2)
    print("under faults", dict(work(early, bare, chance)))
    struck = struck_until_now(sandbox)
    cut_off(sandbox, unfinished()[: INVOICES // 3], bare, chance)
    sandbox.control("/clock", {"advance_s": int(OUTAGE.total_seconds())})
    with clock.frozen(clock.now() + OUTAGE):
        for _ in range(ROUNDS):
            print("after the outage", dict(work(unfinished(), bare, chance)))
        struck += struck_until_now(sandbox)
        stopped = time.monotonic()
        while unfinished():
            print("without faults", dict(work(unfinished(), bare, chance)))
            assert time.monotonic() - stopped < CONVERGED_WITHIN_S
        print(f"{struck} faults, {time.monotonic() - stopped:.1f} s to converge")
    assert struck > INVOICES * FAULTS
    assert_one_to_one(tenants, there)
    with clock.frozen(clock.now() + OUTAGE + UNDER_WAY):
        looked = look(bare, began - timedelta(days=1), clock.now() + timedelta(days=1))
    assert [each.found for each in looked] == [[], []]
    assert [each.compared for each in looked] == [INVOICES, INVOICES]


def disturb(sandbox: Sandbox, chance: random.Random) -> None:
    """Rules apply one after the other: each has its share of what those before it leave."""
    for kind in KINDS:
        rule = {
            "kind": kind,
            "path": "/v1/invoices*",
            "method": "POST",
            "probability": FAULTS / len(KINDS),
            "seed": chance.randrange(2**31),
        }
        if kind == "timeout_after":
            rule["delay_ms"] = 50
        sandbox.control("/faults", rule)


def struck_until_now(sandbox: Sandbox) -> int:
    """How many faults there were since this was last asked; from here on there are none."""
    rules = sandbox.control("", method="GET")["faults"]
    sandbox.control("/faults", method="DELETE")
    return sum(rule["struck"] for rule in rules)


def cut_off(
    sandbox: Sandbox,
    waiting: Sequence[tuple[UUID, UUID]],
    provider: Stripe,
    chance: random.Random,
) -> None:
    """The outage begins amid a round: what arrived there then was never heard of here."""
    rule = {"kind": "drop_after", "path": "/v1/invoices*", "method": "POST", "times": 100_000}
    sandbox.control("/faults", rule)
    print("cut off", dict(work(waiting, provider, chance)))
    sandbox.control("/faults", method="DELETE")
    disturb(sandbox, chance)
    with system_scope("test"):
        sent = PaymentStep.objects.filter(state=PaymentStep.State.SENT).count()
    print(f"{sent} calls nobody knows the outcome of")
    assert sent or not waiting


def assert_one_to_one(tenants: Sequence[Any], there: Any) -> None:
    """An independent look: the SDK's lists against our rows and the ledger."""
    missing = duplicates = difference = 0
    for tenant in tenants:
        theirs = there.invoices(tenant)
        counted = Counter(each.to_dict()["metadata"]["meterplane_invoice"] for each in theirs)
        with system_scope("test"):
            ours = {str(each.id): each for each in Invoice.objects.filter(tenant_id=tenant.id)}
        missing += len(ours.keys() - counted.keys())
        duplicates += sum(counted.values()) - len(counted) + len(counted.keys() - ours.keys())
        for each in theirs:
            own = ours[each.to_dict()["metadata"]["meterplane_invoice"]]
            assert (each.status, own.status, own.collection_note) == ("paid", "paid", "")
            difference += abs(each.total - own.total_minor) + abs(each.amount_paid - each.total)
        books = held(tenant.id)
        assert books["payments"] == sum(each.total_minor for each in ours.values())
        assert "receivable" not in books
    print(f"{missing} missing, {duplicates} duplicate, difference {difference}")
    assert (missing, duplicates, difference) == (0, 0, 0)
    assert all(verdict.holds for verdict in audit())
