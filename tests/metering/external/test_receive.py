"""An external event counts once for ever, whoever sends it, however often and at the same time."""

import random
import threading
from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest
from django.db import connection, connections

from meterplane.kernel import clock
from meterplane.metering.external.exact_json import decode
from meterplane.metering.external.queries import event_by_receipt
from tenants.scoping import system_scope, tenant_scope
from tests import environment
from tests.metering.external.sent import event, send, statuses

SEED = 20_261_129


def stored() -> list[tuple]:
    with system_scope("test"), connection.cursor() as db:
        db.execute("SELECT event_id, data->>'n' FROM external_event ORDER BY event_id")
        return db.fetchall()


@pytest.mark.django_db
def test_the_same_event_again_is_answered_with_the_first_receipt(organisation):
    first = event()
    (accepted,) = send(first)
    with clock.frozen(clock.now() + timedelta(days=2)):
        (again,) = send(first, by="somebody else")
    assert (accepted.status, again.status) == ("accepted", "duplicate")
    assert again.receipt == accepted.receipt
    assert len(stored()) == 1


@pytest.mark.django_db
def test_an_event_is_a_duplicate_also_when_it_is_too_old_to_be_accepted(organisation):
    first = event()
    send(first)
    with clock.frozen(clock.now() + timedelta(days=1000)):
        assert statuses(send(first)) == ["duplicate"]
        (old,) = send({**first, "id": "2"})
    assert (old.status, old.problem.code, old.problem.field) == (
        "invalid",
        "outside_window",
        "time",
    )


@pytest.mark.django_db
def test_a_retry_without_a_time_is_the_same_event(organisation):
    first = event(time=None)
    with clock.frozen(clock.now()):
        (accepted,) = send(first)
    assert accepted.receipt.event_at == accepted.receipt.received_at
    assert statuses(send(first)) == ["duplicate"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"time": "2026-11-01T00:00:00Z"}, ("time",)),
        ({"time": None}, ("time",)),
        ({"type": "com.acme.other"}, ("type",)),
        ({"data": {"gpu_seconds": 13, "gpu": "h200"}}, ("data.gpu_seconds",)),
        ({"data": {"gpu_seconds": "12", "cpu": 1}},
         ("data.cpu", "data.gpu", "data.gpu_seconds")),
        ({"project": "second", "data": {}}, ("project", "data.gpu", "data.gpu_seconds")),
    ],
)  # fmt: skip
def test_other_content_conflicts_and_what_differs_is_named(organisation, changes, differs):
    from tenants.models import Project

    with tenant_scope(organisation.id):
        Project.objects.create(tenant_id=organisation.id, slug="second", name="Second")
    first = event()
    (accepted,) = send(first)
    other = {name: value for name, value in (first | changes).items() if value is not None}
    (conflict,) = send(other)
    assert (conflict.status, conflict.differs) == ("conflict", differs)
    assert conflict.receipt == accepted.receipt
    assert all(name in conflict.problem.message for name in differs)
    assert len(stored()) == 1


@pytest.mark.django_db
def test_spelling_and_what_only_describes_do_not_make_another_event(organisation):
    zone = clock.now().astimezone(tz=None).replace(microsecond=0)
    first = event(time=zone.isoformat(), data={"a": Decimal("1.50"), "b": {"c": 100}})
    again = first | {
        "time": first["time"].replace("+00:00", ".000Z"),
        "data": {"b": {"c": Decimal("1e2")}, "a": Decimal("1.5")},
        "subject": str(organisation.id).upper(),
        "project": "default",
        "traceparent": "00-1",
    }
    assert statuses(send(first)) + statuses(send(again)) == ["accepted", "duplicate"]


@pytest.mark.django_db
def test_a_batch_has_a_result_for_each_and_a_bad_one_holds_up_no_other(organisation, onboard):
    onboard("globex")
    with clock.frozen(clock.now()):
        events = some_of_every_kind()
        found = send(*events)
        assert statuses(found) == [
            "accepted", "duplicate", "conflict", "accepted", "invalid", "invalid", "invalid",
            "invalid", "invalid", "accepted", "accepted", "accepted",
        ]  # fmt: skip
        assert [each.problem.field for each in found if each.status == "invalid"] == [
            "subject", "project", "time", "time", "backfill",
        ]  # fmt: skip
        assert len(stored()) == 5
        assert statuses(send(*events)) == [
            "duplicate", "duplicate", "conflict", "duplicate", *["invalid"] * 5,
            *["duplicate"] * 3,
        ]  # fmt: skip
        assert len(stored()) == 5


def some_of_every_kind() -> list[dict]:
    return [
        event("1"), event("1"), event("1", data={"n": 2}), event("2"),
        event("3", subject="nobody"), event("4", project="nothing"),
        event("5", ago=timedelta(minutes=-6)), event("6", ago=timedelta(days=101)),
        event("7", backfill="01900000-0000-7000-8000-000000000000"), event("1", subject="globex"),
        event("1", source="/jobs/8"), event("8", ago=timedelta(minutes=-4)),
    ]  # fmt: skip


@pytest.mark.django_db
def test_numbers_are_kept_to_the_last_digit(organisation):
    text = (
        '{"a": 0.1, "b": 12345678901234567890123456789012345678.123456789012345678,'
        ' "c": 9007199254740993, "d": 1E3, "e": -0.000000000000000001}'
    )
    (accepted,) = send(event(data=decode(text.encode())))
    with system_scope("test"):
        shown = event_by_receipt(accepted.receipt.id)
    assert decode(shown.data.encode()) == decode(text.encode())
    assert shown.event.content_digest == accepted.receipt.content_digest


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("contents", [1, 4])
def test_of_eight_who_send_the_same_ids_at_once_one_is_accepted(organisation, contents):
    """Each sends every id, in an order of its own; with one content, or one of four."""
    print(f"seed {SEED}")
    ids = [f"e{number:03}" for number in range(40)]
    now = clock.now().isoformat()
    barrier = threading.Barrier(8)
    results: dict[int, list] = {}

    def sender(number: int) -> None:
        chance = random.Random(SEED + number)
        mine = ids.copy()
        chance.shuffle(mine)
        events = [event(each, time=now, data={"n": number % contents}) for each in mine]
        barrier.wait()
        try:
            results[number] = list(zip(mine, send(*events), strict=True))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=sender, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(8))
    rows = dict(stored())
    assert sorted(rows) == ids
    for each in ids:
        found = {
            number: outcome
            for number, listed in results.items()
            for name, outcome in listed
            if name == each
        }
        accepted = [n for n, outcome in found.items() if outcome.status == "accepted"]
        assert len(accepted) == 1
        assert rows[each] == str(accepted[0] % contents)
        for number, outcome in found.items():
            same = number % contents == accepted[0] % contents
            expected = "accepted" if number in accepted else "duplicate" if same else "conflict"
            assert outcome.status == expected
        assert len({outcome.receipt for outcome in found.values()}) == 1


@pytest.mark.django_db
def test_nobody_may_change_or_delete_an_event(organisation):
    send(event())
    for role, statement in [
        ("meterplane_system", "UPDATE external_event SET type = 'x'"),
        ("meterplane_system", "DELETE FROM external_event"),
        ("meterplane_app", "INSERT INTO event_overlay DEFAULT VALUES"),
        ("meterplane_app", "DELETE FROM external_event"),
        ("meterplane_system", "UPDATE event_overlay SET reason = 'x'"),
        ("meterplane_app", "UPDATE backfill SET state = 'open'"),
    ]:
        with psycopg.connect(environment.database_url(role)) as session:
            session.execute("SELECT set_config('app.tenant_id', %s, false)", [str(organisation.id)])
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(statement)


@pytest.mark.django_db(transaction=True)
def test_the_owner_of_the_tables_cannot_change_an_event_either(organisation):
    send(event())
    for statement in ("UPDATE external_event SET type = 'x'", "DELETE FROM external_event"):
        with (
            psycopg.connect(environment.database_url("meterplane_owner")) as owner,
            pytest.raises(psycopg.errors.RestrictViolation, match="appended to"),
        ):
            owner.execute(statement)


@pytest.mark.django_db
def test_an_organisation_sees_its_own_events_only(organisation, onboard):
    globex = onboard("globex")
    send(event(), event(subject="globex"))
    with tenant_scope(globex.id), connection.cursor() as db:
        for source in ("external_event", "effective_event"):
            db.execute(f"SELECT tenant_id FROM {source}")
            assert db.fetchall() == [(globex.id,)]


@pytest.mark.django_db
def test_a_thousand_events_are_a_handful_of_statements(organisation, django_assert_max_num_queries):
    events = [event(str(number)) for number in range(1000)]
    with django_assert_max_num_queries(12):
        outcomes = send(*events)
    assert set(statuses(outcomes)) == {"accepted"}
    ids = [outcome.receipt.id for outcome in outcomes]
    assert ids == sorted(ids), "receipts sort in the order of their batch"
