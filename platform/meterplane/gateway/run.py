"""One admitted request, from its ADMIT to its one SETTLE.

Guarantees: ADMIT is with the kernel before the request is forwarded; SETTLE is on the disk when
`settle` returns, and happens once however often it is asked for. What it cost is quantity times the
prices pinned at admission, and never more than was reserved. A request that the model failed costs
nothing unless its model's policy says otherwise, or it had parts that did not fail.
"""

import logging
import math
import time
from typing import NamedTuple

from meterplane.contracts import usage
from meterplane.contracts.policy import ModelPolicy
from meterplane.contracts.serving import Target
from meterplane.gateway import tags
from meterplane.gateway.admission_commands import Worst
from meterplane.gateway.admit import Admission, Admitter
from meterplane.gateway.fit import sole_stop
from meterplane.gateway.limit_headers import limit_headers
from meterplane.gateway.offers import Plan, targets_in_order
from meterplane.gateway.surface import Offer
from meterplane.gateway.turns import Request, Turn, Turns, priority_of
from meterplane.journal.succession import Journal
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError

log = logging.getLogger("meterplane.gateway")


class Due(NamedTuple):
    """What a failed request is due for all the same; `rows` are the prompts it was made from."""

    tokens_in: int
    tokens_out: int
    rows: int


class Run:
    """Counts of a running request. Fields are set by whoever measures them."""

    __slots__ = (
        "_admitter",
        "_began",
        "_first_byte",
        "_forwarded",
        "_journal",
        "_last_byte",
        "_offer_at",
        "_queued_us",
        "_target_at",
        "_targets",
        "_turns",
        "admission",
        "bytes_out",
        "due_despite_failure",
        "offer",
        "plan",
        "provenance",
        "request_id",
        "retries",
        "rows",
        "served",
        "server",
        "settled",
        "tags",
        "target",
        "tensor_bytes_out",
        "tokens_in",
        "tokens_out",
        "trace_id",
        "turn",
        "wanted_by",
        "work",
    )

    def __init__(
        self,
        plan: Plan,
        admission: Admission,
        journal: Journal,
        admitter: Admitter,
        turns: Turns,
    ) -> None:
        self.plan = plan
        self.work = plan.work
        self.admission = admission
        self.request_id = admission.request_id
        self.tokens_in = 0
        self.tokens_out = 0
        self.bytes_out = 0
        self.tensor_bytes_out = 0
        self.retries = 0
        self.wanted_by = math.inf  # monotonic: the caller's own deadline
        self.served = False  # something of an answer was computed: the request itself is due
        # Of the counts: what parts of it delivered that did not fail themselves.
        self.due_despite_failure: Due | None = None
        self.provenance: usage.Provenance = "units"
        self.server = ""
        self.trace_id = ""
        self.tags = tags.NONE
        self.settled: usage.Settle | None = None
        self._journal = journal
        self._admitter = admitter
        self._turns = turns
        self.turn: Turn | None = None  # of the model that serves, where that has a bound
        self._began = time.monotonic()
        self._queued_us = 0
        self._forwarded = 0.0
        self._first_byte = 0.0
        self._last_byte = 0.0
        self._use(0)

    @property
    def model(self) -> ModelPolicy:
        """The model that serves: the one asked for, or a fallback."""
        return self.offer.model

    def _use(self, offer_at: int) -> None:
        self._offer_at = offer_at
        self.offer: Offer = self.plan.offers[offer_at]
        self.rows = self.plan.bounds[offer_at].rows
        self._targets = targets_in_order(self.offer.serving)
        self._target_at = 0
        self.target: Target = self._targets[0]

    def move_on(self) -> bool:
        """To the next target of the model, or the next model; False when there is none.

        Only while nothing was computed: nobody is billed for two servers' work on one request.
        """
        if self._target_at + 1 < len(self._targets):
            self._target_at += 1
            self.target = self._targets[self._target_at]
        elif not self._next_model():
            return False
        self.retries += 1
        self._forwarded = self._first_byte = self._last_byte = 0.0  # of the one that serves
        self.begin()
        return True

    def take_turn_at_once(self, offer_at: int = 0) -> bool:
        """The turn of a model it may use, if one is free; True where none is needed."""
        serving = self.plan.offers[offer_at].serving
        if not serving.in_flight_max:
            return True
        asked = Request(self.plan, self.admission.policy, offer_at)
        self.turn = self._turns.gate(serving).free(asked)
        return self.turn is not None

    async def wait_turn(self, patience_s: float) -> None:
        """Before ADMIT: wait for the turn of the model that was asked for, no longer than that.

        Where it does not come in time, a fallback serves that takes it at once. Raises `WorldError`
        503 where there is none.
        """
        asked = Request(self.plan, self.admission.policy)
        try:
            self.turn = await self._turns.gate(self.offer.serving).take(asked, patience_s)
        except WorldError:
            if not self._next_model():
                raise

    def _next_model(self) -> bool:
        """To the next model that takes it at once: one that is busy is no help."""
        self.end_turn()
        for offer_at in range(self._offer_at + 1, len(self.plan.offers)):
            if self.take_turn_at_once(offer_at):
                self._use(offer_at)
                return True
        return False

    def end_turn(self) -> None:
        """The server is done with it. Nothing where that was told before."""
        if self.turn is not None:
            self.turn.end()
            self.turn = None

    def begin(self) -> None:
        """Write ADMIT. Raises `JournalUnavailable`: then nothing may be forwarded."""
        policy, prices = self.admission.policy, self.offer.prices
        self._journal.admit(
            usage.Admit(
                request_id=self.request_id,
                tenant_id=policy.tenant_id,
                project_id=policy.project_id,
                key_id=policy.key_id,
                model=self.model.name,
                surface=self.work.surface,
                stream=self.work.stream,
                currency=policy.currency,
                price_version_id=policy.price_version_id,
                input_token_pico=prices.input_token_pico,
                output_token_pico=prices.output_token_pico,
                request_pico=prices.request_pico,
                reserved_nano=self.admission.reserved_nano,
                admitted_at_ms=self.admission.admitted_at_ms,
                service_tier=self.plan.tier,
                requested_model=self._requested_model,
                deployment=self._deployment,
                epoch=self.admission.epoch,
                reservation=self.admission.reservation.decode(),
                tags=self.tags,
                priority=priority_of(self.plan.tier, policy),
                region=self.target.region,
                gpu_type=self.target.gpu_type,
            )
        )

    @property
    def _requested_model(self) -> str:
        return "" if self.model.name == self.work.model else self.work.model

    @property
    def _deployment(self) -> str:
        # One deployment needs no name: the split is told where there is one.
        return self.target.name if len(self.offer.serving.targets) > 1 else ""

    def told(self) -> bytes:
        """Header lines: what is left of the caller's limits, as far as it is known by now."""
        settled = self.settled
        billed_nano = None if settled is None else settled.cost_nano
        return limit_headers(self.admission, billed_nano) + self.plan.header()

    def forwarded(self, received_at: float) -> None:
        """The request is about to go to the server; `received_at` is when it was all here."""
        self._forwarded = time.monotonic()
        if received_at:
            self._queued_us = int((self._forwarded - received_at) * 1_000_000)

    def first_byte(self) -> None:
        """The first of the answer arrived from the server."""
        if not self._first_byte:
            self._first_byte = time.monotonic()

    def last_byte(self) -> None:
        """The last of the answer arrived from the server."""
        self._last_byte = time.monotonic()

    async def checkpoint(self) -> None:
        """Write the counts so far: what a crash would be settled from.

        While the journal's disk has failed it waits, and so does what would be delivered next.
        Raises `JournalUnavailable` when the journal cannot go on with this request.
        """
        written = self._journal.checkpoint(
            usage.Checkpoint(
                request_id=self.request_id,
                tokens_in=self.tokens_in,
                tokens_out=self.tokens_out,
                bytes_out=self.bytes_out,
            )
        )
        if not written:
            await self._journal.resumed(self.request_id)

    async def settle(self, status: usage.Status, http_status: int) -> None:
        """Make the one SETTLE durable and give the rest of the reservation back.

        While the journal's disk has failed it waits for another one to take it. Raises
        `JournalUnavailable`: then the end of the answer must not leave.
        """
        self.end_turn()  # not at an answer's last byte: one that refuses is followed by another
        if self.settled is None:
            settled = self.settled = self._settlement(status, http_status)
            # Once it is with the journal, a caller that leaves must not interrupt what follows.
            self._journal.settle(settled)
            self._admitter.release(
                self.admission, Worst(settled.cost_nano, settled.tokens_in, settled.tokens_out)
            )
        await self._journal.commit(self.request_id)

    def _settlement(self, status: usage.Status, http_status: int) -> usage.Settle:
        policy, work = self.admission.policy, self.work
        if status == "error" and not self.offer.serving.bill_errors:
            due = self.due_despite_failure
            self.served = due is not None
            self.tokens_in, self.tokens_out, self.rows = due or Due(0, 0, 0)
        now = time.monotonic()
        return usage.Settle(
            request_id=self.request_id,
            tenant_id=policy.tenant_id,
            project_id=policy.project_id,
            key_id=policy.key_id,
            model=self.model.name,
            surface=work.surface,
            stream=work.stream,
            status=status,
            http_status=http_status,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            requests=1 if self.served else 0,
            rows=self.rows if self.served else 0,
            bytes_in=work.bytes_in,
            bytes_out=self.bytes_out,
            provenance=self.provenance,
            currency=policy.currency,
            price_version_id=policy.price_version_id,
            cost_nano=self._cost_nano(),
            reserved_nano=self.admission.reserved_nano,
            admitted_at_ms=self.admission.admitted_at_ms,
            settled_at_ms=clock.now_ms(),
            first_byte_ms=_ms(self._first_byte - self._began) if self._first_byte else 0,
            total_ms=int((now - self._began) * 1000),
            server=self.server,
            service_tier=self.plan.tier,
            requested_model=self._requested_model,
            deployment=self._deployment,
            tensor_bytes_in=work.tensor_bytes_in,
            tensor_bytes_out=self.tensor_bytes_out,
            queue_us=self._queued_us,
            compute_us=self._compute_us(now),
            retries=self.retries,
            trace_id=self.trace_id,
            tokens_out_stop=sole_stop(self.plan.bounds[self._offer_at]),
            epoch=self.admission.epoch,
            tags=self.tags,
            priority=priority_of(self.plan.tier, policy),
            region=self.target.region,
            gpu_type=self.target.gpu_type,
        )

    def _compute_us(self, now: float) -> int:
        if not self._forwarded:
            return 0
        return int(((self._last_byte or now) - self._forwarded) * 1_000_000)

    @property
    def first_byte_s(self) -> float:
        """Seconds from forwarding to the first byte of the answer; 0 when none came."""
        return self._first_byte - self._forwarded if self._first_byte else 0.0

    @property
    def asked_between(self) -> tuple[float, float]:
        """When the server was asked, and when it had answered; monotonic, 0 when it was not."""
        return self._forwarded, self._last_byte or time.monotonic()

    def _cost_nano(self) -> int:
        prices = self.offer.prices
        cost_nano = usage.cost_nano(
            self.tokens_in,
            self.tokens_out,
            1 if self.served else 0,
            input_token_pico=prices.input_token_pico,
            output_token_pico=prices.output_token_pico,
            request_pico=prices.request_pico,
        )
        if cost_nano > self.admission.reserved_nano:
            # The model's bound was wrong. The customer pays what was promised at admission at most.
            log.error(
                "cost above reservation",
                extra={"request_id": str(self.request_id), "cost_nano": cost_nano},
            )
            return self.admission.reserved_nano
        return cost_nano


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
