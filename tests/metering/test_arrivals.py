"""While usage is held it does not grow; what was waiting comes in afterwards, as later usage."""

from datetime import datetime, timedelta
from threading import Thread

import pytest
from django.db import connections

from meterplane.contracts.usage import Settle
from meterplane.kernel import clock
from meterplane.metering.arrivals import hold, none_is_late
from meterplane.metering.arrivals import settle as settle_until
from meterplane.metering.counted_events import is_counted
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.queries import request_by_id
from tenants.scoping import tenant_scope
from tests.metering.segments import message, settle

HELD_S = 0.3


def arriving(event: Settle) -> Thread:
    """What takes it in, once it is started."""

    def take_in() -> None:
        try:
            ingest_segment(message([event]))
        finally:
            connections.close_all()

    return Thread(target=take_in)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("has_usage", [False, True])
def test_what_comes_while_it_is_held_waits_and_is_not_counted(organisation, has_usage):
    before, waiting = settle(organisation), settle(organisation)
    if has_usage:
        ingest_segment(message([before]))
    worker = arriving(waiting)
    with tenant_scope(organisation.id):
        reading = hold()
        worker.start()
        worker.join(HELD_S)
        assert worker.is_alive()
        assert request_by_id(waiting.request_id) is None
    worker.join(20)
    with tenant_scope(organisation.id):
        assert request_by_id(waiting.request_id) is not None
        assert not is_counted(waiting.request_id, reading)
        assert is_counted(before.request_id, reading) == has_usage


@pytest.mark.django_db
def test_only_what_is_from_before_the_end_of_what_was_settled_makes_it_late(organisation):
    until = clock.now().replace(microsecond=0) - timedelta(days=1)

    def rests() -> bool:
        with tenant_scope(organisation.id):
            return none_is_late(until)

    def came(*ago: timedelta) -> None:
        frames = [settle(organisation, at_ms=clock.to_ms(until - each)) for each in ago]
        ingest_segment(message(frames))

    def settled(at: datetime = until) -> None:
        with tenant_scope(organisation.id):
            hold()
            settle_until(at)

    day = timedelta(days=1)
    assert not rests()
    came(day)
    settled(until - timedelta(microseconds=1))
    assert not rests()
    settled()
    assert rests()
    twice = settle(organisation, at_ms=clock.to_ms(until - day))
    for _ in range(2):
        came(timedelta(0), -day / 2)
        assert rests()
    came(-day / 2, timedelta(milliseconds=1), -day / 2)
    assert not rests()
    came(-day / 2)
    assert not rests()
    settled()
    assert rests()
    ingest_segment(message([twice]))
    assert not rests()
    settled()
    ingest_segment(message([twice, settle(organisation)]))  # nothing new of before
    assert rests()


@pytest.mark.django_db(transaction=True)
def test_what_waited_while_it_was_settled_is_late(organisation):
    until = clock.now().replace(microsecond=0) - timedelta(days=1)
    waiting = settle(organisation, at_ms=clock.to_ms(until - timedelta(hours=1)))
    ingest_segment(message([settle(organisation)]))
    worker = arriving(waiting)
    with tenant_scope(organisation.id):
        hold()
        worker.start()
        worker.join(HELD_S)
        assert worker.is_alive()
        settle_until(until)
        assert none_is_late(until)
    worker.join(20)
    with tenant_scope(organisation.id):
        assert not none_is_late(until)
