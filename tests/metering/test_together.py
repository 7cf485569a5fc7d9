"""Segments that are taken in together: what is wrong with one holds up no other."""

import random
import zlib

import msgspec
import pytest
from django.db import DataError

from meterplane.kernel.ids import uuid7
from meterplane.metering import parse, ship
from meterplane.metering.ingest import (
    IngestResult,
    SegmentRefused,
    ingest_segment,
    ingest_segments,
)
from meterplane.metering.models import JournalSegment, UsageEvent, UsageQuarantine
from tenants.scoping import system_scope
from tests.metering.segments import message, random_settles, settle
from tests.metering.tables import digest_of_usage
from tests.metering.test_ingest import totals
from tests.metering.test_ship_in_trouble import sealed_journal

pytestmark = pytest.mark.django_db(transaction=True)


def recorded() -> dict:
    with system_scope("test"):
        return {row.segment_id: row.inserted for row in JournalSegment.objects.all()}


def test_each_segment_is_told_its_own(organisation):
    shared = settle(organisation)
    first = message([shared, settle(organisation)])
    second = message([settle(organisation), settle(organisation, key_id=uuid7())])
    third = message([shared, settle(organisation, tokens_in=-1)])
    ingest_segment(first)
    found = ingest_segments([second, first, third, message([])])
    assert found == [
        IngestResult(2, 1, 1), IngestResult(2, 0), IngestResult(1, 0, 1), IngestResult(0, 0),
    ]  # fmt: skip
    assert [recorded()[each.segment_id] for each in (first, second, third)] == [2, 1, 0]
    with system_scope("test"):
        quarantined = {row.segment_id for row in UsageQuarantine.objects.all()}
        of = {row.request_id: row.segment_id for row in UsageEvent.objects.all()}
    assert quarantined == {second.segment_id, third.segment_id}
    assert of[shared.request_id] == first.segment_id
    events, hours = totals()
    assert events == hours
    assert events["events"] == 3


def test_a_request_in_two_of_them_is_one_event(organisation):
    event = settle(organisation)
    together = [message([event, settle(organisation)]), message([event])]
    assert sum(each.inserted for each in ingest_segments(together)) == 2
    assert sum(recorded().values()) == 2
    events, hours = totals()
    assert events == hours


def test_the_same_segment_twice_is_one(organisation):
    each = message([settle(organisation, tokens_in=-1), settle(organisation)])
    ingest_segments([each, each])
    with system_scope("test"):
        assert (UsageEvent.objects.count(), UsageQuarantine.objects.count()) == (1, 1)
    assert recorded() == {each.segment_id: 1}


def test_one_that_was_altered_or_has_other_content_is_refused_and_the_rest_is_taken_in(
    organisation,
):
    before = message([settle(organisation)])
    ingest_segment(before)
    good, also = message([settle(organisation)]), message([settle(organisation)])
    bad = [
        msgspec.structs.replace(message([settle(organisation)]), sha256="0" * 64),
        msgspec.structs.replace(message([settle(organisation)]), body=zlib.compress(b"other")),
        message([settle(organisation)], before.segment_id),
        message([settle(organisation)], good.segment_id),  # of two with one name the first
    ]
    for each in bad:
        with pytest.raises(SegmentRefused):
            ingest_segments([good, each, also])
    assert recorded() == {each.segment_id: 1 for each in (before, good, also)}


def test_what_postgresql_refuses_of_one_holds_up_that_one_alone(organisation, monkeypatch, caplog):
    """A bound that `parse` forgets is such a defect: here, all of them."""
    good, also = message([settle(organisation)]), message([settle(organisation)])
    bad = message([settle(organisation), settle(organisation, tokens_in=2**63 - 1)] * 2)
    nul = message([settle(organisation, model="a\0b")])
    monkeypatch.setattr(parse, "problem_of", lambda settle, before_ms: None)
    with pytest.raises(DataError):
        ingest_segments([good, nul, bad, also])
    assert "one by one" in caplog.text
    taken = {good.segment_id: 1, also.segment_id: 1}
    assert {name: of for name, of in recorded().items() if name in taken} == taken
    assert nul.segment_id not in recorded()
    events, hours = totals()
    assert events == hours


def test_any_division_leaves_the_same_tables(organisation, onboard):
    from tests.conftest import superuser

    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    frames = [f for tenant in (organisation, onboard("globex"))
              for f in random_settles(tenant, chance, 60)]  # fmt: skip
    messages = [message(chance.sample(frames, 15)) for _ in range(12)]
    superuser().keep("before_together")
    for each in messages:
        ingest_segment(each)
    clean = digest_of_usage()
    for _ in range(3):
        superuser().empty()
        superuser().restore("before_together")
        left = messages * 2
        chance.shuffle(left)
        while left:
            size = chance.randrange(1, 9)
            ingest_segments(left[:size])
            del left[:size]
        assert digest_of_usage() == clean


def test_what_waits_goes_in_lots_and_what_was_lost_by_itself(organisation, tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("meterplane.metering.ship.time.monotonic", lambda: now[0])
    home = sealed_journal(tmp_path, *([settle(organisation)] for _ in range(5)))
    size = max(path.stat().st_size for path in home.glob("*"))
    monkeypatch.setattr(ship, "TOGETHER_BYTES_MAX", size + 1)  # two are as many bytes, or more
    sent: list[int] = []
    shipper = ship.Shipper(tmp_path, send=lambda together: sent.append(len(together)))
    shipper.step()
    assert sent == [2, 2, 1]
    now[0] += ship.RESEND_AFTER_S
    shipper.step()
    assert sent == [2, 2, 1, 1, 1, 1, 1, 1]
