"""The shipper while everything around it fails: nothing is lost, doubled, or sent without bound."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
import redis as redis_client
from django.db import connection
from django.db.utils import OperationalError

from meterplane.contracts.usage import Frame, SegmentMessage
from meterplane.journal.directory import list_directories
from meterplane.journal.recovery import recover as real_recover
from meterplane.journal.segment import SEALED_SUFFIX, encode_segment, list_segments
from meterplane.journal.writer import JournalWriter
from meterplane.kernel.ids import uuid7
from meterplane.metering import ship
from meterplane.metering.ingest import SegmentRefused, ingest_segment, ingest_segments
from meterplane.metering.models import JournalSegment, UsageEvent, UsageHour, UsageQuarantine
from meterplane.stack.embedded import redis
from tenants.scoping import system_scope
from tests.conftest import spawn, stop, wait_until
from tests.journal.frames import admit, checkpoint
from tests.metering.segments import message, settle

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).parents[2]


def opened(event) -> Frame:
    """The ADMIT that belongs to a settled event."""
    return admit(
        event.request_id,
        tenant_id=event.tenant_id,
        project_id=event.project_id,
        key_id=event.key_id,
        price_version_id=event.price_version_id,
        reserved_nano=event.reserved_nano,
    )


def sealed_journal(root: Path, *segments: list, worker: str = "gw") -> Path:
    """A dead gateway's journal of these sealed segments."""
    home = root / f"{worker}.{uuid7()}"
    home.mkdir(parents=True)
    for frames in segments:
        segment_id = uuid7()
        time.sleep(0.0015)  # ids of one millisecond have no order
        path = home / f"{segment_id}{SEALED_SUFFIX}"
        path.write_bytes(encode_segment(segment_id, worker, frames))
    return home


def stored() -> list:
    with system_scope("test"):
        return sorted(UsageEvent.objects.values_list("request_id", flat=True))


def step_until(shipper: ship.Shipper, true: Callable[[], bool], within_s: float = 15) -> None:
    wait_until(lambda: (shipper.step(), true())[1], "the shipper getting there", within_s)


def test_files_go_in_order_whatever_order_the_records_come_in(organisation, tmp_path):
    home = sealed_journal(tmp_path, *([settle(organisation)] for _ in range(3)))
    sent: list[SegmentMessage] = []
    shipper = ship.Shipper(tmp_path, send=sent.extend)
    shipper.step()
    for number, left in ((2, 3), (1, 3), (0, 0)):
        ingest_segment(sent[number])
        shipper.step()
        assert (len(list_segments(home)) if home.exists() else 0) == left


def test_a_later_settle_frees_an_earlier_segment_once_it_is_recorded(organisation, tmp_path):
    event = settle(organisation)
    home = sealed_journal(tmp_path, [opened(event)], [settle(organisation)], [event])
    sent: list[SegmentMessage] = []
    shipper = ship.Shipper(tmp_path, send=sent.extend)
    shipper.step()
    ingest_segment(sent[0])
    ingest_segment(sent[1])
    shipper.step()
    # The SETTLE is on disk, but nobody has taken it in: the ADMIT is what says that it will come.
    assert len(list_segments(home)) == 3
    ingest_segment(sent[2])
    shipper.step()
    assert not home.exists()


def test_what_is_not_recorded_is_sent_ever_more_rarely(organisation, tmp_path, monkeypatch, caplog):
    sealed_journal(tmp_path, [settle(organisation)])
    sent: list[float] = []
    now = [1000.0]
    monkeypatch.setattr("meterplane.metering.ship.time.monotonic", lambda: now[0])
    shipper = ship.Shipper(tmp_path, send=lambda _: sent.append(now[0]))
    for _ in range(4 * 60 * 4):  # four hours without any worker
        shipper.step()
        now[0] += 15
    waits = [later - earlier for earlier, later in pairwise(sent)]
    assert waits[:4] == [15, 30, 60, 120]
    assert max(waits) == ship.RESEND_AFTER_S_MAX
    assert len(sent) < 24
    assert "is not recorded" in caplog.text


def test_a_long_backlog_is_neither_read_nor_sent_all_at_once(organisation, tmp_path):
    home = sealed_journal(tmp_path, *([settle(organisation)] for _ in range(100)))
    sent: list[SegmentMessage] = []
    shipper = ship.Shipper(tmp_path, send=sent.extend)
    shipper.step()
    assert len(sent) == ship.IN_FLIGHT_MAX
    assert shipper.backlog == 2 * ship.IN_FLIGHT_MAX
    assert len(list_segments(home)) == 100
    shipper._send = ingest_segments
    for each in sent:
        ingest_segment(each)
    step_until(shipper, lambda: not list_directories(tmp_path))
    assert len(stored()) == 100


def test_a_journal_that_cannot_be_recovered_is_left_alone_and_others_go_on(
    organisation, tmp_path, monkeypatch, caplog
):
    broken = sealed_journal(tmp_path, [opened(settle(organisation))], worker="broken")
    sealed_journal(tmp_path, [settle(organisation)], worker="sound")
    full = [True]

    def recover(directory: Path) -> object:
        if full[0] and directory == broken:
            raise OSError(28, "No space left on device")
        return real_recover(directory)

    monkeypatch.setattr(ship, "recover", recover)
    monkeypatch.setattr(ship, "AWAY_PAUSE_S", 0.01)
    shipper = ship.Shipper(tmp_path, send=ingest_segments)
    step_until(shipper, lambda: list_directories(tmp_path) == [broken])
    assert len(list_segments(broken)) == 1
    assert "No space left" in caplog.text
    full[0] = False
    step_until(shipper, lambda: not list_directories(tmp_path))
    assert len(stored()) == 2


def test_a_request_admitted_again_in_a_later_segment_holds_up_nothing(organisation, tmp_path):
    """Moved to a fallback, or written again because a disk had failed."""
    event = settle(organisation)
    sealed_journal(tmp_path, [opened(event)], [opened(event), settle(organisation)], [event])
    shipper = ship.Shipper(tmp_path, send=ingest_segments)
    step_until(shipper, lambda: not list_directories(tmp_path))
    assert len(stored()) == 2


def test_a_segment_that_cannot_be_read_is_shown_once_and_others_go_on(
    organisation, tmp_path, monkeypatch, caplog
):
    home = sealed_journal(tmp_path, [settle(organisation)], worker="broken")
    sealed_journal(tmp_path, [settle(organisation)], worker="sound")
    (unreadable,) = list_segments(home)
    sick = [True]
    read_bytes = Path.read_bytes

    def read(path: Path) -> bytes:
        if sick[0] and path == unreadable.path:
            raise OSError(5, "Input/output error")
        return read_bytes(path)

    monkeypatch.setattr(ship, "recover", lambda directory: None)
    monkeypatch.setattr(Path, "read_bytes", read)
    monkeypatch.setattr(ship, "AWAY_PAUSE_S", 0.01)
    shipper = ship.Shipper(tmp_path, send=ingest_segments)
    shipper._releases.owe = lambda directory: None  # type: ignore[method-assign]
    step_until(shipper, lambda: list_directories(tmp_path) == [home])
    for _ in range(3):
        time.sleep(0.02)
        shipper.step()
    with system_scope("test"):
        row = UsageQuarantine.objects.get(segment_id=unreadable.segment_id)
    assert "cannot be read: Input/output error" in row.reason
    assert "cannot be read" in caplog.text
    sick[0] = False
    step_until(shipper, lambda: not list_directories(tmp_path))
    assert len(stored()) == 2


def test_damage_is_said_aloud_and_costs_what_it_touches(organisation, tmp_path, caplog):
    events = [settle(organisation) for _ in range(3)]
    home = sealed_journal(tmp_path, [*map(opened, events[:1]), *events])
    (segment,) = list_segments(home)
    data = bytearray(segment.path.read_bytes())
    data[-900] ^= 1  # in the second or third of them
    segment.path.write_bytes(data)
    shipper = ship.Shipper(tmp_path, send=ingest_segments)
    step_until(shipper, lambda: not list_directories(tmp_path))
    assert "damaged at byte" in caplog.text
    with system_scope("test"):
        assert "damaged at byte" in UsageQuarantine.objects.get().reason
    assert len(stored()) >= 2


def test_a_file_that_is_not_what_was_recorded_is_kept(organisation, tmp_path, monkeypatch):
    monkeypatch.setattr(ship, "RESEND_AFTER_S", 0.0)
    home = sealed_journal(tmp_path, [settle(organisation)])
    (segment,) = list_segments(home)
    ingest_segment(message([settle(organisation)], segment.segment_id))

    def send(together: list[SegmentMessage]) -> None:
        with pytest.raises(SegmentRefused, match="other content"):
            ingest_segments(together)

    shipper = ship.Shipper(tmp_path, send=send)
    for _ in range(5):
        shipper.step()
    assert [each.segment_id for each in list_segments(home)] == [segment.segment_id]


def test_a_database_that_is_really_gone_is_waited_for(organisation, tmp_path, monkeypatch):
    monkeypatch.setattr(ship, "AWAY_PAUSE_S", 0.02)
    sealed_journal(tmp_path, [settle(organisation)])
    messages: list[SegmentMessage] = []
    shipper = ship.Shipper(tmp_path, send=messages.extend)
    where = connection.settings_dict["HOST"]
    connection.close()
    connection.settings_dict["HOST"] = str(tmp_path)
    try:
        with pytest.raises(OperationalError):
            shipper.step()
        turns = iter([False] * 5 + [True])
        shipper.run(lambda: next(turns))
    finally:
        connection.close()
        connection.settings_dict["HOST"] = where
    assert len(messages) == 1
    ingest_segment(messages[0])
    step_until(shipper, lambda: not list_directories(tmp_path))
    assert len(stored()) == 1


def test_the_command_waits_for_its_broker_and_stops_when_told(organisation, tmp_path):
    home, journals = tmp_path / "r", tmp_path / "journal"
    password = "only-for-this-test"
    sealed_journal(journals, [settle(organisation)])
    address = redis.url(home, password)
    log = tmp_path / "shipper.log"
    with log.open("wb") as output:
        shipper = subprocess.Popen(
            [sys.executable, "manage.py", "ship_journal"],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"REDIS_URL": address, "JOURNAL_DIR": str(journals)},
        )
    server = None
    try:
        wait_until(lambda: b"waiting: " in log.read_bytes(), "the broker being missed")
        command = redis.redis_command(home, role="broker", password=password)
        server = spawn(command, tmp_path / "redis.log")
        wait_until(lambda: redis.is_ready(address), "the broker answering")
        with redis_client.Redis.from_url(address) as broker:
            wait_until(lambda: broker.llen("celery") == 1, "the segment in the queue")
        shipper.send_signal(signal.SIGTERM)
        assert shipper.wait(30) == 0
    finally:
        stop(shipper)
        if server is not None:
            stop(server)
    assert b"Traceback" not in log.read_bytes()
    assert len(list_segments(list_directories(journals)[0])) == 1  # not recorded, so still there


class UnreliableMail:
    """Between shipper and worker: drops, doubles, delays and reorders what is sent."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.queue: list[list[SegmentMessage]] = []
        self.faulty = True

    def send(self, together: list[SegmentMessage]) -> None:
        if self.faulty:
            if self.chance.random() < 0.1:
                raise OperationalError("away")
            copies = self.chance.choice([0, 1, 1, 2])
        else:
            copies = 1
        self.queue += [together] * copies

    def deliver(self) -> None:
        self.chance.shuffle(self.queue)
        for _ in range(self.chance.randrange(4) if self.faulty else len(self.queue)):
            if self.queue:
                ingest_segments(self.queue.pop())


def restarted(shipper: ship.Shipper, mail: UnreliableMail) -> ship.Shipper:
    """Another shipper, as after a kill: the kernel releases the locks, nothing is remembered."""
    for journal in shipper._journals.values():
        if journal.lock is not None:
            os.close(journal.lock)
    return ship.Shipper(shipper._root, send=mail.send)


async def lived(root: Path, chance: random.Random, organisation) -> tuple[dict, JournalWriter]:
    """One gateway's life: requests that settle, or are still open when it ends."""
    writer = JournalWriter.open(root, "gw")
    billed: dict[UUID, int | None] = {}
    for _ in range(chance.randrange(5, 40)):
        event = settle(organisation, cost_nano=chance.randrange(50_000))
        writer.append(opened(event))
        if chance.random() < 0.5:
            writer.append(checkpoint(event.request_id, chance.randrange(20)))
        if chance.random() < 0.8:
            writer.append(event)
            billed[event.request_id] = event.cost_nano
        else:
            billed[event.request_id] = None  # settled by recovery
    await writer.commit()
    return billed, writer


@pytest.mark.parametrize("rounds", [3, pytest.param(60, marks=pytest.mark.long)])
def test_everything_fails_at_random_and_each_request_is_billed_once(
    organisation, tmp_path, monkeypatch, rounds
):
    monkeypatch.setattr("meterplane.journal.segment.SEGMENT_BYTES_MAX", 1_500)
    monkeypatch.setattr(ship, "RESEND_AFTER_S", 0.0)
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    mail = UnreliableMail(chance)
    shipper = ship.Shipper(tmp_path, send=mail.send)
    expected: dict = {}
    for _ in range(rounds):
        with asyncio.Runner() as runner:
            billed, writer = runner.run(lived(tmp_path, chance, organisation))
            expected |= billed
            for _ in range(chance.randrange(6)):
                step_in_trouble(shipper)
                mail.deliver()
            end_of(writer, runner, chance)
        for _ in range(chance.randrange(6)):
            step_in_trouble(shipper)
            mail.deliver()
            if chance.random() < 0.2:
                shipper = restarted(shipper, mail)
        check_sums()
    mail.faulty = False

    def taken_in() -> bool:
        shipper.step()
        mail.deliver()
        return not list_directories(tmp_path)

    wait_until(taken_in, "everything taken in once the faults have stopped")
    assert stored() == sorted(expected)
    with system_scope("test"):
        for request_id, status, cost_nano in UsageEvent.objects.values_list(
            "request_id", "status", "cost_nano"
        ):
            settled = expected[request_id]
            assert status == ("interrupted" if settled is None else "ok")
            assert settled in (None, cost_nano)
    check_sums()


def step_in_trouble(shipper: ship.Shipper) -> None:
    """What `run` does with a server that is away: wait, and go on from what is on disk."""
    try:
        shipper.step()
    except OperationalError:
        connection.close()


def end_of(writer: JournalWriter, runner: asyncio.Runner, chance: random.Random) -> None:
    """The gateway closes its journal, or dies with a write half done."""
    if chance.random() < 0.4:
        runner.run(writer.close())
        return
    writer._keeper._thread._pool.shutdown()  # a process that dies takes its threads with it
    segment = writer._segment
    if segment is not None and chance.random() < 0.7:
        os.write(segment._descriptor, chance.randbytes(chance.randrange(1, 60)))
    os.close(writer.lock_descriptor)


def check_sums() -> None:
    with system_scope("test"):
        events = UsageEvent.objects.all()
        hours = UsageHour.objects.all()
        assert sum(row.events for row in hours) == len(events)
        assert sum(row.cost_nano for row in hours) == sum(row.cost_nano for row in events)
        assert sum(row.inserted for row in JournalSegment.objects.all()) == len(events)


def test_messages_are_json(organisation):
    each = message([settle(organisation)])
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(each)), SegmentMessage) == each
