"""Credit that pays itself ahead: below a threshold, by an amount, within a month's maximum.

Guarantees: one reload at a time for an organisation, and in a calendar month (UTC) no more than its
maximum, both held by PostgreSQL, too. A charge that comes to nothing pauses it with a note, until
the card changes or a person resumes. What is left is what could be drawn now: what the running
period would draw is taken off.

How soon it is noticed that credit runs low is the sweep's: within 30 s as a rule.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from django.db.models import Sum

from billing.credits import queries as credit
from billing.invoicing.queries import upcoming_invoice
from billing.payments.models import AutoReload, BillingAccount, Method, TopUp
from billing.payments.provider import PaymentProvider
from billing.payments.terms import PAYS_BY_HAND, ensure_pays_online
from billing.payments.terms import terms as collection_terms
from billing.payments.top_up_terms import amount_minor, top_up_minor
from billing.payments.top_ups import pause_auto_reload, settle_top_up
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from tenants.queries import organisation
from tenants.scoping import current_tenant_id, tenant_scope

_COUNTED = [TopUp.State.WANTED, TopUp.State.PAID, TopUp.State.PARKED]
_OPEN = [TopUp.State.WANTED, TopUp.State.PARKED]


@dataclass(frozen=True, slots=True)
class ReloadTerms:
    """Amounts as they are written, in the organisation's currency."""

    is_on: bool
    threshold: str
    amount: str
    month_max: str


def set_auto_reload(tenant_id: UUID, terms: ReloadTerms, *, by: str) -> AutoReload:
    """From now on. It does not lift a pause: `resume_auto_reload` does.

    Raises `CallerError` `top_up_invalid` naming the field, or 409 `no_card` or `pays_by_hand`.
    """
    with tenant_scope(tenant_id):
        if terms.is_on:
            ensure_pays_online()
        currency = organisation().currency
        threshold_minor = amount_minor(terms.threshold, currency, "threshold")
        reload_minor = top_up_minor(terms.amount, currency)
        month_max_minor = amount_minor(terms.month_max, currency, "month_max")
        if month_max_minor < reload_minor:
            raise CallerError(
                "top_up_invalid",
                "A month's maximum is at least one reload.",
                field="month_max",
            )
        if terms.is_on and not _has_card():
            raise CallerError(
                "no_card", "Add a card first: it is what is charged.", status=409, field="is_on"
            )
        rules: AutoReload
        rules, _ = AutoReload.objects.update_or_create(
            tenant_id=tenant_id,
            defaults={
                "is_on": terms.is_on,
                "threshold_minor": threshold_minor,
                "amount_minor": reload_minor,
                "month_max_minor": month_max_minor,
                "changed_by": by[:120],
                "changed_at": clock.now(),
            },
        )
    return rules


def resume_auto_reload(tenant_id: UUID, *, by: str) -> None:
    """Try again after a pause. Raises `CallerError` 409 `not_paused`."""
    with tenant_scope(tenant_id):
        moved = AutoReload.objects.filter(paused_at__isnull=False).update(
            paused_at=None, pause_note="", changed_by=by[:120], changed_at=clock.now()
        )
    if not moved:
        raise CallerError("not_paused", "Auto-reload is not paused.", status=409)


def reload_if_low(tenant_id: UUID, provider: PaymentProvider) -> TopUp | None:
    """Finish the reload that is under way, or begin one if credit is low; None if there is none.

    Raises `WorldError` when the provider is away: what was begun is finished by the next call.
    """
    with tenant_scope(tenant_id):
        # Locked: two workers would look at the same balance.
        rules: AutoReload | None = AutoReload.objects.select_for_update().first()
        if rules is None:
            return None
        AutoReload.objects.update(checked_at=clock.now())
        top_up = _under_way() or _begin(rules)
    if top_up is None or top_up.state == TopUp.State.PARKED:
        return top_up
    return settle_top_up(tenant_id, top_up.id, provider)


def spendable_minor() -> int:
    """What could be drawn now, less what the running period would draw. Needs the tenant's door."""
    upcoming = upcoming_invoice()
    lines = upcoming.lines if upcoming is not None else ()
    drawn = sum(line.amount_minor for line in lines if line.kind == "credit")
    return credit.balance().total_minor + drawn


def reloaded_minor(at: datetime) -> int:
    """What was, or is being, reloaded in the month of `at`. Needs the tenant's door."""
    month = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    rows = TopUp.objects.filter(origin=TopUp.Origin.AUTO, state__in=_COUNTED, created_at__gte=month)
    return int(rows.aggregate(sum=Sum("amount_minor"))["sum"] or 0)


def _under_way() -> TopUp | None:
    found: TopUp | None = TopUp.objects.filter(origin=TopUp.Origin.AUTO, state__in=_OPEN).first()
    return found


def _begin(rules: AutoReload) -> TopUp | None:
    if not rules.is_on or rules.paused_at is not None:
        return None
    now = clock.now()
    if reloaded_minor(now) + rules.amount_minor > rules.month_max_minor:
        return None
    if spendable_minor() >= rules.threshold_minor:
        return None
    if collection_terms().method == Method.MANUAL:
        pause_auto_reload(PAYS_BY_HAND)
        return None
    if not _has_card():
        pause_auto_reload("There is no card to charge.")
        return None
    made: TopUp = TopUp.objects.create(
        tenant_id=current_tenant_id(),
        origin=TopUp.Origin.AUTO,
        amount_minor=rules.amount_minor,
        currency=organisation().currency,
        idempotency_key=f"auto:{uuid7()}",
        created_by="auto-reload",
        created_at=now,
    )
    return made


def _has_card() -> bool:
    return BillingAccount.objects.exclude(default_payment_method="").exists()
