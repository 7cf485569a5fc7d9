"""Audit the ledger each night, one organisation after the other, and say so when anything is wrong.

Guarantees: a night's audit is one row; each organisation is audited at an instant of its own, by
the checks of `audit`, through its own door. What was done is noted every few organisations: a
worker that is killed, or whose time is up, is followed by one that goes on from there. Two at once
find out by the note that only one of them can write, and the other stops.

One organisation whose audit fails is a finding like any other, and the next one is audited.
`manage.py audit_ledger` proves the whole ledger at one instant.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from billing.ledger.audit import Finding, Verdict, audit
from billing.ledger.audit_runs import AuditRun
from meterplane.kernel import clock
from tenants.models import Organisation
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

NIGHT_BEGINS = timedelta(hours=2)  # UTC: a month that ended then has been closed for an hour
OVERDUE_AFTER = timedelta(hours=36)  # since a night began that is not proved to its end
NOTED_EVERY = 20  # organisations, of about 40 ms each: what a killed worker leaves to do again
FINDINGS_KEPT_MAX = 100
WHAT_CHARS_MAX = 500


def audit_night(at: datetime, *, stop: Callable[[], bool] = lambda: False) -> AuditRun | None:
    """Go on with the audit that is due at `at` until it is finished, or `stop()`.

    None where there is nothing to do, or another worker is doing it.
    """
    run = _due(at)
    while run is not None and run.finished_at is None and not stop():
        run = _go_on(run, stop)
    if run is not None and run.finished_at is not None and run.wrong:
        log.error("the audit of the ledger found %s things wrong: see the console", run.wrong)
    return run


def last_audit() -> AuditRun | None:
    """The last one that has something to say: it is finished, or found something already."""
    with system_scope("what the last audit of the ledger found"):
        runs = AuditRun.objects.exclude(finished_at=None, wrong=0)
        found: AuditRun | None = runs.order_by("-on").first()
    return found


def is_overdue(run: AuditRun | None, at: datetime) -> bool:
    """Whether a later night than that of `run` should be finished by `at`."""
    if run is None:
        return False  # as it is in the first night
    began = datetime.combine(run.on, datetime.min.time(), at.tzinfo) + NIGHT_BEGINS
    return at - began > timedelta(days=1) + OVERDUE_AFTER


def _due(at: datetime) -> AuditRun | None:
    with system_scope("the ledger is audited each night"):
        run, _ = AuditRun.objects.get_or_create(
            on=(at - NIGHT_BEGINS).date(), defaults={"started_at": clock.now()}
        )
    return run if run.finished_at is None else None


def _go_on(run: AuditRun, stop: Callable[[], bool]) -> AuditRun | None:
    with system_scope("whose ledger is audited next"):
        rows = Organisation.objects.order_by("id")
        if run.after is not None:
            rows = rows.filter(id__gt=run.after)
        tenant_ids = list(rows.values_list("id", flat=True)[:NOTED_EVERY])
    changes: dict[str, Any] = {}
    if len(tenant_ids) < NOTED_EVERY:
        changes["finished_at"] = clock.now()
    entries, findings = 0, list[dict[str, str]]()
    done = 0
    for tenant_id in tenant_ids:
        verdicts = _audited(tenant_id)
        entries += sum(each.examined for each in verdicts if each.check == "contents")
        findings += _told(tenant_id, verdicts)
        done += 1
        changes["after"] = tenant_id
        if done < len(tenant_ids) and stop():
            changes.pop("finished_at", None)
            break
    changes |= {
        "organisations": run.organisations + done,
        "entries": run.entries + entries,
        "wrong": run.wrong + len(findings),
        "findings": [*run.findings, *findings][:FINDINGS_KEPT_MAX],
    }
    with system_scope("how far the audit of the ledger is"):
        mine = AuditRun.objects.filter(on=run.on, after=run.after, finished_at=None)
        if not mine.update(**changes):
            return None  # another worker has gone on from there
        return AuditRun.objects.get(on=run.on)


def _audited(tenant_id: UUID) -> list[Verdict]:
    try:
        return audit(tenant_id)
    except Exception as problem:
        log.exception("the ledger of organisation %s could not be audited", tenant_id)
        why = f"could not be audited: {str(problem) or type(problem).__name__}"
        return [Verdict("audit", "", 0, (Finding(tenant_id, "its ledger", why),))]


def _told(tenant_id: UUID, verdicts: list[Verdict]) -> Iterator[dict[str, str]]:
    for verdict in verdicts:
        for finding in verdict.findings:
            yield {
                "organisation": str(tenant_id),
                "check": verdict.check,
                "subject": finding.subject,
                "what": finding.what[:WHAT_CHARS_MAX],
            }
