"""What is left of cards and top-ups, so that no event and no customer needs to come back."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from django.db.models import Exists, OuterRef, Q

from billing.payments.cards import settle_card_setup
from billing.payments.models import AutoReload, CardSetup, TopUp
from billing.payments.provider import PaymentProvider
from billing.payments.top_ups import settle_top_up
from tenants.scoping import system_scope

LEFT_MAX = 200  # of each kind, in one sweep

Act = Callable[[UUID, UUID, PaymentProvider], object]


def left(unseen_since: datetime) -> list[tuple[Act, UUID, UUID]]:
    """Visits to checkouts that are not over and that nobody looked at since, the oldest first."""
    acts: tuple[tuple[Act, type[CardSetup | TopUp]], ...] = (
        (settle_card_setup, CardSetup),
        (settle_top_up, TopUp),
    )
    with system_scope("the sweep looks for checkouts nobody told of"):
        return [
            (act, tenant_id, subject_id)
            for act, model in acts
            for tenant_id, subject_id in model.objects.filter(
                state="wanted", checked_at__lt=unseen_since
            )
            .order_by("checked_at")
            .values_list("tenant_id", "id")[:LEFT_MAX]
        ]


def reloading() -> list[UUID]:
    """Organisations whose credit pays itself ahead, the one looked at longest ago first."""
    with system_scope("the sweep looks for credit that runs low"):
        begun = Exists(
            TopUp.objects.filter(tenant_id=OuterRef("tenant_id"), origin="auto", state="wanted")
        )
        rows = AutoReload.objects.filter(begun | Q(is_on=True, paused_at__isnull=True))
        return list(rows.order_by("checked_at").values_list("tenant_id", flat=True)[:LEFT_MAX])
