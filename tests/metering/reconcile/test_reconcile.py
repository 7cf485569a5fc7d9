"""What four witnesses say of one hour agrees, or the verdict names what does not."""

from datetime import timedelta

import pytest

from meterplane.metering.models import JournalSegment
from meterplane.metering.reconcile.hours import reconcile
from meterplane.metering.reconcile.sums import compare_sums
from meterplane.metering.reconcile.verdict import EVERY_SERVER
from tenants.scoping import system_scope
from tests.metering.reconcile import world
from tests.metering.reconcile.world import (
    HTTP,
    MINUTE,
    as_owner,
    drained_until,
    event,
    looked_each_minute,
    reconciled,
    said,
    taken_in,
    verdicts,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hour(acme):
    """Three chats of which two carry tags, an embedding over gRPC's name, and Triton agrees."""
    hour = world.last_hour()
    chats = [
        event(acme, hour + n * MINUTE, tags={"team": "search", "step": str(n)} if n > 1 else {})
        for n in (1, 5, 59)
    ]
    tensor = event(
        acme, hour + 30 * MINUTE, model="identity", surface="grpc.infer", server=world.GRPC
    )
    taken_in(*chats[:2], tensor)
    taken_in(chats[2])
    looked_each_minute(hour, {"tiny-lm": 3, "identity": 1})
    return hour


def test_what_agrees_passes(hour):
    rows = reconciled(hour)
    assert said(rows) == {"pass"}, {key: row.reason for key, row in rows.items()}
    assert set(rows) == {
        ("tiny-lm", EVERY_SERVER), ("tiny-lm", HTTP), ("identity", EVERY_SERVER), ("identity", HTTP)
    }  # fmt: skip
    whole, chat = rows["tiny-lm", EVERY_SERVER], rows["tiny-lm", HTTP]
    assert (whole.journal, whole.events, whole.rolled_up) == (3, 3, 3)
    assert (chat.triton_low, chat.triton, chat.triton_high) == (3, 3, 3)
    assert rows["identity", HTTP].triton == 1


def test_a_manifest_is_moved_to_its_hours_once(hour):
    reconcile()
    with system_scope("test"):
        assert not JournalSegment.objects.exclude(manifest=None).exists()
    before = verdicts(hour)
    reconcile()
    assert verdicts(hour).keys() == before.keys()


def test_an_event_that_was_deleted_is_named(hour):
    [(lost,)] = world.asked("SELECT request_id FROM usage_event WHERE model = 'identity'")
    assert as_owner("DELETE FROM usage_event WHERE request_id = %s", lost) == 1
    rows = reconciled(hour)
    whole = rows["identity", EVERY_SERVER]
    assert (whole.verdict, whole.missing, whole.missing_count) == ("fail", [lost], 1)
    assert str(lost) in whole.reason
    assert "usage_hour" in whole.reason
    assert rows["identity", HTTP].verdict == "fail"
    assert rows["tiny-lm", EVERY_SERVER].verdict == "pass"


@pytest.mark.parametrize("segment", ["segment_id", "gen_random_uuid()"])
def test_an_event_that_was_inserted_by_hand_is_named(hour, segment):
    columns = [
        name
        for (name,) in world.asked(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'usage_event'::regclass"
            " AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('request_id', 'segment_id')"
        )
    ]
    named = ", ".join(columns)
    as_owner(
        f"INSERT INTO usage_event (request_id, segment_id, {named})"
        f" SELECT overlay(request_id::text placing 'aaaaaaaaaaaa' from 25)::uuid, {segment},"
        f" {named} FROM usage_event WHERE model = 'identity'"
    )
    row = reconciled(hour)["identity", EVERY_SERVER]
    assert (row.verdict, row.extra_count, row.events, row.journal) == ("fail", 1, 2, 1)
    assert str(row.extra[0]).endswith("aaaaaaaaaaaa")
    assert "in no journal" in row.reason


def test_the_same_id_of_another_organisation_is_one_too_many(hour, onboard):
    other = onboard("globex")
    [columns] = world.asked(
        "SELECT string_agg(attname, ', ') FROM pg_attribute WHERE attrelid ="
        " 'usage_event'::regclass AND attnum > 0 AND NOT attisdropped"
        " AND attname NOT IN ('tenant_id', 'project_id', 'key_id')"
    )
    as_owner(
        f"INSERT INTO usage_event (tenant_id, project_id, key_id, {columns[0]})"
        f" SELECT %s, %s, %s, {columns[0]} FROM usage_event WHERE model = 'identity'",
        other.id, other.project_id, other.key_id,
    )  # fmt: skip
    row = reconciled(hour)["identity", EVERY_SERVER]
    assert (row.verdict, row.extra_count) == ("fail", 1)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("usage_hour", "events"),
        ("usage_hour", "tokens_out"),
        ("usage_day", "cost_nano"),
        ("usage_tag_hour", "tokens_in"),
    ],
)
def test_a_sum_that_was_changed_by_one_is_told(hour, table, column):
    changed = as_owner(
        f"UPDATE {table} SET {column} = {column} + 1"
        f" WHERE ctid = (SELECT ctid FROM {table} WHERE model = 'tiny-lm' LIMIT 1)"
    )
    assert changed == 1
    rows = reconciled(hour)
    row = rows["tiny-lm", EVERY_SERVER]
    assert row.verdict == "fail"
    assert f"{table} of organisation" in row.reason
    assert f"{column} +1" in row.reason
    assert rows["identity", EVERY_SERVER].verdict == "pass"


def test_a_months_sum_that_was_changed_is_told_with_the_last_hour_of_a_day(hour):
    last = hour.replace(hour=23)
    with system_scope("test"):
        assert compare_sums(last).differences == {}
        as_owner("UPDATE usage_month SET tokens_out = tokens_out + 1 WHERE model = 'tiny-lm'")
        told = compare_sums(last).differences
        assert compare_sums(last.replace(hour=22)).differences == {}
    (sentence,) = told.pop("tiny-lm")
    assert sentence.startswith("usage_month of organisation")
    assert sentence.endswith("tokens_out +1")
    assert told == {}


def test_every_column_of_the_roll_ups_is_held_to_the_events():
    from meterplane.metering.reconcile import sums

    key = {name.strip() for name in sums.SUMMED_BY.split(",")}
    tag_key = {name.strip() for name in sums.TAG_KEY.split(",")}
    month_key = {name.strip() for name in sums.MONTH_KEY.split(",")}
    for table, held in (
        ("usage_hour", key | set(sums.SUMS) | {"tenant_id", "hour"}),
        ("usage_day", key | set(sums.SUMS) | {"tenant_id", "day"}),
        ("usage_month", month_key | set(sums.MONTH_SUMS) | {"tenant_id", "month"}),
        ("usage_tag_hour", tag_key | set(sums.TAG_SUMS) | {"tenant_id", "hour"}),
    ):
        columns = world.asked(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s", table
        )
        assert {name for (name,) in columns} == held


def test_an_hour_waits_for_a_journal_that_is_behind_and_then_passes(hour):
    with drained_until(hour + timedelta(minutes=59)):
        rows = reconciled(hour)
        assert said(rows) == {"open"}
        assert "host-7" in rows["tiny-lm", EVERY_SERVER].reason
        [(due,)] = world.asked(
            "SELECT due_at > now() FROM reconciliation_hour WHERE hour = %s", hour
        )
        assert due
    assert said(reconciled(hour)) == {"pass"}


def test_what_a_waiting_journal_holds_is_no_failure_of_triton(hour, acme):
    as_owner("UPDATE triton_counter SET success = success + 1 WHERE at > %s", hour + 30 * MINUTE)
    with drained_until(hour):
        assert said(reconciled(hour)) == {"open"}
    assert said(reconciled(hour)) == {"pass", "fail"}


def test_a_late_segment_opens_its_hour_again(hour, acme):
    assert said(reconciled(hour)) == {"pass"}
    as_owner("UPDATE triton_counter SET success = success + 1 WHERE model = 'tiny-lm' AND at > %s",
             hour + 50 * MINUTE)  # fmt: skip
    taken_in(event(acme, hour + 40 * MINUTE))
    reconcile()
    rows = verdicts(hour)
    assert said(rows) == {"pass"}
    assert rows["tiny-lm", EVERY_SERVER].events == 4


def test_what_triton_served_beyond_metering_is_told(hour):
    as_owner(
        "UPDATE triton_counter SET success = success + 1 WHERE model = 'identity' AND at > %s",
        hour + 40 * MINUTE,
    )
    rows = reconciled(hour)
    row = rows["identity", HTTP]
    assert (row.verdict, row.triton, row.triton_high) == ("fail", 2, 1)
    assert "1 more than was metered" in row.reason
    assert rows["identity", EVERY_SERVER].verdict == "pass"


def test_what_metering_has_beyond_triton_is_told(hour, acme):
    taken_in(event(acme, hour + 20 * MINUTE, model="identity", surface="kserve.infer"))
    row = reconciled(hour)["identity", HTTP]
    assert (row.verdict, row.triton, row.triton_low) == ("fail", 1, 2)
    assert "1 fewer than was metered" in row.reason


def test_who_asks_triton_beside_the_gateway_is_seen_in_an_hour_without_usage(hour):
    idle = hour - 5 * world.HOUR
    looked_each_minute(idle, {"tiny-lm": 1}, begins_with=10)
    as_owner("INSERT INTO reconciliation_hour (hour) VALUES (%s)", idle)
    rows = reconciled(idle)
    assert rows["tiny-lm", HTTP].verdict == "fail"
    assert ("identity", HTTP) not in rows


def test_a_counter_that_fell_leaves_the_hour_open(hour):
    as_owner("UPDATE triton_counter SET success = 0 WHERE at > %s", hour + 40 * MINUTE)
    rows = reconciled(hour)
    assert rows["tiny-lm", HTTP].verdict == "open"
    assert "began anew" in rows["tiny-lm", HTTP].reason
    assert rows["tiny-lm", HTTP].triton is None
    assert rows["tiny-lm", EVERY_SERVER].verdict == "pass"


@pytest.mark.parametrize(
    ("gone", "why"),
    [
        ("at < %s", "before the hour began"),
        ("at > %s + interval '59 minutes'", "since the hour ended"),
        ("at BETWEEN %s + interval '20 minutes' AND %s + interval '31 minutes'", "nobody looked"),
        ("true", "none of its counters|nobody looked"),
    ],
)
def test_where_nobody_looked_the_hour_stays_open(hour, gone, why):
    values = [hour] * gone.count("%s")
    if gone == "at < %s":
        gone, values = "at <= %s", [hour]
    as_owner(f"DELETE FROM triton_counter WHERE {gone}", *values)
    row = reconciled(hour)["tiny-lm", HTTP]
    assert row.verdict == "open"
    assert any(each in row.reason for each in why.split("|")), row.reason


def test_a_server_without_an_address_of_its_metrics_leaves_the_hour_open(hour, acme):
    taken_in(event(acme, hour + MINUTE, server="http://elsewhere:8000"))
    rows = reconciled(hour)
    assert rows["tiny-lm", "http://elsewhere:8000"].verdict == "open"
    assert "TRITON_METRICS_URLS" in rows["tiny-lm", "http://elsewhere:8000"].reason


def test_what_ingest_set_aside_is_missing_and_said_to_be_in_quarantine(hour, acme):
    refused = event(acme, hour + MINUTE, cost_nano=10, reserved_nano=1)
    stranger = event(acme, hour + MINUTE, key_id=acme.project_id)
    taken_in(refused, stranger)
    row = reconciled(hour)["tiny-lm", EVERY_SERVER]
    assert row.verdict == "fail"
    assert row.missing == sorted([refused.request_id, stranger.request_id])
    assert "2 of them in quarantine" in row.reason


def test_events_of_a_shipper_without_manifests_leave_the_hour_open(hour, acme):
    import msgspec

    from meterplane.metering.ingest import ingest_segment
    from tests.metering.segments import message

    made = message([event(acme, hour + MINUTE, model="identity", server="")])
    ingest_segment(msgspec.structs.replace(made, manifest=b""))
    row = reconciled(hour)["identity", EVERY_SERVER]
    assert row.verdict == "open"
    assert "sends no manifest" in row.reason
