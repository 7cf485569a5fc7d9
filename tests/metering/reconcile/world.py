"""An hour of usage, with Triton's counters around it, and hands that spoil it."""

from collections.abc import Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import psycopg
from django.db import connection

from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.models import Reconciliation
from meterplane.metering.reconcile.hours import reconcile
from meterplane.triton.metrics import MeasuredServer
from tenants.scoping import system_scope
from tests import environment
from tests.metering.segments import message, settle

HTTP, GRPC = "http://triton-0:8000", "triton-0:8001"
TRITON = MeasuredServer((HTTP, GRPC), "http://triton-0:8002/metrics")
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
MODELS = ("tiny-lm", "identity", "all-minilm-l6-v2")


def last_hour() -> datetime:
    """One that is over, and of today or yesterday."""
    return clock.now().astimezone(UTC).replace(minute=0, second=0, microsecond=0) - 2 * HOUR


def ms(at: datetime) -> int:
    return clock.to_ms(at)


def event(tenant, at: datetime, **changes: object):
    """A request that tiny-lm answered well on our Triton, unless said otherwise."""
    return settle(tenant, at_ms=ms(at), **({"server": HTTP} | changes))


def minted(at_ms: int):
    return uuid7(at_ms)


def replaced(event, **changes: object):
    return msgspec.structs.replace(event, **changes)


def taken_in(*events):
    """All of them in one segment."""
    ingest_segment(message(list(events)))


def looked(counts: Mapping[datetime, Mapping[str, int]], server: str = HTTP) -> None:
    """What Triton had counted by its models at these instants."""
    with system_scope("test"), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO triton_counter VALUES (%s, %s, %s, '1', %s, 0, 0, 0)",
            [
                (server, at, model, count)
                for at, by_model in counts.items()
                for model, count in by_model.items()
            ],
        )


def looked_each_minute(hour: datetime, ends_with: Mapping[str, int], begins_with: int = 100):
    """From a minute before the hour to one behind it; all is counted in the middle."""
    looked(
        {
            hour + n * MINUTE: {
                model: begins_with + (ends_with.get(model, 0) if n > 30 else 0) for model in MODELS
            }
            for n in range(-1, 62)
        }
    )


def as_owner(statement: str, *values: object) -> int:
    """Behind the product's back: how many rows it changed."""
    with psycopg.connect(environment.database_url("meterplane_owner"), autocommit=True) as owner:
        return owner.execute(statement.encode(), values).rowcount


def verdicts(hour: datetime) -> dict[tuple[str, str], Reconciliation]:
    with system_scope("test"):
        return {(row.model, row.server): row for row in Reconciliation.objects.filter(hour=hour)}


def reconciled(hour: datetime) -> dict[tuple[str, str], Reconciliation]:
    """The verdicts on the hour after another run in which it is due."""
    as_owner("UPDATE reconciliation_hour SET due_at = now() WHERE hour = %s", hour)
    reconcile()
    return verdicts(hour)


def said(rows: Mapping[object, Reconciliation]) -> set[str]:
    return {row.verdict for row in rows.values()}


@contextmanager
def drained_until(at: datetime):
    """A journal root that is taken in up to then."""
    as_owner(
        "INSERT INTO journal_watermark VALUES (gen_random_uuid(), 'host-7', %s, now())"
        " ON CONFLICT (root) DO NOTHING",
        at,
    )
    yield
    as_owner("DELETE FROM journal_watermark")


def asked(statement: str, *values: object) -> list[tuple]:
    """What the owner reads."""
    with psycopg.connect(environment.database_url("meterplane_owner"), autocommit=True) as owner:
        return owner.execute(statement.encode(), values).fetchall()
