"""Give the demo a past: weeks of usage through the real journal, and last month's invoice, paid.

Nothing is inserted beside the product: frames are written as a gateway writes them, the shipper
ships them, a worker takes them in, the period is closed and Stripe (or its sandbox) collects.

Idempotent: the instant the history ends at is kept, request ids are a function of the hour, and a
closed period stays closed. A run that was stopped half way is simply run again.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import UUID

import msgspec
from django.conf import settings

from billing.invoicing.close import close_period
from billing.pricing.queries import published_version
from meterplane.contracts.usage import Admit, Settle
from meterplane.journal.directory import list_directories, worker_of
from meterplane.journal.segment import SegmentPath, list_segments
from meterplane.journal.writer import JournalWriter
from meterplane.kernel import clock
from meterplane.kernel.invariant import ensure
from meterplane.policy.learn import learn_reservations
from meterplane.stack import demo, demo_payment, demo_progress, demo_usage
from meterplane.stack.demo_progress import Progress
from meterplane.stack.demo_usage import UnitPrices
from meterplane.stack.layout import Layout

WRITER = "demo"
TAKEN_IN_WITHIN_S = 300.0  # about 5 s on two cores
POLL_S = 0.1
FRAMES_PER_COMMIT = 2_000


def load_history(layout: Layout) -> int:
    """Write, ship, ingest, invoice and collect. Requests written; 0 when all was there before."""
    progress = demo_progress.read(layout) or Progress(until_ms=clock.now_ms())
    organisation = demo.demo_organisation()
    if progress.is_complete or organisation is None:
        return 0
    demo_progress.store(layout, progress)
    demo_payment.provide_card(organisation.id)  # first: whoever closes its period now is to be paid
    until = clock.from_ms(progress.until_ms)
    requests = demo_usage.history(
        demo.callers(organisation), _prices(), demo.history_starts_at(until), until
    )
    written = asyncio.run(_write(requests))
    _wait_until_taken_in()
    learn_reservations()  # not only an hour from now
    this_month = until.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    close_period(organisation.id, this_month)
    demo_payment.collect(organisation.id)
    demo_progress.store(layout, msgspec.structs.replace(progress, is_complete=True))
    return written


async def _write(requests: Iterable[tuple[Admit, Settle]]) -> int:
    journal = JournalWriter.open(Path(settings.JOURNAL_DIR), WRITER)
    written = 0
    try:
        for admit, settle in requests:
            journal.append(admit)
            journal.append(settle)
            written += 1
            if written % FRAMES_PER_COMMIT == 0:
                await journal.commit()
        await journal.commit()
    finally:
        await journal.close()
    return written


def _prices() -> dict[str, UnitPrices]:
    book = published_version(clock.now())
    if book is None:
        return {}
    return {
        name: UnitPrices(
            book.version_id,
            book.currency,
            price.input_token_pico,
            price.output_token_pico,
            price.request_pico,
        )
        for name, price in book.prices.items()
    }


def _wait_until_taken_in() -> None:
    """The shipper deletes a segment only when PostgreSQL holds its events."""
    deadline = time.monotonic() + TAKEN_IN_WITHIN_S
    while any(_pending()):
        ensure(time.monotonic() < deadline, "the demo's journal is shipped and ingested")
        time.sleep(POLL_S)


def _pending() -> list[UUID]:
    return [
        segment.segment_id
        for directory in list_directories(Path(settings.JOURNAL_DIR))
        if worker_of(directory) == WRITER
        for segment in _segments(directory)
    ]


def _segments(directory: Path) -> Sequence[SegmentPath]:
    try:
        return list_segments(directory)
    except FileNotFoundError:
        return []  # the shipper removed it between two looks
