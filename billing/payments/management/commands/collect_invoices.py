"""`manage.py collect-invoices`: bring what waits to the payment provider, and show how far it is.

The same work as the workers' sweep, on several threads at once, as calls to the provider are mostly
waiting. It may be started beside workers and beside itself: runs are held by a lease. Killed at any
instant it loses nothing: every step is committed before it is sent (see `run` and `steps`).

What waits for a later try, or is held elsewhere, is waited for.
"""

import contextlib
import logging
import shutil
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection

from billing.invoicing.models import Invoice
from billing.payments.collect import collect
from billing.payments.progress import Progress, progress, why_parked
from billing.payments.provider import PaymentProvider, ProviderNotConfigured
from billing.payments.stripe import provider
from billing.payments.tasks import uncollected
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

AT_ONCE, AT_ONCE_MAX = 8, 32
TOLD_EVERY_S = 1  # on a terminal; a line of its own, in a log, each `LINE_EVERY_S`
LINE_EVERY_S = 10
AGAIN_AFTER_S = 5  # what could not be begun: the provider was away before there was a run
IDLE_S = 0.5
BAR_CHARS = 20
NS = 10**9  # in a second
PARKED_SHOWN = 10
STOPPED = 130  # as a shell says of what Ctrl-C ended


class Command(BaseCommand):
    help = (
        "Brings every invoice that waits to the payment provider and shows how far it is. Exits 1"
        " if one of them is parked. May be stopped at any time, and started again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """How many at once, or none: then it only looks."""
        parser.add_argument(
            "--at-once",
            type=int,
            default=AT_ONCE,
            help=f"invoices worked on at the same time, 1 to {AT_ONCE_MAX} (usual: {AT_ONCE})",
        )
        parser.add_argument("--watch", action="store_true", help="only show what workers do")

    def handle(self, *args: Any, **options: Any) -> None:
        """Until nothing waits."""
        if not 1 <= options["at_once"] <= AT_ONCE_MAX:
            raise CommandError(f"--at-once takes 1 to {AT_ONCE_MAX}.")
        crew = _Crew(0 if options["watch"] else options["at_once"])
        teller = _Teller(self.stdout)
        try:
            crew.start()
            now = self._follow(crew, teller)
        except KeyboardInterrupt:
            self._stopped(crew, teller)
            sys.exit(STOPPED)
        crew.stop()
        teller.tell(now, is_last=True)
        if crew.refused:
            raise CommandError(crew.refused)
        self._parked()

    def _follow(self, crew: "_Crew", teller: "_Teller") -> Progress:
        """Tell how far it is until nothing waits, or nothing can be done; the last of it."""
        while True:
            now = progress()
            if not now.waiting or crew.refused:
                return now
            teller.tell(now)
            time.sleep(TOLD_EVERY_S)

    def _stopped(self, crew: "_Crew", teller: "_Teller") -> None:
        teller.end()
        if crew.is_working:
            self.stdout.write("Finishing what is under way. Ctrl-C again ends at once.")
        with contextlib.suppress(KeyboardInterrupt):
            crew.stop()
        now = progress()
        self.stdout.write(
            f"Stopped: {now.done:,} done, {now.waiting:,} wait, {now.parked:,} parked. Nothing is"
            " lost: the workers go on with it, and so does `manage.py collect-invoices`."
        )

    def _parked(self) -> None:
        """Of whatever day, the newest first, each with what differs first."""
        with system_scope("an operator collects"):
            parked = Invoice.objects.filter(collection_state=Invoice.Collection.PARKED)
            count = parked.count()
            shown = list(parked.select_related("tenant").order_by("-created_at")[:PARKED_SHOWN])
        if not count:
            self.stdout.write("Nothing waits and nothing is parked.")
            return
        for each in shown:
            why = why_parked(each.collection_note)
            self.stdout.write(f"  parked: {each.tenant.slug} {each.id}  {why}")
        raise CommandError(f"{count:,} invoices are parked: a person must look at them.")


class _Crew:
    """Threads that collect. Each invoice is one thread's here, and one lease's everywhere.

    They end with the process, whatever they are at.
    """

    def __init__(self, at_once: int) -> None:
        self.refused = ""  # why nothing can be done at all
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(at_once)]
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._taken: set[UUID] = set()
        self._not_before_ns: dict[UUID, int] = {}
        self._due: Iterator[tuple[UUID, UUID]] = iter(())

    @property
    def is_working(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """When what is under way is done."""
        self._stopping.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _work(self) -> None:
        try:
            account = provider()
            while not self._stopping.is_set():
                try:
                    found = self._next()
                except DatabaseError:
                    log.exception("what is to be collected cannot be read")
                    connection.close()  # the next try gets a new one
                    found = None
                if found is None:
                    self._stopping.wait(IDLE_S)
                else:
                    self._collect(*found, account)
        except ProviderNotConfigured as refused:
            self.refused = refused.message
            self._stopping.set()
        finally:
            connection.close()

    def _next(self) -> tuple[UUID, UUID] | None:
        with self._lock:
            found = self._free(self._due)
            if found is None:
                self._due = iter(uncollected())
                found = self._free(self._due)
            if found is not None:
                self._taken.add(found[1])
            return found

    def _free(self, due: Iterable[tuple[UUID, UUID]]) -> tuple[UUID, UUID] | None:
        now_ns = time.monotonic_ns()
        for tenant_id, invoice_id in due:
            if invoice_id not in self._taken and self._not_before_ns.get(invoice_id, 0) <= now_ns:
                return tenant_id, invoice_id
        return None

    def _collect(self, tenant_id: UUID, invoice_id: UUID, account: PaymentProvider) -> None:
        """Raises `ProviderNotConfigured`: then nothing can be collected."""
        try:
            collect(tenant_id, invoice_id, account)
        except ProviderNotConfigured:
            raise
        except WorldError as away:
            log.info("invoice %s waits: %s", invoice_id, away.message)
        except Exception:
            log.exception("invoice %s could not be collected", invoice_id)
        finally:
            with self._lock:
                self._taken.discard(invoice_id)
                self._not_before_ns[invoice_id] = time.monotonic_ns() + AGAIN_AFTER_S * NS


class _Teller:
    """One line that is written over on a terminal; lines, now and then, anywhere else."""

    def __init__(self, out: Any) -> None:
        self._out = out
        self._is_terminal = bool(out.isatty())
        self._told_ns: int | None = None
        self._said = ""

    def tell(self, now: Progress, *, is_last: bool = False) -> None:
        said = self._line(now)
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            self._out.write(f"\r{said[:width]:<{width}}", ending="")
            self._out.flush()
        elif is_last or (said != self._said and self._is_time()):
            self._told_ns = time.monotonic_ns()
            self._out.write(f"{clock.now():%Y-%m-%d %H:%M:%S} {said}")
        self._said = said
        if is_last:
            self.end()

    def _is_time(self) -> bool:
        if self._told_ns is None:
            return True
        return time.monotonic_ns() - self._told_ns >= LINE_EVERY_S * NS

    def end(self) -> None:
        """Leave the line that was written over as it is."""
        if self._is_terminal and self._said:
            self._out.write("")

    def _line(self, now: Progress) -> str:
        counted = f"{now.done:,} of {now.total:,} done, {now.waiting:,} wait, {now.parked:,} parked"
        if not now.waiting:
            return counted
        bar = ""
        if self._is_terminal:
            full = now.percent * BAR_CHARS // 100
            bar = f"[{'#' * full}{'.' * (BAR_CHARS - full)}] "
        return f"{bar}{counted}, rate {now.rate}, time left {now.left}"
