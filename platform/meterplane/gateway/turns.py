"""Turns at a busy model: at most so many requests forwarded at once, the others wait or are shed.

Guarantees, per worker and model with a bound (`ModelServing.in_flight_max`): no more than that are
forwarded at once; no more than `queue_max` wait, none longer than `queue_s_max` or than its caller
does; whoever is not expected to be served in that time is told so at once and not after waiting.
Who is next and who gives way is `fair_queue.py`'s. What is shed was never forwarded.

The wait that is expected is the requests ahead divided by the rate at which turns ended lately:
the places over the mean time a turn took, or over the time for which none has ended, where that is
longer: a server that hangs is not expected to be what it was.
"""

import asyncio
import random
import time
from collections.abc import Iterator

from meterplane.contracts.policy import KeyPolicy, Priority
from meterplane.contracts.serving import ModelServing
from meterplane.contracts.usage import ServiceTier
from meterplane.gateway.exposition import Family, Histogram
from meterplane.gateway.fair_queue import FairQueue, Waiting
from meterplane.gateway.offers import Plan
from meterplane.kernel.errors import WorldError

RANKS: dict[Priority, int] = {"high": 0, "normal": 1, "low": 2}
WEIGHT_OF_NEWEST = 0.1  # in the mean time of a turn: the last ten make 65 % of it
RETRY_AFTER_S_MAX = 60
WAIT_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def overloaded(model: str, seconds: float) -> WorldError:
    """503: too many others wait for a model; `seconds` until those now waiting are served.

    Whoever was refused with others does not come back with them: all at once they would be a stall
    for everybody, again and again.
    """
    after_s = max(1, int(seconds + 1))
    after_s += random.randrange(after_s + 1)  # noqa: S311  a spread, not a secret
    return WorldError(
        "model_overloaded",
        f"The model {model!r} has more requests than it can serve in time. Nothing was charged; "
        "try again shortly.",
        retry_after_s=min(RETRY_AFTER_S_MAX, after_s),
    )


class Request(Waiting):
    """A request that wants a turn. Batches are low, whatever their key is."""

    __slots__ = ("admitted", "since")

    def __init__(self, plan: Plan, policy: KeyPolicy, offer_at: int = 0) -> None:
        bounds = plan.bounds[offer_at]
        rank = rank_of(plan.tier, policy)
        tokens = bounds.tokens_in_max + bounds.tokens_out_max
        super().__init__(policy.tenant_id, rank, policy.weight, tokens or bounds.rows)
        self.since = time.monotonic()
        self.admitted: asyncio.Future[Turn] | None = None


def priority_of(tier: ServiceTier, policy: KeyPolicy) -> Priority:
    """The class of a request."""
    return "low" if tier == "batch" else policy.priority


def rank_of(tier: ServiceTier, policy: KeyPolicy) -> int:
    """The class of a request, 0 first."""
    return RANKS[priority_of(tier, policy)]


class Turn:
    """The right to be forwarded. `end` it, however the request ends; more than once is no harm."""

    __slots__ = ("_began", "_gate")

    def __init__(self, gate: "Gate") -> None:
        self._gate: Gate | None = gate
        self._began = time.monotonic()

    def end(self) -> None:
        """The server is done with it: the next may go."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.ended(time.monotonic() - self._began)


class Gate:
    """One model's turns in one worker. `serving` is what its bounds are read from, the newest."""

    def __init__(self, serving: ModelServing) -> None:
        self.serving = serving
        self.queue = FairQueue()
        self.running = 0
        self.turn_s = 0.0  # mean; 0: not known yet
        self.waits = Histogram(WAIT_S)
        self.shed = 0
        self._moved_at = 0.0  # when a turn last began or ended

    def free(self, one: Request) -> Turn | None:
        """A turn at once; None when others run or wait in its way."""
        if not self.open:
            return None
        self.queue.charge(one)
        return self._begin()

    async def take(self, one: Request, patience_s: float) -> Turn:
        """A turn, when it comes. Raises `WorldError` 503 when it would not come in time."""
        turn = self.free(one)
        if turn is not None:
            return turn
        allowed_s = self._allowed_s(one, patience_s)
        if allowed_s is None:
            raise self._refuse()
        loop = asyncio.get_running_loop()
        admitted: asyncio.Future[Turn] = loop.create_future()
        one.admitted = admitted
        for loser in self.queue.add(one):
            self._turn_away(loser)
        timer = loop.call_later(allowed_s, self._late, one)
        try:
            return await admitted
        except asyncio.CancelledError:
            self.queue.remove(one)
            if not admitted.cancelled() and admitted.exception() is None:
                admitted.result().end()  # it came just as the caller left
            raise
        finally:
            timer.cancel()

    def check(self, one: Request, patience_s: float) -> None:
        """Raises `WorldError` 503 if `take` would, as far as that can be told without queueing."""
        if self.open:
            return
        if self._allowed_s(one, patience_s) is None or self.queue.has_no_place_for(one):
            raise self._refuse()

    @property
    def open(self) -> bool:
        """There is a turn for whoever asks next."""
        return self.running < self.serving.in_flight_max and not len(self.queue)

    def _allowed_s(self, one: Request, patience_s: float) -> float | None:
        """How long it may wait; None where it is not expected to be served in that time."""
        self.queue.places_max = self.serving.queue_max
        allowed_s = min(self.serving.queue_s_max, patience_s)
        if allowed_s <= 0 or self._expected_s(self.queue.ahead_of(one)) > allowed_s:
            return None
        return allowed_s

    def ended(self, took_s: float) -> None:
        """A turn is over: the next begin."""
        self.running -= 1
        self._moved_at = time.monotonic()
        self.turn_s += (took_s - self.turn_s) * (WEIGHT_OF_NEWEST if self.turn_s else 1)
        self.let_in()

    def let_in(self) -> None:
        """Give the turns that are free to those that wait, in order."""
        while self.running < self.serving.in_flight_max:
            one = self.queue.take()
            if one is None:
                break
            assert isinstance(one, Request)
            if one.admitted is not None and not one.admitted.done():
                self.waits.observe(time.monotonic() - one.since)
                one.admitted.set_result(self._begin())
        if not self.running and not len(self.queue):
            self.queue.forget()

    def _begin(self) -> Turn:
        self.running += 1
        self._moved_at = time.monotonic()
        return Turn(self)

    def _expected_s(self, ahead: int) -> float:
        turn_s = max(self.turn_s, time.monotonic() - self._moved_at)
        return (ahead + 1) * turn_s / max(1, self.serving.in_flight_max)

    def _late(self, one: Request) -> None:
        if self.queue.remove(one):
            self._turn_away(one)

    def _turn_away(self, one: Waiting) -> None:
        assert isinstance(one, Request)
        if one.admitted is not None and not one.admitted.done():
            one.admitted.set_exception(self._refuse())

    def _refuse(self) -> WorldError:
        self.shed += 1
        return overloaded(self.serving.name, self._expected_s(len(self.queue)))


class Turns:
    """The gates of one worker, by model. Models without a bound have none."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}  # as many as the catalog has models with a bound

    def gate(self, serving: ModelServing) -> Gate:
        """A model's gate, under the bounds of the newest serving it was asked for with."""
        gate = self._gates.get(serving.name)
        if gate is None:
            gate = self._gates[serving.name] = Gate(serving)
        elif serving.version > gate.serving.version:
            gate.serving = serving
            gate.let_in()
        return gate

    def check(self, plan: Plan, policy: KeyPolicy, patience_s: float) -> None:
        """Raises `WorldError` 503 for a request that would be shed: before it is admitted.

        A flood is refused for a fraction of what its admission would cost everybody. What only
        queueing can tell is told then.
        """
        first, *others = (offer.serving for offer in plan.offers)
        if not first.in_flight_max or any(
            not each.in_flight_max or self.gate(each).open for each in others
        ):
            return
        self.gate(first).check(Request(plan, policy), patience_s)

    def families(self) -> Iterator[Family]:
        """The state of all gates, as metrics."""
        in_turn = Family(
            "meterplane_gateway_turns", "gauge", "Requests of a bounded model that are forwarded."
        )
        queued = Family("meterplane_gateway_queued", "gauge", "Requests waiting for their turn.")
        waits = Family(
            "meterplane_gateway_queue_seconds", "histogram", "What those waited that had a turn."
        )
        shed = Family(
            "meterplane_gateway_shed", "counter", "Requests refused because a model was busy."
        )
        for name, gate in self._gates.items():
            in_turn.add(gate.running, model=name)
            queued.add(len(gate.queue), model=name)
            waits.add(gate.waits, model=name)
            shed.add(gate.shed, model=name)
        yield from (in_turn, queued, waits, shed)
