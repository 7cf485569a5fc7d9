"""What is told of a limit, as a table: a window's use, its hits and what was told so far."""

from uuid import UUID

import pytest

from meterplane.contracts.admission_keys import LimitWindowName
from meterplane.policy.alert_rules import Reading, of_balance, of_hits, of_share

MONTH = LimitWindowName("organisation", UUID(int=1), "", "spend", "month", "2026-11")
BALANCE = MONTH._replace(window="prepaid", label="prepaid:100")
ODD = 10**18 + 7  # a share of it is no whole number: a float would round it


def share(used, amount=1000, hits=0, told=()):
    found = of_share(MONTH, Reading(amount, "enforce", used), hits, told)
    return None if found is None else (found.threshold, found.hits)


@pytest.mark.parametrize("amount", [1, 2, 3, 1000, ODD, 2**62])
@pytest.mark.parametrize("percent", [50, 80, 100])
def test_a_share_is_told_from_exactly_there_and_not_one_nano_below(percent, amount):
    least = -(-percent * amount // 100)
    lower = max((p for p in (50, 80) if (least - 1) * 100 >= p * amount), default=None)
    assert share(least - 1, amount) == (None if lower is None else (str(lower), 0))
    assert int(share(least, amount)[0]) >= percent


@pytest.mark.parametrize(
    ("used", "hits", "told", "expected"),
    [
        (0, 0, (), None),
        (499, 0, (), None),
        (500, 0, (), ("50", 0)),
        (800, 0, (), ("80", 0)),  # and 50 is passed
        (5000, 0, (), ("100", 0)),  # and 50 and 80 are
        (600, 0, ("50",), None),
        (600, 0, ("80",), None),  # the limit was raised
        (900, 0, ("100",), None),
        (1000, 0, ("50", "80"), ("100", 0)),
        (1000, 0, ("100",), None),
        (799, 3, (), ("50", 0)),  # one request asked for more than is left
        (10, 3, (), None),
        (800, 3, (), ("100", 3)),  # what is left serves nobody
        (800, 0, ("hit", "80"), ("100", 0)),  # usage that came in after its refusal
        (800, 3, ("100",), None),
    ],
)
def test_the_highest_share_that_is_new(used, hits, told, expected):
    assert share(used, hits=hits, told=told) == expected


@pytest.mark.parametrize(
    ("used", "hits", "expected"), [(0, 0, None), (1, 0, ("100", 0)), (0, 1, ("100", 1))]
)
def test_nothing_is_used_up_once_something_was_used_or_refused(used, hits, expected):
    assert share(used, amount=0, hits=hits) == expected


@pytest.mark.parametrize(
    ("hits", "told", "expected"),
    [(0, (), None), (4, (), "hit"), (4, ("hit", "80"), "hit"), (4, ("hit", "100"), "100")],
)
def test_hits_are_counted_where_the_window_was_last_told_of(hits, told, expected):
    found = of_hits(MONTH, Reading(1000, "enforce", 10), hits, told)
    assert (found and found.threshold) == expected
    assert found is None or found.hits == hits


@pytest.mark.parametrize(
    ("spent", "floor", "told", "expected"),
    [
        (90, 10, (), None),  # ten are left, and ten is not below ten
        (91, 10, (), "balance"),
        (91, 10, ("balance",), None),
        (100, 0, (), None),  # never
        (100, 1, (), "balance"),
    ],
)
def test_a_balance_is_told_below_its_floor(spent, floor, told, expected):
    found = of_balance(BALANCE, Reading(100, "enforce", spent), floor, told)
    assert (found and found.threshold) == expected


def test_of_a_limit_that_is_gone_or_not_metered_there_is_no_share():
    assert of_share(MONTH, Reading(None, ""), 1, ()) is None
    assert of_share(MONTH, Reading(1000, "enforce"), 1, ()) is None
