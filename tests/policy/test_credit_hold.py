"""Credit that an organisation is held to: covered once, at every moment, whatever happens to it."""

import random
import threading
import time
from datetime import timedelta

import psycopg
import pytest
import redis as redis_client
from django.db import connections

from billing.credits.models import CreditRemaining
from billing.credits.refund import refund_credit
from billing.invoicing.close import close_period
from billing.invoicing.tasks import expire_credit_of
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.policy.credit_shown import shown_credit
from meterplane.policy.follow_credit import follow_credit
from meterplane.policy.hold_to_credit import hold_to_credit, release_from_credit
from meterplane.policy.stranded import return_stranded
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import give
from tests.billing.world import publish_prices, utc
from tests.conftest import wait_until
from tests.policy.credit_rig import CENT_NANO, TOKEN_NANO, Gateway
from tests.policy.test_budget_grants import admin, take
from tests.policy.test_stranded_grants import drained

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def door(onboard, redis_url):
    """A gateway of a tenant that began in November, and is held to its credit from the 24th on."""
    with clock.frozen(utc(11, 1)):
        tenant = onboard("acme")
        version = publish_prices()
    made = Gateway(redis_url, tenant, version)
    yield made
    made.close()


BEGINS = utc(11, 2)


def spendable(tenant):
    with tenant_scope(tenant.id):
        return shown_credit().spendable_nano


def test_what_was_used_before_counts_and_what_is_used_after_does(door):
    with clock.frozen(utc(11, 24)):
        give(door.tenant, 10)
        assert door.ask(3 * CENT_NANO) == [200]
        door.ship()
    with clock.frozen(utc(11, 24, 1)):
        assert hold_to_credit(door.tenant.id)
        assert not hold_to_credit(door.tenant.id)
        assert spendable(door.tenant) == 7 * CENT_NANO
        assert door.ask(*[CENT_NANO] * 10).count(200) == 7
        assert spendable(door.tenant) == 0


def test_what_ran_when_it_was_held_counts_once_it_is_taken_in(door, redis_url):
    with clock.frozen(utc(11, 24)):
        give(door.tenant, 10)
        assert door.ask(4 * CENT_NANO, hold=True) == [200]
    with clock.frozen(utc(11, 24, 1)):
        hold_to_credit(door.tenant.id)
        assert door.ask(CENT_NANO) == [200]
        door.end()
        door.ship()
        for _ in range(3):
            follow_credit()
        assert spendable(door.tenant) == 5 * CENT_NANO
        assert door.ask(*[CENT_NANO] * 10).count(200) == 5


def test_an_organisation_that_is_released_is_invoiced_and_one_held_again_begins_anew(door):
    with clock.frozen(utc(11, 24)):
        hold_to_credit(door.tenant.id)
        give(door.tenant, 4)
        assert door.ask(3 * CENT_NANO, hold=True) == [200]
        assert release_from_credit(door.tenant.id)
        assert not release_from_credit(door.tenant.id)
        assert door.ask(50 * CENT_NANO) == [200]
        door.end()  # what the first time of being held lent is no credit of the second
        door.ship()
    with clock.frozen(utc(11, 24, 1)):
        hold_to_credit(door.tenant.id)
        assert door.ask(1) == [402]
        give(door.tenant, 50, "more")
        assert spendable(door.tenant) == CENT_NANO
        assert door.ask(CENT_NANO, CENT_NANO).count(200) == 1


def test_a_close_moves_what_was_spent_to_what_is_drawn_and_covers_no_more_and_no_less(door):
    with clock.frozen(utc(11, 24)):
        hold_to_credit(door.tenant.id)
        give(door.tenant, 10)
        assert door.ask(*[CENT_NANO] * 3) == [200] * 3
        door.ship()
        assert door.ask(CENT_NANO) == [200]  # not taken in when the period is closed
        assert door.ask(CENT_NANO, hold=True) == [200]
    with clock.frozen(utc(11, 24, 1)):
        assert spendable(door.tenant) == 5 * CENT_NANO
        assert close_period(door.tenant.id, clock.now()).total_minor == 0
        assert remaining(door.tenant) == 7
        assert spendable(door.tenant) == 5 * CENT_NANO
        door.end()
        door.ship()
    with clock.frozen(utc(11, 24, 2)):
        close_period(door.tenant.id, clock.now())
        assert remaining(door.tenant) == 5
        assert spendable(door.tenant) == 5 * CENT_NANO
        assert door.ask(*[CENT_NANO] * 6).count(200) == 5


def test_credit_that_ends_with_a_month_pays_for_it_while_the_next_ones_is_spent(door):
    """Between the end of a month and its close, an hour later, each covers its own."""
    with clock.frozen(utc(11, 24)):
        hold_to_credit(door.tenant.id)
        give(door.tenant, 10, "november", expires_at=utc(12, 1))
        give(door.tenant, 5, "december", effective_at=utc(12, 1))
        assert door.ask(*[CENT_NANO] * 12).count(200) == 10
        door.ship()
        follow_credit()
    with clock.frozen(utc(11, 30, 23, 59) + timedelta(seconds=30)):
        follow_credit()  # a minute before its end, what the month cost is known to the policies
    with clock.frozen(utc(12, 1)):
        assert door.ask(*[CENT_NANO] * 7).count(200) == 5
        assert spendable(door.tenant) == 0
    with clock.frozen(utc(12, 1, 1)):
        close_period(door.tenant.id, utc(12, 1))
        assert remaining(door.tenant) == 5
        assert door.ask(CENT_NANO) == [402]
        give(door.tenant, 1, "more")
        assert door.ask(CENT_NANO, CENT_NANO).count(200) == 1


def test_credit_that_rolls_over_is_spent_on_before_it_is_written_off(door):
    with clock.frozen(utc(11, 24)):
        hold_to_credit(door.tenant.id)
        give(door.tenant, 10, "a", expires_at=utc(12, 1), rollover_max_minor=4)
        assert door.ask(*[CENT_NANO] * 3) == [200] * 3
        door.ship()
        follow_credit()
    with clock.frozen(utc(12, 1)):
        follow_credit()
        assert spendable(door.tenant) == 4 * CENT_NANO
        assert door.ask(CENT_NANO) == [200]
        close_period(door.tenant.id, utc(12, 1))
        expire_credit_of(door.tenant.id)
        assert remaining(door.tenant) == 4
        assert spendable(door.tenant) == 3 * CENT_NANO
        assert door.ask(*[CENT_NANO] * 4).count(200) == 3


def test_credit_for_some_models_pays_invoices_and_admits_nobody(door):
    with clock.frozen(utc(11, 24)):
        hold_to_credit(door.tenant.id)
        give(door.tenant, 10, models_only=("minilm",))
        assert door.ask(CENT_NANO) == [402]


def test_periods_that_close_while_requests_run_neither_free_credit_nor_take_any(door):
    """Forty cents, spent by eight at a time; beside them usage is taken in and periods close."""
    hold_to_credit(door.tenant.id)
    give(door.tenant, 40)
    done, closes = threading.Event(), []

    def close():
        try:
            while not done.is_set():
                door.ship()
                time.sleep(0.002)  # a period is not empty
                closes.append(close_period(door.tenant.id, clock.now()))
        finally:
            connections.close_all()

    closer = threading.Thread(target=close)
    closer.start()
    try:
        told = []
        while told.count(200) < 60 and told[-16:].count(402) < 16:
            seen = len(closes)
            told += door.ask(*[CENT_NANO] * 8)
            wait_until(lambda seen=seen: len(closes) > seen + 1, "a period being closed")
    finally:
        done.set()
        closer.join()
    drawn = sum(1 for invoice in closes if invoice is not None)
    print(f"{len(closes)} closes, {drawn} of them with an invoice")
    assert told.count(200) == 40
    assert drawn > 0


def test_nothing_is_admitted_on_what_was_refunded_while_requests_ran(door):
    hold_to_credit(door.tenant.id)
    bought = give(door.tenant, 500, kind="purchased")
    refunded = threading.Event()

    def refund():
        try:
            refund_credit(tenant_id=door.tenant.id, grant_id=bought)
            refunded.set()
        finally:
            connections.close_all()

    refunder = threading.Thread(target=refund)
    assert door.ask(*[CENT_NANO] * 8) == [200] * 8
    refunder.start()
    while not refunded.is_set():
        door.ask(*[CENT_NANO] * 8)
    refunder.join()
    # 429, which says to wait, where a settlement that Redis did not answer in time is still owed.
    assert set(door.ask(*[CENT_NANO] * 8)) <= {402, 429}
    assert spendable(door.tenant) == 0


def test_postgres_refuses_a_block_above_what_credit_covers_whatever_limit_is_named(door):
    with clock.frozen(utc(11, 24)):
        hold_to_credit(door.tenant.id)
        give(door.tenant, 2)
        taken = take(door.tenant.id, 3 * CENT_NANO, CENT_NANO, window="credit-1")
        assert taken.block == CENT_NANO
        with pytest.raises(psycopg.errors.RestrictViolation):
            take(door.tenant.id, 9 * CENT_NANO, 2 * CENT_NANO, window="credit-1")
        release_from_credit(door.tenant.id)
        with pytest.raises(psycopg.errors.RestrictViolation):
            take(door.tenant.id, 9 * CENT_NANO, 1, window="credit-1")


def remaining(tenant):
    with tenant_scope(tenant.id):
        return sum(CreditRemaining.objects.values_list("remaining_minor", flat=True))


class Walk:
    """Random acts, and beside them the sums anybody could do by hand: what grants are live and have
    left, less what was served and no closed period has counted."""

    def __init__(self, door, redis_url, seed):
        self.door, self.redis_url = door, redis_url
        self.chance = random.Random(seed)
        self.now = BEGINS
        self.served = []  # (when, nano, taken in) of what no closed period has counted
        self.purchased = []
        self.stranded = False
        self.admitted = self.refused = self.waited = 0

    def live_nano(self):
        with tenant_scope(self.door.tenant.id):
            rows = CreditRemaining.objects.select_related("grant")
            return CENT_NANO * sum(
                row.remaining_minor
                for row in rows
                if row.grant.effective_at <= self.now
                and (row.grant.expires_at is None or row.grant.expires_at > self.now)
            )

    def left_nano(self):
        return self.live_nano() - sum(nano for _, nano, _ in self.served)

    def requests(self):
        count = self.chance.randrange(1, 12)
        costs = [self.chance.randrange(1, 1500) * 2 * TOKEN_NANO * 10 for _ in range(count)]
        left = self.left_nano()
        told = self.door.ask(*costs)
        passed = sum(c for c, status in zip(costs, told, strict=True) if status == 200)
        assert passed <= max(0, left), "served beyond the live credit of the moment"
        self.served += [(self.now, c, False) for c, s in zip(costs, told, strict=True) if s == 200]
        for cost, status in zip(costs, told, strict=True):
            if status == 402:
                assert cost > left - passed, "refused what the credit covers"
                self.refused += 1
            elif status == 200:
                self.admitted += 1
            else:
                assert (status, self.stranded) == (503, True)
                self.waited += 1

    def grant(self):
        key = f"{self.chance.random()}"
        terms = {}
        if self.chance.random() < 0.4:
            terms["expires_at"] = self.now + timedelta(minutes=self.chance.randrange(1, 400))
        if self.chance.random() < 0.2:
            terms["effective_at"] = self.now + timedelta(minutes=self.chance.randrange(1, 60))
            terms.pop("expires_at", None)
        kind = self.chance.choice(["purchased", "promotional"])
        made = give(self.door.tenant, self.chance.randrange(1, 8), key, kind=kind, **terms)
        if kind == "purchased":
            self.purchased.append(made)

    def refund(self):
        if self.purchased:
            try:
                refund_credit(
                    tenant_id=self.door.tenant.id, grant_id=self.chance.choice(self.purchased)
                )
            except CallerError as refused:
                if refused.code != "credit_not_refundable":
                    raise

    def take_in(self):
        self.door.ship()
        self.served = [(at, nano, True) for at, nano, _ in self.served]

    def close(self):
        close_period(self.door.tenant.id, self.now)
        self.served = [each for each in self.served if not (each[2] and each[0] < self.now)]

    def write_off(self):
        expire_credit_of(self.door.tenant.id)

    def lose_redis(self):
        with redis_client.Redis.from_url(self.redis_url) as admission:
            admission.flushall()
        self.stranded = True

    def rebuild(self):
        self.door.ask(TOKEN_NANO * 10**9)  # whoever asks opens the new life
        self.take_in()
        with admin() as connection:  # PostgreSQL's clock is not the walk's
            connection.execute(
                "UPDATE budget_grant SET granted_at = %s", [BEGINS + timedelta(hours=1)]
            )
        drained()
        return_stranded()
        self.door.a_moment_passes()
        self.stranded = False

    def step(self):
        acts = [
            (self.requests, 12), (self.grant, 3), (self.refund, 1), (self.take_in, 3),
            (self.close, 1), (self.write_off, 1), (self.lose_redis, 0.5), (self.rebuild, 1),
        ]  # fmt: skip
        weights = [weight for _, weight in acts]
        (act,) = self.chance.choices([act for act, _ in acts], weights)
        self.now += timedelta(seconds=self.chance.randrange(1, 900))
        with clock.frozen(self.now):
            act()


def walk(door, redis_url, seed, steps):
    taken = Walk(door, redis_url, seed)
    with clock.frozen(taken.now):
        hold_to_credit(door.tenant.id)
    for _ in range(steps):
        taken.step()
    print(
        f"seed {seed}: {steps} steps, {taken.admitted} served, {taken.refused} refused, "
        f"{taken.waited} told to wait"
    )
    return taken


def test_a_random_walk_serves_what_live_credit_covers_and_no_more(door, redis_url):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    taken = walk(door, redis_url, seed, 40)
    assert min(taken.admitted, taken.refused) > 0


@pytest.mark.long
@pytest.mark.parametrize("seed", range(12))
def test_many_random_walks(door, redis_url, seed):
    walk(door, redis_url, seed, 250)
