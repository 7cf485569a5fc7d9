"""`make bench-gateway`: measure, then check that every answer is in the journal once.

1 when a request was lost, doubled or miscounted, or nothing could be measured. Timings never fail.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from meterplane.kernel import clock
from tests.benchmarks.gateway import instruments, machine, memory, paid_stack, speed
from tests.benchmarks.gateway.accounts import Account
from tests.benchmarks.gateway.bench import SECTIONS, Bench, Options
from tests.benchmarks.gateway.cold_start import cold_start
from tests.benchmarks.gateway.load import Load, LoadFailed
from tests.benchmarks.gateway.processes import NotReady, Processes
from tests.benchmarks.gateway.report import Report
from tests.benchmarks.gateway.targets import Starter, Target, served_by
from tests.benchmarks.gateway.workload import CHAT, PACED

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "var" / "bench"
DURABLE, PROCESS, COLD = "gateway", "gateway-process", "cold-start"  # workers' names too
EXACT_CHATS, EXACT_STREAMS, EXACT_CONNECTIONS = 2_000, 400, 32
MEASURES = {
    "chat": speed.chat,
    "stream": speed.streams,
    "relay": speed.relay,
    "memory": memory.slope,
    "idle": memory.idle,
    "cold": cold_start,
}


def options_of(arguments: list[str]) -> Options:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="make bench-gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of everything")
    parser.add_argument(
        "--only", choices=SECTIONS, action="append", help="a section; may be repeated"
    )
    parser.add_argument("--no-nginx", action="store_true", help="leave its rows out")
    parser.add_argument("--requests", type=int, help="of the memory slope (100,000)")
    parser.add_argument("--idle-streams", type=int, help="held at once (2,000)")
    parser.add_argument("--seconds", type=float, help="of one run (5)")
    parser.add_argument("--journal-dir", type=Path, default=RESULTS, help="on a real disk")
    given = parser.parse_args(arguments)
    quick = given.quick
    return Options(
        sections=tuple(each for each in SECTIONS if not given.only or each in given.only),
        seconds=given.seconds or (1.0 if quick else 5.0),
        rounds=1 if quick else 3,
        requests=given.requests or (20_000 if quick else 100_000),
        idle_streams=given.idle_streams or (500 if quick else 2_000),
        cold_starts=3 if quick else 5,
        with_nginx=not given.no_nginx,
        patience_s=10.0 if quick else 240.0,
        journal_dir=given.journal_dir,
    )


def prepare(stack: ExitStack, options: Options) -> Bench:
    """Everything built, started, migrated and seeded."""
    machine.raise_descriptor_limit()
    options.journal_dir.mkdir(parents=True, exist_ok=True)
    kind = machine.filesystem_of(options.journal_dir)
    if kind in ("tmpfs", "ramfs", "overlay"):
        print(f"  the journal is on {kind}: its syncs may cost less than a disk's", flush=True)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mp-bench-")))
    journals = Path(
        stack.enter_context(
            tempfile.TemporaryDirectory(prefix="journals-", dir=options.journal_dir)
        )
    )
    tools = instruments.prepare(folder, want_nginx=options.with_nginx)
    processes = stack.enter_context(Processes(folder / "logs"))
    stack.push(_keep_logs_of_a_failure(folder / "logs"))
    cores = machine.cores()
    print("  starting PostgreSQL and Redis, migrating ...", flush=True)
    servers = paid_stack.start_servers(processes, cores[1])
    paid_stack.migrate()
    starter = Starter(processes, tools, cores=cores, journals=journals, folder=folder)
    starter.secret = paid_stack.sell(folder)
    targets = [starter.direct()]
    if tools.nginx:
        targets.append(starter.nginx())
    durable, process = starter.gateway(DURABLE, "durable"), starter.gateway(PROCESS, "process")
    for target in (durable, process):
        starter.run(target)
        targets.append(target)
    cold = starter.gateway(COLD, "durable")
    groups = {"upstream": starter.upstream_pids, "servers": servers}
    groups |= {target.name: target.pids for target in targets}
    load = Load(tools, cores[1], folder, groups)
    patience = machine.Patience(options.patience_s)
    now = clock.now()
    report = Report(RESULTS / f"gateway-{now:%Y%m%d-%H%M%S}.jsonl")
    facts = {"machine": machine.processor(), "cores": os.cpu_count(), "journal_on": kind}
    report.keep("run", at=f"{now:%Y-%m-%dT%H:%M:%SZ}", **facts, seconds=options.seconds)
    print(
        f"  {facts['machine']}, {facts['cores']} cores; journal on {kind};"
        f" medians of {options.rounds} runs of {options.seconds:g} s",
        flush=True,
    )
    return Bench(
        options, processes, starter, load, patience, report, targets, durable=durable, cold=cold
    )


def _keep_logs_of_a_failure(logs: Path) -> Callable[..., None]:
    def keep(kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Exception):
            shutil.copytree(logs, RESULTS / "logs", dirs_exist_ok=True)
            print(f"\n  what every process printed: {RESULTS / 'logs'}", file=sys.stderr)

    return keep


def check_accounts(bench: Bench) -> list[str]:
    """End the gateways and compare; then once more with clients that read everything."""
    print("\n  every answer once in the journal?")
    problems = []
    for target in (*bench.targets, bench.cold):
        if target.account is None:
            continue
        _end(bench, target)
        problems += _compare(bench, target, "measured", 0)
        if target is bench.cold:
            continue
        before = served_by(target)
        target.account = Account(target.name, target.account.journal)
        bench.starter.run(target)
        for request, count in ((CHAT, EXACT_CHATS), (PACED, EXACT_STREAMS)):
            bench.load.client(target, request, EXACT_CONNECTIONS, requests=count)
        _end(bench, target)
        problems += _compare(bench, target, "exact", before)
    return problems


def _end(bench: Bench, target: Target) -> None:
    for process in bench.processes.running(target.pids):
        bench.processes.stop(process)


def _compare(bench: Bench, target: Target, phase: str, served_before: int) -> list[str]:
    account = target.account
    if account is None:
        return []
    account.read_sealed()
    served = served_by(target) - served_before
    problems = account.problems(served)
    bench.report.account(phase, account, served, problems)
    return problems


def main(arguments: list[str]) -> int:
    """One run."""
    options = options_of(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("\n  Meterplane's gateway on one core; all else on another\n", flush=True)
    try:
        with ExitStack() as stack:
            bench = prepare(stack, options)
            for section in options.sections:
                MEASURES[section](bench)
            problems = check_accounts(bench)
    except KeyboardInterrupt:
        print("\n  interrupted; everything that was started has been stopped", file=sys.stderr)
        return 130
    except (instruments.InstrumentMissing, NotReady, LoadFailed) as failure:
        print(f"\n  {failure}", file=sys.stderr)
        return 1
    for problem in problems:
        print(f"  FAILED  {problem}")
    print(f"\n  {bench.report.path}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
