"""Corrections lie over events: the original stays, the newest overlay holds, each says why."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, connections

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.metering.external.backfills import (
    backfill_by_id,
    close_backfill,
    open_backfill,
    revert_backfill,
)
from meterplane.metering.external.overlays import amend, deprecate
from meterplane.metering.external.queries import event_by_receipt, history_of
from meterplane.metering.external.shape import content_digest, read_data
from tenants.scoping import system_scope, tenant_scope
from tests.conftest import wait_until
from tests.metering.external.sent import TYPE, event, send, statuses

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
WHY = {"reason": "the job's log says otherwise", "by": "tests"}


def shown(receipt):
    with system_scope("test"):
        found = event_by_receipt(receipt)
        return found, history_of(found.event)


def effective(organisation) -> list[tuple]:
    """What counts: id, time and data, as a tenant sees it through row-level security."""
    with tenant_scope(organisation.id), connection.cursor() as db:
        db.execute("SELECT event_id, event_at, data FROM effective_event ORDER BY event_id")
        return db.fetchall()


def ids(organisation) -> list[str]:
    return [row[0] for row in effective(organisation)]


def backfill(organisation, *, ago=3 * HOUR, until=HOUR, kind=TYPE):
    now = clock.now()
    return open_backfill(
        tenant_id=organisation.id, kind=kind, starts_at=now - ago, ends_at=now - until, **WHY
    )


def test_an_amended_event_holds_with_what_it_was_amended_to(organisation):
    sent = event()
    (accepted,) = send(sent)
    later = clock.now() - timedelta(minutes=30)
    data = read_data({"gpu_seconds": 99})
    amend(accepted.receipt.id, at=None, data=data, **WHY)
    amend(accepted.receipt.id, at=later, data=None, reason="and the clock was wrong", by="ops")
    assert effective(organisation) == [("1", later, '{"gpu_seconds": 99}')]
    found, history = shown(accepted.receipt.id)
    assert found.event == accepted.receipt, "the original stays"
    assert (found.at, found.data, found.overlays) == (later, data, 2)
    first, second = history
    assert (first.kind, first.reason, first.made_by) == ("amend", WHY["reason"], "tests")
    assert first.digest_before == accepted.receipt.content_digest
    assert first.digest_after == second.digest_before
    assert second.digest_after == content_digest(later, data)
    assert statuses(send(sent)) == ["duplicate"], "what was sent answers for the id"


def test_the_same_correction_again_adds_nothing(organisation):
    (accepted,) = send(event())
    for _ in range(2):
        amend(accepted.receipt.id, at=None, data=read_data({"gpu_seconds": 99}), **WHY)
    for _ in range(2):
        deprecate(accepted.receipt.id, **WHY)
    _, history = shown(accepted.receipt.id)
    assert [each.kind for each in history] == ["amend", "deprecate"]


def test_a_deprecated_event_counts_no_longer_and_cannot_be_amended(organisation):
    sent = event()
    (accepted,) = send(sent)
    deprecate(accepted.receipt.id, **WHY)
    assert effective(organisation) == []
    with pytest.raises(CallerError) as refused:
        amend(accepted.receipt.id, at=None, data=read_data({}), **WHY)
    assert refused.value.code == "event_deprecated"
    assert statuses(send(sent)) == ["duplicate"], "its id stays taken"
    found, (only,) = shown(accepted.receipt.id)
    assert not found.counts
    assert (only.digest_before, only.digest_after) == (accepted.receipt.content_digest, None)


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501, "\0"])
def test_whoever_corrects_says_why(organisation, reason):
    (accepted,) = send(event())
    for correct in (
        lambda: amend(accepted.receipt.id, at=None, data="{}", reason=reason, by="tests"),
        lambda: deprecate(accepted.receipt.id, reason=reason, by="tests"),
    ):
        with pytest.raises(CallerError) as refused:
            correct()
        assert refused.value.field == "reason"
    assert ids(organisation) == ["1"]


def test_what_the_installation_forbids_is_refused(organisation, settings):
    (accepted,) = send(event())
    settings.EVENT_OVERLAYS = frozenset()
    for correct in (
        lambda: amend(accepted.receipt.id, at=None, data="{}", **WHY),
        lambda: deprecate(accepted.receipt.id, **WHY),
        lambda: backfill(organisation),
    ):
        with pytest.raises(CallerError) as refused:
            correct()
        assert (refused.value.code, refused.value.status) == ("overlay_not_allowed", 403)
    settings.EVENT_OVERLAYS = frozenset({"amend", "deprecate"})
    with clock.frozen(clock.now() + timedelta(days=100)):
        for correct in (
            lambda: amend(accepted.receipt.id, at=None, data="{}", **WHY),
            lambda: deprecate(accepted.receipt.id, **WHY),
        ):
            with pytest.raises(CallerError) as refused:
                correct()
            assert (refused.value.code, refused.value.status) == ("outside_window", 409)
    assert ids(organisation) == ["1"]


def test_a_backfill_replaces_its_frame_when_it_is_closed_and_not_before(organisation, onboard):
    onboard("globex")
    send(
        event("before", ago=4 * HOUR), event("in", ago=2 * HOUR), event("at the end", ago=HOUR / 2),
        event("other type", ago=2 * HOUR, type="com.acme.storage"),
        event("theirs", ago=2 * HOUR, subject="globex"),
    )  # fmt: skip
    (gone,) = send(event("gone", ago=2 * HOUR))
    deprecate(gone.receipt.id, **WHY)
    before = effective(organisation)
    it = backfill(organisation)
    sent = [event(f"new {n}", ago=2 * HOUR, backfill=str(it.id)) for n in range(2)]
    outcomes = send(*sent)
    assert statuses(outcomes) == ["accepted", "accepted"]
    assert effective(organisation) == before, "an open backfill counts for nothing"
    closed = close_backfill(it.id, by="tests")
    assert (closed.added, closed.replaced) == (2, 1)
    assert ids(organisation) == ["at the end", "before", "new 0", "new 1", "other type"]
    assert close_backfill(it.id, by="again").closed_by == "tests"
    (late,) = send(event("late", ago=2 * HOUR, backfill=str(it.id)))
    assert "closed" in late.problem.message
    assert statuses(send(*sent)) == ["duplicate", "duplicate"]
    reverted = revert_backfill(it.id, reason="it was the wrong file", by="ops")
    assert (reverted.state, reverted.revert_reason) == ("reverted", "it was the wrong file")
    assert effective(organisation) == before
    assert revert_backfill(it.id, reason="again", by="ops") == reverted
    _, history = shown(gone.receipt.id)
    assert [each.kind for each in history] == ["deprecate"]


def test_what_a_backfill_replaced_says_so(organisation):
    (old,) = send(event("old", ago=2 * HOUR))
    amend(old.receipt.id, at=None, data=read_data({"gpu_seconds": 1}), **WHY)
    it = backfill(organisation)
    close_backfill(it.id, by="tests")
    assert effective(organisation) == []
    revert_backfill(it.id, reason="no", by="ops")
    found, (amended, replaced, restored) = shown(old.receipt.id)
    assert (replaced.kind, restored.kind) == ("replace", "restore")
    assert replaced.backfill_id == restored.backfill_id == it.id
    assert replaced.digest_before == restored.digest_after == amended.digest_after
    assert found.data == '{"gpu_seconds":1}', "it is as it was amended, not as it was sent"


def test_a_backfill_under_a_later_one_is_reverted_after_it(organisation):
    send(event("old", ago=2 * HOUR))
    first, second = backfill(organisation), backfill(organisation)
    elsewhere = backfill(organisation, ago=30 * HOUR, until=20 * HOUR)
    send(event("one", ago=2 * HOUR, backfill=str(first.id)))
    send(event("two", ago=2 * HOUR, backfill=str(second.id)))
    for each in (first, second, elsewhere):
        close_backfill(each.id, by="tests")
    assert ids(organisation) == ["two"]
    with pytest.raises(CallerError, match=str(second.id)) as refused:
        revert_backfill(first.id, reason="no", by="ops")
    assert refused.value.code == "backfill_overlapped"
    revert_backfill(second.id, reason="no", by="ops")
    assert ids(organisation) == ["one"]
    revert_backfill(first.id, reason="no", by="ops")
    assert ids(organisation) == ["old"]


def test_an_open_backfill_that_is_given_up_changes_nothing(organisation):
    send(event("old", ago=2 * HOUR))
    it = backfill(organisation)
    send(event("new", ago=2 * HOUR, backfill=str(it.id)))
    given_up = revert_backfill(it.id, reason="no", by="ops")
    assert (given_up.state, given_up.closed_at, given_up.added) == ("reverted", None, None)
    assert ids(organisation) == ["old"]
    with pytest.raises(CallerError, match="open another one"):
        close_backfill(it.id, by="ops")


@pytest.mark.django_db(transaction=True)
def test_corrections_at_the_same_time_follow_one_another(organisation):
    """Eight amend one event at once: as many overlays, each going on from the one before."""
    (sent,) = send(event())
    barrier = threading.Barrier(8)

    def correct(number: int) -> None:
        barrier.wait()
        try:
            amend(sent.receipt.id, at=None, data=read_data({"n": number}), **WHY)
        finally:
            connections.close_all()

    in_threads([lambda number=number: correct(number) for number in range(8)])
    found, history = shown(sent.receipt.id)
    assert [each.number for each in history] == list(range(1, 9))
    assert {each.data for each in history} == {f'{{"n":{n}}}' for n in range(8)}
    befores = [each.digest_before for each in history]
    assert befores == [found.event.content_digest, *(each.digest_after for each in history[:-1])]


@pytest.mark.django_db(transaction=True)
def test_an_event_is_in_a_backfill_before_it_is_closed_or_not_at_all(organisation):
    """Four send to a backfill while it is closed: what it says it added is what it has."""
    it = backfill(organisation)
    accepted: list[str] = []

    def sender(number: int) -> None:
        try:
            for batch in range(6):
                sent = [
                    event(f"{number}-{batch}-{n}", ago=2 * HOUR, backfill=str(it.id))
                    for n in range(5)
                ]
                accepted.extend(each for each in statuses(send(*sent)) if each == "accepted")
        finally:
            connections.close_all()

    def closer() -> None:
        try:
            wait_until(lambda: len(accepted) >= 10, "some events in the backfill")
            close_backfill(it.id, by="tests")
        finally:
            connections.close_all()

    in_threads([closer, *(lambda number=number: sender(number) for number in range(4))])
    closed = backfill_by_id(it.id)
    assert closed.added == len(accepted) == len(ids(organisation))


def in_threads(works: list) -> None:
    """Run them at once; what one raises is raised."""
    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(work) for work in works]:
            done.result()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"type": "com.acme.storage"}, "is of com.acme.training"),
        ({"ago": HOUR / 2}, "outside the backfill's frame"),
        ({"ago": 4 * HOUR}, "outside the backfill's frame"),
        ({"subject": "globex"}, "no backfill"),
    ],
)
def test_a_backfill_takes_its_own_type_time_and_organisation_only(
    organisation, onboard, changes, says
):
    onboard("globex")
    it = backfill(organisation)
    (refused,) = send(event(**({"ago": 2 * HOUR} | changes), backfill=str(it.id)))
    assert (refused.status, refused.problem.field) == ("invalid", "backfill")
    assert says in refused.problem.message
