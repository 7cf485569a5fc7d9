"""What each act on credit posts to the ledger, in the transaction of the act.

Between grants of one kind nothing is posted: what rolls over stays in the account it is in. So the
two accounts of credit always hold what remains of the grants of their kind.
"""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from billing.credits.models import CreditGrant, Kind
from billing.ledger import movements
from billing.ledger.post import post

Moved = Iterable[tuple[CreditGrant, int]]

GRANTED = "credit_granted"
DRAWN = "credit_drawn"
RESTORED = "credit_restored"
EXPIRED = "credit_expired"
REFUNDED = "credit_refunded"


def post_granted(row: CreditGrant) -> None:
    """Bought, or given."""
    act = movements.credit_purchased if row.kind == Kind.PURCHASED else movements.credit_given
    post(
        kind=GRANTED,
        source_id=row.id,
        currency=row.currency,
        legs=act(row.amount_minor),
        at=row.created_at,
        memo=row.reason,
    )


def post_drawn(invoice_id: UUID, currency: str, drawn: Moved, at: datetime) -> None:
    """All that one invoice draws."""
    legs = movements.credit_drawn(**_by_kind(drawn))
    post(kind=DRAWN, source_id=invoice_id, currency=currency, legs=legs, at=at)


def post_restored(source_id: UUID, currency: str, restored: Moved, at: datetime) -> None:
    """All that one correction gives back."""
    legs = movements.credit_restored(**_by_kind(restored))
    post(kind=RESTORED, source_id=source_id, currency=currency, legs=legs, at=at)


def post_expired(movement_id: UUID, row: CreditGrant, amount_minor: int, at: datetime) -> None:
    """What nobody used in time."""
    legs = movements.credit_expired(**_by_kind([(row, amount_minor)]))
    post(kind=EXPIRED, source_id=movement_id, currency=row.currency, legs=legs, at=at)


def post_refunded(row: CreditGrant, amount_minor: int, at: datetime) -> None:
    """What is to be paid back of a grant."""
    legs = movements.credit_refunded(amount_minor)
    post(kind=REFUNDED, source_id=row.id, currency=row.currency, legs=legs, at=at)


def _by_kind(moved: Moved) -> dict[str, int]:
    sums = {"purchased_minor": 0, "promotional_minor": 0}
    for row, amount_minor in moved:
        sums[f"{row.kind}_minor"] += amount_minor
    return sums
