"""What requests held and what they used; and how long answers are that nobody bounded.

Both read the events of an interval, every one of them: for a job, not for a page. As in `queries`,
each needs an open door and answers for it; intervals are half-open, in UTC.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from meterplane.metering.reading import events_in, of_door, read


@dataclass(frozen=True, slots=True)
class Held:
    """What one model's requests held in one currency. Failed ones aside: they cost nothing.

    Sums over `requests`; the percentiles are of what each held above its cost, in nano.
    """

    model: str
    currency: str
    requests: int
    reserved_nano: int
    cost_nano: int
    over_hold_p50_nano: int
    over_hold_p95_nano: int


@dataclass(frozen=True, slots=True)
class AnswersOfLength:
    """Answers of `tokens_out` output tokens, one to a request, that the caller had not bounded.

    `ended` by themselves; `finished` also counts those their engine stopped at our bound. The rest
    of `answers` was left by its caller, or cut by a crash: it would have been longer.
    """

    tokens_out: int
    answers: int
    finished: int
    ended: int


def held_by_model(start: datetime, end: datetime) -> list[Held]:
    """By model and currency, in that order; no row where there was no request."""
    condition, parameters = _events(start, end)
    over_hold = "WITHIN GROUP (ORDER BY reserved_nano - cost_nano)"
    rows = read(
        "SELECT model, currency, count(*), sum(reserved_nano), sum(cost_nano),"
        f" percentile_disc(0.5) {over_hold}, percentile_disc(0.95) {over_hold}"
        f" FROM usage_event WHERE {condition} GROUP BY 1, 2 ORDER BY 1, 2",
        parameters,
    )
    return [Held(row[0], row[1], *map(int, row[2:])) for row in rows]


def answer_lengths(start: datetime, end: datetime) -> dict[str, list[AnswersOfLength]]:
    """By model, the shortest first. At most one entry a token of a model's longest answer."""
    condition, parameters = _events(start, end)
    rows = read(
        "SELECT model, tokens_out, count(*), count(*) FILTER (WHERE status = 'ok'),"
        " count(*) FILTER (WHERE status = 'ok' AND tokens_out < tokens_out_stop)"
        f" FROM usage_event WHERE {condition} AND tokens_out_stop > 0"
        " GROUP BY 1, 2 ORDER BY 1, 2",
        parameters,
    )
    found: defaultdict[str, list[AnswersOfLength]] = defaultdict(list)
    for model, *counts in rows:
        found[model].append(AnswersOfLength(*map(int, counts)))
    return dict(found)


def _events(start: datetime, end: datetime) -> tuple[str, dict[str, object]]:
    mine, parameters = of_door()
    within, interval = events_in(start, end, "held")
    return f"{mine} AND {within} AND status <> 'error'", parameters | interval
