"""How much of its limits an organisation used in one of their windows, from metered usage.

Told of spend limits and of day quotas: how much of other kinds is used is known in the admission
Redis alone. What requests that run now hold is not in it. A spend limit that is enforced and began
within its window counts from when it began: no more was spent of it than was granted.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

from meterplane.contracts import policy as contract
from meterplane.contracts import windows
from meterplane.kernel.invariant import ensure
from meterplane.metering.queries import KeyModelUsage, usage_by_key_and_model
from meterplane.policy.models import BudgetWindow

BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)  # of windows that never began: before any usage


class LimitUsage:
    """What was used in the windows that hold at one instant; each window is read once.

    `limits_scopes` is what each key's limits are counted under. Needs the organisation's door.
    """

    def __init__(self, at: datetime, limits_scopes: dict[UUID, UUID]) -> None:
        self._at = at
        self._limits_scopes = limits_scopes
        self._read: dict[contract.LimitWindow, list[KeyModelUsage]] = {}
        self._granted: dict[tuple[str, UUID, str, str], int] = {
            (row.level, row.scope_id, row.model, row.window): row.granted_nano
            for row in BudgetWindow.objects.filter(window__in=self._labels())
        }

    def of(self, limit: contract.Limit) -> int | None:
        """In the limit's own unit, nano for spend; None where usage does not tell."""
        if limit.kind != "spend" and limit.window != "day":
            return None
        if limit.window not in self._read:
            begins = windows.begins(limit.window, self._at) or BEGINNING
            ends = windows.ends(limit.window, self._at) or self._at + timedelta(days=1)
            self._read[limit.window] = usage_by_key_and_model(begins, ends)
        used = sum(_counted(limit, each) for each in self._in_scope(limit))
        if limit.kind != "spend" or limit.mode == "notify":
            return used
        label = windows.label(limit.window, self._at)
        name = (limit.level, limit.scope_id, limit.model, label)
        return min(used, self._granted.get(name, 0))

    def _labels(self) -> list[str]:
        return [windows.label(window, self._at) for window in contract.WINDOWS["spend"]]

    def _in_scope(self, limit: contract.Limit) -> Iterator[KeyModelUsage]:
        read: Iterable[KeyModelUsage] = self._read[limit.window]
        for each in read:
            scope_id = {
                "organisation": limit.scope_id,
                "project": each.project_id,
            }.get(limit.level, self._limits_scopes.get(each.key_id, each.key_id))
            if scope_id == limit.scope_id and limit.model in ("", each.model):
                yield each


def _counted(limit: contract.Limit, usage: KeyModelUsage) -> int:
    """What of some usage a limit of its kind counts."""
    match limit.kind:
        case "spend":
            return usage.cost_nano
        case "requests":
            return usage.events
        case "input_tokens":
            return usage.tokens_in
        case "output_tokens":
            return usage.tokens_out
        case "total_tokens":
            return usage.tokens_in + usage.tokens_out
    ensure(False, f"{limit.kind} is not counted from usage")
    return 0
