"""Who is next at a busy model, and who gives way: the queue alone, without a clock."""

import random
from collections import Counter, deque
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meterplane.gateway.fair_queue import CLASSES, TURNS, FairQueue, Waiting
from meterplane.gateway.ranking import Ranking

HIGH, NORMAL, LOW = range(CLASSES)


def of(tenant, *, rank=NORMAL, weight=1, cost=1):
    return Waiting(tenant, rank, weight, cost)


def filled(places, *requests):
    queue = FairQueue(places)
    for one in requests:
        assert queue.add(one) == []
    return queue


def taken(queue, count=None):
    found = []
    while count is None or len(found) < count:
        one = queue.take()
        if one is None:
            break
        found.append(one)
    return found


# --- shares


@pytest.mark.parametrize("weights", [{"a": 1, "b": 3}, {"a": 1, "b": 1}, {"a": 5, "b": 2, "c": 9}])
def test_organisations_share_by_weight(weights):
    requests = [of(t, weight=w) for t, w in weights.items() for _ in range(1000)]
    queue = filled(len(requests), *requests)
    total = sum(weights.values())
    shares = Counter(one.tenant for one in taken(queue, 40 * total))
    for tenant, weight in weights.items():
        assert abs(shares[tenant] - 40 * weight) <= 1


def test_dear_requests_count_as_what_they_cost():
    queue = filled(2000, *(of("dear", cost=100) for _ in range(1000)),
                   *(of("cheap", cost=10) for _ in range(1000)))  # fmt: skip
    shares = Counter(one.tenant for one in taken(queue, 110))
    assert shares == {"dear": 10, "cheap": 100}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.lists(st.integers(1, 500), min_size=1, max_size=12)),
        min_size=2,
        max_size=4,
    )
)
def test_no_organisation_is_more_than_one_request_of_each_ahead_of_another_that_waits(flows):
    queue = FairQueue(10_000)
    left = {}
    for tenant, (weight, costs) in enumerate(flows):
        left[tenant] = len(costs)
        for cost in costs:
            queue.add(of(tenant, weight=weight, cost=cost))
    dearest = {t: Fraction(max(costs), weight) for t, (weight, costs) in enumerate(flows)}
    given_of = dict.fromkeys(left, Fraction(0))
    while all(left.values()):
        one = queue.take()
        given_of[one.tenant] += Fraction(one.cost, one.weight)
        left[one.tenant] -= 1
        for a in left:
            for b in left:
                # Plus what rounding down to integers of virtual time loses, one part a request.
                slack = Fraction(sum(len(costs) for _, costs in flows), 1 << 20)
                assert abs(given_of[a] - given_of[b]) <= dearest[a] + dearest[b] + slack


def test_an_organisation_is_served_in_its_order():
    mine = [of("a", cost=cost) for cost in (9, 1, 5, 3)]
    queue = filled(10, *mine, of("b"), of("b"))
    assert [one for one in taken(queue) if one.tenant == "a"] == mine


def test_time_away_is_no_credit():
    queue = filled(1000, *(of("busy") for _ in range(500)))
    taken(queue, 300)
    for _ in range(100):
        queue.add(of("new"))
    assert Counter(one.tenant for one in taken(queue, 100)) == {"busy": 50, "new": 50}


def test_leaving_and_coming_back_does_not_forgive_what_was_taken():
    queue = filled(100, of("a", cost=1000), *(of("b", cost=100) for _ in range(20)))
    assert queue.take().tenant == "a"
    queue.add(of("a", cost=1000))
    assert [one.tenant for one in taken(queue, 10)] == ["b"] * 10


def test_what_did_not_need_to_wait_counts_too():
    queue = FairQueue(100)
    for _ in range(50):
        queue.charge(of("loud", cost=10))
    assert queue.add(of("loud", cost=10)) == []
    assert queue.add(of("quiet", cost=10)) == []
    assert queue.take().tenant == "quiet"


def test_what_left_the_queue_used_nothing():
    leaving = [of("a") for _ in range(50)]
    queue = filled(100, *leaving)
    for one in leaving:
        assert queue.remove(one)
        assert not queue.remove(one)
    for _ in range(20):
        queue.add(of("a"))
        queue.add(of("b"))
    assert Counter(one.tenant for one in taken(queue, 20)) == {"a": 10, "b": 10}


# --- classes


def test_classes_go_before_shares():
    queue = filled(100, of("a", rank=LOW), of("a", rank=NORMAL), of("b", rank=HIGH), of("a"))
    assert [one.rank for one in taken(queue)] == [HIGH, NORMAL, NORMAL, LOW]


@pytest.mark.parametrize("ranks", [(HIGH, LOW), (HIGH, NORMAL, LOW), (NORMAL, LOW)])
def test_no_class_starves(ranks):
    requests = [of("a", rank=rank) for rank in ranks for _ in range(500)]
    order = [one.rank for one in taken(filled(2000, *requests), 480)]
    for rank in ranks[1:]:
        for at in range(0, len(order) - TURNS, TURNS):
            assert rank in order[at : at + TURNS]
    assert order.count(ranks[0]) >= len(order) * (TURNS - 2 * (len(ranks) - 1)) // TURNS


# --- a full queue


def test_the_newest_of_the_greediest_gives_way_to_a_newcomer():
    loud = [of("loud") for _ in range(9)]
    queue = filled(10, *loud, of("other"))
    quiet = of("quiet")
    assert queue.add(quiet) == [loud[-1]]
    assert quiet in taken(queue)


def test_the_greediest_finds_a_full_queue_itself():
    queue = filled(10, *(of("loud") for _ in range(9)), of("quiet"))
    late = of("loud")
    assert queue.add(late) == [late]


def test_greed_is_by_weight():
    heavy = [of("heavy", weight=4) for _ in range(6)]
    light = [of("light", weight=1) for _ in range(2)]
    queue = filled(8, *heavy, *light)
    assert queue.add(of("new")) == [light[-1]]


def test_the_lower_class_gives_way_first_but_keeps_its_part():
    low = [of("a", rank=LOW) for _ in range(20)]
    queue = filled(32, *low, *(of("b", rank=HIGH) for _ in range(12)))
    gone = [queue.add(of("c", rank=HIGH))[0] for _ in range(30)]
    assert gone[:18] == low[:1:-1]  # all but 32 / 16 = 2 of them, the newest first
    assert all(one.rank == HIGH for one in gone[18:])


@pytest.mark.parametrize("seed", range(20))
def test_who_would_give_way_is_known_before(seed):
    """Exactly, while nobody is given another weight."""
    draw = random.Random(seed)
    queue = FairQueue(20)
    known = 0
    for _ in range(600):
        one = of(draw.randrange(4), rank=draw.choice((0, 1, 1, 2)), weight=2)
        in_vain = queue.has_no_place_for(one)
        known += in_vain
        assert in_vain == (queue.add(one) == [one])
        if draw.random() < 0.3:
            queue.take()
    assert known > 50


def test_a_queue_of_no_places_takes_nobody():
    queue = FairQueue(0)
    one = of("a")
    assert queue.add(one) == [one]
    assert len(queue) == 0


def test_fewer_places_hold_from_the_next_on():
    queue = filled(10, *(of("a") for _ in range(10)))
    queue.places_max = 3
    assert len(queue.add(of("b"))) == 8
    assert sorted(one.tenant for one in taken(queue)) == ["a", "a", "b"]


# --- how many are ahead


def test_a_quiet_organisation_is_not_told_of_a_loud_ones_queue():
    queue = filled(2000, *(of("loud") for _ in range(1000)))
    assert queue.ahead_of(of("quiet")) == 1
    assert queue.ahead_of(of("loud")) == 1000
    assert queue.ahead_of(of("loud", rank=HIGH)) == 0
    assert queue.ahead_of(of("quiet", rank=LOW)) == TURNS - 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 40)), min_size=1, max_size=5), st.data()
)
def test_those_ahead_are_counted_to_within_one_of_each_organisation(flows, data):
    queue = FairQueue(10_000)
    weights = {tenant: weight + 1 for tenant, (weight, _) in enumerate(flows)}
    for tenant, (_, count) in enumerate(flows):
        for _ in range(count):
            queue.add(of(tenant, weight=weights[tenant]))
    me = data.draw(st.integers(0, len(flows)))
    mine = of(me, weight=weights.get(me, 1))
    expected = queue.ahead_of(mine)
    queue.add(mine)
    place = taken(queue).index(mine)
    # It counts as if all others had enough to take their shares until then: never too few.
    assert place <= expected + len(flows)


def test_who_holds_as_much_as_another_is_not_told_for_certain_that_it_gives_way():
    """A heavier weight on a second request made it even with others: one of those gave way."""
    queue = FairQueue(2)
    queue.add(of(3, weight=1))
    queue.add(of(0, weight=1))
    one = of(3, weight=2)
    assert not queue.has_no_place_for(one) or queue.add(one) == [one]


# --- everything together, against a plain model


class Everything(RuleBasedStateMachine):
    """Nothing is lost, nothing taken twice, and the queue holds no more than it may."""

    def __init__(self):
        super().__init__()
        self.queue = FairQueue(8)
        self.inside = []

    @rule(tenant=st.integers(0, 3), rank=st.integers(0, 2), weight=st.integers(1, 4),
          cost=st.integers(1, 50))  # fmt: skip
    def add(self, tenant, rank, weight, cost):
        one = of(tenant, rank=rank, weight=weight, cost=cost)
        self.inside.append(one)
        in_vain = self.queue.has_no_place_for(one)
        lost = self.queue.add(one)
        assert not in_vain or lost == [one]
        for gone in lost:
            same = [each for each in self.inside if self.flow(each) == self.flow(gone)]
            assert same[-1] is gone
            self.inside.remove(gone)
            assert len(self.inside) >= self.queue.places_max

    @staticmethod
    def flow(one):
        return one.tenant, one.rank

    @rule()
    def take(self):
        one = self.queue.take()
        assert (one is None) == (not self.inside)
        if one is not None:
            assert one is next(each for each in self.inside if self.flow(each) == self.flow(one))
            self.inside.remove(one)

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def leave(self, data):
        one = data.draw(st.sampled_from(self.inside))
        assert self.queue.remove(one)
        assert not self.queue.remove(one)
        self.inside.remove(one)

    @precondition(lambda self: not self.inside)
    @rule(tenant=st.integers(0, 3), rank=st.integers(0, 2))
    def charge(self, tenant, rank):
        self.queue.charge(of(tenant, rank=rank, cost=7))

    @precondition(lambda self: not self.inside)
    @rule()
    def forget(self):
        self.queue.forget()

    @rule(places=st.integers(1, 12))
    def resize(self, places):
        if places >= len(self.inside):
            self.queue.places_max = places

    @invariant()
    def it_holds_what_was_put_in(self):
        assert len(self.queue) == len(self.inside) <= self.queue.places_max
        assert all(one.queued for one in self.inside)

    def teardown(self):
        assert Counter(map(id, taken(self.queue))) == Counter(map(id, self.inside))


Everything.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestEverything = Everything.TestCase


# --- the heap below


@pytest.mark.parametrize("seed", range(20))
def test_a_ranking_is_a_sorted_list(seed):
    draw = random.Random(seed)
    ranking, plain, number = Ranking(), {}, 0
    for _ in range(2000):
        thing = draw.randrange(40)
        if draw.random() < 0.6:
            number += 1
            rank = draw.randrange(30)
            ranking.put(thing, rank)
            plain[thing] = (rank, number)
        else:
            ranking.discard(thing)
            plain.pop(thing, None)
        assert len(ranking) == len(plain)
        if plain:
            first = min(plain, key=plain.__getitem__)
            assert ranking.first() == (plain[first][0], first)


def test_an_operation_costs_the_logarithm_of_those_that_wait(monkeypatch):
    compared = 0

    def before(one, other):
        nonlocal compared
        compared += 1
        return one[:2] < other[:2]

    monkeypatch.setattr("meterplane.gateway.ranking._before", before)
    queue = FairQueue(20_000)
    for tenant in range(10_000):
        queue.add(of(tenant, cost=tenant % 97 + 1))
        queue.add(of(tenant, cost=tenant % 89 + 1))
    assert compared <= 20_000 * 2 * 2 * 15
    worst = 0
    for _ in range(2000):
        before_it, order = compared, queue.take()
        assert order is not None
        worst = max(worst, compared - before_it)
    assert worst <= 6 * 2 * 15, "a take looks at more than a few paths of its heaps"


def test_debts_are_forgotten_beyond_a_bound():
    queue = FairQueue(10)
    for tenant in range(10_000):
        queue.charge(of(tenant, cost=1_000_000))
    (_, normal, _) = queue._classes
    assert len(normal._owed) <= 4096
    assert deque(normal._owed)[-1] == 9999
