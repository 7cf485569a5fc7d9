"""A run of invoices by workers that keep to the provider's limits, measured where calls arrive."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.billing.payments.arrivals import OVERALL, Rate, arrived, busiest, rates
from tests.billing.payments.many import close_many, left
from tests.billing.payments.processes import Workers
from tests.stripe_sandbox.rig import Sandbox

# What Stripe permits, of one endpoint and of an account: of a test key's, and of a live one's.
ENDPOINT_PER_S = 25
ACCOUNTS = {"test account": 25, "live account": 100}
WAITS_S_MAX = 3600


@dataclass(frozen=True, slots=True)
class Paced:
    """What one run came to."""

    account: str
    workers: int
    invoices: int
    took_s: float
    overall: Rate
    busiest: Rate
    most_of_an_endpoint: int
    refused: int

    @property
    def keeps_to_limits(self) -> bool:
        return (
            self.overall.most_in_a_second <= ACCOUNTS[self.account]
            and self.most_of_an_endpoint <= ENDPOINT_PER_S
            and self.refused == 0
        )

    @property
    def saturates(self) -> bool:
        """Nine tenths of what is permitted, of the account or of its busiest endpoint."""
        return (
            self.overall.per_s >= ACCOUNTS[self.account] * 9 / 10
            or self.busiest.per_s >= ENDPOINT_PER_S * 9 / 10
        )

    def row(self) -> str:
        return (
            f"  {self.account:13} {self.workers:>7} {self.invoices:>9,} {self.took_s:>7.0f}"
            f" {self.overall.calls:>7,} {self.overall.per_s:>7.2f}"
            f" {self.overall.most_in_a_second:>6} {self.busiest.per_s:>9.2f}"
            f" {self.most_of_an_endpoint:>6} {self.refused:>5}"
        )


HEAD = (
    f"  {'':13} {'workers':>7} {'invoices':>9} {'s':>7} {'calls':>7} {'calls/s':>7} {'most':>6}"
    f" {'busiest/s':>9} {'most':>6} {'429':>5}\n"
    "  most: arrivals in any one second, of the account and of one endpoint"
)


@dataclass(frozen=True, slots=True)
class Scene:
    """A sandbox that refuses what is too fast and notes arrivals, and customers with cards."""

    sandbox: Sandbox
    arrivals: Path
    customers: Sequence[Any]
    prices: UUID
    log: Path


def run(scene: Scene, account: str, workers: int, invoices: int, chance: random.Random) -> Paced:
    """Close so many invoices and have them collected by so many workers."""
    close_many(scene.customers, scene.prices, invoices, chance)
    scene.sandbox.control("/settings", {"rate_limit": True})
    own = Workers(scene.sandbox, scene.log)
    before = len(arrived(scene.arrivals))
    refused = _refused(scene.sandbox)
    began = time.monotonic()
    try:
        for _ in range(workers):
            own.start("--account-rate", str(ACCOUNTS[account]))
        while left():
            assert time.monotonic() - began < WAITS_S_MAX, own.said()
            assert len(own.alive()) == workers, own.said()
            time.sleep(0.5)
    finally:
        own.end()
    found = rates(arrived(scene.arrivals, before))
    each = [rate.most_in_a_second for name, rate in found.items() if name != OVERALL]
    return Paced(
        account=account,
        workers=workers,
        invoices=invoices,
        took_s=time.monotonic() - began,
        overall=found[OVERALL],
        busiest=busiest(found),
        most_of_an_endpoint=max(each),
        refused=_refused(scene.sandbox) - refused,
    )


def _refused(sandbox: Sandbox) -> int:
    told: dict[str, int] = sandbox.control("", method="GET")["requests_refused"]
    return sum(told.values())
