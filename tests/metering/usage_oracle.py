"""Usage counted by hand: an event at a time, in Python, without a database."""

import random
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID
from zoneinfo import ZoneInfo

from meterplane.contracts.usage import Priority, Settle, Surface
from meterplane.kernel import clock
from meterplane.kernel.ids import minted_at_ms
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.usage_query import DIMENSIONS, ORDERS, TAG, UsageQuery
from meterplane.metering.usage_table import UsageRow
from tenants.keys import issue_key
from tenants.onboard import create_project
from tests.metering.segments import message, settle

# Six weeks in which the clocks of Europe and of America go back.
FIRST = datetime(2026, 10, 9, tzinfo=UTC)
DAYS = 42
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Asia/Kolkata")
TEAMS = ("", "search", "ads", "Suche & Co")
MODELS = ("tiny-lm", "identity")


@dataclass(frozen=True)
class Place:
    """Who an event is of, in the shape `settle` asks of a tenant."""

    id: UUID
    project_id: UUID
    key_id: UUID


def two_organisations(onboard: Any) -> list[Place]:
    """Two organisations in two currencies; the first one with two projects and three keys."""
    acme, globex = onboard("acme"), onboard("globex", currency="EUR")
    project = create_project(tenant_id=acme.id, slug="second", name="Second")
    keys = [
        issue_key(tenant_id=acme.id, project_id=each, name="another").key.id
        for each in (acme.project_id, project.id)
    ]
    return [
        Place(acme.id, acme.project_id, acme.key_id),
        Place(acme.id, acme.project_id, keys[0]),
        Place(acme.id, project.id, keys[1]),
        Place(globex.id, globex.project_id, globex.key_id),
    ]


def some_usage(places: list[Place], chance: random.Random, count: int) -> list[Settle]:
    """Events taken in, in several segments; many of them at the first or last millisecond of an
    hour, and each once more under other sums to be sure of nothing."""
    frames = [_event(places, chance) for _ in range(count)]
    for first in range(0, count, 100):
        ingest_segment(message(frames[first : first + 100]))
    ingest_segment(message(frames[: count // 3]))
    return frames


def _event(places: list[Place], chance: random.Random) -> Settle:
    place = chance.choice(places)
    at_ms = clock.to_ms(FIRST) + chance.randrange(DAYS * 86_400_000)
    if chance.random() < 0.4:
        at_ms = at_ms // 3_600_000 * 3_600_000 - chance.choice([0, 1])
    tags = {}
    if chance.random() < 0.7:
        tags["team"] = chance.choice(TEAMS)
    if chance.random() < 0.5:
        tags["feature"] = chance.choice(["chat", "search"])
    return settle(
        place,
        at_ms=at_ms,
        model=chance.choice(MODELS),
        surface=chance.choice(get_args(Surface)[:3]),
        status=chance.choice(["ok", "ok", "ok", "error", "cancelled"]),
        service_tier=chance.choice(["standard", "batch"]),
        deployment=chance.choice(["", "canary"]),
        priority=chance.choice(get_args(Priority)),
        region=chance.choice(["", "eu-west", "us-east"]),
        gpu_type=chance.choice(["", "H100"]),
        currency="USD" if place in places[:3] else "EUR",
        price_version_id=UUID(int=chance.randrange(1, 3)),
        requests=chance.choice([1, 1, 1, 0]),
        tokens_in=chance.randrange(1000),
        tokens_out=chance.randrange(1000),
        cost_nano=chance.randrange(50_000),
        total_ms=chance.randrange(9000),
        tags=tags,
    )


def some_query(places: list[Place], chance: random.Random) -> UsageQuery:
    """Any query that sums or events can answer over these six weeks."""
    bucket = chance.choice([None, "minute", "hour", "day", "day", "month"])
    zone = ZoneInfo(chance.choice(ZONES))
    hours = chance.choice([1, 5, 24] if bucket == "minute" else [5, 24, 24 * 9, 24 * 31])
    start = FIRST + timedelta(milliseconds=chance.randrange(DAYS * 86_400_000))
    start -= chance.choice([timedelta(0), timedelta(days=20)])
    span = timedelta(milliseconds=chance.randrange(hours * 3_600_000) + 1)
    whole = chance.choice([None, timedelta(hours=1), timedelta(days=1)])
    if whole and (bucket != "minute" or hours < 24):
        start -= (start - FIRST) % whole
        span = max(span - span % whole, whole)
        span = timedelta(days=1) if bucket == "minute" else span
    names = [*DIMENSIONS, "tag:team", "tag:feature", "tag:nobody"]
    return UsageQuery(
        start,
        start + span,
        bucket,  # type: ignore[arg-type]
        zone,
        tuple(chance.sample(names, chance.choice([0, 1, 1, 2, 3]))),
        {
            name: tuple(_values(name, places, chance))
            for name in chance.sample(names[:-1], chance.choice([0, 0, 1, 2]))
        },
        chance.choice([None, *ORDERS]),
    )


def _values(name: str, places: list[Place], chance: random.Random) -> list[str]:
    known: dict[str, list[str]] = {
        "organisation": [str(place.id) for place in places],
        "project": [str(place.project_id) for place in places],
        "key": [str(place.key_id) for place in places],
        "model": [*MODELS, "none-such"],
        "surface": [*get_args(Surface)],
        "status": ["ok", "error", "cancelled", "interrupted"],
        "service_tier": ["standard", "batch"],
        "price_version": [str(UUID(int=1)), str(UUID(int=3))],
        "deployment": ["identity", "tiny-lm @ canary", "tiny-lm"],
        "priority": ["high", "low"],
        "region": ["", "eu-west", "nowhere"],
        "gpu_type": ["", "H100"],
        "tag:team": [*TEAMS],
        "tag:feature": ["chat", ""],
    }
    return chance.sample(known[name], chance.choice([1, 2]))


def count(frames: list[Settle], query: UsageQuery) -> tuple[set[UsageRow], set[UsageRow]]:
    """The rows and the totals that `query` must find."""
    rows: defaultdict[Any, list[int]] = defaultdict(lambda: [0] * 7)
    for frame in frames:
        at = clock.from_ms(minted_at_ms(frame.request_id))
        if not query.start <= at < query.end:
            continue
        if any(value(frame, name) not in given for name, given in query.filters.items()):
            continue
        groups = tuple(value(frame, name) for name in query.group_by)
        sums = (
            1,
            int(frame.status == "ok"),
            frame.requests,
            frame.tokens_in,
            frame.tokens_out,
            frame.cost_nano,
            frame.total_ms,
        )
        for key in ((bucket(at, query), groups, frame.currency), (frame.currency,)):
            rows[key] = [a + b for a, b in zip(rows[key], sums, strict=True)]
    return (
        {UsageRow(*key, *sums) for key, sums in rows.items() if len(key) == 3},
        {UsageRow(None, (), *key, *sums) for key, sums in rows.items() if len(key) == 1},
    )


def value(frame: Settle, name: str) -> str:
    """What an event is grouped under."""
    if name.startswith(TAG):
        return frame.tags.get(name.removeprefix(TAG), "")
    if name == "deployment":
        return f"{frame.model} @ {frame.deployment}" if frame.deployment else frame.model
    field = {
        "organisation": "tenant_id",
        "project": "project_id",
        "key": "key_id",
        "price_version": "price_version_id",
    }.get(name, name)
    return str(getattr(frame, field))


def bucket(at: datetime, query: UsageQuery) -> datetime | None:
    """The first instant of the bucket that an instant falls into, by the calendar of the zone."""
    local = at.astimezone(query.zone)
    match query.bucket:
        case "minute":
            return local.replace(second=0, microsecond=0).astimezone(UTC)
        case "hour":
            return local.replace(minute=0, second=0, microsecond=0).astimezone(UTC)
        case "day":
            return datetime(local.year, local.month, local.day, tzinfo=query.zone).astimezone(UTC)
        case "month":
            return datetime(local.year, local.month, 1, tzinfo=query.zone).astimezone(UTC)
    return None
