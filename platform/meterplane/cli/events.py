"""`meterplane events send`: usage that did not pass the gateway, from a file of CloudEvents.

Guarantees: each event goes as it stands in the file, number for number; it may be sent again from
the start after whatever went wrong, because an event that was taken is known for good by its
organisation, source and id, and answered as a duplicate. What was not taken is named, by its place.
"""

import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated

import httpx
import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from meterplane.cli import say
from meterplane.cli.connection import Connection, Reached, problem, unreachable

PATH = "/api/v1/events"
CONTENT_TYPE = "application/cloudevents-batch+json"
BATCH_EVENTS_MAX = 1_000
BATCH_BYTES_MAX = 8 * 1024 * 1024  # half of what the server takes
DOCUMENT_BYTES_MAX = 512 * 1024 * 1024  # of an array: it is read whole; lines are not
PAUSES_S = (0.5, 1.0, 2.0, 4.0)  # between five attempts at one batch
PROBLEMS_SHOWN_MAX = 50
TAKEN = ("accepted", "duplicate")
AGAIN = " Run the same command again: what was taken before is not counted twice."

app = typer.Typer(no_args_is_help=True, help="Usage of work that did not pass the gateway.")


@dataclass(frozen=True, slots=True)
class Item:
    """An event as it stands in the file, and its place from 1: a line, or an array's element."""

    place: int
    content: bytes


@dataclass(slots=True)
class Tally:
    """What became of the events so far."""

    counts: dict[str, int] = field(default_factory=dict)
    problems: list[tuple[int, str, str, str]] = field(default_factory=list)

    def note(self, place: int, event_id: str, status: str, why: str) -> None:
        """One event's end."""
        self.counts[status] = self.counts.get(status, 0) + 1
        if status not in TAKEN and len(self.problems) < PROBLEMS_SHOWN_MAX:
            self.problems.append((place, event_id, status, why))

    @property
    def untaken(self) -> int:
        """How many were not taken."""
        return sum(count for status, count in self.counts.items() if status not in TAKEN)


@app.command("send")
def send_events(
    file: Annotated[
        str, typer.Argument(help="CloudEvents: one a line, a JSON array, or one; - for stdin.")
    ],
    url: Annotated[
        str,
        typer.Option(
            "--url",
            envvar=["METERPLANE_CONTROL_URL", "METERPLANE_URL"],
            help="The control plane's address.",
            show_default=False,
        ),
    ] = "",
    api_key: Annotated[
        str,
        typer.Option(
            "--api-key",
            envvar=["METERPLANE_ADMIN_KEY", "METERPLANE_API_KEY"],
            help="An operator's key. Better in the environment.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Send events, 1,000 at a time. Run it again after any failure: nothing counts twice."""
    tally = Tally()
    with (
        Connection(url, api_key) as connection,
        opened(file) as content,
        _progress() as told,
    ):
        bar = told.add_task("Events", total=None)
        for batch in batches(items(content), tally):
            _send(connection, batch, tally)
            told.update(bar, completed=sum(tally.counts.values()))
        told.update(bar, completed=sum(tally.counts.values()), total=sum(tally.counts.values()))
    _conclude(tally)


def opened(file: str) -> AbstractContextManager[IO[bytes]]:
    """The file, or stdin. Ends the command where it cannot be read."""
    if file == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(file).open("rb")
    except OSError as refused:
        say.fail(f"{file} cannot be read: {refused.strerror}.")


def items(content: IO[bytes]) -> Iterator[Item]:
    """The events of a file, in order. Lines are read one by one; anything else is read whole."""
    skipped, first = 0, content.readline()
    while first and not first.strip():
        skipped, first = skipped + 1, content.readline()
    lines: Iterable[bytes] = itertools.chain([first], content)
    if not _is_object(first):  # an array, an object over several lines, or a line that is wrong
        document = first + content.read(DOCUMENT_BYTES_MAX)
        if len(document) > DOCUMENT_BYTES_MAX:
            say.fail("It is too large for one JSON document; write one event a line.")
        elements = _elements(document)
        if elements is not None:
            yield from (Item(number, bytes(each)) for number, each in enumerate(elements, 1))
            return
        lines = document.splitlines()
    for number, line in enumerate(lines, 1 + skipped):
        if line.strip():
            yield Item(number, line.strip())


def batches(found: Iterable[Item], tally: Tally) -> Iterator[list[Item]]:
    """As many at a time as the server takes. What is no JSON is noted and goes nowhere."""
    batch: list[Item] = []
    size = 0
    for item in found:
        if not _is_object(item.content):
            tally.note(item.place, "", "invalid", "It is not a JSON object.")
            continue
        if batch and (len(batch) >= BATCH_EVENTS_MAX or size + len(item.content) > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item.content) + 1
    if batch:
        yield batch


def _send(connection: Connection, batch: list[Item], tally: Tally) -> None:
    body = b"[" + b",".join(item.content for item in batch) + b"]"
    reached = _insist(connection, body, batch[0].place)
    results = reached.json.get("results") if isinstance(reached.json, dict) else None
    if reached.status != 200 or not isinstance(results, list) or len(results) != len(batch):
        say.fail(f"From event {batch[0].place} on nothing was taken: {problem(reached)}{AGAIN}")
    for item, result in zip(batch, results, strict=True):
        detail = result.get("problem") or {}
        why = detail.get("detail") or detail.get("title") or ""
        tally.note(item.place, str(result.get("id") or ""), str(result.get("status")), str(why))


def _insist(connection: Connection, body: bytes, place: int) -> Reached:
    """Send until it is answered by more than a passing failure; dedupe makes that harmless."""
    for pause_s in PAUSES_S:
        with suppress(httpx.HTTPError):
            reached = connection.try_once("POST", PATH, (), body, CONTENT_TYPE)
            if reached.status < 500 and reached.status != 429:
                return reached
        time.sleep(pause_s)
    try:
        return connection.try_once("POST", PATH, (), body, CONTENT_TYPE)
    except httpx.HTTPError as away:
        say.err.print(f"Stopped at event {place}.{AGAIN}")
        unreachable(connection.url, away)


def _conclude(tally: Tally) -> None:
    told = ", ".join(f"{count:,} {status}" for status, count in sorted(tally.counts.items()))
    say.out.print(say.shown(f"Events: {told or 'none'}."))
    if not tally.untaken:
        return
    say.table(("event", "id", "status", "why"), tally.problems, ("event",))
    if tally.untaken > len(tally.problems):
        say.out.print(f"... and {tally.untaken - len(tally.problems):,} more.")
    raise typer.Exit(say.NO)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    return Progress(*columns, console=say.err, transient=True, disable=not say.err.is_terminal)


_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array = msgspec.json.Decoder(list[msgspec.Raw])


def _is_object(text: bytes) -> bool:
    try:
        msgspec.json.decode(text)  # what is inside, too: the server reads the batch as one document
        _object.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _elements(document: bytes) -> list[msgspec.Raw] | None:
    """The elements of an array; one of an object; None where it is no JSON."""
    try:
        if document.lstrip().startswith(b"["):
            return _array.decode(document)
        _object.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return [msgspec.Raw(document.strip())]
