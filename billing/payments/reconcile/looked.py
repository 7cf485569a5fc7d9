"""What one look at one kind of thing gave."""

from dataclasses import dataclass

from billing.payments.reconcile.compare import Found


@dataclass(frozen=True, slots=True)
class Looked:
    """How many rows were compared, and what differs. Without `is_of_day`, of whatever day.

    What is `undecided`, by ids of theirs, was under way when it was looked at: nothing new is told
    of it, and nothing that was told is taken back.
    """

    kind: str
    compared: int
    found: list[Found]
    is_of_day: bool = True
    undecided: frozenset[str] = frozenset()

    @property
    def agreed(self) -> int:
        """How many are the same on both sides. One may differ in more than one way."""
        about = {each.their_id or each.our_id for each in self.found} | self.undecided
        return max(0, self.compared - len(about))
