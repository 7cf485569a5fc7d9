"""Many invoices while the provider stumbles at three calls in ten: in the end both sides agree.

Workers are processes that sweep, as in production, at a sandbox that is told to fail before and
after it has done what it was asked, to hang, to tear its answers, to say "later", and to replay
errors that it has stored. Amid that it is cut off: it does all that it is asked and nobody hears of
it; the workers are killed, and 25 hours later, when every key is forgotten, others go on. When
nine in ten are collected, the faults stop, and the rest must follow within ten minutes.

All but one worker have Stripe's client try nothing again, so that every fault comes through. Of
exchanges that are alike one is judged (`tests.stripe_schema.recorded`). Calls do not wait for their
turns here: at the permitted 25 a second 10,000 invoices would take two hours. A seed repeats
what is asked and struck, not which worker is first.
`METERPLANE_FAULTY_INVOICES` says how many invoices, `METERPLANE_FAULTY_WORKERS` how many workers.
"""

import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from billing.invoicing.models import Invoice, InvoiceLine
from billing.ledger.audit import audit
from billing.payments.accounts import attach_test_card
from billing.payments.models import BillingAccount
from billing.payments.reconcile.look import UNDER_WAY, look
from billing.payments.stripe import Stripe
from meterplane.kernel import clock
from tenants.scoping import system_scope
from tests.billing.ledger.rig import held
from tests.billing.payments.many import PER_TENANT, close_many, left, unheard_of
from tests.billing.payments.processes import Workers
from tests.seeds import drawn_seed
from tests.stripe_sandbox.rig import KEY, Sandbox

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.long,
    pytest.mark.timeout(7200),
]

INVOICES = int(os.environ.get("METERPLANE_FAULTY_INVOICES", "300"))
WORKERS = int(os.environ.get("METERPLANE_FAULTY_WORKERS", "4"))
FAULTS = 0.3  # of all calls that change an invoice
KINDS = (
    *("drop_before", "drop_after", "timeout_after", "reset_mid_body"),
    *("error_500", "error_500_stored", "error_500_after", "conflict_409", "rate_limit"),
)
HANGS_MS = 50
OUTAGE = timedelta(hours=25)
CONVERGED_WITHIN_S = 600
A_PART_WITHIN_S = 3600
NO_TURNS = ("--account-rate", "100000", "--endpoint-rate", "100000")


@pytest.fixture
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Its own: faults and an outage are nobody else's."""
    folder = tmp_path_factory.mktemp("stripe")
    running = Sandbox(folder / "stripe.sqlite3", "--each-shape-once").start()
    yield running
    running.stop()


@pytest.fixture
def workers(sandbox: Sandbox, tmp_path: Path) -> Iterator[Workers]:
    own = Workers(sandbox, tmp_path / "workers.log")
    yield own
    own.end(signal.SIGKILL)


def test_both_sides_agree_after_faults_and_an_outage(onboard, prices, stripe, there, workers):
    chance = random.Random(drawn_seed())
    began, clocked = clock.now(), time.monotonic()
    tenants = [onboard(f"tenant-{n}") for n in range(max(4, INVOICES // PER_TENANT))]
    for tenant in tenants:
        attach_test_card(tenant.id, Stripe(KEY, there.sandbox.url))
    close_many(tenants, prices, INVOICES, chance)
    assert left() == INVOICES
    tell(clocked, f"{INVOICES} invoices of {len(tenants)} customers are closed")
    disturb(there.sandbox, chance)
    start(workers)
    until(lambda: left() <= INVOICES * 3 // 4, workers)
    struck = struck_until_now(there.sandbox)
    tell(clocked, f"{INVOICES - left()} are collected under faults {dict(struck)}")
    cut_off(there.sandbox)
    until(lambda: unheard_of() >= INVOICES // 10, workers)
    workers.end(signal.SIGKILL)
    struck += struck_until_now(there.sandbox)
    tell(clocked, f"cut off, {unheard_of()} calls nobody knows the outcome of")
    there.sandbox.control("/clock", {"advance_s": int(OUTAGE.total_seconds())})
    disturb(there.sandbox, chance)
    start(workers, "--later-s", str(int(OUTAGE.total_seconds())))
    until(lambda: left() <= INVOICES // 10, workers)
    struck += struck_until_now(there.sandbox)
    rest, stopped = left(), time.monotonic()
    tell(clocked, f"25 h later all but {rest} are collected: no faults any more")
    until(lambda: left() == 0, workers, CONVERGED_WITHIN_S)
    tell(clocked, f"{rest} were left and took {time.monotonic() - stopped:.0f} s")
    print(f"{sum(struck.values())} calls had a fault: {dict(sorted(struck.items()))}")
    workers.end()
    assert unheard_of() == 0
    assert sum(struck.values()) > INVOICES * FAULTS
    assert INVOICES < 100 or set(struck) == set(KINDS)
    assert_one_to_one(tenants, there)
    assert_reconciled(Stripe(KEY, there.sandbox.url), began)
    tell(clocked, "compared")


def tell(since: float, what: str) -> None:
    print(f"{time.monotonic() - since:7.0f} s  {what}")


def start(workers: Workers, *arguments: str) -> None:
    """One worker tries again as in production: it meets what is replayed."""
    workers.start(*NO_TURNS, *arguments)
    for _ in range(WORKERS - 1):
        workers.start(*NO_TURNS, *arguments, "--retries", "0")


def until(true: Callable[[], bool], workers: Workers, within_s: float = A_PART_WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"not within {within_s} s: {workers.said()}"
        assert len(workers.alive()) == WORKERS, workers.said()
        time.sleep(0.5)


def disturb(sandbox: Sandbox, chance: random.Random) -> None:
    """Rules apply one after the other: each has an equal share of all calls."""
    share = FAULTS / len(KINDS)
    for n, kind in enumerate(KINDS):
        rule: dict[str, Any] = {
            "kind": kind,
            "path": "/v1/invoices*",
            "method": "POST",
            "probability": share / (1 - n * share),
            "seed": chance.randrange(2**31),
        }
        if kind == "timeout_after":
            rule["delay_ms"] = HANGS_MS
        sandbox.control("/faults", rule)


def cut_off(sandbox: Sandbox) -> None:
    """What arrives there from now on is done, and is never heard of here."""
    rule = {"kind": "drop_after", "path": "/v1/invoices*", "method": "POST", "times": 100_000}
    sandbox.control("/faults", rule)


def struck_until_now(sandbox: Sandbox) -> Counter[str]:
    """How often each fault struck since this was last asked; from here on there are none."""
    rules = sandbox.control("", method="GET")["faults"]
    sandbox.control("/faults", method="DELETE")
    return Counter({rule["kind"]: rule["struck"] for rule in rules if rule["struck"]})


def assert_one_to_one(tenants: Sequence[Any], there: Any) -> None:
    """An independent look: the SDK's lists against our rows, lines and the ledger."""
    missing = duplicates = difference_minor = 0
    for tenant in tenants:
        theirs = there.invoices(tenant)
        counted = Counter(_our_id(each) for each in theirs)
        with system_scope("test"):
            ours = {str(each.id): each for each in Invoice.objects.filter(tenant_id=tenant.id)}
            lines = defaultdict(list)
            for line in InvoiceLine.objects.filter(tenant_id=tenant.id):
                lines[str(line.invoice_id)].append((str(line.id), line.amount_minor))
        missing += len(ours.keys() - counted.keys())
        duplicates += sum(counted.values()) - len(counted) + len(counted.keys() - ours.keys())
        for each in theirs:
            own = ours[_our_id(each)]
            assert (each.status, own.status, own.collection_note) == ("paid", "paid", "")
            difference_minor += abs(each.total - own.total_minor)
            difference_minor += abs(each.amount_paid - each.total)
            there_lines = [
                (line.to_dict()["metadata"]["meterplane_line"], line.amount)
                for line in each.lines.data
            ]
            assert sorted(there_lines) == sorted(lines[_our_id(each)])
            assert not each.lines.has_more
        books = held(tenant.id)
        assert books["payments"] == sum(each.total_minor for each in ours.values())
        assert "receivable" not in books
        assert there.paid_minor(_customer_of(tenant)) == books["payments"]
    print(f"{missing} missing, {duplicates} duplicate, difference {difference_minor / 100:.2f}")
    assert (missing, duplicates, difference_minor) == (0, 0, 0)
    assert all(verdict.holds for verdict in audit())


def _our_id(theirs: Any) -> str:
    return str(theirs.to_dict()["metadata"]["meterplane_invoice"])


def _customer_of(tenant: Any) -> str:
    with system_scope("test"):
        return str(BillingAccount.objects.get(tenant_id=tenant.id).customer_id)


def assert_reconciled(provider: Stripe, began: Any) -> None:
    """The product's own look at both sides finds nothing."""
    with clock.frozen(clock.now() + OUTAGE + UNDER_WAY):
        looked = look(provider, began - timedelta(days=1), clock.now() + timedelta(days=1))
    assert [each.found for each in looked] == [[] for _ in looked]
    compared = {each.kind: each.compared for each in looked}
    assert (compared["invoice"], compared["payment"]) == (INVOICES, INVOICES)
