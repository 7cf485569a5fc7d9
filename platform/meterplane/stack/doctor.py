"""Check this machine and this installation; each finding says in one sentence how to mend it.

Reads and connects, changes nothing but one file it removes again. With no stack running, servers
are judged by whether they could be started.
"""

import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import psycopg
import redis as redis_client
from rich.console import Console
from rich.table import Table
from rich.text import Text

from meterplane.kernel import clock
from meterplane.stack import (
    down,
    environment,
    installation,
    payment_checks,
    ports,
    probes,
    servers,
    stack_file,
    waiting_usage,
)
from meterplane.stack.embedded import EmbeddedUnavailable, postgres, redis, require_platform
from meterplane.stack.finding import Finding, Patient, Verdict
from meterplane.stack.layout import PRIVATE, Layout

MARKS: dict[Verdict, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "note": ("warn", "yellow"),
    "broken": ("FAIL", "bold red"),
}
SUBJECT_CHARS = 25
DISK_BYTES_MIN = 500 * 1024**2  # a stack with its demo takes about 200 MB
DISK_BYTES_COMFORT = 2 * 1024**3
FSYNC_MS_COMFORT = 50  # each response waits for a shared fsync
CLOCK_SKEW_S_MAX = 2.0  # Stripe refuses signatures older than 300 s; budgets turn at midnight UTC
BYPASS_ROW_SECURITY = ("meterplane_system", "meterplane_owner")
PACKAGES = ("django", "celery", "psycopg", "redis", "uvicorn", "msgspec", "stripe", "rich")


def examine(layout: Layout) -> list[Finding]:
    """All findings. A check that itself fails is a finding, not a crash."""
    findings: list[Finding] = []
    patient = Patient(layout, down.running(layout))
    try:
        patient = _addresses(patient)
    except (ValueError, OSError, servers.ConfigurationError) as problem:
        findings.append(
            Finding("Configuration", "broken", str(problem), "Correct the variable or file named.")
        )
    for subject, check in CHECKS:
        try:
            findings.extend(check(patient))
        except Exception as error:  # a broken check is told like a broken machine
            findings.append(Finding(subject, "broken", f"{type(error).__name__}: {error}"))
    return findings


def tell(findings: list[Finding], console: Console) -> int:
    """Print the findings, one line each; 1 if something is broken, else 0."""
    table = Table.grid(padding=(0, 2))
    console.print()
    for each in findings:
        mark, style = MARKS[each.verdict]
        said = Text(each.saying)
        if each.fix:
            said.append(f" · {each.fix}", "dim")
        if console.is_terminal:
            table.add_row("", Text(mark, style), Text(each.subject), said)
        else:  # a log or a pipe: no line is broken in two
            line = Text.assemble(f"  {mark:<4}  {each.subject:<{SUBJECT_CHARS}}  ", said)
            console.print(line, soft_wrap=True)
    if console.is_terminal:
        console.print(table)
    broken = _broken(findings)
    closing = f"{broken} broken" if broken else "nothing is broken"
    console.print(f"\n  {len(findings)} checks, {closing}\n")
    return 1 if broken else 0


def tell_json(findings: list[Finding]) -> int:
    """The same for a program, on standard output."""
    broken = _broken(findings)
    checks = [
        {
            "subject": each.subject,
            "verdict": MARKS[each.verdict][0],
            "saying": each.saying,
            "fix": each.fix,
        }
        for each in findings
    ]
    sys.stdout.write(json.dumps({"broken": broken, "checks": checks}, indent=2) + "\n")
    return 1 if broken else 0


def _broken(findings: list[Finding]) -> int:
    return sum(each.verdict == "broken" for each in findings)


def _addresses(patient: Patient) -> Patient:
    """Of the running stack, or of the external servers that a start would use."""
    running = stack_file.read(patient.layout) if patient.record else None
    if running is not None:
        told = environment.kept(patient.layout)
        return replace(
            patient,
            database=running.database,
            broker=running.redis,
            admission=told.get("ADMISSION_REDIS_URL", ""),
            triton=running.triton,
            stripe=running.stripe,
            stripe_key=told.get("STRIPE_API_KEY", ""),
            told=told,
        )
    if not patient.layout.secrets.exists():
        return _deployed(patient, os.environ)
    numbers = {name: ports.USUAL_BASE + offset for name, offset in ports.OFFSETS.items()}
    located = servers.locate(
        patient.layout, ports.Ports(numbers, {}), installation.load(patient.layout)
    )

    def external(name: str, address: str) -> str:
        return "" if located.is_ours(name) else address

    return replace(
        patient,
        database=external("postgres", located.admin_database_url),
        broker=external("broker", located.redis_url),
        admission=external("admission", located.admission_redis_url),
        triton=external("triton", located.triton_url),
        stripe=external("stripe", located.stripe_api_base),
        stripe_key=located.stripe_api_key,
    )


def _deployed(patient: Patient, told: Mapping[str, str]) -> Patient:
    """Where no stack ever ran: as the environment says, if it is one of a process of ours."""
    if not told.get("DJANGO_SECRET_KEY"):
        stripe, key = told.get("STRIPE_API_BASE", ""), told.get("STRIPE_API_KEY", "")
        return replace(patient, stripe=stripe, stripe_key=key)
    return replace(
        patient,
        database=told.get("DATABASE_URL", ""),
        broker=told.get("REDIS_URL", ""),
        admission=told.get("ADMISSION_REDIS_URL", ""),
        triton=told.get("TRITON_URLS", "").split(",")[0].strip().rstrip("/"),
        stripe=told.get("STRIPE_API_BASE") or payment_checks.STRIPE,
        stripe_key=told.get("STRIPE_API_KEY", ""),
        told=told,
    )


def _python(_: Patient) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", "ok", f"{version} at {sys.executable}")  # older ones start nothing
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        fix = "Remove .venv/.synced and run `make up`; it installs what uv.lock names."
        yield Finding("Packages", "broken", f"missing: {', '.join(missing)}", fix)
    else:
        yield Finding("Packages", "ok", "installed")


def _platform(_: Patient) -> Iterator[Finding]:
    try:
        require_platform()
    except EmbeddedUnavailable as refusal:
        yield Finding("Platform", "broken", "not Linux on x86-64", str(refusal))
    else:
        yield Finding("Platform", "ok", "Linux on x86-64")


def _disk(patient: Patient) -> Iterator[Finding]:
    var = patient.layout.var
    place = var if var.exists() else var.parent
    free = shutil.disk_usage(place).free
    saying = f"{free / 1024**3:.1f} GB free at {place}"
    fix = "Free some space, or point METERPLANE_VAR at a larger disk."
    if free < DISK_BYTES_MIN:
        yield Finding("Disk", "broken", saying, fix)
    elif free < DISK_BYTES_COMFORT:
        yield Finding("Disk", "note", saying, fix)
    else:
        yield Finding("Disk", "ok", saying)


def _ports(patient: Patient) -> Iterator[Finding]:
    if patient.record is not None:
        yield Finding("Ports", "ok", "in use by the running stack")
        return
    taken = [
        str(ports.USUAL_BASE + offset)
        for offset in ports.OFFSETS.values()
        if not ports.is_free(ports.USUAL_BASE + offset)
    ]
    if taken:
        fix = "Others are chosen by themselves; `make up PORT_BASE=9700` moves them all."
        yield Finding("Ports", "note", f"taken: {', '.join(taken)}", fix)
    else:
        yield Finding("Ports", "ok", f"free from {ports.USUAL_BASE}")


def _stack(patient: Patient) -> Iterator[Finding]:
    if patient.record is None:
        yield Finding("Stack", "note", "not running", "Start it with `make up`.")
        return
    unwell = [
        f"{each.title}: {each.detail or each.state}"
        for each in patient.record.components
        if each.detail or each.state in {"failed", "backing off"}
    ]
    if unwell:
        yield Finding("Stack", "broken", "; ".join(unwell), "Read its log in var/logs.")
    else:
        yield Finding("Stack", "ok", f"{patient.record.phase}, every component well")


def _postgres(patient: Patient) -> Iterator[Finding]:
    if not patient.database:
        yield _program("PostgreSQL", postgres.binaries() / "postgres")
        return
    fix = "Check DATABASE_URL and that the server runs; `make up` starts the embedded one."
    try:
        with psycopg.connect(patient.database, connect_timeout=3) as connection:
            yield Finding("PostgreSQL", "ok", f"version {connection.info.server_version // 10_000}")
            yield from _roles(connection)
            row = connection.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()
            yield _skew(float(row[0]) if row else 0.0)
    except psycopg.OperationalError as failure:
        yield Finding("PostgreSQL", "broken", str(failure).strip(), fix)


def _roles(connection: "psycopg.Connection[tuple[object, ...]]") -> Iterator[Finding]:
    rows = connection.execute(
        "SELECT rolname::text, rolsuper OR rolcreaterole, rolbypassrls FROM pg_roles"
        " WHERE rolname = ANY(%s)",
        (list(postgres.ROLES),),
    ).fetchall()
    known = {str(name): (bool(mighty), bool(bypasses)) for name, mighty, bypasses in rows}
    problems = [f"{role} is missing" for role in postgres.ROLES if role not in known]
    problems += [f"{role} is too mighty" for role, (mighty, _) in known.items() if mighty]
    problems += [
        f"{role} {'bypasses' if bypasses else 'is bound by'} row-level security"
        for role, (_, bypasses) in known.items()
        if bypasses != (role in BYPASS_ROW_SECURITY)
    ]
    if problems:
        fix = "Have a superuser run infra/postgres/roles.sql again."
        yield Finding("Database roles", "broken", "; ".join(problems), fix)
    else:
        yield Finding("Database roles", "ok", "four, each with its own rights")


def _skew(database_s: float) -> Finding:
    skew_s = abs(clock.now_ms() / 1000 - database_s)
    if skew_s > CLOCK_SKEW_S_MAX:
        fix = "Let both machines take their time from the same NTP source."
        return Finding("Clock", "broken", f"{skew_s:.1f} s apart from PostgreSQL's", fix)
    return Finding("Clock", "ok", f"{skew_s * 1000:.0f} ms apart from PostgreSQL's")


def _redis(patient: Patient) -> Iterator[Finding]:
    for name, title, url in (
        ("broker", "Redis, broker", patient.broker),
        ("admission", "Redis, admission", patient.admission),
    ):
        if url:
            yield from _redis_server(name, title, url)
        else:
            yield _program(title, redis.binary())


def _program(subject: str, path: Path) -> Finding:
    if os.access(path, os.X_OK):
        return Finding(subject, "ok", "comes with the packages, to be started")
    return Finding(
        subject, "broken", f"{path} cannot be run", "Remove .venv and run `make up`: it reinstalls."
    )


def _redis_server(name: str, title: str, url: str) -> Iterator[Finding]:
    try:
        with redis_client.Redis.from_url(url, socket_timeout=3) as connection:
            connection.ping()
            policy = connection.config_get("maxmemory-policy")
    except redis_client.RedisError as failure:
        yield Finding(title, "broken", str(failure), "Check its URL and that the server runs.")
        return
    kept = dict(policy).get("maxmemory-policy") if isinstance(policy, dict) else None
    if kept not in {None, "noeviction"}:
        fix = f"Set maxmemory-policy to noeviction: an evicted {name} key loses work or limits."
        yield Finding(title, "broken", f"maxmemory-policy is {kept}", fix)
    else:
        yield Finding(title, "ok", "answers, evicts nothing")


def _triton(patient: Patient) -> Iterator[Finding]:
    if not patient.triton:
        found = importlib.util.find_spec("pytriton")
        fix = "" if found else "Remove .venv and run `make up`: it reinstalls."
        saying = "comes with the packages, to be started" if found else "pytriton is missing"
        yield Finding("Triton", "ok" if found else "broken", saying, fix)
        return
    url = f"{patient.triton}/v2/health/ready"
    if probes.http_status(url) == 200:
        yield Finding("Triton", "ok", "ready with all its models")
    else:
        fix = "Read var/logs/triton.log, or check TRITON_URLS."
        yield Finding("Triton", "broken", f"{url} does not answer 200", fix)


def _journal(patient: Patient) -> Iterator[Finding]:
    folder = patient.layout.journal
    if not folder.exists():
        yield Finding("Journal", "note", "not there yet", "`make up` makes it.")
        return
    began = time.perf_counter()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        file.write(b"x" * 4096)
        file.flush()
        os.fsync(file.fileno())
    took_ms = (time.perf_counter() - began) * 1000
    saying = f"{folder} takes a durable write in {took_ms:.1f} ms"
    if took_ms > FSYNC_MS_COMFORT:
        fix = "Put JOURNAL_DIR on a faster disk: every response waits for a shared write."
        yield Finding("Journal", "note", saying, fix)
    else:
        yield Finding("Journal", "ok", saying)
    waiting = waiting_usage.found_in(folder)
    if waiting is None:
        return
    line = waiting_usage.line_of(waiting)
    if waiting.oldest_s < waiting_usage.WAITS_LONG_S:
        yield Finding("Usage", "ok", line)
    else:
        fix = "Start what takes it in: the shipper, the worker, PostgreSQL, Redis (`make status`)."
        yield Finding("Usage", "note", line, fix)


def _privacy(patient: Patient) -> Iterator[Finding]:
    private: list[Path] = [
        patient.layout.secrets,
        patient.layout.stack,
        patient.layout.environment,
        patient.layout.record,
    ]
    open_ones = [
        path.name for path in private if path.exists() and path.stat().st_mode & 0o777 != PRIVATE
    ]
    if open_ones:
        fix = f"Run: chmod 600 {' '.join(f'var/{name}' for name in open_ones)}"
        yield Finding("Secrets", "broken", f"readable by others: {', '.join(open_ones)}", fix)
    else:
        yield Finding("Secrets", "ok", "readable by their owner only")


CHECKS: tuple[tuple[str, Callable[[Patient], Iterator[Finding]]], ...] = (
    ("Python", _python),
    ("Platform", _platform),
    ("Disk", _disk),
    ("Ports", _ports),
    ("Stack", _stack),
    ("PostgreSQL", _postgres),
    ("Redis", _redis),
    ("Triton", _triton),
    ("Stripe", payment_checks.findings),
    ("Journal", _journal),
    ("Secrets", _privacy),
)
