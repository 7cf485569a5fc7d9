"""What a person sees: live lines while the stack starts, then where everything is.

On a terminal the lines move; anywhere else each change is one plain line, so that logs and scripts
read the same story.
"""

from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from meterplane.kernel import clock
from meterplane.stack.record import SETTLED, ComponentRecord, Failure, StackRecord, State
from meterplane.stack.stack_file import StackFile

MARKS: dict[State, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "preparing": ("…", "cyan"),
    "starting": ("…", "cyan"),
    "ready": ("✓", "green"),
    "done": ("✓", "green"),
    "backing off": ("↻", "yellow"),
    "failed": ("✗", "bold red"),
    "stopping": ("…", "dim"),
    "stopped": ("-", "dim"),
}
_MOVING: tuple[State, ...] = ("preparing", "starting")
_REFRESH_PER_S = 10


class Screen:
    """Shows records as they come. Use as a context manager; `show` may be called at any rate."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._told: dict[str, tuple[State, str]] = {}
        self._spinners: dict[str, Spinner] = {}
        self._live: Live | None = None
        self._notes_told = 0

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(
                console=self.console, refresh_per_second=_REFRESH_PER_S, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.settle()

    def settle(self) -> None:
        """Moving lines end here; what changes later is told line by line."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def begin_with(self, record: StackRecord) -> None:
        """Take `record` as known: only what changes after it is told."""
        self._notes_told = len(record.notes)
        self._remember(record)

    def show(self, record: StackRecord) -> None:
        """Bring the screen in line with `record`."""
        for note in record.notes[self._notes_told :]:
            self.console.print(Text(f"  {note}", "yellow"))
        self._notes_told = len(record.notes)
        if self._live is not None:
            self._live.update(self._table(record))
            self._remember(record)
            return
        for each in record.components:
            if self._told.get(each.name) != (each.state, each.detail):
                self._say(each)
        self._remember(record)

    def _remember(self, record: StackRecord) -> None:
        self._told = {each.name: (each.state, each.detail) for each in record.components}

    def _say(self, each: ComponentRecord) -> None:
        """One line per change that matters: not for waiting, nor for what never ran."""
        if each.state in {"waiting", "preparing", "starting", "stopping"} and not each.detail:
            return
        if each.state == "stopped" and not each.last_exit:
            return
        mark, style = MARKS[each.state]
        line = Text("  ").append(f"{mark} ", style).append(f"{each.title:<22}")
        self.console.print(line.append(_saying(each), "dim"), soft_wrap=True)

    def _table(self, record: StackRecord) -> Group:
        table = Table.grid(padding=(0, 2))
        for each in record.components:
            mark, style = MARKS[each.state]
            moving = each.state in _MOVING
            table.add_row(
                self._spinner(each.name) if moving else Text(mark, style),
                Text(each.title, "" if each.state != "waiting" else "dim"),
                Text(_elapsed(each) if moving else _saying(each), "dim", overflow="ellipsis"),
            )
        head = Text("  Meterplane ", "bold").append("is starting", "dim")
        return Group(Text(), head, Text(), Padding(table, (0, 2)))

    def _spinner(self, name: str) -> Spinner:
        return self._spinners.setdefault(name, Spinner("dots", style="cyan"))


def tell_ready(console: Console, stack: StackFile, record: StackRecord | None, hint: str) -> None:
    """Where everything is, and the first request to try."""
    took = ""
    if record is not None and record.ready_after_ms is not None:
        took = f" in {record.ready_after_ms / 1000:.1f} s"
    console.print(Text.assemble("\n  Meterplane ", ("is ready", "bold green"), took, "\n"))
    table = Table.grid(padding=(0, 3))
    owner, operator = stack.logins["owner"], stack.logins["operator"]
    for name, value, style in (
        ("Portal", stack.web, "cyan"),
        ("", f"{owner.email}  {owner.password}", ""),
        ("Console", f"{stack.web}/console/", "cyan"),
        ("", f"{operator.email}  {operator.password}", ""),
        ("Control API", f"{stack.web}/api/v1/", "cyan"),
        ("Gateway", stack.gateway, "cyan"),
        *([("gRPC", stack.grpc, "cyan")] if stack.grpc else []),
        ("API key", stack.api_key, "bold"),
    ):
        table.add_row(Text(name, "dim"), Text(value, style, no_wrap=True, overflow="ignore"))
    console.print(Padding(table, (0, 2)))
    console.print(Text("\n  Try it:\n", "dim"))
    console.print(Text(curl_line(stack)), soft_wrap=True)
    for each in record.components if record else []:
        if each.background and each.state not in SETTLED:
            console.print(Text(f"\n  {each.title} is still loading; it appears by itself.", "dim"))
    console.print(Text(f"\n  {hint}\n", "dim"))


def curl_line(stack: StackFile) -> str:
    """A request that answers with 384 numbers, ready to be pasted."""
    return (
        f"curl {stack.gateway}/v1/embeddings -H 'Authorization: Bearer {stack.api_key}'"
        " -H 'Content-Type: application/json'"
        ' -d \'{"model": "all-minilm-l6-v2", "input": "Inference is a business"}\''
    )


def tell_failure(console: Console, failure: Failure) -> None:
    """Which component, why, and the end of its log."""
    console.print(
        Text.assemble(
            "\n  ",
            (failure.component, "bold red"),
            (" did not start: ", "red"),
            failure.reason,
        ),
        soft_wrap=True,
    )
    if failure.tail:
        console.print()
    for line in failure.tail:
        console.print(Text(f"    {line}", "dim"), soft_wrap=True)
    console.print(Text.assemble("\n  Its log: ", (failure.log, "cyan"), "\n"), soft_wrap=True)


def status_table(record: StackRecord) -> Table:
    """Processes, pids, uptime, restarts, addresses and health."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("", "Component", "State", "Pid", "Up", "Restarts", "Address"):
        right = heading in {"Pid", "Up", "Restarts"}
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for each in record.components:
        mark, style = MARKS[each.state]
        if each.detail and each.state == "ready":
            mark, style = "!", "yellow"
        table.add_row(
            Text(mark, style),
            each.title,
            Text(f"{each.state}: {each.detail}" if each.detail else each.state, style),
            str(each.process.pid) if each.process else "",
            _elapsed(each) if each.process else "",
            str(each.restarts) if each.restarts else "",
            Text(each.url, "cyan"),
        )
    return table


def _saying(each: ComponentRecord) -> str:
    if each.detail:
        return each.detail
    if each.state == "ready" and each.restarts:
        return f"ready again (start {each.restarts + 1})"
    return "" if each.state in {"done", "waiting"} else f"{each.state}  {each.url}".rstrip()


def _elapsed(each: ComponentRecord) -> str:
    seconds = max(0, clock.now_ms() - each.since_ms) // 1000
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
