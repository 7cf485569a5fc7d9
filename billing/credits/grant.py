"""Grant credit: the only writer of grants, whether an operator, a recurrence or a rollover asks.

Guarantees: a grant is written once for its idempotency key, with its ledger entry, or not at all;
asked for again with the same terms the first one answers, with other terms it is refused. Whoever
asks at the same time waits and gets the same answer.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from billing.credits.hold import balance_changed
from billing.credits.models import CreditGrant
from billing.credits.postings import post_granted
from billing.credits.terms import GrantTerms, check_grant, check_names, digest_of, same_request
from billing.credits.turns import one_act_at_a_time
from meterplane.kernel import clock
from tenants.queries import organisation
from tenants.scoping import tenant_scope


def grant(*, tenant_id: UUID, terms: GrantTerms, idempotency_key: str, created_by: str) -> UUID:
    """Grant credit; the grant's id.

    Raises `CallerError` `credit_invalid` naming the field, `organisation_not_found`, or 409
    `idempotency_key_reused`.
    """
    check_names(idempotency_key=idempotency_key, created_by=created_by)
    digest = digest_of(terms)
    with tenant_scope(tenant_id):
        one_act_at_a_time(tenant_id)
        known: CreditGrant | None = CreditGrant.objects.filter(
            idempotency_key=idempotency_key
        ).first()
        if known is not None:
            same_request(known, digest)
            return known.id
        check_grant(terms, organisation().currency)
        row = open_grant(
            tenant_id,
            terms,
            idempotency_key=idempotency_key,
            created_by=created_by,
            request_digest=digest,
            effective_at=terms.effective_at or clock.now(),
        )
        balance_changed(tenant_id)
        return row.id


def open_grant(
    tenant_id: UUID,
    terms: GrantTerms,
    *,
    idempotency_key: str,
    created_by: str,
    request_digest: str,
    effective_at: datetime,
    **origin: Any,
) -> CreditGrant:
    """Write a grant whose terms are right. `origin` names its recurrence or what rolled over.

    Needs the tenant's door, and its turn.
    """
    row: CreditGrant = CreditGrant.objects.create(
        tenant_id=tenant_id,
        kind=terms.kind,
        currency=terms.currency,
        amount_minor=terms.amount_minor,
        priority=terms.priority,
        effective_at=effective_at,
        expires_at=terms.expires_at,
        models_only=list(terms.models_only),
        meters_only=list(terms.meters_only),
        rollover_max_minor=terms.rollover_max_minor,
        reason=terms.reason,
        created_by=created_by,
        idempotency_key=idempotency_key,
        request_digest=request_digest,
        **origin,
    )
    if row.rolled_from_id is None:
        post_granted(row)
    return row
