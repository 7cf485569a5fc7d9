"""What Triton counted between two looks at it: a difference, or why there is none.

Guarantees: a difference is only made of looks that are at most `APART_MAX` from each other and from
the hour they enclose, and of counters that never fell between them. A counter that fell, or went,
says that its server began anew: what it had counted since the last look is lost, so of nothing on
that server is a difference made. Never a guess.

It does not see a server that began anew and counted past where it was between two looks, or that
had counted nothing before: then it seems to have counted too little, and that is told as a failure.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from meterplane.metering.reading import read
from meterplane.metering.reconcile.spread import HOUR

APART_MAX = timedelta(minutes=10)  # above what thinned looks are apart (`scrape.THINNED_S`)

_LOOKS = """
SELECT at, model, version, success FROM triton_counter
 WHERE server = %(server)s AND at >= %(since)s AND at <= %(until)s
 ORDER BY at
"""

Series = tuple[str, str]  # model, version


@dataclass(frozen=True, slots=True)
class Counted:
    """What a server counted around an hour, by its model; `problem` says why it is not known."""

    began_at: datetime | None = None
    ended_at: datetime | None = None
    successes: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""


def counted_around(server: str, hour: datetime) -> Counted:
    """From the last look before the hour to the first one after it. Needs the system's door."""
    rows = read(
        _LOOKS, {"server": server, "since": hour - APART_MAX, "until": hour + HOUR + APART_MAX}
    )
    looks: dict[datetime, dict[Series, int]] = defaultdict(dict)
    for at, model, version, success in rows:
        looks[at][model, version] = success
    return difference(looks, hour)


def difference(looks: Mapping[datetime, Mapping[Series, int]], hour: datetime) -> Counted:
    """Of the looks that enclose the hour, in their order. Pure."""
    before = [at for at in looks if at <= hour]
    after = [at for at in looks if at >= hour + HOUR]
    if not before:
        return Counted(problem="nobody looked at its counters before the hour began")
    if not after:
        return Counted(problem="nobody has looked at its counters since the hour ended")
    began_at, ended_at = max(before), min(after)
    enclosed = sorted(at for at in looks if began_at <= at <= ended_at)
    for earlier, later in pairwise(enclosed):
        if later - earlier > APART_MAX:
            return Counted(
                problem=f"nobody looked at its counters between {_clock(earlier)} and"
                f" {_clock(later)}"
            )
        for series, count in looks[earlier].items():
            if looks[later].get(series, -1) < count:
                return Counted(
                    problem=f"it began anew between {_clock(earlier)} and {_clock(later)}: its"
                    f" counter of {series[0]} fell"
                )
    successes: dict[str, int] = defaultdict(int)
    for (model, version), count in looks[ended_at].items():
        successes[model] += count - looks[began_at].get((model, version), 0)
    return Counted(began_at, ended_at, dict(successes))


def _clock(at: datetime) -> str:
    return f"{at:%H:%M:%S}"
