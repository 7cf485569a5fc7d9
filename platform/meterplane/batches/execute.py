"""Run lines of a batch for a while: claim, ask the gateway, write down, until the slice is over.

One thread speaks to PostgreSQL and holds the leases; the others only wait for the gateway. A worker
that is killed loses nothing: its lines are free again when their leases end.
"""

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import IO
from uuid import UUID

from django.conf import settings

from meterplane.batches import content, lines
from meterplane.batches.claim import ClaimedLine, claim, next_look_s, renew
from meterplane.batches.gateway_client import GatewayClient
from meterplane.batches.limits import (
    GATHER_S,
    LINES_AT_ONCE,
    PASS_S,
    PAUSE_S_MIN,
    RENEW_EVERY_S,
    SLICE_S,
)
from meterplane.batches.models import Batch
from meterplane.batches.outcome import (
    Attempt,
    NoAnswer,
    Unreachable,
    ends_the_batch,
    failed,
    judge,
    pause_after_s,
)
from meterplane.batches.record import end_the_rest, record
from meterplane.contracts import batch_pass
from meterplane.kernel import clock
from tenants.scoping import tenant_scope

Ask = Callable[[ClaimedLine, bytes], Attempt]


def run_slice(tenant_id: UUID, batch_id: UUID, for_s: float = SLICE_S) -> float:
    """Run lines of the batch for about `for_s` seconds; seconds until it is worth another look."""
    with tenant_scope(tenant_id):
        batch = Batch.objects.select_related("key").filter(id=batch_id).first()
    if batch is None or batch.status not in ("in_progress", "cancelling", "expiring"):
        return 0
    try:
        with (
            content.opened(tenant_id, batch.input_file_id) as file,
            GatewayClient(settings.GATEWAY_INTERNAL_URL) as gateway,
        ):
            pause_s = _Slice(batch, file, partial(_ask, gateway, batch)).run(for_s)
    except FileNotFoundError:
        lost = failed(batch_id, "file_unreadable", "The input file cannot be read.").body
        end_the_rest(tenant_id, batch_id, lost, sent=False)
        end_the_rest(tenant_id, batch_id, lost, sent=True)
        return PAUSE_S_MIN
    return max(pause_s, next_look_s(tenant_id, batch_id))


def _ask(gateway: GatewayClient, batch: Batch, line: ClaimedLine, body: bytes) -> Attempt:
    """One attempt, in a thread of its own. Touches no database."""
    signed_pass = batch_pass.sign(
        batch_pass.BatchPass(
            digest=bytes(batch.key.digest),
            request_id=line.request_id,
            batch_id=batch.id,
            expires_at_ms=clock.now_ms() + PASS_S * 1000,
        ),
        settings.API_KEY_PEPPER,
    )
    try:
        return gateway.post(batch.endpoint, body, signed_pass)
    except (Unreachable, NoAnswer) as nothing:
        return nothing


class _Slice:
    """The lines in flight of one slice."""

    def __init__(self, batch: Batch, file: IO[bytes], ask: Ask) -> None:
        self._batch = batch
        self._file = file
        self._ask = ask
        self._running: dict[Future[Attempt], ClaimedLine] = {}
        self._resume_at = 0.0
        self._renewed_at = time.monotonic()

    def run(self, for_s: float) -> float:
        """Run lines; how long the gateway asks to wait before the next one begins."""
        until = time.monotonic() + for_s
        with ThreadPoolExecutor(LINES_AT_ONCE, "batch-line") as pool:
            while True:
                if self._resume_at <= time.monotonic() < until:
                    self._fill(pool)
                if not self._running:
                    # Paused, or nothing is free: the worker has better to do than to wait here.
                    return max(0.0, self._resume_at - time.monotonic())
                done, _ = wait(self._running, RENEW_EVERY_S, FIRST_COMPLETED)
                if 0 < len(done) < len(self._running):
                    done, _ = wait(self._running, GATHER_S)  # the rest of a wave, in one write
                if done:
                    self._write_down(done)
                self._hold()

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        free = LINES_AT_ONCE - len(self._running)
        for line in claim(self._batch.tenant_id, self._batch.id, free) if free else []:
            self._file.seek(line.start_byte)
            body = lines.body_of(self._file.read(line.size_bytes))
            body = lines.inheriting(body, self._batch.metadata)
            self._running[pool.submit(self._ask, line, body)] = line

    def _write_down(self, done: set[Future[Attempt]]) -> None:
        attempts = [(self._running.pop(each), each.result()) for each in done]
        outcomes = [judge(line, attempt) for line, attempt in attempts]
        record(self._batch.tenant_id, self._batch.id, outcomes)
        for _, attempt in attempts:
            self._resume_at = max(self._resume_at, time.monotonic() + pause_after_s(attempt))
        errors = [error for _, each in attempts if (error := ends_the_batch(each)) is not None]
        if errors:
            end_the_rest(self._batch.tenant_id, self._batch.id, errors[0], sent=False)

    def _hold(self) -> None:
        """Renew the leases of what is in flight, when it is time."""
        if self._running and time.monotonic() - self._renewed_at >= RENEW_EVERY_S:
            self._renewed_at = time.monotonic()
            held = [line.id for line in self._running.values()]
            renew(self._batch.tenant_id, self._batch.id, held)
