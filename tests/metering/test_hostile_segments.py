"""What should never come does come once: it is refused or kept aside, and nothing waits for it."""

import random
import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from django.db import DataError, connections, transaction

from meterplane.contracts.usage import encode
from meterplane.journal import framing
from meterplane.journal.segment import encode_header, encode_segment
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.metering import partitions, tasks
from meterplane.metering.ingest import IngestResult, SegmentRefused, ingest_segment
from meterplane.metering.models import JournalSegment, UsageEvent, UsageHour, UsageQuarantine
from tenants.scoping import system_scope
from tests import environment
from tests.metering.segments import message, packed, random_settles, settle

pytestmark = pytest.mark.django_db(transaction=True)

IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "a count beyond 64 bits": {"tokens_in": 2**63},
    "sums that would overflow": {"bytes_out": 10**16},
    "a request counted 2^31 times": {"requests": 2**31},
    "a status beyond HTTP": {"http_status": 2**40},
    "an ending after the year 9999": {"settled_at_ms": 2**60},
    "an ending before 1970": {"settled_at_ms": -1},
    "a negative duration": {"total_ms": -1},
    "a duration beyond 64 bits": {"first_byte_ms": 2**63},
    "a name PostgreSQL cannot hold": {"model": "a\0b"},
    "a server PostgreSQL cannot hold": {"server": "\0"},
    "a deployment PostgreSQL cannot hold": {"deployment": "\0"},
    "a region PostgreSQL cannot hold": {"region": "eu\0"},
    "a GPU type of a megabyte": {"gpu_type": "H" * 50_000},
    "a requested model of a megabyte": {"requested_model": "m" * 50_000},
    "a trace PostgreSQL cannot hold": {"trace_id": "\0"},
    "tensors of less than nothing": {"tensor_bytes_in": -1},
    "a wait beyond 64 bits": {"queue_us": 2**63},
    "work beyond 64 bits": {"compute_us": 2**63},
    "2^31 retries": {"retries": 2**31},
    "a name of a megabyte": {"model": "m" * 50_000},
    "no currency": {"currency": "dollars"},
    "an id that is no UUIDv7": {"request_id": UUID("018f0000-0000-4000-8000-000000000001")},
    "an id from the year 10889": {"request_id": uuid7(2**48 - 1)},
}


def quarantined() -> list[UsageQuarantine]:
    with system_scope("test"):
        return list(UsageQuarantine.objects.order_by("reason"))


def stored() -> int:
    with system_scope("test"):
        return UsageEvent.objects.count()


def test_an_impossible_record_holds_up_no_other(organisation):
    payloads = set()
    for what, changes in IMPOSSIBLE.items():
        bad = settle(organisation, **changes)
        payloads.add(encode(bad))
        found = ingest_segment(message([bad, settle(organisation)]))
        assert found == IngestResult(1, 1, 1), what
    assert {bytes(kept.payload) for kept in quarantined()} == payloads
    assert stored() == len(IMPOSSIBLE)


def test_a_frame_of_a_later_version_is_kept_whole(organisation):
    segment_id = uuid7()
    future = b"\x81\xa4kind\xa6future"
    good = framing.encode(msgspec.msgpack.encode(settle(organisation)))
    data = encode_header(segment_id, "test") + framing.encode(future) + good
    assert ingest_segment(packed(data, segment_id)) == IngestResult(1, 1, 1)
    assert bytes(quarantined()[0].payload) == future


def test_damaged_bytes_are_kept_because_the_file_will_go_and_what_is_behind_is_usage(organisation):
    segment_id = uuid7()
    frames = [settle(organisation) for _ in range(3)]
    data = bytearray(encode_segment(segment_id, "test", frames))
    start = len(encode_segment(segment_id, "test", frames[:1]))
    data[start + 20] ^= 1
    end = len(encode_segment(segment_id, "test", frames[:2]))
    assert ingest_segment(packed(bytes(data), segment_id)) == IngestResult(2, 2, 1)
    (kept,) = quarantined()
    assert bytes(kept.payload) == bytes(data[start:end])
    assert kept.reason == f"{end - start} bytes damaged at byte {start} (checksum)"


def test_a_segment_whose_header_is_lost_holds_usage_all_the_same(organisation):
    segment_id = uuid7()
    sound = encode_segment(segment_id, "test", [settle(organisation)])
    altered = sound[:3] + b"?" + sound[4:]
    assert ingest_segment(packed(altered, segment_id)) == IngestResult(1, 1, 1)
    (kept,) = quarantined()
    assert "damaged at byte 0 (header)" in kept.reason
    assert bytes(kept.payload) == altered[: len(encode_segment(segment_id, "test", []))]


def test_a_segment_of_another_name_or_of_nothing_is_kept_whole(organisation):
    segment_id, other_id = uuid7(), uuid7()
    sound = encode_segment(segment_id, "test", [settle(organisation)])
    noise = random.Random(1).randbytes(5000)
    for data, name in ((sound, other_id), (noise, uuid7())):
        assert ingest_segment(packed(data, name)) == IngestResult(0, 0, 1)
        with system_scope("test"):
            assert bytes(UsageQuarantine.objects.get(segment_id=name).payload) == data
            assert JournalSegment.objects.filter(segment_id=name).exists()
    assert stored() == 0


def test_a_segment_that_comes_back_with_other_content_is_refused_aloud(organisation):
    segment_id = uuid7()
    first = message([settle(organisation)], segment_id)
    ingest_segment(first)
    with pytest.raises(SegmentRefused, match="other content"):
        ingest_segment(message([settle(organisation)], segment_id))
    assert stored() == 1
    assert ingest_segment(first) == IngestResult(1, 0)


def test_a_message_of_another_form_is_refused():
    good = msgspec.to_builtins(message([]))
    shapes: list[Any] = [{}, []]
    for bad in (*shapes, good | {"body": "not base64!"}, good | {"segment_id": "x"}):
        with pytest.raises(SegmentRefused):
            tasks.ingest_segments([good, bad])
    with system_scope("test"):
        assert JournalSegment.objects.count() == 0


def test_a_body_that_inflates_for_ever_is_refused(organisation):
    segment_id = uuid7()
    with pytest.raises(SegmentRefused, match="larger"):
        ingest_segment(packed(b"\0" * 50_000_000, segment_id))


def test_currencies_never_share_a_sum(organisation):
    frames = [settle(organisation, currency=currency) for currency in ("USD", "EUR", "USD")]
    ingest_segment(message(frames))
    with system_scope("test"):
        sums = {row.currency: (row.events, row.cost_nano) for row in UsageHour.objects.all()}
    assert sums == {"USD": (2, 27_000), "EUR": (1, 13_500)}


def test_segments_that_share_a_transaction_are_each_counted_once(organisation):
    strangers = [settle(organisation, key_id=uuid7()) for _ in range(2)]
    with transaction.atomic():
        for stranger in strangers:
            found = ingest_segment(message([stranger, settle(organisation)]))
            assert found == IngestResult(2, 1, 1)
    assert len(quarantined()) == 2
    assert stored() == 2


def test_a_day_that_was_rolled_back_is_made_again(organisation):
    long_ago = clock.to_ms(datetime(2022, 5, 17, 8, tzinfo=UTC))
    with transaction.atomic():
        ingest_segment(message([settle(organisation, at_ms=long_ago)]))
        transaction.set_rollback(True)
    assert ingest_segment(message([settle(organisation, at_ms=long_ago)])).inserted == 1


def test_many_workers_open_the_same_new_days_at_once(organisation):
    """Attaching locks the parents of every foreign key; meeting must not be a deadlock."""
    start = clock.to_ms(datetime(2021, 1, 1, tzinfo=UTC))
    frames = [settle(organisation, at_ms=start + day * 86_400_000) for day in range(6)]
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for frame in random.Random(seed).sample(frames, len(frames)):
                ingest_segment(message([frame, settle(organisation)]))
        except BaseException as failure:
            failures.append(failure)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert stored() == 6 + 36


def test_no_partition_is_made_for_an_absurd_day():
    for day in (date(2019, 12, 31), date(2300, 1, 1)):
        with pytest.raises(DataError, match="no usage is from"):
            partitions.ensure_partitions([day])


def test_a_temporary_table_cannot_stand_in_for_the_real_one():
    """The function runs as the tables' owner, so it must not see the caller's temporary schema."""
    day = clock.now().date() - timedelta(days=700)
    with psycopg.connect(environment.database_url("meterplane_app")) as app:
        app.execute("CREATE TEMP TABLE usage_event (event_day date, bait int)")
        app.execute("SELECT ensure_usage_partition(%s)", [day])
        row = app.execute(
            "SELECT count(*) FROM pg_attribute WHERE attname = 'bait' AND attrelid = "
            "('public.usage_event_' || to_char(%s::date, 'YYYYMMDD'))::regclass",
            [day],
        ).fetchone()
        app.rollback()
    assert row == (0,)


def test_events_and_hours_agree_for_random_tenants_and_orders(organisation, onboard):
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    tenants = [organisation, onboard("globex"), onboard("initech")]
    frames = [frame for tenant in tenants for frame in random_settles(tenant, chance, 60)]
    segments = [message(chance.sample(frames, 40)) for _ in range(12)] + [message(frames)]
    for each in chance.sample(segments * 2, len(segments) * 2):
        ingest_segment(each)
    with system_scope("test"):
        for tenant in tenants:
            mine = [frame for frame in frames if frame.tenant_id == tenant.id]
            hours = UsageHour.objects.filter(tenant_id=tenant.id)
            assert sum(row.events for row in hours) == len(mine)
            assert sum(row.cost_nano for row in hours) == sum(frame.cost_nano for frame in mine)
            assert sum(row.total_ms_sum for row in hours) == 40 * len(mine)
