"""What became of the known requests: event, roll-ups, Triton's counter. Each check is a sentence.

The canary's tenant sends nothing else, and one run at a time is under way: what its roll-ups grew
by is exactly what it sent.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings

from meterplane.catalog.queries import catalog_entries
from meterplane.metering.canary.ask import Answered, Door, NoAnswer
from meterplane.metering.canary.tenant import Canary
from meterplane.metering.models import UsageEvent
from meterplane.metering.reading import read
from meterplane.metering.reconcile.served import groups_on
from meterplane.triton.metrics import Counters, MeasuredServer, as_named, fetch_counters
from tenants.scoping import tenant_scope

VISIBLE_WITHIN_S = 30.0  # usually a second: a segment is sealed twice a second
COUNTED_WITHIN_S = 5.0
POLL_S = 0.02
NOT_THERE = (404, 405, 501)

Sums = Mapping[str, tuple[int, ...]]  # by model: events, requests, tokens in, tokens out, cost

_SUMS = """
SELECT model, sum(events)::bigint, sum(requests)::bigint, sum(tokens_in)::bigint,
       sum(tokens_out)::bigint, sum(cost_nano)::bigint
  FROM {table}
 WHERE tenant_id = %(tenant_id)s
 GROUP BY model
"""
ROLL_UPS = ("usage_hour", "usage_day")


@dataclass(frozen=True, slots=True)
class Before:
    """How things stood before the first request."""

    roll_ups: Mapping[str, Sums]
    counters: Mapping[str, Mapping[tuple[str, str], Counters]]


def stand(canary: Canary) -> Before:
    """Roll-ups and Triton's counters as they are now."""
    return Before(_roll_ups(canary), _counters(settings.TRITON_METRICS))


def events_of(
    canary: Canary, answered: Sequence[Answered]
) -> tuple[dict[UUID, UsageEvent], int | None]:
    """The events that can be read within the bound, and how many ms the last one took.

    None where one cannot be read.
    """
    ids = {each.request_id: each for each in answered}
    found: dict[UUID, UsageEvent] = {}
    slowest_ms = 0
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while len(found) < len(ids):
        with tenant_scope(canary.tenant_id):
            rows = list(UsageEvent.objects.filter(request_id__in=ids.keys() - found.keys()))
        for row in rows:
            found[row.request_id] = row
            slowest_ms = max(slowest_ms, int((time.monotonic() - ids[row.request_id].at) * 1000))
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    return found, slowest_ms if len(found) == len(ids) else None


def faults_of_events(answered: Iterable[Answered], events: Mapping[UUID, UsageEvent]) -> list[str]:
    """What events do not say as the answers did."""
    faults = []
    for each in answered:
        event = events.get(each.request_id)
        if event is None:
            faults.append(f"no event of {each.request_id} within {VISIBLE_WITHIN_S:.0f} s")
            continue
        told = (each.model, "ok", each.tokens_in, each.tokens_out, 1)
        kept = (event.model, event.status, event.tokens_in, event.tokens_out, event.requests)
        if told != kept:
            faults.append(f"{each.request_id} is kept as {kept} and was answered as {told}")
    return faults


def faults_of_roll_ups(
    canary: Canary, before: Before, events: Mapping[UUID, UsageEvent]
) -> list[str]:
    """Roll-ups that did not grow by exactly the events."""
    sent: dict[str, tuple[int, ...]] = {}
    for event in events.values():
        one = (1, event.requests, event.tokens_in, event.tokens_out, event.cost_nano)
        sent[event.model] = _added(sent.get(event.model, (0,) * 5), one)
    faults = []
    for table, now in _roll_ups(canary).items():
        for model in sorted(now.keys() | sent.keys()):
            was = before.roll_ups[table].get(model, (0,) * 5)
            expected = _added(was, sent.get(model, (0,) * 5))
            if now.get(model, (0,) * 5) != expected:
                faults.append(
                    f"{table} of {model} is {now.get(model)} and must be {expected}"
                    " (events, requests, tokens in, tokens out, cost)"
                )
    return faults


def faults_of_triton(before: Before, events: Iterable[UsageEvent]) -> tuple[list[str], int]:
    """Counters that grew by less than was sent, and how many servers were looked at."""
    catalog = catalog_entries()
    faults, looked_at = [], 0
    for server in settings.TRITON_METRICS:
        was = before.counters.get(server.name)
        if was is None:
            continue
        upstreams = {model for model, _ in was}
        for group in groups_on(server, upstreams, catalog.values()):
            sent = sum(
                event.model in group.models and as_named(event.server) in server.names
                for event in events
            )
            if not sent:
                continue
            looked_at += 1

            def counted(server: MeasuredServer = server, names: frozenset[str] = group.upstreams,
                        was: Mapping[tuple[str, str], Counters] = was) -> int:  # fmt: skip
                now = _counters([server]).get(server.name, {})
                return _successes(now, names) - _successes(was, names)

            grew = _until_at_least(counted, sent)
            if grew < sent:
                models = ", ".join(sorted(group.models))
                faults.append(f"{server.name} counted {grew} of {sent} requests of {models}")
    return faults, looked_at


def faults_of_receipts(door: Door, answered: Iterable[Answered]) -> list[str] | None:
    """Receipts that do not name their request; None where the gateway gives none."""
    faults = []
    for each in answered:
        try:
            status, body = door.get(f"/v1/receipts/{each.request_id}")
        except NoAnswer as problem:
            faults.append(str(problem))
            continue
        if status in NOT_THERE and not _names_a_receipt(body):
            return None
        if status != 200 or str(each.request_id) not in body.decode("utf-8", "replace"):
            faults.append(f"the receipt of {each.request_id} was answered {status}")
    return faults


def _names_a_receipt(body: bytes) -> bool:
    """Whether a refusal is of a receipt, and not of an address that is not there."""
    try:
        return "receipt" in str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return False


def _roll_ups(canary: Canary) -> dict[str, Sums]:
    with tenant_scope(canary.tenant_id):
        return {
            table: {
                row[0]: tuple(row[1:])
                for row in read(_SUMS.format(table=table), {"tenant_id": canary.tenant_id})
            }
            for table in ROLL_UPS
        }


def _counters(
    servers: Iterable[MeasuredServer],
) -> dict[str, Mapping[tuple[str, str], Counters]]:
    found = {}
    for server in servers:
        try:
            found[server.name] = fetch_counters(server.metrics_url)
        except (OSError, ValueError):
            continue  # said by reconciliation, once a minute
    return found


def _successes(counters: Mapping[tuple[str, str], Counters], models: frozenset[str]) -> int:
    return sum(each.success for (model, _), each in counters.items() if model in models)


def _until_at_least(counted: Callable[[], int], sent: int) -> int:
    deadline = time.monotonic() + COUNTED_WITHIN_S
    while (grew := counted()) < sent and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return grew


def _added(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(one + other for one, other in zip(left, right, strict=True))
