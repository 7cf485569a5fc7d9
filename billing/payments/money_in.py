"""Reads of cards, top-ups and auto-reload for the portal and the control API.

Each needs the tenant's door. Amounts are minor units of the organisation's currency.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from billing.payments.auto_reload import reloaded_minor
from billing.payments.models import AutoReload, BillingAccount, TopUp
from meterplane.kernel import clock
from tenants.queries import organisation

PAGE_MAX = 200


@dataclass(frozen=True, slots=True)
class CardView:
    """The card that is charged, as it was last read at the provider."""

    brand: str
    last4: str


@dataclass(frozen=True, slots=True)
class TopUpView:
    """Credit paid ahead. `origin`: person or auto. `is_payable`: its checkout may still be open."""

    id: UUID
    origin: str
    amount_minor: int
    currency: str
    state: str
    note: str
    grant_id: UUID | None
    created_at: datetime
    settled_at: datetime | None
    created_by: str

    @property
    def is_payable(self) -> bool:
        return self.origin == TopUp.Origin.PERSON and self.state == TopUp.State.WANTED


@dataclass(frozen=True, slots=True)
class AutoReloadView:
    """The rules, and where the running month (UTC) stands. Off, with no amounts, where none were
    ever set. `is_used_up`: the month's maximum leaves no room for one more."""

    is_on: bool
    currency: str
    threshold_minor: int | None
    amount_minor: int | None
    month_max_minor: int | None
    reloaded_minor: int
    paused_at: datetime | None
    pause_note: str

    @property
    def is_used_up(self) -> bool:
        if self.amount_minor is None or self.month_max_minor is None:
            return False
        return self.reloaded_minor + self.amount_minor > self.month_max_minor


def card() -> CardView | None:
    """The default; None without one."""
    account = BillingAccount.objects.exclude(default_payment_method="").first()
    return None if account is None else CardView(account.card_brand, account.card_last4)


def list_top_ups(limit: int = PAGE_MAX) -> list[TopUpView]:
    """Newest first."""
    return [top_up_view(row) for row in TopUp.objects.all()[: min(limit, PAGE_MAX)]]


def top_up_by_id(top_up_id: UUID) -> TopUpView | None:
    """One; None if the tenant has no such top-up."""
    row = TopUp.objects.filter(id=top_up_id).first()
    return None if row is None else top_up_view(row)


def top_up_view(row: TopUp) -> TopUpView:
    """A top-up as it is shown."""
    return TopUpView(
        id=row.id,
        origin=row.origin,
        amount_minor=row.amount_minor,
        currency=row.currency,
        state=row.state,
        note=row.note,
        grant_id=row.grant_id,
        created_at=row.created_at,
        settled_at=row.settled_at,
        created_by=row.created_by,
    )


def auto_reload() -> AutoReloadView:
    """The open door's organisation's."""
    rules: AutoReload | None = AutoReload.objects.first()
    return AutoReloadView(
        is_on=rules is not None and rules.is_on,
        currency=organisation().currency,
        threshold_minor=rules.threshold_minor if rules else None,
        amount_minor=rules.amount_minor if rules else None,
        month_max_minor=rules.month_max_minor if rules else None,
        reloaded_minor=reloaded_minor(clock.now()),
        paused_at=rules.paused_at if rules else None,
        pause_note=rules.pause_note if rules else "",
    )
