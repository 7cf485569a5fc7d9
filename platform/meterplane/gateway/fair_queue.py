"""Who is next where a model is busy: a bounded queue without a clock and without I/O.

Order: classes strictly (0 first), but a class that waits has at least one of `TURNS` turns; inside
a class, organisations share by weight; inside an organisation, first come first served.

Shares are start-time fair queueing (Goyal, Vin, Cheng 1996): what is taken moves its organisation
on by cost / weight, and whoever is furthest behind is next. While two organisations of a class both
wait, what they were given, each divided by its weight, differs by no more than one request of each.
Only what is taken is charged: who leaves the queue has used nothing. An organisation that was away
is not credited for it, and what it took ahead of the others it still owes when it comes back.

A queue that is full loses the newest request of whoever holds the most of it for their weight, in
the lowest class that holds more than its 1/`TURNS`: a newcomer of a quiet organisation does not pay
for a loud one.

Every operation is O(log n), n being the organisations that wait.
"""

from collections import OrderedDict
from collections.abc import Hashable

from meterplane.gateway.ranking import Ranking

CLASSES = 3
TURNS = 16
DEBTS_MAX = 4096  # organisations that are ahead and do not wait; the least debt is forgotten
_UNIT = 1 << 20  # of virtual time: cost x unit / weight, in integers, so that nothing drifts


class Waiting:
    """One request. `rank` is its class, `cost` what serving it is worth, at least 1."""

    __slots__ = ("cost", "queued", "rank", "tenant", "weight")

    def __init__(self, tenant: Hashable, rank: int, weight: int, cost: int) -> None:
        self.tenant = tenant
        self.rank = rank
        self.weight = max(1, weight)
        self.cost = max(1, cost)
        self.queued = False


class _Flow:
    """One organisation's requests of one class. `weight` is that of the newest."""

    __slots__ = ("requests", "start", "weight")

    def __init__(self, start: int) -> None:
        self.requests: OrderedDict[Waiting, None] = OrderedDict()
        self.start = start  # its virtual time: where its share is used up to
        self.weight = 0


class _Class:
    """The organisations of one class. `now` is its virtual time: the start of what was taken."""

    __slots__ = ("_flows", "_now", "_order", "_owed", "_owing", "_size_by_weight", "passed_over",
                 "size", "weights")  # fmt: skip

    def __init__(self) -> None:
        self.size = 0
        self.weights = 0  # of the organisations that wait
        self.passed_over = 0  # turns others had while this one waited
        self._now = 0
        self._flows: dict[Hashable, _Flow] = {}
        self._order: Ranking[Hashable] = Ranking()  # by start
        self._size_by_weight: Ranking[Hashable] = Ranking()  # the most first
        self._owed: dict[Hashable, int] = {}  # start of those that are ahead and do not wait
        self._owing: Ranking[Hashable] = Ranking()

    def holds(self, tenant: Hashable) -> int:
        """How many requests of an organisation wait here."""
        flow = self._flows.get(tenant)
        return len(flow.requests) if flow is not None else 0

    def add(self, one: Waiting) -> None:
        """Queue a request."""
        flow = self._flows.get(one.tenant)
        if flow is None:
            flow = self._flows[one.tenant] = _Flow(self._resume(one.tenant))
            self._order.put(one.tenant, flow.start)
        self.weights += one.weight - flow.weight
        flow.weight = one.weight
        flow.requests[one] = None
        one.queued = True
        self.size += 1
        self._rank(one.tenant, flow)

    def take(self) -> Waiting:
        """The next one's request, charged; there is one."""
        start, tenant = self._order.first()
        flow = self._flows[tenant]
        one = next(iter(flow.requests))
        self._now = max(self._now, start)
        flow.start = start + one.cost * _UNIT // one.weight
        self._order.put(tenant, flow.start)
        self.remove(one)
        self._forgive()
        return one

    def charge(self, one: Waiting) -> None:
        """As if it had been queued and taken; nobody of its organisation waits in this class."""
        start = self._resume(one.tenant)
        self._now = max(self._now, start)
        self._owe(one.tenant, start + one.cost * _UNIT // one.weight)
        self._forgive()

    def remove(self, one: Waiting) -> None:
        """Take a request out, uncharged; it is queued here."""
        flow = self._flows[one.tenant]
        del flow.requests[one]
        one.queued = False
        self.size -= 1
        if flow.requests:
            self._rank(one.tenant, flow)
        else:
            del self._flows[one.tenant]
            self.weights -= flow.weight
            self._order.discard(one.tenant)
            self._size_by_weight.discard(one.tenant)
            self._owe(one.tenant, flow.start)
        if not self.size:
            self.passed_over = 0

    def newest_of_the_greediest(self) -> Waiting:
        """Of whoever holds the most for their weight; there is one."""
        _, tenant = self._size_by_weight.first()
        return next(reversed(self._flows[tenant].requests))

    def is_greediest_with(self, one: Waiting) -> bool:
        """Whether its organisation would hold the most for its weight, were it queued now.

        False where that is not certain: others may follow whoever holds the most and has been given
        more weight since, and of two that hold as much either may be the one.
        """
        if not self.size:
            return True
        rank = self._rank_of(self.holds(one.tenant) + 1, one.weight)
        most, _ = self._size_by_weight.first()
        return rank < most

    def forget(self) -> None:
        """Nobody waits: what anybody took before counts no more."""
        self._owed.clear()
        self._owing.clear()

    def _rank(self, tenant: Hashable, flow: _Flow) -> None:
        self._size_by_weight.put(tenant, self._rank_of(len(flow.requests), flow.weight))

    @staticmethod
    def _rank_of(size: int, weight: int) -> int:
        return -(size * _UNIT // weight)

    def _resume(self, tenant: Hashable) -> int:
        self._owing.discard(tenant)
        return max(self._now, self._owed.pop(tenant, 0))

    def _owe(self, tenant: Hashable, start: int) -> None:
        if start > self._now:
            self._owed[tenant] = start
            self._owing.put(tenant, start)
            if len(self._owing) > DEBTS_MAX:
                self._forgive_first()

    def _forgive(self) -> None:
        while len(self._owing) and self._owing.first()[0] <= self._now:
            self._forgive_first()

    def _forgive_first(self) -> None:
        _, tenant = self._owing.first()
        self._owing.discard(tenant)
        del self._owed[tenant]


class FairQueue:
    """One model's. `places_max` may be changed at any time; it holds from the next `add` on."""

    __slots__ = ("_classes", "_size", "places_max")

    def __init__(self, places_max: int = 0) -> None:
        self.places_max = places_max
        self._classes = tuple(_Class() for _ in range(CLASSES))
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, one: Waiting) -> list[Waiting]:
        """Queue one. What has to give way for it, if anything: it may be that one itself."""
        self._classes[one.rank].add(one)
        self._size += 1
        gone = []
        while self._size > self.places_max:
            loser = self._crowded().newest_of_the_greediest()
            self.remove(loser)
            gone.append(loser)
        return gone

    def has_no_place_for(self, one: Waiting) -> bool:
        """Whether it would give way itself, were it added now. O(1); False where not certain."""
        if self._size < self.places_max:
            return False
        floor = self.places_max // TURNS
        own = self._classes[one.rank]
        lower = self._classes[one.rank + 1 :]
        if own.size + 1 <= floor or any(each.size > floor for each in lower):
            return False
        return own.is_greediest_with(one)

    def take(self) -> Waiting | None:
        """Whose turn it is; None when nobody waits."""
        if not self._size:
            return None
        self._size -= 1
        return self._turn().take()

    def remove(self, one: Waiting) -> bool:
        """Take one out that is not waited for any more; False when it was not queued."""
        if not one.queued:
            return False
        self._classes[one.rank].remove(one)
        self._size -= 1
        return True

    def charge(self, one: Waiting) -> None:
        """One that need not wait, because nobody does, takes its organisation's share as well."""
        self._classes[one.rank].charge(one)

    def forget(self) -> None:
        """Nothing is under way and nobody waits: what anybody took before counts no more."""
        for each in self._classes:
            each.forget()

    def ahead_of(self, one: Waiting) -> int:
        """About how many would be taken before it, were it queued now and nobody came after. O(1).

        Counts requests, not their costs. Of its own class, those that the others' shares let go
        before its organisation's own turn comes; the higher classes, up to its class's turns.
        """
        own = self._classes[one.rank]
        mine = own.holds(one.tenant)
        weights = own.weights + (0 if mine else one.weight)
        behind = min(own.size, -(-(mine + 1) * weights // one.weight) - 1)
        higher = sum(each.size for each in self._classes[: one.rank])
        return min(higher + behind, (behind + 1) * TURNS - 1)

    def _crowded(self) -> _Class:
        floor = self.places_max // TURNS
        return next(each for each in reversed(self._classes) if each.size > floor)

    def _turn(self) -> _Class:
        waiting = [each for each in self._classes if each.size]
        chosen = waiting[0]
        for each in waiting[1:]:
            # Two may come due at once: one less, so that the second still has its turn in time.
            if each.passed_over >= max(TURNS - CLASSES + 1, chosen.passed_over):
                chosen = each
        for each in waiting:
            each.passed_over += 1
        chosen.passed_over = 0
        return chosen
