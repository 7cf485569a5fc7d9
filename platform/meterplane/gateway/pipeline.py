"""A metered request, stage by stage:

    authenticate -> parse -> admit (reserve) -> wait for a turn, where the model has a bound
    -> journal ADMIT -> forward -> measure -> SETTLE -> end

Exactly one SETTLE for every ADMIT, however it ends: answered, refused by the model, broken
upstream, abandoned by the caller, out of time, or cut by our own shutdown.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from meterplane.contracts.policy import KeyPolicy
from meterplane.gateway import patience
from meterplane.gateway.access_log import AccessLog
from meterplane.gateway.addresses import Network, caller_address
from meterplane.gateway.admission_commands import NOTHING
from meterplane.gateway.admit import Admission, Admitter
from meterplane.gateway.authenticate import authenticate, check_usable
from meterplane.gateway.callers import Caller, identify
from meterplane.gateway.exchange import ClientGone, Exchange
from meterplane.gateway.metrics import Metrics
from meterplane.gateway.offers import Plan, ServingUnread, Speaks
from meterplane.gateway.policies import Policies
from meterplane.gateway.prompts import Prompts
from meterplane.gateway.readiness import Readiness
from meterplane.gateway.revocation import Cuttable, OpenRuns
from meterplane.gateway.run import Run
from meterplane.gateway.servings import Servings
from meterplane.gateway.spans import Spans
from meterplane.gateway.surface import Work
from meterplane.gateway.tags import HEADER as TAGS_HEADER
from meterplane.gateway.tags import tags_of
from meterplane.gateway.turns import Turns
from meterplane.journal.succession import Journal
from meterplane.journal.writer import JournalUnavailable
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.limits import REFUSING_POLICY_AGE_S_MAX
from meterplane.triton.failures import TritonTimeout
from meterplane.triton.fleet import Fleet

Parse = Callable[[bytes], Work]
Forward = Callable[[Exchange, Run, "Parts"], Awaitable[None]]
SERVINGS_READ_MAX = 8  # the model's, its fallbacks', and again after a change


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker holds for all its requests."""

    pepper: bytes
    policies: Policies
    servings: Servings
    admitter: Admitter
    journal: Journal
    fleet: Fleet
    prompts: Prompts
    metrics: Metrics
    log: AccessLog
    control_url: str
    readiness: Readiness
    open_runs: OpenRuns
    turns: Turns
    trusted_proxies: Sequence[Network] = ()
    spans: Spans | None = None  # where they are asked for


class Asker(Cuttable, Protocol):
    """A request over whatever it came by."""

    request_id: UUID
    headers: dict[bytes, bytes]


async def serve(
    exchange: Exchange, parse: Parse, speaks: Speaks, forward: Forward, parts: Parts
) -> Run:
    """Answer one metered request. Raises what the caller must still be told, settled already."""
    headers = exchange.headers
    address = caller_address(exchange.peer, headers.get(b"x-forwarded-for"), parts.trusted_proxies)
    caller = identify(headers.get(b"authorization"), parts.pepper, address)
    policy = await authenticate(caller.digest, parts.policies)
    work = parse(await exchange.body())
    try:
        exchange.allow()  # the body has come; what is waited for from now on has bounds of its own
        patience_s = patience.of(headers, exchange.received_at)
        run = await open_run(parts, caller, policy, work, speaks, exchange, patience_s)
        exchange.run = run
        # A line of a batch comes again, under its id, and is the same usage event: what this one is
        # settled with is what that answer costs. So it is computed to its end.
        exchange.runs_on = caller.request_id is not None
        if exchange.trace is not None:
            run.trace_id = exchange.trace.trace_id
        await conclude(run, forward(exchange, run, parts), exchange, lambda: exchange.cut)
        return run
    finally:
        parts.open_runs.forget(caller.digest, exchange)


async def open_run(
    parts: Parts,
    caller: Caller,
    policy: KeyPolicy,
    work: Work,
    speaks: Speaks,
    asker: Asker,
    patience_s: float = math.inf,
) -> Run:
    """Admit a request and write its ADMIT. Raises `CallerError` or `WorldError`, nothing held.

    Where the model is busy it waits for its turn, no longer than `patience_s`: then its caller
    does not wait any more.

    From then on it is cut if its key may not infer any more: whoever calls forgets it at its end.
    """
    check_usable(policy)  # a body takes time to arrive, and an expiry raises no version
    tags = tags_of(asker.headers.get(TAGS_HEADER), work.metadata)
    plan = Plan(work, caller, parts.servings, speaks, parts.prompts)
    request_id = caller.request_id or asker.request_id
    parts.journal.check()  # nothing is reserved for what could not be written down
    directory = parts.journal.directory
    admission = await _admit(parts, caller, policy, plan, request_id, patience_s)
    parts.open_runs.note(caller.digest, admission.policy, asker)
    run = Run(plan, admission, parts.journal, parts.admitter, parts.turns)
    run.tags = tags
    run.wanted_by = time.monotonic() + patience_s
    try:
        if not run.take_turn_at_once():
            await run.wait_turn(patience_s)
            held = admission.reservation.decode() if admission.prepared.holds else ""
            await parts.open_runs.confirm(caller.digest, held)
        if parts.journal.directory is not directory:
            # What is reserved bears the failed one's mark: whoever recovers that gives it back.
            raise JournalUnavailable("the journal was replaced meanwhile; try again")
        _check_cancelled()
        run.begin()
    except (CallerError, WorldError, asyncio.CancelledError):
        run.end_turn()
        parts.admitter.release(admission, NOTHING)
        raise
    return run


def _check_cancelled() -> None:
    """Raise a cancellation that a library took for its own: it comes only once.

    So does `asyncio.wait_for` of Python 3.11, and with it psycopg's pool, when what it waits for is
    there as the caller leaves. The engine would work for nobody until it is silent or done.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _admit(
    parts: Parts,
    caller: Caller,
    policy: KeyPolicy,
    plan: Plan,
    request_id: UUID,
    patience_s: float,
) -> Admission:
    for _ in range(SERVINGS_READ_MAX):
        try:
            policy = await _letting(parts, caller, policy, plan)
            if plan.offers[0].serving.in_flight_max:
                parts.turns.check(plan, policy, patience_s)
            return await parts.admitter.admit(request_id, caller.digest, policy, plan)
        except ServingUnread as unread:
            policy = unread.policy
            await plan.read_serving(unread)
    raise WorldError("serving_unsettled", "This model is being changed just now; try again.")


async def _letting(parts: Parts, caller: Caller, policy: KeyPolicy, plan: Plan) -> KeyPolicy:
    """The policy if the request is possible under it, without a round trip.

    What refuses one is a moment old at the most: a model may have come on sale since, or a limit of
    the key been lifted. Raises `CallerError` as `plan.worst` does, and 401 or 403 for the key.
    """
    try:
        plan.worst(policy)
    except CallerError:
        current = await authenticate(caller.digest, parts.policies, REFUSING_POLICY_AGE_S_MAX)
        if current is policy:
            raise
        plan.worst(current)
        return current
    return policy


async def conclude(
    run: Run, forwarding: Awaitable[None], asker: Asker, cut: Callable[[], str]
) -> None:
    """Forward an admitted request and see to its SETTLE, however it ends.

    `cut` tells why the task was cancelled, if it was: the caller left, time is up, or the key may
    not infer any more (then `asker.refusal` is what the caller is told).
    """
    try:
        await _settled(run, forwarding, asker, cut)
    finally:
        run.end_turn()


async def _settled(
    run: Run, forwarding: Awaitable[None], asker: Asker, cut: Callable[[], str]
) -> None:
    try:
        await forwarding
    except CallerError as refused:
        await run.settle("error", refused.status)
        raise
    except WorldError as broken:
        await run.settle("error", broken.status)
        raise
    except ClientGone:
        await run.settle("cancelled", 499)
        raise
    except asyncio.CancelledError:
        why = cut()
        if why:
            go_on_after_cancel()
        if why == "refused" and asker.refusal is not None:
            # What was made until then was ordered by a key that was good.
            await run.settle("interrupted", asker.refusal.status)
            raise asker.refusal from None
        if why == "late":
            # What the engine computed until then is due: it is not the model that failed.
            await run.settle("interrupted", TritonTimeout().status)
            raise TritonTimeout from None
        await run.settle("cancelled", 499)
        if why == "left":
            raise ClientGone from None
        raise
    except BaseException:
        await run.settle("error", 500)
        raise


def go_on_after_cancel() -> None:
    """For a task that was cancelled and answers all the same."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
