"""A run keeps its workers together at what the provider permits, and no call beyond it."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from billing.payments.accounts import attach_test_card
from billing.payments.stripe import Stripe
from tests.billing.payments.arrivals import arrived, busiest, most_within, rates
from tests.billing.payments.paced import HEAD, Scene, run
from tests.seeds import drawn_seed
from tests.stripe_sandbox.rig import KEY, Sandbox

INVOICES = int(os.environ.get("METERPLANE_PACED_INVOICES", "1000"))
CUSTOMERS = 20


def test_a_second_begins_anywhere():
    """Twenty-five at the end of one second and twenty-five at the beginning of the next are 50."""
    late, early = [0.9 + n / 1000 for n in range(25)], [1.1 + n / 1000 for n in range(25)]
    assert most_within(late, 1.0) == 25
    assert most_within(late + early, 1.0) == 50
    assert most_within([n / 32 for n in range(100)], 1.0) == 32
    assert most_within([], 1.0) == 0


def test_arrivals_are_counted_by_endpoint(tmp_path):
    file = tmp_path / "arrivals"
    file.write_text(
        "".join(
            f"{n / 10:.6f} GET /v1/invoices/in_{n}\n" for n in range(5)
        )  # five within half a second
        + "0.2 POST /v1/invoices\n"
    )
    found = rates(arrived(file))
    assert (found["GET /v1/invoices/{id}"].calls, found["all"].calls) == (5, 6)
    assert busiest(found).per_s == pytest.approx(10)
    assert arrived(file, 5) == [(0.2, "POST /v1/invoices")]


@pytest.fixture
def scene(tmp_path: Path, onboard, prices) -> Iterator[Scene]:
    arrivals = tmp_path / "arrivals"
    sandbox = Sandbox(
        tmp_path / "stripe.sqlite3", "--each-shape-once", "--arrivals", str(arrivals)
    ).start()
    customers = [onboard(f"tenant-{n}") for n in range(CUSTOMERS)]
    for each in customers:
        attach_test_card(each.id, Stripe(KEY, sandbox.url))
    yield Scene(sandbox, arrivals, customers, prices, tmp_path / "workers.log")
    sandbox.stop()


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("account", ["test account", "live account"])
def test_a_run_is_as_fast_as_is_permitted_and_never_faster(scene, account, workers):
    found = run(scene, account, workers, INVOICES, random.Random(drawn_seed()))
    print(f"{HEAD}\n{found.row()}")
    assert found.keeps_to_limits
    # Of a live account's 100 a second two cores make 46, theirs and ours together.
    assert found.saturates or account == "live account"
