"""Grants that come again each month.

The n-th occurrence, from 0, begins n calendar months after the first, at the same time of day; of a
day that a month does not have, on its last day. It is due at that instant and begins then, however
late it is granted.

Guarantees: each occurrence is granted once, whatever runs at once or is repeated. A worker that was
away grants what it missed. A recurrence that is ended grants nothing that begins at or after then.
"""

import calendar
from datetime import datetime
from uuid import UUID

from django.db import connection
from django.db.models import Max

from billing.credits.grant import open_grant
from billing.credits.hold import balance_changed
from billing.credits.models import CreditGrant, CreditRecurrence
from billing.credits.terms import (
    GrantTerms,
    RecurrenceTerms,
    check_end,
    check_names,
    check_recurrence,
    digest_of,
    same_request,
)
from billing.credits.turns import one_act_at_a_time
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.queries import organisation
from tenants.scoping import system_scope, tenant_scope

OCCURRENCES_PER_CALL_MAX = 120  # ten years: who starts further back catches up in several calls
RECURRENCES_MAX = 50  # of an organisation

# PostgreSQL adds months as `months_after` does. The newest occurrence is the end of an index.
_DUE = """
SELECT DISTINCT r.tenant_id
  FROM credit_recurrence r
 CROSS JOIN LATERAL (
   SELECT (r.starts_at AT TIME ZONE 'UTC'
           + make_interval(months => coalesce(max(g.occurrence) + 1, 0))) AT TIME ZONE 'UTC'
     FROM credit_grant g WHERE g.recurrence_id = r.id) AS next (begins_at)
 WHERE next.begins_at <= %(now)s AND (r.ends_at IS NULL OR next.begins_at < r.ends_at)
 ORDER BY r.tenant_id
"""


def grant_monthly(
    *, tenant_id: UUID, terms: RecurrenceTerms, idempotency_key: str, created_by: str
) -> UUID:
    """Grant each month; the recurrence's id. What is due already is granted at once.

    Raises `CallerError` `credit_invalid` naming the field, 409 `idempotency_key_reused`, or 409
    `recurrences_too_many`.
    """
    check_names(idempotency_key=idempotency_key, created_by=created_by)
    digest = digest_of(terms)
    with tenant_scope(tenant_id):
        one_act_at_a_time(tenant_id)
        row: CreditRecurrence | None = CreditRecurrence.objects.filter(
            idempotency_key=idempotency_key
        ).first()
        if row is not None:
            same_request(row, digest)
            return row.id
        check_recurrence(terms, organisation().currency)
        if CreditRecurrence.objects.count() >= RECURRENCES_MAX:
            raise CallerError(
                "recurrences_too_many",
                f"An organisation has at most {RECURRENCES_MAX} recurring grants.",
                status=409,
            )
        row = CreditRecurrence.objects.create(
            tenant_id=tenant_id,
            kind=terms.kind,
            currency=terms.currency,
            amount_minor=terms.amount_minor,
            priority=terms.priority,
            models_only=list(terms.models_only),
            meters_only=list(terms.meters_only),
            starts_at=terms.starts_at,
            ends_at=terms.ends_at,
            term_months=terms.term_months,
            rollover_max_minor=terms.rollover_max_minor,
            reason=terms.reason,
            created_by=created_by,
            idempotency_key=idempotency_key,
            request_digest=digest,
        )
        if _grant_due(tenant_id, row):
            balance_changed(tenant_id)
        return row.id


def end_recurrence(*, tenant_id: UUID, recurrence_id: UUID, ends_at: datetime) -> None:
    """Grant nothing more that begins at or after `ends_at`. What was granted stays.

    Raises `CallerError` 404 `recurrence_not_found`, `credit_invalid`.
    """
    with tenant_scope(tenant_id):
        one_act_at_a_time(tenant_id)
        row: CreditRecurrence | None = CreditRecurrence.objects.filter(id=recurrence_id).first()
        if row is None:
            raise CallerError(
                "recurrence_not_found", "There is no such recurring grant here.", status=404
            )
        check_end(starts_at=row.starts_at, ends_at=ends_at, ended_at=row.ends_at)
        CreditRecurrence.objects.filter(id=row.id).update(ends_at=ends_at)


def grant_due(tenant_id: UUID) -> int:
    """Grant every occurrence that is due; how many were missing."""
    with tenant_scope(tenant_id):
        one_act_at_a_time(tenant_id)
        granted = sum(_grant_due(tenant_id, row) for row in CreditRecurrence.objects.order_by("id"))
        if granted:
            balance_changed(tenant_id)
        return granted


def tenants_with_credit_due() -> list[UUID]:
    """Who lacks an occurrence that is due. Opens the system's door."""
    with system_scope("whose recurring credit is due"), connection.cursor() as cursor:
        cursor.execute(_DUE, {"now": clock.now()})
        return [tenant_id for (tenant_id,) in cursor.fetchall()]


def months_after(instant: datetime, months: int) -> datetime:
    """The same day and time `months` calendar months later, or that month's last day."""
    year, month = divmod(instant.year * 12 + instant.month - 1 + months, 12)
    day = min(instant.day, calendar.monthrange(year, month + 1)[1])
    return instant.replace(year=year, month=month + 1, day=day)


def _grant_due(tenant_id: UUID, row: CreditRecurrence) -> int:
    last = CreditGrant.objects.filter(recurrence=row).aggregate(Max("occurrence"))
    first_missing = 0 if last["occurrence__max"] is None else last["occurrence__max"] + 1
    granted = 0
    for occurrence in range(first_missing, first_missing + OCCURRENCES_PER_CALL_MAX):
        begins_at = months_after(row.starts_at, occurrence)
        if begins_at > clock.now() or (row.ends_at is not None and begins_at >= row.ends_at):
            break
        _grant(tenant_id, row, occurrence, begins_at)
        granted += 1
    return granted


def _grant(tenant_id: UUID, row: CreditRecurrence, occurrence: int, begins_at: datetime) -> None:
    expires_at = None
    if row.term_months is not None:
        expires_at = months_after(row.starts_at, occurrence + row.term_months)
    terms = GrantTerms(
        kind=row.kind,
        currency=row.currency,
        amount_minor=row.amount_minor,
        priority=row.priority,
        effective_at=begins_at,
        expires_at=expires_at,
        models_only=tuple(row.models_only),
        meters_only=tuple(row.meters_only),
        rollover_max_minor=row.rollover_max_minor,
        reason=row.reason,
    )
    open_grant(
        tenant_id,
        terms,
        idempotency_key=f"recurrence:{row.id}:{occurrence}",
        created_by=row.created_by,
        request_digest=digest_of(terms),
        effective_at=begins_at,
        recurrence=row,
        occurrence=occurrence,
    )
