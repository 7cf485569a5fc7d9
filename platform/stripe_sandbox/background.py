"""What happens without a request: webhook attempts, automatic collection, forgetting.

One asyncio task that sleeps until the next thing is due or a request wakes it. Every step reads
what to do from the store, so a restart resumes where the last process stopped.
"""

import asyncio
import contextlib
import logging
import threading

from stripe_sandbox import clock, events, idempotency, test_clocks, webhooks
from stripe_sandbox.call import Call
from stripe_sandbox.checkout_sessions import run_out
from stripe_sandbox.errors import StripeError
from stripe_sandbox.invoice_states import finalize_draft
from stripe_sandbox.payments import collect_by_timer
from stripe_sandbox.store import Document, Ledger, Store

POSTS_AT_ONCE = 4
TIMERS_PER_STEP = 20
MAX_SLEEP_S = 30.0
FORGET_EVERY_S = 3600
STOP_WITHIN_S = 1.0

log = logging.getLogger("stripe_sandbox.background")


class Background:
    """Runs from `start` to `stop`; `wake` after anything was written."""

    def __init__(self, ledger: Ledger, base_url: str, retry_ms: int) -> None:
        self._ledger = ledger
        self._base_url = base_url
        self._retry_ms = retry_ms
        self._woken = asyncio.Event()
        self._busy: set[int] = set()
        self._posts: set[asyncio.Task[None]] = set()
        self._forgot_at = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; needs a running loop."""
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Something may be due now."""
        self._woken.set()

    def look_again(self) -> None:
        """The time was moved: the next step sees what is over now. Safe from any thread."""
        self._forgot_at = 0

    async def told(self, request_id: str, within_ms: int) -> None:
        """Wait until every event of a request has been tried at every endpoint."""

        def untried(store: Store) -> int:
            row = store.connection.execute(
                "SELECT count(*) FROM delivery JOIN object ON object.id = delivery.event"
                " WHERE state = 'pending' AND attempts = 0"
                " AND json_extract(body, '$.request.id') = ?",
                (request_id,),
            ).fetchone()
            return int(row[0])

        deadline_ms = clock.now_ms() + within_ms
        while await self._ledger.run(untried) and clock.now_ms() < deadline_ms:
            self.wake()
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Give attempts under way a moment; what is pending stays pending on disk."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._posts:
            _, hanging = await asyncio.wait(self._posts, timeout=STOP_WITHIN_S)
            for post in hanging:
                post.cancel()

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                sleep_s = await self._step()
            except Exception:  # a bug in one step must not silence all later ones
                log.exception("background step failed")
                sleep_s = 1.0
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), sleep_s)

    async def _step(self) -> float:
        """Do what is due; seconds until something is due again."""
        now = clock.now_s()
        await self._ledger.run(lambda store: run_timers(store, self._base_url, now))
        await self._ledger.run(lambda store: run_clocks(store, self._base_url))
        if now - self._forgot_at >= FORGET_EVERY_S:
            self._forgot_at = now
            await self._ledger.run(lambda store: _forget(store, now))
        free = POSTS_AT_ONCE - len(self._busy)
        if free > 0:
            busy = frozenset(self._busy)
            found = await self._ledger.run(lambda store: webhooks.due(store, clock.now_ms(), busy))
            for delivery in found[:free]:
                self._busy.add(delivery.id)
                post = asyncio.create_task(self._deliver(delivery))
                self._posts.add(post)
                post.add_done_callback(self._posts.discard)
        return await self._ledger.run(self._until_next)

    async def _deliver(self, delivery: webhooks.Delivery) -> None:
        try:
            failure = await _post_in_thread(delivery)
            await self._ledger.run(
                lambda store: webhooks.record(store, delivery, failure, self._retry_ms)
            )
        finally:
            self._busy.discard(delivery.id)
            self.wake()

    def _until_next(self, store: Store) -> float:
        sleeps = [MAX_SLEEP_S]
        delivery_ms = webhooks.next_due_ms(store, self._busy)
        if delivery_ms is not None and len(self._busy) < POSTS_AT_ONCE:
            sleeps.append((delivery_ms - clock.now_ms()) / 1000)
        act_at = store.next_timer()
        if act_at is not None:
            sleeps.append(act_at - clock.now_ms() / 1000)
        if test_clocks.advancing(store):
            sleeps.append(0.0)
        return max(0.0, min(sleeps))


def _post_in_thread(delivery: webhooks.Delivery) -> asyncio.Future[str | None]:
    """Daemon threads, not a pool: a receiver that hangs must not hold up the process's exit."""
    loop = asyncio.get_running_loop()
    posted: asyncio.Future[str | None] = loop.create_future()

    def settle(failure: str | None) -> None:
        if not posted.done():
            posted.set_result(failure)

    def work() -> None:
        failure = webhooks.post(delivery)
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(settle, failure)

    threading.Thread(target=work, name=f"webhook-{delivery.id}", daemon=True).start()
    return posted


def run_timers(store: Store, base_url: str, now: int) -> None:
    """Finalize drafts, try open invoices, let Checkouts run out: each in its own transaction."""
    for document in store.due(now, TIMERS_PER_STEP):
        _run_timer(Call(store=store, now=now, base_url=base_url), document)


def _run_timer(call: Call, document: Document) -> None:
    with call.store.transaction():
        # Whatever happens below, the same instant must not come again.
        call.store.set_timer(document["id"], None)
        try:
            with call.store.attempt():
                _advance(call, document)
        except StripeError as refused:
            log.warning("%s did not advance by itself: %s", document["id"], refused.message)


def run_clocks(store: Store, base_url: str) -> None:
    """Let happen what is due on advancing test clocks, in order, each thing at its own moment."""
    for test_clock in test_clocks.advancing(store):
        for _ in range(TIMERS_PER_STEP):
            due = test_clocks.next_due(store, test_clock)
            if due is None:
                with store.transaction():
                    call = Call(store=store, now=clock.now_s(), base_url=base_url)
                    test_clocks.arrive(call, test_clock)
                break
            act_at, document = due
            _run_timer(Call(store=store, now=act_at, base_url=base_url), document)


def _advance(call: Call, document: Document) -> None:
    if document["object"] == "checkout.session":
        if document["status"] == "open":
            run_out(call, document)
    elif document["status"] == "draft":
        finalize_draft(call, document, None)
    elif document["status"] == "open":
        collect_by_timer(call, document)


def _forget(store: Store, now: int) -> None:
    idempotency.prune(store, now)
    events.forget(store, now)
