"""What one look at one kind of thing gave."""

from dataclasses import dataclass

from billing.payments.reconcile.compare import Found


@dataclass(frozen=True, slots=True)
class Looked:
    """How many rows were compared, and what differs. Without `is_of_day`, of whatever day."""

    kind: str
    compared: int
    found: list[Found]
    is_of_day: bool = True
