"""Many closed invoices, made by the real ingest and the real closing, and what stands of them."""

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from billing.invoicing.close import close_period
from billing.invoicing.models import Invoice
from billing.payments.models import PaymentStep
from meterplane.kernel import clock
from tenants.scoping import system_scope
from tests.billing.world import ingest, used

PER_TENANT = 50
MOMENT = timedelta(milliseconds=1)


def close_many(tenants: Sequence[Any], prices: UUID, count: int, chance: random.Random) -> None:
    """`count` invoices of half a dollar to fifty, a moment of usage each, spread over the tenants.

    All usage of a tenant arrives as one segment; then its periods are closed one after the other.
    """
    for n, tenant in enumerate(tenants):
        own = len(range(n, count, len(tenants)))
        if not own:
            continue
        began_ms = clock.now_ms() - own
        moments = [clock.from_ms(began_ms + k) for k in range(own)]
        ingest(
            *(
                used(tenant, prices, at, "tiny-lm", requests=chance.randrange(50, 5_000))
                for at in moments
            )
        )
        for at in moments:
            assert close_period(tenant.id, at + MOMENT) is not None


def left() -> int:
    """How many invoices are not collected yet; none waits for a person."""
    with system_scope("test"):
        parked = Invoice.objects.filter(collection_state=Invoice.Collection.PARKED)
        notes = [each.collection_note for each in parked[:3]]
        assert not notes, notes
        return Invoice.objects.exclude(collection_state=Invoice.Collection.DONE).count()


def unheard_of() -> int:
    """Calls that were sent and whose outcome nobody has noted."""
    with system_scope("test"):
        return PaymentStep.objects.filter(state=PaymentStep.State.SENT).count()
