"""Which events a bill has counted, and which arrived after it.

The problem: a bill is a sum, and events of its period come in before, during and after it is made.
When an event was taken in does not decide it: `ingested_at` is when that transaction began, and a
bill that is made before it ends does not count what it brings.

Guarantees: `hold` keeps the usage of the open door's organisation as it is until the transaction
ends, and says what it then is. `counted` is true of exactly the events that were visible then, at
any later time, also of those that were archived and brought back.

`none_is_late` says of what was settled that it has not grown since, whatever came in meanwhile.

Does not know bills. A reading of before readings were kept has no snapshot: for it, the instant
alone decides, and an event that came in just then may be on the wrong side.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from meterplane.metering.reading import read
from tenants.scoping import current_tenant_id


@dataclass(frozen=True, slots=True)
class Reading:
    """What had arrived at an instant: PostgreSQL's snapshot, empty where none was kept."""

    seen_at: datetime
    snapshot: str

    @property
    def is_exact(self) -> bool:
        return bool(self.snapshot)


def hold() -> Reading:
    """Let no more usage of the open door's organisation become visible in this transaction."""
    ((seen_at, seen),) = read("SELECT seen_at, seen FROM hold_usage_arrivals()", {})
    return Reading(seen_at, seen)


def settle(until: datetime) -> None:
    """What arrives from now on is late where it is from before `until`: all of that is billed.

    Needs what `hold` holds, in the same transaction.
    """
    read("SELECT settle_usage_arrivals(%(until)s)", {"until": until})


def none_is_late(until: datetime) -> bool:
    """Whether usage of the open door's organisation is settled until just then, and nothing of that
    has arrived since."""
    rows = read(
        "SELECT FROM usage_revision WHERE tenant_id = %(tenant_id)s"
        " AND settled_until = %(until)s AND on_time = revision",
        {"tenant_id": current_tenant_id(), "until": until},
    )
    return bool(rows)


def counted(reading: Reading, name: str) -> tuple[str, dict[str, Any]]:
    """The condition for an event that `reading` counted. Needs the tenant's door."""
    return (
        f"(ingested_at <= %({name}_at)s AND segment_id <> ALL(%({name}_not_yet)s::uuid[]))",
        {f"{name}_at": reading.seen_at, f"{name}_not_yet": _stragglers(reading)},
    )


def _stragglers(reading: Reading) -> list[UUID]:
    """Segments that were being taken in just then: nearly always none."""
    if not reading.is_exact:
        return []
    rows = read(
        "SELECT usage_stragglers(%(seen_at)s, %(seen)s)",
        {"seen_at": reading.seen_at, "seen": reading.snapshot},
    )
    return [segment_id for (segment_id,) in rows]
