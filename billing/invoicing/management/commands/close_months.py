"""`manage.py close_months`: the month of everybody whose month is over, with all processors.

Safe to stop and to start again, also beside the workers that do the same every hour.
"""

import multiprocessing
import os
import sys
import time
from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from billing.invoicing.due import SHARDS, Closed, close_shard, count_due, month_due
from meterplane.kernel import clock

SHOWN_EVERY_MS = 500
PROBLEMS_SHOWN_MAX = 20


class Command(BaseCommand):
    help = "Close last month of every organisation that is still open; pay for nothing twice."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Up to when, and how many at once."""
        parser.add_argument("--until", help="the first day after the month, e.g. 2026-12-01")
        parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)

    def handle(self, *args: Any, **options: Any) -> None:
        """Exits non-zero when some organisation could not be closed, and names it."""
        until = self._until(options["until"])
        if not 1 <= options["processes"] <= SHARDS:
            raise CommandError(f"--processes is 1 to {SHARDS}.")
        due = count_due(until)
        if not due:
            self.stdout.write(f"Nobody is due: all is closed up to {until:%Y-%m-%d}.")
            return
        self.stdout.write(f"{due:,} organisations are to be closed up to {until:%Y-%m-%d} UTC.")
        began_ms = _now_ms()
        problems = self._close(until, options["processes"], due, began_ms)
        took_s = (_now_ms() - began_ms) // 1000
        closed = due - count_due(until)
        self.stdout.write(f"closed {closed:,} of {due:,} in {took_s:,} s")
        for each in problems[:PROBLEMS_SHOWN_MAX]:
            self.stdout.write(f"  {each.tenant_id}: {each.problem}")
        if problems:
            raise CommandError(f"{len(problems)} could not be closed; the others are.")

    def _until(self, text: str | None) -> datetime:
        if text is None:
            return month_due(clock.now())
        try:
            until = datetime.fromisoformat(text).replace(tzinfo=UTC)
        except ValueError:
            raise CommandError(f"{text!r} is not a day like 2026-12-01.") from None
        if until > clock.now():
            raise CommandError(f"{text} is not over yet: months are closed up to the present.")
        return until

    def _close(self, until: datetime, processes: int, due: int, began_ms: int) -> list[Closed]:
        context = multiprocessing.get_context("fork")
        told: Any = context.SimpleQueue()
        connections.close_all()  # a connection is of one process
        shards = [range(first, SHARDS, processes) for first in range(processes)]
        workers = [
            context.Process(target=_work, args=(until, some, told), daemon=True) for some in shards
        ]
        for worker in workers:
            worker.start()
        problems: list[Closed] = []
        done, running, shown_at_ms = 0, processes, began_ms
        while running:
            found = told.get()
            if found is None:
                running -= 1
                continue
            done += 1
            problems += [found] if found.problem else []
            if sys.stdout.isatty() and _now_ms() - shown_at_ms > SHOWN_EVERY_MS:
                shown_at_ms = _now_ms()
                self._show(done, due, len(problems), shown_at_ms - began_ms)
        for worker in workers:
            worker.join()
        return problems

    def _show(self, done: int, due: int, failed: int, took_ms: int) -> None:
        rate = done * 1000 // took_ms
        left_s = max(0, due - done) * took_ms // (done * 1000)
        bar = "#" * (30 * done // max(done, due))
        self.stdout.write(
            f"\r[{bar:<30}] {done:,} of {due:,}, {failed} failed, {rate:,}/s, {left_s:,} s left ",
            ending="",
        )
        self.stdout.flush()


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _work(until: datetime, shards: range, told: Any) -> None:
    try:
        for shard in shards:
            for closed in close_shard(until, shard):
                told.put(closed)
    finally:
        connections.close_all()
        told.put(None)
