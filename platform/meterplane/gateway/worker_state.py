"""What the parts of a worker are like just now, as metric families: read when somebody asks.

Costs a request nothing: the parts count for themselves. Label values are words of this code, and
the addresses of servers that the operator named (which hold no password: `triton/address.py`).
"""

import resource
from collections.abc import Iterator

from meterplane.gateway.admit import Admitter
from meterplane.gateway.exposition import Family
from meterplane.gateway.pipeline import Parts
from meterplane.journal.succession import Journal
from meterplane.triton.fleet import Fleet


def families(parts: Parts) -> Iterator[Family]:
    """The state of all parts of a worker."""
    yield from _admission(parts.admitter)
    yield _counter(
        "requests_cut",
        "Requests under way that were ended because their key may not infer any more.",
        parts.open_runs.cut,
    )
    yield from parts.turns.families()
    yield from _journal(parts.journal)
    yield from _fleet(parts.fleet)
    yield _counter(
        "access_log_lines_dropped", "Log lines that nobody took in time.", parts.log.dropped
    )
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield Family(
        "process_cpu_seconds",
        "counter",
        "CPU of this worker.",
        [({}, usage.ru_utime + usage.ru_stime)],
    )


def _admission(admitter: Admitter) -> Iterator[Family]:
    outcomes = Family(
        "meterplane_gateway_admissions", "counter", "Decisions of admission, by outcome."
    )
    for outcome, count in (
        ("admitted", admitter.admitted),
        ("refused_rate", admitter.refused_rate),
        ("refused_budget", admitter.refused_budget),
        ("refused_key", admitter.refused_key),
        ("contended", admitter.contended),
        ("unavailable", admitter.unavailable),
    ):
        outcomes.add(count, outcome=outcome)
    yield outcomes
    yield _counter(
        "stale_policies", "Policies that admission found out of date, and read.", admitter.stale
    )
    yield _gauge(
        "open_reservations",
        "Admitted requests that have not settled.",
        admitter.admitted - admitter.released,
    )


def _journal(journal: Journal) -> Iterator[Family]:
    yield _gauge("journal_healthy", "1 while the journal takes usage.", journal.healthy)
    yield _counter(
        "journal_failures", "Times that the journal's disk failed under it.", journal.failures
    )
    yield _gauge(
        "journal_directories_failed",
        "Directories of the journal that failed and hold requests that have not ended.",
        journal.directories_failed,
    )
    yield _gauge(
        "journal_unsynced_seconds",
        "Age of the oldest journal record that a power cut would take.",
        journal.writer.unsynced_s,
    )
    yield _gauge(
        "journal_unsealed_bytes",
        "Journal bytes that cannot be shipped yet.",
        journal.writer.unsealed_bytes,
    )
    yield _counter("journal_frames", "Records written to the journal.", journal.frames_appended)
    backlog = journal.backlog
    if backlog is not None:
        yield _gauge(
            "journal_backlog_bytes",
            "Journal bytes on this disk, of all workers, that are not taken in yet.",
            backlog.size_bytes,
        )
        yield _gauge(
            "journal_backlog_segments",
            "Sealed segments on this disk, of all workers, that are not taken in yet.",
            backlog.segments,
        )
        yield _gauge(
            "journal_backlog_seconds",
            "Age of the oldest of these; 0 for none.",
            backlog.oldest_s,
        )
        yield _gauge(
            "journal_disk_free_bytes", "Room left on the journal's disk.", backlog.free_bytes
        )


def _fleet(fleet: Fleet) -> Iterator[Family]:
    healthy = Family(
        "meterplane_gateway_server_healthy", "gauge", "0 while a server is ejected (circuit open)."
    )
    in_flight = Family(
        "meterplane_gateway_server_in_flight", "gauge", "Requests that a server is answering."
    )
    requests = Family(
        "meterplane_gateway_server_requests", "counter", "Requests a server was asked, retries too."
    )
    failures = Family(
        "meterplane_gateway_server_failures", "counter", "What counted against a server's health."
    )
    for state in fleet.snapshot():
        healthy.add(int(state.healthy), server=state.url)
        in_flight.add(state.in_flight, server=state.url)
        requests.add(state.requests, server=state.url)
        failures.add(state.failures, server=state.url)
    yield from (healthy, in_flight, requests, failures)


def _gauge(name: str, what: str, value: float) -> Family:
    return Family(f"meterplane_gateway_{name}", "gauge", what, [({}, +value)])


def _counter(name: str, what: str, value: float) -> Family:
    return Family(f"meterplane_gateway_{name}", "counter", what, [({}, value)])
