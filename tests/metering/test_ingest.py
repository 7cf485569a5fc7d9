"""A request is one event and counted once, whatever happens to the message that carries it."""

import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import msgspec
import psycopg
import pytest
from django.db import connections
from django.db.models import Sum

from meterplane.contracts.usage import Admit, Settle, encode, settle_orphan
from meterplane.journal import framing
from meterplane.journal.segment import encode_header, encode_segment
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.metering import queries
from meterplane.metering.ingest import IngestResult, SegmentRefused, ingest_segment
from meterplane.metering.models import (
    JournalSegment,
    UsageDay,
    UsageEvent,
    UsageHour,
    UsageMonth,
    UsageQuarantine,
)
from tenants.scoping import TenantScopeMissing, system_scope, tenant_scope
from tests import environment
from tests.metering.segments import message, packed, random_settles, settle
from tests.seeds import drawn_seed

pytestmark = pytest.mark.django_db(transaction=True)

SUMS = (
    "requests", "tokens_in", "tokens_out", "rows", "bytes_in", "bytes_out", "cost_nano",
    "tensor_bytes_in", "tensor_bytes_out",
)  # fmt: skip
SUMMED = {"total_ms": "total_ms_sum", "compute_us": "compute_us_sum"}
SUMMED |= {"first_byte_ms": "first_byte_ms_sum"}


def totals() -> tuple[dict[str, int], dict[str, int]]:
    """Sums of the events and of the roll-ups, over every tenant."""
    with system_scope("test"):
        events = UsageEvent.objects.aggregate(**{name: Sum(name) for name in SUMS})
        events |= UsageEvent.objects.aggregate(
            **{name_sum: Sum(name) for name, name_sum in SUMMED.items()}
        )
        events["events"] = UsageEvent.objects.count()
        summed = (*SUMS, *SUMMED.values(), "events")
        hours = UsageHour.objects.aggregate(**{name: Sum(name) for name in summed})
        billed = ("events", "requests", "tokens_in", "tokens_out", "cost_nano")
        months = UsageMonth.objects.aggregate(**{name: Sum(name) for name in billed})
    assert months == {name: hours[name] for name in billed}
    return (
        {name: int(value or 0) for name, value in events.items()},
        {name: int(value or 0) for name, value in hours.items()},
    )


def test_a_segment_becomes_events_and_roll_ups(organisation):
    frames = [settle(organisation) for _ in range(5)]
    assert ingest_segment(message(frames)) == IngestResult(5, 5)
    events, hours = totals()
    assert events == hours
    assert (events["events"], events["tokens_out"], events["cost_nano"]) == (5, 100, 67_500)
    with tenant_scope(organisation.id):
        stored = UsageEvent.objects.get(request_id=frames[0].request_id)
    for name in msgspec.structs.asdict(frames[0]).keys() - {"admitted_at_ms", "settled_at_ms"}:
        assert getattr(stored, name) == getattr(frames[0], name)


def test_everything_an_event_tells_is_stored(organisation):
    told = {
        "surface": "grpc.stream_infer",
        "provenance": "estimate",
        "service_tier": "batch",
        "requested_model": "big-lm",
        "deployment": "canary",
        "tensor_bytes_in": 4096,
        "tensor_bytes_out": 8192,
        "queue_us": 250,
        "compute_us": 31_000,
        "retries": 1,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "priority": "high",
        "region": "eu-west",
        "gpu_type": "NVIDIA H100",
    }
    frame = settle(organisation, **told)
    ingest_segment(message([frame]))
    with tenant_scope(organisation.id):
        stored = queries.request_by_id(frame.request_id)
    assert {name: getattr(stored, name) for name in told} == told


def test_a_frame_from_before_a_field_was_there_is_taken_in_with_its_default(organisation):
    frame = settle(organisation)
    added = {
        "service_tier": "standard", "requested_model": "", "deployment": "", "tensor_bytes_in": 0,
        "tensor_bytes_out": 0, "queue_us": 0, "compute_us": 0, "retries": 0, "trace_id": "",
        "priority": "normal", "region": "", "gpu_type": "",
    }  # fmt: skip
    fields = msgspec.msgpack.decode(encode(frame))
    old = msgspec.msgpack.encode({name: fields[name] for name in fields.keys() - added.keys()})
    segment_id = uuid7()
    data = encode_header(segment_id, "test") + framing.encode(old)
    assert ingest_segment(packed(data, segment_id)) == IngestResult(1, 1)
    with tenant_scope(organisation.id):
        stored = queries.request_by_id(frame.request_id)
    assert {name: getattr(stored, name) for name in added} == added


def test_an_hour_keeps_tiers_and_deployments_apart(organisation):
    at_ms = clock.now_ms()
    arms = [("standard", ""), ("standard", "default"), ("standard", "canary"), ("batch", "canary")]
    frames = [
        settle(organisation, at_ms=at_ms, service_tier=tier, deployment=deployment, tokens_out=n)
        for n, (tier, deployment) in enumerate(arms * 3)
    ]
    for start in range(0, len(frames), 5):
        ingest_segment(message(frames[start : start + 5]))
    with tenant_scope(organisation.id):
        hours = {
            (row.service_tier, row.deployment): (row.events, row.tokens_out)
            for row in UsageHour.objects.all()
        }
    assert hours == {arm: (3, 3 * n + 4 * 3) for n, arm in enumerate(arms)}


def test_hours_and_days_keep_classes_and_places_apart(organisation):
    at_ms = clock.now_ms()
    served = [
        ("normal", "", ""), ("high", "", ""), ("normal", "eu-west", ""), ("normal", "", "H100"),
        ("high", "eu-west", "H100"),
    ]  # fmt: skip
    frames = [
        settle(organisation, at_ms=at_ms, tokens_out=n, priority=class_, region=region, gpu_type=on)
        for n, (class_, region, on) in enumerate(served * 3)
    ]
    for start in range(0, len(frames), 4):
        ingest_segment(message(frames[start : start + 4]))
    with tenant_scope(organisation.id):
        for roll_up in (UsageHour, UsageDay):
            found = {
                (row.priority, row.region, row.gpu_type): (row.events, row.tokens_out)
                for row in roll_up.objects.all()
            }
            assert found == {each: (3, 3 * n + 15) for n, each in enumerate(served)}


def test_a_month_is_the_sum_of_its_days_whoever_writes_them(organisation):
    """By model, tier, version and how it was served, and not by key, project or status."""
    seed = drawn_seed()
    chance = random.Random(seed)
    frames = random_settles(organisation, chance, 120, days=70)

    def told(roll_up, month):
        sums: defaultdict[tuple, Counter[str]] = defaultdict(Counter)
        for row in roll_up.objects.all():
            key = (row.model, row.service_tier, row.price_version_id, row.priority, row.region)
            sums[month(row), *key, row.gpu_type].update(
                {name: getattr(row, name) for name in ("events", "tokens_out", "cost_nano")}
            )
        return {key: +row for key, row in sums.items() if +row}

    def agree():
        with tenant_scope(organisation.id):
            days = told(UsageDay, lambda row: row.day.replace(day=1))
            assert days == told(UsageMonth, lambda row: row.month)
        return days

    for start in range(0, 120, 30):
        ingest_segment(message(frames[start : start + 30]))
    as_ingested = agree()
    assert len({month for month, *_ in as_ingested}) >= 3
    with psycopg.connect(environment.database_url("postgres"), autocommit=True) as admin:
        admin.execute("UPDATE usage_day SET tokens_out = tokens_out / 2, events = events + 1")
        assert agree() != as_ingested
        admin.execute("UPDATE usage_day SET model = 'renamed' WHERE model = 'identity'")
        assert {model for _, model, *_ in agree()} >= {"renamed"}
        admin.execute("DELETE FROM usage_day WHERE status <> 'ok'")
        agree()
        admin.execute("DELETE FROM usage_day")
    assert agree() == {}
    first = datetime.combine(min(as_ingested)[0], datetime.min.time(), UTC)
    with tenant_scope(organisation.id):
        assert queries.usage_between(first, (first + timedelta(days=32)).replace(day=1)) == []


def test_replaying_a_segment_charges_nobody_twice(organisation):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    frames = random_settles(organisation, chance, 300)
    segments = [message(frames[start : start + 30]) for start in range(0, 300, 30)]
    # The same requests in other segments too: a journal that was recovered twice.
    segments += [message(chance.sample(frames, 50)) for _ in range(5)]
    failures: list[BaseException] = []

    def replay(order: random.Random) -> None:
        try:
            for each in order.sample(segments * 3, len(segments) * 3):
                ingest_segment(each)
        except BaseException as failure:
            failures.append(failure)
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=replay, args=(random.Random(chance.random()),)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    events, hours = totals()
    assert events == hours
    assert events["events"] == 300
    assert events["cost_nano"] == sum(frame.cost_nano for frame in frames)
    with system_scope("test"):
        assert JournalSegment.objects.count() == len(segments)
        assert sum(row.inserted for row in JournalSegment.objects.all()) == 300


@pytest.mark.parametrize("first", ["the crash", "the answer"])
def test_a_line_asked_again_after_a_crash_costs_what_its_answer_costs(organisation, first):
    """Two gateways die over a line, one after the other; a third one answers it."""
    at_ms = clock.now_ms()
    answer = settle(organisation, at_ms=at_ms, service_tier="batch", stream=False)
    cut = [_cut(answer, at_ms + 1000), _cut(answer, at_ms + 9000)]
    # Whose segment comes first is chance, and a journal may be recovered twice.
    segments = [[each] for each in (*cut, cut[0])]
    segments.insert(0 if first == "the answer" else 3, [answer])
    for each in segments:
        ingest_segment(message(each))
    with tenant_scope(organisation.id):
        stored = UsageEvent.objects.get(request_id=answer.request_id)
        interrupted = UsageEvent.objects.filter(status="interrupted")
        assert [(each.requests, each.cost_nano) for each in interrupted] == [(0, 0), (0, 0)]
        assert {each.event_at for each in interrupted} == {stored.event_at}
    assert (stored.status, stored.tokens_out, stored.cost_nano) == ("ok", 20, 13_500)
    events, hours = totals()
    assert events == hours
    assert (events["events"], events["cost_nano"]) == (3, 13_500)


def _cut(answer: Settle, admitted_at_ms: int) -> Settle:
    """How the shipper ends an attempt at the same line whose gateway was killed."""
    fields = {
        name: getattr(answer, name) for name in Admit.__struct_fields__ if hasattr(answer, name)
    }
    prices = {"input_token_pico": 1, "output_token_pico": 1, "request_pico": 1}
    admit = Admit(**(fields | prices | {"admitted_at_ms": admitted_at_ms}))
    return settle_orphan(admit, None, admitted_at_ms + 500)


def test_a_stream_cut_by_a_crash_is_found_under_the_id_its_caller_was_told(organisation):
    frame = settle(organisation, provenance="checkpoint", status="interrupted", http_status=0)
    ingest_segment(message([frame]))
    with tenant_scope(organisation.id):
        assert UsageEvent.objects.get().request_id == frame.request_id


def test_a_late_segment_lands_in_its_own_day(organisation):
    long_ago = clock.to_ms(datetime(2025, 2, 28, 23, 59, 59, tzinfo=UTC))
    ingest_segment(message([settle(organisation, at_ms=long_ago)]))
    with psycopg.connect(environment.database_url("postgres")) as admin:
        row = admin.execute("SELECT count(*) FROM usage_event_20250228").fetchone()
    assert row == (1,)


def test_an_altered_message_is_refused_and_writes_nothing(organisation):
    good = message([settle(organisation)])
    bad = [
        msgspec.structs.replace(good, sha256="0" * 64),
        msgspec.structs.replace(good, body=b"not zlib"),
        msgspec.structs.replace(good, body=good.body[:-9]),
    ]
    for each in bad:
        with pytest.raises(SegmentRefused):
            ingest_segment(each)
    with system_scope("test"):
        assert JournalSegment.objects.count() == 0
    assert ingest_segment(good).inserted == 1


def test_what_cannot_be_an_event_is_kept_aside_and_holds_nothing_up(organisation, onboard):
    stranger = settle(organisation, key_id=uuid7())
    crossed = settle(organisation, key_id=onboard("globex").key_id)
    impossible = settle(organisation, tokens_in=-1)
    overcharged = settle(organisation, cost_nano=99, reserved_nano=98)
    future = settle(organisation, at_ms=clock.now_ms() + 10 * 86_400_000)
    good = settle(organisation)
    result = ingest_segment(message([stranger, crossed, impossible, overcharged, future, good]))
    assert (result.inserted, result.quarantined) == (1, 5)
    with system_scope("test"):
        assert UsageQuarantine.objects.count() == 5
    events, hours = totals()
    assert events == hours
    assert events["events"] == 1


def test_a_damaged_segment_gives_what_is_readable_and_is_not_forgotten(organisation):
    segment_id = uuid7()
    data = encode_segment(segment_id, "test", [settle(organisation) for _ in range(3)])
    torn = packed(data[:-7], segment_id)
    assert ingest_segment(torn) == IngestResult(2, 2, 1)
    with system_scope("test"):
        assert "damaged" in UsageQuarantine.objects.get().reason


def test_usage_is_seen_through_its_tenants_door_only(organisation, onboard):
    globex = onboard("globex")
    ingest_segment(message([settle(organisation), settle(globex), settle(globex)]))
    with pytest.raises(TenantScopeMissing):
        UsageEvent.objects.count()
    with tenant_scope(organisation.id):
        assert (UsageEvent.objects.count(), UsageHour.objects.count()) == (1, 1)
    with tenant_scope(globex.id), connections["default"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM usage_event")
        assert cursor.fetchone() == (2,)
    # Not around the policy either: a partition is reached through its parent.
    partition = f"usage_event_{clock.now():%Y%m%d}"
    with (
        psycopg.connect(environment.database_url("meterplane_app")) as app,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        app.execute(f"SELECT * FROM {partition}".encode())


def test_events_cannot_be_changed_by_the_app(organisation):
    ingest_segment(message([settle(organisation)]))
    with psycopg.connect(environment.database_url("meterplane_app")) as app:
        app.execute("SELECT set_config('app.tenant_id', %s, true)", (str(organisation.id),))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("UPDATE usage_event SET cost_nano = 0")


def start_worker(segments) -> int:
    """A forked process that takes the segments in, one after the other. Returns its pid."""
    connections.close_all()
    child = os.fork()
    if child == 0:
        try:
            for each in segments:
                ingest_segment(each)
        finally:
            os._exit(0)
    return child


def kill_in_the_middle(organisation, times: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    frames = random_settles(organisation, chance, 2000)
    segments = [message(frames[start : start + 20]) for start in range(0, 2000, 20)]
    unfinished = 0
    for _ in range(times):
        child = start_worker(chance.sample(segments, 30))
        time.sleep(chance.uniform(0.005, 0.2))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        unfinished += os.WIFSIGNALED(status)
        events, hours = totals()
        assert events == hours
    assert unfinished > times // 2
    for each in segments:
        ingest_segment(each)
    events, hours = totals()
    assert events == hours
    assert events["events"] == 2000
    assert events["cost_nano"] == sum(frame.cost_nano for frame in frames)


def test_a_worker_killed_in_the_middle_duplicates_and_loses_nothing(organisation):
    kill_in_the_middle(organisation, 16)


@pytest.mark.long
def test_a_worker_killed_hundreds_of_times_duplicates_and_loses_nothing(organisation):
    kill_in_the_middle(organisation, 250)


def test_a_week_of_partitions_is_made_ahead(db):
    from meterplane.metering import partitions

    partitions.ensure_days_ahead()
    last = clock.now().date() + timedelta(days=7)
    with psycopg.connect(environment.database_url("postgres")) as admin:
        row = admin.execute("SELECT to_regclass(%s) IS NOT NULL", (f"usage_event_{last:%Y%m%d}",))
        assert row.fetchone() == (True,)
