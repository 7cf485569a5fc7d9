"""The watermark: it claims that a moment is over only when nothing of it is left on disk."""

import asyncio
from datetime import timedelta

import psycopg
import pytest

from meterplane.journal.segment import list_segments
from meterplane.journal.writer import JournalWriter
from meterplane.kernel import clock
from meterplane.metering import ship, watermark
from meterplane.metering.ingest import ingest_segment, ingest_segments
from tests import environment
from tests.metering.segments import settle
from tests.metering.test_ship import admit_of, in_a_thread, step_until_gone
from tests.metering.test_ship_in_trouble import sealed_journal

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def as_often_as_asked(monkeypatch):
    monkeypatch.setattr(watermark, "EVERY_S", 0.0)
    monkeypatch.setattr(watermark, "PAUSE_SHARE", 0)


def rows():
    with psycopg.connect(environment.database_url("postgres")) as admin:
        return admin.execute(
            "SELECT root, drained_until, seen_at FROM journal_watermark"
        ).fetchall()


def now():
    with psycopg.connect(environment.database_url("postgres")) as admin:
        return admin.execute("SELECT clock_timestamp()").fetchone()[0]


def drained_until():
    [(_, drained, _)] = rows()
    return drained


def steps(shipper, count=3):
    for _ in range(count):
        shipper.step()


def test_a_root_is_known_before_it_can_claim_anything(organisation, tmp_path):
    sealed_journal(tmp_path, [settle(organisation)])
    ship.Shipper(tmp_path, send=lambda _: None).step()
    assert drained_until().year == 1970


def test_an_idle_root_is_drained_up_to_a_moment_ago(db, tmp_path):
    shipper = ship.Shipper(tmp_path / "not there yet", send=ingest_segments)
    shipper.step()
    asked_at = now()
    steps(shipper)
    assert asked_at < drained_until() <= now()


def test_nothing_is_claimed_while_a_segment_is_not_taken_in(organisation, tmp_path):
    written_at = now()
    sealed_journal(tmp_path, [settle(organisation)])
    lost = []
    shipper = ship.Shipper(tmp_path, send=lost.extend)
    steps(shipper, 5)
    assert drained_until() < written_at
    ingest_segment(lost[0])
    step_until_gone(shipper, tmp_path)
    steps(shipper)
    assert drained_until() > written_at


def test_nothing_is_claimed_while_a_request_is_open(organisation, tmp_path):
    """Its ADMIT is written and not even sealed; what came later is long taken in."""
    event = settle(organisation)

    async def scenario() -> None:
        writer = JournalWriter.open(tmp_path, "gw")
        written_at = now()
        writer.append(admit_of(event))
        await writer.commit()
        shipper = ship.Shipper(tmp_path, send=ingest_segments)
        for _ in range(100):
            await asyncio.sleep(0.01)
            await asyncio.to_thread(in_a_thread, shipper.step)
        assert drained_until() < written_at
        writer.append(event)
        await writer.commit()
        await writer.close()
        await asyncio.to_thread(in_a_thread, step_until_gone, shipper, tmp_path)
        await asyncio.to_thread(in_a_thread, steps, shipper)
        assert drained_until() > written_at

    asyncio.run(scenario())


def test_an_admit_is_not_over_until_its_settle_is_taken_in_too(organisation, tmp_path):
    """The ADMIT's segment is recorded, the SETTLE's, opened long after, is on its way."""
    event = settle(organisation)
    written_at = now()
    home = sealed_journal(tmp_path, [admit_of(event)], [event])
    first, second = list_segments(home)
    held = []

    def send(together) -> None:
        for message in together:
            if message.segment_id == first.segment_id:
                ingest_segment(message)
            else:
                held.append(message)

    shipper = ship.Shipper(tmp_path, send=send)
    steps(shipper, 5)
    assert [message.segment_id for message in held] == [second.segment_id]
    assert first.path.exists()
    assert drained_until() < written_at
    ingest_segment(held[0])
    step_until_gone(shipper, tmp_path)


def test_a_clock_of_the_host_that_runs_wild_claims_nothing(organisation, tmp_path):
    """The gateway's clock stepped a day back while it wrote: its ids are from the future by now."""
    event = settle(organisation)
    written_at = now()
    with clock.frozen(clock.now() + timedelta(days=1)):
        sealed_journal(tmp_path, [admit_of(event)])
    shipper = ship.Shipper(tmp_path, send=lambda _: None)
    steps(shipper, 5)
    assert drained_until() < written_at


def test_another_shipper_goes_on_under_the_same_name_and_never_back(organisation, tmp_path):
    shipper = ship.Shipper(tmp_path, send=ingest_segments)
    steps(shipper)
    [(root, before, _)] = rows()
    assert (tmp_path / watermark.NAME).read_text().strip() == str(root)
    steps(ship.Shipper(tmp_path, send=ingest_segments), 1)
    [(again, after, _)] = rows()
    assert (again, after) == (root, before)
    sealed_journal(tmp_path, [settle(organisation)])
    steps(ship.Shipper(tmp_path, send=lambda _: None), 5)
    assert drained_until() == before


def test_only_an_empty_root_is_forgotten_when_its_shipper_stops(organisation, tmp_path):
    for root, left in (("empty", 0), ("full", 1)):
        shipper = ship.Shipper(tmp_path / root, send=lambda _: None)
        if left:
            sealed_journal(tmp_path / root, [settle(organisation)])
        rounds = iter([False, False, True])
        shipper.run(lambda rounds=rounds: next(rounds))
        assert len(rows()) == left


def test_the_notes_of_a_root_that_does_not_drain_are_bounded(organisation, tmp_path, monkeypatch):
    monkeypatch.setattr(watermark, "NOTES_MAX", 4)
    sealed_journal(tmp_path, [settle(organisation)])
    lost = []
    shipper = ship.Shipper(tmp_path, send=lost.extend)
    steps(shipper, 20)
    asked_at = now()
    ingest_segment(lost[0])
    step_until_gone(shipper, tmp_path)
    steps(shipper)
    assert drained_until() > asked_at
