"""`take_budget`: blocks that can never add up to more than the limit."""

import random
import threading
from dataclasses import dataclass
from uuid import UUID

import psycopg
import pytest

from meterplane.kernel.ids import uuid7
from tests import environment

pytestmark = pytest.mark.django_db(transaction=True)

WINDOW = "2026-11"
SEEDS = range(5)
ALL = 2**62  # a revision that a pool has which was told of every block


@dataclass(frozen=True, slots=True)
class Taken:
    """What `take_budget` answered."""

    block: int
    granted: int
    revision: int
    stranded: bool
    under_way: bool = False


def gateway():
    return psycopg.connect(environment.database_url("meterplane_gateway"), autocommit=True)


def admin():
    return psycopg.connect(environment.database_url("postgres"), autocommit=True)


def take(
    tenant_id: UUID,
    limit: int,
    needed: int,
    *,
    epoch: str = "one",
    grant_id: UUID | None = None,
    level: str = "organisation",
    scope_id: UUID | None = None,
    model: str = "",
    window: str = WINDOW,
    told: int = ALL,
    connection: "psycopg.Connection | None" = None,
) -> Taken:
    arguments = (
        tenant_id, level, scope_id or tenant_id, model, window, limit, needed, epoch,
        grant_id or uuid7(), told,
    )  # fmt: skip
    if connection is None:
        with gateway() as connection:
            return take_on(connection, arguments)
    return take_on(connection, arguments)


def take_on(connection, arguments) -> Taken:
    columns = "block, granted, revision, stranded, under_way"
    query = f"SELECT {columns} FROM take_budget(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
    return Taken(*connection.execute(query, arguments).fetchone())


def ago(tenant_id: UUID, seconds: float) -> None:
    """Let the last grant be that long ago."""
    with admin() as connection:
        connection.execute(
            "UPDATE budget_window SET granted_at = clock_timestamp() - make_interval(secs => %s)"
            " WHERE tenant_id = %s",
            (seconds, tenant_id),
        )


def account(tenant_id: UUID, epoch: str) -> None:
    """As if all grants of an epoch were reduced to what was spent of them."""
    with admin() as connection:
        connection.execute(
            "UPDATE budget_epoch SET accounted_at = now() WHERE (tenant_id, epoch) = (%s, %s)",
            (tenant_id, epoch),
        )


def test_a_first_block_is_a_fiftieth_and_small_ones_lead_to_exactly_the_limit(organisation):
    assert take(organisation.id, 10_000, 1).block == 200
    granted = 200
    for _ in range(2000):
        taken = take(organisation.id, 10_000, 7)
        if not taken.block:
            break
        assert taken.block >= 7
        granted += taken.block
        assert taken.granted == granted
    assert 10_000 - 7 < granted <= 10_000
    assert take(organisation.id, 10_000, 10_000 - granted or 1).granted == 10_000


def test_a_block_is_at_least_what_is_needed_and_none_is_less(organisation):
    assert take(organisation.id, 100, 60).block == 60
    assert take(organisation.id, 100, 41) == Taken(0, 60, 1, False)
    assert take(organisation.id, 100, 40) == Taken(40, 100, 2, False)


def test_no_block_is_taken_while_another_is_under_way_to_the_pool(organisation):
    assert take(organisation.id, 100, 1, told=0) == Taken(2, 2, 1, False)
    with admin() as connection:  # a machine that pauses lets no time pass here
        connection.execute("UPDATE budget_window SET granted_at = now() + '1 hour'")
    assert take(organisation.id, 100, 1, told=0) == Taken(0, 2, 1, False, under_way=True)
    assert take(organisation.id, 100, 99, told=0).under_way  # nor is a limit said to be reached
    assert take(organisation.id, 100, 1, told=1).block
    ago(organisation.id, 0.3)
    assert take(organisation.id, 100, 1, told=0).block, "whoever took it may have died with it"


@pytest.mark.parametrize(
    ("seconds", "block"), [(0.1, 400), (2, 200), (60, 100)], ids=["fast", "steady", "slow"]
)
def test_blocks_follow_the_pace_at_which_they_are_used(organisation, seconds, block):
    assert take(organisation.id, 10_000, 1).block == 200
    ago(organisation.id, seconds)
    assert take(organisation.id, 10_000, 1).block == block


def test_no_block_is_more_than_an_eighth_of_the_rest(organisation):
    limit = 1_000_000
    taken = take(organisation.id, limit, 1)
    for _ in range(40):
        rest = limit - taken.granted
        ago(organisation.id, 0)
        taken = take(organisation.id, limit, 1)
        assert 1 <= taken.block <= max(1, rest // 8)
    assert limit - taken.granted < limit // 8


def test_a_lowered_limit_grants_nothing_more_and_a_raised_one_does(organisation):
    assert take(organisation.id, 100, 80).block == 80
    assert take(organisation.id, 50, 1) == Taken(0, 80, 1, False)
    assert take(organisation.id, 200, 120) == Taken(120, 200, 2, False)


def test_the_largest_limit_there_can_be_overflows_nothing(organisation):
    limit = 2**63 - 1
    taken = take(organisation.id, limit, 1)
    for _ in range(80):
        ago(organisation.id, 0)
        taken = take(organisation.id, limit, 1)
    assert taken.granted <= limit


def test_a_grant_that_is_asked_for_twice_is_granted_once(organisation):
    grant_id = uuid7()
    first = take(organisation.id, 100, 30, grant_id=grant_id)
    assert take(organisation.id, 100, 30, grant_id=grant_id) == first == Taken(30, 30, 1, False)


def test_each_level_scope_model_and_window_has_its_own_limit(organisation):
    whole = {"limit": 10, "needed": 10}
    assert take(organisation.id, **whole).block == 10
    assert take(organisation.id, **whole).block == 0
    for other in (
        {"scope_id": uuid7()},
        {"level": "key_model", "model": "tiny-lm"},
        {"level": "key_model", "model": "identity"},
        {"window": "2026-12"},
    ):
        assert take(organisation.id, **whole, **other).block == 10
        assert take(organisation.id, **whole, **other).block == 0


def test_a_refusal_says_whether_an_older_epoch_may_still_return_something(organisation):
    assert take(organisation.id, 100, 90, epoch="one").block == 90
    assert take(organisation.id, 100, 20, epoch="one") == Taken(0, 90, 1, False)
    assert take(organisation.id, 100, 20, epoch="two") == Taken(0, 90, 1, True)
    elsewhere = take(organisation.id, 10, 20, epoch="two", window="2026-12")
    assert elsewhere == Taken(0, 0, 0, False)
    account(organisation.id, "one")
    assert take(organisation.id, 100, 20, epoch="two") == Taken(0, 90, 1, False)
    # Whoever still takes for the epoch that is over gets nothing, and is not told "never".
    assert take(organisation.id, 100, 5, epoch="one") == Taken(0, 90, 1, True)


def test_an_epoch_is_known_even_if_all_it_got_was_a_refusal(organisation):
    assert take(organisation.id, 0, 1, epoch="refused").block == 0
    with admin() as connection:
        rows = connection.execute("SELECT epoch FROM budget_epoch").fetchall()
    assert rows == [("refused",)]


def test_every_grant_is_written_down_with_its_epoch(organisation):
    taken = [take(organisation.id, 1000, 10 * n, epoch="one").block for n in range(1, 5)]
    with admin() as connection:
        rows = connection.execute(
            "SELECT amount_nano, epoch, credited FROM budget_grant ORDER BY granted_at"
        ).fetchall()
    assert rows == [(block, "one", False) for block in taken]


@pytest.mark.parametrize("wrong", [{"needed": 0}, {"needed": -1}, {"limit": -1}, {"epoch": ""}])
def test_what_makes_no_sense_is_refused(organisation, wrong):
    arguments = {"limit": 10, "needed": 1} | wrong
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        take(organisation.id, **arguments)


def test_a_gateway_can_take_and_do_nothing_else(organisation):
    take(organisation.id, 10, 1)
    for table in ("budget_window", "budget_grant", "budget_epoch"):
        with gateway() as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT FROM {table}")


def test_a_tenants_pages_can_change_no_grant(organisation):
    for table in ("budget_window", "budget_grant", "budget_epoch"):
        with psycopg.connect(environment.database_url("meterplane_app")) as app:
            app.execute("SELECT set_config('app.tenant_id', %s, true)", [str(organisation.id)])
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute(f"DELETE FROM {table}")


@pytest.mark.parametrize("seed", SEEDS)
def test_eight_connections_racing_take_exactly_the_limit(organisation, seed):
    chance = random.Random(seed)
    limit = chance.randrange(5_000, 20_000)
    needs = [[chance.randrange(1, 40) for _ in range(60)] for _ in range(8)]
    blocks: list[tuple[int, int]] = []
    together = threading.Barrier(8)

    def race(mine: list[int]) -> None:
        with gateway() as connection:
            together.wait()
            for needed in mine:
                taken = take(organisation.id, limit, needed, connection=connection)
                blocks.append((needed, taken.block))

    threads = [threading.Thread(target=race, args=(mine,)) for mine in needs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(blocks) == 480
    assert all(block >= needed or block == 0 for needed, block in blocks)
    rest = limit - sum(block for _, block in blocks)
    assert 0 <= rest < 40  # somebody asked for no more than that, and was refused
    assert rest == 0 or take(organisation.id, limit, rest).block == rest
    assert take(organisation.id, limit, 1).block == 0
    with admin() as connection:
        assert connection.execute(
            "SELECT granted_nano, (SELECT sum(amount_nano) FROM budget_grant) FROM budget_window"
        ).fetchall() == [(limit, limit)]
