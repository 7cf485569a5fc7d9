"""One hour, every model and server: ids, sums and Triton's counters, put together.

Needs the system's door. Reads only; what was found is stored by `hours.py`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from meterplane.catalog.entry import CatalogEntry
from meterplane.catalog.queries import catalog_entries
from meterplane.metering.reading import read
from meterplane.metering.reconcile.counted import APART_MAX, Counted, counted_around
from meterplane.metering.reconcile.ids import Ids, compare_ids, quarantined
from meterplane.metering.reconcile.served import (
    Group,
    Known,
    accounted_for,
    groups_on,
    names_of,
    servers_by_model,
)
from meterplane.metering.reconcile.spread import HOUR
from meterplane.metering.reconcile.sums import compare_sums
from meterplane.metering.reconcile.verdict import EVERY_SERVER, Finding, Served, find
from meterplane.triton.metrics import MeasuredServer, as_named

NO_ADDRESS = "its metrics have no address (TRITON_METRICS_URLS)"
NOT_COUNTED = "none of its counters is of this model"

_UPSTREAMS = """
SELECT DISTINCT model FROM triton_counter
 WHERE server = %(server)s AND at >= %(since)s AND at <= %(until)s
"""
# Of days whose events have left for an archive nothing is told by their absence.
_DAY_IS_HERE = """
SELECT EXISTS (
  SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
   WHERE i.inhparent = 'usage_event'::regclass AND c.relname = %(name)s)
"""


def compare(hour: datetime, servers: Sequence[MeasuredServer], waiting: str) -> list[Finding]:
    """What is found of an hour, models in order; of each model the row of every server first."""
    names = names_of(servers)
    ids: dict[tuple[str, str], Ids] = defaultdict(Ids)
    by_id = compare_ids(hour)
    if any(each.missing_count for each in by_id.values()) and not _day_is_here(hour):
        return [
            find(model, server, Ids(each.journal), waiting="the events of its day were archived")
            for (model, server), each in sorted(by_id.items())
        ]
    for (model, server), each in by_id.items():
        name = names.get(as_named(server), server)
        ids[model, name] = ids[model, name] + each
    aside = quarantined(hour) if any(each.missing_count for each in ids.values()) else set()
    served = _served(hour, servers, names, ids)
    sums = compare_sums(hour)
    findings: list[Finding] = []
    for model in sorted({key[0] for key in (*ids, *served)} | {*sums.events, *sums.differences}):
        whole = Ids()
        parts: list[Finding] = []
        for server in sorted({at for name, at in (*ids, *served) if name == model}):
            here = ids.get((model, server), Ids())
            whole = whole + here
            parts.append(
                find(
                    model, server, here,
                    quarantined=len(aside.intersection(here.missing)),
                    served=served.get((model, server)),
                    waiting=waiting,
                )
            )  # fmt: skip
        findings.append(
            find(
                model, EVERY_SERVER, whole,
                quarantined=len(aside.intersection(whole.missing)),
                rolled_up=sums.events.get(model, 0),
                differences=sums.differences.get(model, ()),
                waiting=waiting,
            )
        )  # fmt: skip
        findings += parts
    return findings


def _day_is_here(hour: datetime) -> bool:
    return bool(read(_DAY_IS_HERE, {"name": f"usage_event_{hour:%Y%m%d}"})[0][0])


def _served(
    hour: datetime,
    servers: Sequence[MeasuredServer],
    names: Mapping[str, str],
    ids: Mapping[tuple[str, str], Ids],
) -> dict[tuple[str, str], Served]:
    """Triton's part by model and server. A Triton that is idle, and known to be, is left out."""
    catalog = catalog_entries()
    groups = {
        server.name: groups_on(server, _upstreams(server, hour), catalog.values())
        for server in servers
    }
    known = Known(
        {name: entry.adapter for name, entry in catalog.items()}, names, servers_by_model(groups)
    )
    found: dict[tuple[str, str], Served] = {}
    problems = dict.fromkeys({server for _, server in ids} - {""}, NO_ADDRESS)
    for server in servers:
        counted = counted_around(server.name, hour)
        problems[server.name] = counted.problem or NOT_COUNTED
        for group in groups[server.name]:
            of_group = _of_group(server, group, known, counted)
            used = of_group.successes or of_group.bounds.high or of_group.problem
            for model in group.models:
                if used or (model, server.name) in ids:
                    together = sorted(group.models - {model})
                    found[model, server.name] = replace(of_group, together=together)
    for model, at in ids:
        if at and (model, at) not in found and _is_triton(catalog.get(model)):
            found[model, at] = Served(problem=problems[at])
    return found


def _is_triton(entry: CatalogEntry | None) -> bool:
    """Whether what serves a model counts as Triton does. One that nobody knows any more might."""
    return entry is None or entry.adapter != "openai"


def _of_group(server: MeasuredServer, group: Group, known: Known, counted: Counted) -> Served:
    if counted.began_at is None or counted.ended_at is None:
        return Served(problem=counted.problem)
    bounds = accounted_for(server, group, known, counted.began_at, counted.ended_at)
    return Served(sum(counted.successes.get(name, 0) for name in group.upstreams), bounds)


def _upstreams(server: MeasuredServer, hour: datetime) -> list[str]:
    window = {"since": hour - APART_MAX, "until": hour + HOUR + APART_MAX}
    return [model for (model,) in read(_UPSTREAMS, {"server": server.name, **window})]
