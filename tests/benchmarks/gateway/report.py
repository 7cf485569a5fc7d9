"""The table on the screen and the JSON lines in a file. Ratios are to the baseline of the run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.gateway.accounts import Account
from tests.benchmarks.gateway.rounds import Measured

NAME_WIDTH = 18
CPU_COLUMNS = ("own", "upstr", "stores", "client", "others")  # cores in use
STREAM_TITLES = {
    "paced": "streams of 20 chunks, one each 2 ms",
    "relayed": "streams of 240 chunks, back to back",
    "relayed-in-bursts": "streams of 240 chunks, back to back, 8 in a write of the upstream",
}


class Report:
    """Prints each result when it is there, and keeps it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def keep(self, section: str, **facts: object) -> None:
        """One line of the file."""
        with self.path.open("a") as file:
            file.write(json.dumps({"section": section} | facts) + "\n")

    def chat(self, connections: int, measured: Sequence[Measured]) -> None:
        """Requests per second and latency, beside the baseline; processor time per request."""
        self._keep_all("chat", connections, measured)
        heads = ("req/s", "of direct", "of nginx", "p50 ms", "+p50", "p99 ms", "+p99", "errors")
        _title(f"chat completion, c={connections}", (*heads, "CPU us", *CPU_COLUMNS, "PSS MB"))
        base, nginx = measured[0].median, _find(measured, "nginx")
        for each in measured:
            found = each.median
            _line(
                each,
                f"{found['rate']:,.0f}",
                _share(found["rate"], base["rate"]),
                _share(found["rate"], nginx["rate"]) if nginx else "",
                f"{found['p50']:.3f}",
                _added(found["p50"], base["p50"], each is measured[0]),
                f"{found['p99']:.2f}",
                _added(found["p99"], base["p99"], each is measured[0]),
                f"{found['errors']:.0f}",
                _each_us(found, "rate"),
                *_cpu(found),
                _size(found),
            )

    def stream(self, name: str, connections: int, measured: Sequence[Measured]) -> None:
        """Streams and chunks per second, the wait for the first; processor time per chunk."""
        self._keep_all(name, connections, measured)
        heads = ("streams/s", "chunks/s", "of direct", "first p50", "+p50", "first p99", "+p99")
        title = f"{STREAM_TITLES[name]}, c={connections}"
        _title(title, (*heads, "errors", "CPU us", *CPU_COLUMNS, "PSS MB"))
        base = measured[0].median
        for each in measured:
            found = each.median
            _line(
                each,
                f"{found['rate']:,.0f}",
                f"{found['events']:,.0f}",
                _share(found["events"], base["events"]),
                f"{found['first_p50']:.3f}",
                _added(found["first_p50"], base["first_p50"], each is measured[0]),
                f"{found['first_p99']:.2f}",
                _added(found["first_p99"], base["first_p99"], each is measured[0]),
                f"{found['errors']:.0f}",
                _each_us(found, "events"),
                *_cpu(found),
                _size(found),
            )

    def slope(self, target: str, found: Mapping[str, float]) -> None:
        """Memory over many requests."""
        self.keep("memory", target=target, **found)
        print(
            f"\n  memory of {target}: {found['rss_first_mb']:.1f} MB resident after a fifth of"
            f" {found['requests']:,.0f} requests, {found['rss_last_mb']:.1f} MB after all"
            f" ({found['kb_per_1000']:+.1f} kB per 1,000; PSS {found['pss_mb']:.1f} MB;"
            f" {found['errors']:.0f} errors)"
        )

    def idle(self, target: str, found: Mapping[str, float]) -> None:
        """Streams that hardly say anything."""
        self.keep("idle", target=target, **found)
        print(
            f"\n  idle streams through {target}: {found['held']:,.0f} of {found['streams']:,.0f}"
            f" held {found['opened_s']:.1f} s after the first was asked for,"
            f" {found['complete']:,.0f} complete, {found['errors']:,.0f} errors\n"
            f"    {found['kb_per_stream']:.1f} kB each (PSS {found['pss_before_mb']:.1f} ->"
            f" {found['pss_during_mb']:.1f} MB), {found['cpu']:.2f} of a core; a chat beside them:"
            f" p50 {found['chat_p50']:.2f} ms, p99 {found['chat_p99']:.2f} ms"
        )

    def cold_start(self, found: Mapping[str, float]) -> None:
        """From nothing to the first answer."""
        self.keep("cold start", **found)
        print(
            f"\n  cold start: {found['first_200_s']:.3f} s from exec to the first chat completion"
            f" (median of {found['starts']:.0f}, worst {found['worst_s']:.3f} s;"
            f" PSS then {found['pss_mb']:.1f} MB)"
        )

    def account(self, phase: str, account: Account, served: int, problems: list[str]) -> None:
        """What one gateway's journal says of its answers."""
        summary = account.summary(served)
        self.keep("account", phase=phase, gateway=account.gateway, **summary, problems=problems)
        settles = ", ".join(f"{count:,} {status}" for status, count in account.settles.items())
        latitude = f" (and up to {account.unread:,} unread)" if account.unread else ""
        print(
            f"  {account.gateway:{NAME_WIDTH}} {phase:8} {account.answered:>11,} answers{latitude}:"
            f" {account.admits:,} admitted, settled {settles or 'none'};"
            f" upstream served {served:,}"
        )

    def _keep_all(self, section: str, connections: int, measured: Sequence[Measured]) -> None:
        for each in measured:
            runs = [dict(sample) for sample in each.samples]
            facts = {"target": each.target, "disturbed": each.disturbed, **each.median}
            self.keep(section, connections=connections, **facts, runs=runs)


def _title(title: str, heads: Sequence[str]) -> None:
    print(f"\n  {title}")
    print(f"  {'':{NAME_WIDTH}}" + "".join(f"{head:>{_width(head)}}" for head in heads))


def _line(measured: Measured, *cells: str) -> None:
    # Widths of the heads in `chat` and `stream`: nine figures, the cores, the memory.
    widths = [11, 10, 10, 10, 10, 10, 10, 8, 8, *(_width(each) for each in CPU_COLUMNS), 8]
    texts = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    note = "  disturbed" if measured.disturbed else ""
    print(f"  {measured.target:{NAME_WIDTH}}" + "".join(texts) + note, flush=True)


def _width(head: str) -> int:
    if head in CPU_COLUMNS:
        return 7
    return {"req/s": 11, "streams/s": 11, "errors": 8, "CPU us": 8, "PSS MB": 8}.get(head, 10)


def _find(measured: Sequence[Measured], target: str) -> Mapping[str, float] | None:
    return next((each.median for each in measured if each.target == target), None)


def _share(value: float, base: float) -> str:
    return f"{value / base:.1%}" if base else ""


def _added(value: float, base: float, is_base: bool) -> str:
    return "" if is_base else f"{value - base:+.3f}"


def _cpu(found: Mapping[str, float]) -> list[str]:
    names = ("cpu", "cpu_upstream", "cpu_servers", "cpu_client", "foreign")
    return [f"{found[name]:.2f}" for name in names]


def _each_us(found: Mapping[str, float], what: str) -> str:
    """The target's processor time for one of them: hardly changed by strangers on its core."""
    return f"{found['cpu'] / found[what] * 1e6:.1f}" if found["cpu"] and found[what] else ""


def _size(found: Mapping[str, float]) -> str:
    return f"{found['pss_mb']:.1f}" if found["pss_mb"] else ""
