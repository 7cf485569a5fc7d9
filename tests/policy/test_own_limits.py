"""An organisation's own limit only narrows what the operator says, at every moment."""

import random
from datetime import timedelta
from uuid import UUID

import pytest

from meterplane.contracts import policy as contract
from meterplane.kernel import clock
from meterplane.policy.effective_limits import Scopes, effective_limits
from tenants.models import Limit, SetBy

KEY = UUID(int=3)
SCOPES = Scopes(UUID(int=1), UUID(int=2), KEY, KEY)
PLAN = {
    "level": "key", "kind": "requests", "window": "minute", "amount": 100, "burst": 20,
    "mode": "enforce", "model": "",
}  # fmt: skip


def row(set_by, amount, **more) -> Limit:
    """A limit of requests per minute of the one key."""
    values = {"level": "key", "kind": "requests", "window": "minute", "mode": "enforce"} | more
    return Limit(scope_id=KEY, set_by=set_by, amount=amount, **values)


def own(amount, **more) -> Limit:
    return row(SetBy.ORGANISATION, amount, **more)


def operators(amount, **more) -> Limit:
    return row(SetBy.OPERATOR, amount, **more)


def holds(plan, *rows) -> contract.Limit | None:
    (limit,) = effective_limits(plan, rows, SCOPES) or (None,)
    return limit


@pytest.mark.parametrize(
    ("plan", "rows", "amount", "burst", "mode"),
    [
        ([PLAN], [own(40)], 40, 20, "enforce"),
        ([PLAN], [own(10)], 10, 10, "enforce"),
        ([PLAN], [own(400)], 100, 20, "enforce"),
        ([PLAN], [own(40, mode="notify")], 100, 20, "enforce"),
        ([PLAN | {"mode": "notify"}], [own(400)], 400, None, "enforce"),
        ([PLAN | {"mode": "notify"}], [own(400, mode="notify")], 100, 20, "notify"),
        ([PLAN], [operators(60), own(400)], 60, None, "enforce"),
        ([PLAN], [own(400), operators(60)], 60, None, "enforce"),
        ([PLAN], [operators(None), own(400)], 400, None, "enforce"),
        ([PLAN], [own(400), operators(None)], 400, None, "enforce"),
        ([], [own(7)], 7, None, "enforce"),
    ],
)
def test_the_narrower_of_two_holds(plan, rows, amount, burst, mode):
    limit = holds(plan, *rows)
    assert (limit.amount, limit.burst, limit.mode) == (amount, burst, mode)


def test_limits_of_other_names_stand_side_by_side():
    found = effective_limits([PLAN], [own(5, window="day"), own(4, kind="concurrency",
                                      window="at_once")], SCOPES)  # fmt: skip
    assert [(each.kind, each.window, each.amount) for each in found] == [
        ("requests", "day", 5),
        ("requests", "minute", 100),
        ("concurrency", "at_once", 4),
    ]


def raised(make, amount, to, until):
    return make(amount, raised_to=to, raised_until=until)


def test_a_raise_of_one_side_is_held_to_what_the_other_says():
    now = clock.now()
    end = now + timedelta(hours=1)
    both = holds([], raised(operators, 70, 90, end), own(80))
    assert [both.amount_at(clock.to_ms(at)) for at in (now, end)] == [80, 70]
    both = holds([], operators(100), raised(own, 80, 200, end))
    assert [both.amount_at(clock.to_ms(at)) for at in (now, end)] == [100, 80]


def test_a_raise_that_is_over_ends_none_that_lasts():
    now = clock.now()
    over, end = now - timedelta(hours=1), now + timedelta(hours=1)
    both = holds([], raised(operators, 100, 500, over), raised(own, 50, 90, end))
    assert [both.amount_at(clock.to_ms(at)) for at in (now, end)] == [90, 50]


def test_whatever_both_say_no_moment_allows_more_than_either():
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    dice = random.Random(seed)
    now = clock.now().replace(microsecond=0)

    def some(make) -> Limit:
        amount = dice.randint(0, 50)
        burst = None if make is own else dice.choice([None, dice.randint(1, 80)])
        if dice.random() < 0.4:
            return make(amount, burst=burst)
        until = now + timedelta(minutes=dice.randint(-2, 5))
        return make(amount, burst=burst, raised_to=amount + dice.randint(1, 50), raised_until=until)

    for _ in range(500):
        pair = [some(operators), some(own)]
        with clock.frozen(now):
            both = holds([], *pair)
            (first,), (second,) = (effective_limits([], [each], SCOPES) for each in pair)
        for minute in range(-1, 7):
            at_ms = clock.to_ms(now + timedelta(minutes=minute))
            for each in (first, second):
                if minute >= 0:
                    assert both.amount_at(at_ms) <= each.amount_at(at_ms), pair
                    depth = both.amount_at(at_ms) if both.burst is None else both.burst
                    assert depth <= (each.amount_at(at_ms) if each.burst is None else each.burst)
        now_ms = clock.to_ms(now)
        assert both.amount_at(now_ms) == min(first.amount_at(now_ms), second.amount_at(now_ms))
