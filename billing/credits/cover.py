"""What each grant pays of an invoice. Pure.

The rule: grants are taken in their order, and each pays as much as it can of the lines it is for,
without any before it paying less. Where a line that only a later grant could still pay is paid by
an earlier one that is for other lines as well, the earlier one moves to those. So the order decides
whose credit is used first, and among all ways of paying in that order it is one that leaves least
to the customer.

Worked through as a flow from grants to lines: a grant that finds its lines paid follows whoever
pays them to what else they may pay (an augmenting path). Its result does not depend on the order of
the lines.

Lines of one model and meter are one sum, in which a negative line (usage that vanished) counts
against the others. No more is paid than the whole invoice owes. What is of no model or meter, such
as a minimum spend, is paid by grants that are for everything.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Payable:
    """What a line owes, in minor units; `model` and `meter` are empty where it is of none."""

    model: str
    meter: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Payer:
    """What a grant has, and what it is for; empty: everything."""

    amount_minor: int
    models_only: frozenset[str] = frozenset()
    meters_only: frozenset[str] = frozenset()

    def pays(self, model: str, meter: str) -> bool:
        """Whether it is for usage of that model and meter."""
        return (not self.models_only or model in self.models_only) and (
            not self.meters_only or meter in self.meters_only
        )


def cover(payers: Sequence[Payer], lines: Iterable[Payable]) -> list[int]:
    """What each payer pays, in their order. At least 0 each, and their sum is at most the total."""
    return covered(payers, lines)[0]


def covered(
    payers: Sequence[Payer], lines: Iterable[Payable], at_most: int | None = None
) -> tuple[list[int], list[Payable]]:
    """What each payer pays, `at_most` in all, and how much of each model and meter that is."""
    owed: dict[tuple[str, str], int] = defaultdict(int)
    for line in lines:
        owed[line.model, line.meter] += line.amount_minor
    flow = _Flow(payers, owed)
    due = max(0, sum(owed.values()))
    if at_most is not None:
        due = min(due, at_most)
    paid = []
    for number, payer in enumerate(payers):
        wanted = min(payer.amount_minor, due)
        paid.append(flow.pay(number, wanted))
        due -= paid[-1]
    return paid, flow.paid_for()


class _Flow:
    """Who pays how much of which sum. Sums that the same payers may pay are one."""

    def __init__(self, payers: Sequence[Payer], owed: dict[tuple[str, str], int]) -> None:
        sums: dict[tuple[int, ...], list[Payable]] = defaultdict(list)
        for (model, meter), amount_minor in sorted(owed.items()):
            by = tuple(n for n, payer in enumerate(payers) if payer.pays(model, meter))
            if amount_minor > 0 and by:
                sums[by].append(Payable(model, meter, amount_minor))
        self._of = list(sums.values())
        self._left = [sum(each.amount_minor for each in parts) for parts in self._of]
        self._paid: list[dict[int, int]] = [{} for _ in sums]  # of each sum: payer -> amount
        self._may_pay: list[list[int]] = [[] for _ in payers]
        for number, by in enumerate(sums):
            for payer in by:
                self._may_pay[payer].append(number)

    def pay(self, payer: int, wanted: int) -> int:
        """Let one payer pay up to `wanted`; how much it does. No other pays more or less."""
        missing = wanted
        while missing:
            path = self._path(payer)
            if path is None:
                break
            amount = min([missing, self._left[path[-1][1]], *self._movable(path)])
            self._left[path[-1][1]] -= amount
            for by, number in path:
                self._paid[number][by] = self._paid[number].get(by, 0) + amount
            for (_, number), (mover, _) in pairwise(path):
                self._paid[number][mover] -= amount
            missing -= amount
        return wanted - missing

    def paid_for(self) -> list[Payable]:
        """What is paid of each model and meter; of those in one sum the first first."""
        found = []
        for parts, left in zip(self._of, self._left, strict=True):
            paid = sum(each.amount_minor for each in parts) - left
            for each in parts:
                part = min(paid, each.amount_minor)
                paid -= part
                if part:
                    found.append(Payable(each.model, each.meter, part))
        return found

    def _movable(self, path: list[tuple[int, int]]) -> list[int]:
        """What each payer on the way pays of the sum that it is to leave."""
        return [self._paid[number][mover] for (_, number), (mover, _) in pairwise(path)]

    def _path(self, payer: int) -> list[tuple[int, int]] | None:
        """A shortest way to a sum with something left: (who pays, which sum), then who moves."""
        came_from: dict[int, tuple[int, int] | None] = {payer: None}
        seen: set[int] = set()
        waiting = deque([payer])
        while waiting:
            by = waiting.popleft()
            for number in self._may_pay[by]:
                if number in seen:
                    continue
                seen.add(number)
                if self._left[number]:
                    return self._back(came_from, by, number)
                for mover, amount in self._paid[number].items():
                    if amount and mover not in came_from:
                        came_from[mover] = (by, number)
                        waiting.append(mover)
        return None

    @staticmethod
    def _back(
        came_from: dict[int, tuple[int, int] | None], by: int, number: int
    ) -> list[tuple[int, int]]:
        path = [(by, number)]
        step = came_from[by]
        while step is not None:
            path.append(step)
            step = came_from[step[0]]
        return path[::-1]
