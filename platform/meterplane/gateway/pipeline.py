"""A metered request, stage by stage:

    authenticate -> parse -> admit (reserve) -> journal ADMIT -> forward -> measure -> SETTLE -> end

Exactly one SETTLE for every ADMIT, however it ends: answered, refused by the model, broken
upstream, abandoned by the caller, or cut by our own shutdown.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from meterplane.gateway.admit import Admission, Admitter
from meterplane.gateway.authenticate import authenticate, bearer_digest
from meterplane.gateway.exchange import ClientGone, Exchange
from meterplane.gateway.forward import forward
from meterplane.gateway.policies import Policies
from meterplane.gateway.run import Run
from meterplane.gateway.surface import Work
from meterplane.journal.writer import JournalWriter
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.limits import REFUSING_POLICY_AGE_S_MAX
from meterplane.triton.client import TritonClient

Parse = Callable[[bytes], Work]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker holds for all its requests."""

    pepper: bytes
    policies: Policies
    admitter: Admitter
    journal: JournalWriter
    triton: TritonClient


async def serve(exchange: Exchange, parse: Parse, parts: Parts) -> Run:
    """Answer one metered request. Raises what the caller must still be told, settled already."""
    digest = bearer_digest(exchange.headers.get(b"authorization"), parts.pepper)
    policy = await authenticate(digest, parts.policies)
    work = parse(await exchange.body())
    if work.model not in policy.models:
        # It may have come on sale since this policy was read.
        policy = await parts.policies.find(digest, REFUSING_POLICY_AGE_S_MAX) or policy
    work.model_policy(policy)
    admission = await parts.admitter.admit(
        exchange.request_id, digest, policy, work.worst_cost_nano
    )
    exchange.extra += _limit_headers(admission)
    run = Run(work, admission, parts.journal, parts.admitter)
    try:
        run.begin()
    except WorldError:
        await parts.admitter.settle(admission, 0)
        raise
    try:
        await forward(exchange, run, parts.triton)
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
        await run.settle("cancelled", 499)
        raise
    except BaseException:
        await run.settle("error", 500)
        raise
    return run


def _limit_headers(admission: Admission) -> list[tuple[bytes, bytes]]:
    rate = admission.policy.rate
    if rate is None:
        return []
    return [
        (b"x-ratelimit-limit-requests", str(rate.requests_per_minute).encode()),
        (b"x-ratelimit-remaining-requests", str(max(0, admission.remaining_requests)).encode()),
    ]
