"""From what four witnesses say to a verdict with its reasons. Pure.

A difference that nothing can explain any more is `fail`, even where another comparison is open.
`pass` is said only when everything that can be compared was, and agreed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from meterplane.metering.reconcile.ids import Ids
from meterplane.metering.reconcile.served import NOTHING, Bounds

Verdict = Literal["pass", "fail", "open"]
EVERY_SERVER = "*"
IDS_TOLD_MAX = 3
REASON_CHARS_MAX = 4000


@dataclass(frozen=True, slots=True)
class Served:
    """Triton's part: its own count, and what metering accounts for. `problem`: not known, why.

    `together` are other models that it is counted with.
    """

    successes: int = 0
    bounds: Bounds = NOTHING
    problem: str = ""
    together: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One model, on one server or on every one, in one hour: a row of `reconciliation`."""

    model: str
    server: str
    ids: Ids
    rolled_up: int | None
    served: Served | None
    verdict: Verdict
    reason: str


def find(
    model: str,
    server: str,
    ids: Ids,
    *,
    quarantined: int = 0,
    rolled_up: int | None = None,
    differences: Sequence[str] = (),
    served: Served | None = None,
    waiting: str = "",
) -> Finding:
    """Weigh everything said of it. `quarantined` of the missing ones were set aside by ingest;
    `waiting` is what is not taken in yet, in a sentence."""
    failures = [*_of_ids(ids, quarantined), *differences]
    doubts = [waiting] if waiting else []
    if ids.late:
        doubts.append(f"{ids.late:,} events came while this was compared")
    if ids.unwitnessed:
        doubts.append(f"{ids.unwitnessed:,} events came from a shipper that sends no manifest")
    if served is not None:
        told = _of_triton(served)
        # What is not taken in yet is what it may have served more.
        unsure = bool(served.problem) or (waiting and served.successes > served.bounds.high)
        (doubts if unsure else failures).extend(told)
    verdict: Verdict = "fail" if failures else "open" if doubts else "pass"
    reason = "; ".join([*failures, *doubts])[:REASON_CHARS_MAX]
    return Finding(model, server, ids, rolled_up, served, verdict, reason)


def _of_ids(ids: Ids, quarantined: int) -> list[str]:
    told = []
    if ids.missing_count:
        aside = f", {quarantined:,} of them in quarantine" if quarantined else ""
        told.append(
            f"{ids.missing_count:,} requests are in the journal and no events{aside}:"
            f" {_named(ids.missing, ids.missing_count)}"
        )
    if ids.extra_count:
        told.append(
            f"{ids.extra_count:,} events are in no journal: {_named(ids.extra, ids.extra_count)}"
        )
    return told


def _named(found: Sequence[object], count: int) -> str:
    named = ", ".join(str(each) for each in found[:IDS_TOLD_MAX])
    return named + (" and more" if count > IDS_TOLD_MAX else "")


def _of_triton(served: Served) -> list[str]:
    if served.problem:
        return [f"Triton's count is not known: {served.problem}"]
    also = f" (together with {', '.join(served.together)})" if served.together else ""
    low, high = served.bounds.low, served.bounds.high
    if served.successes > high:
        return [
            f"Triton served {served.successes - high:,} more than was metered{also}: somebody asks"
            " it without the gateway, or usage was lost"
        ]
    if served.successes < low:
        return [
            f"Triton served {low - served.successes:,} fewer than was metered{also}: events of"
            " nothing, or it was restarted between two looks"
        ]
    return []
