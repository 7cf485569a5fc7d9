"""While usage is held it does not grow; what was waiting comes in afterwards, as later usage."""

from threading import Thread

import pytest
from django.db import connections

from meterplane.metering.arrivals import hold
from meterplane.metering.counted_events import is_counted
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.queries import request_by_id
from tenants.scoping import tenant_scope
from tests.metering.segments import message, settle

HELD_S = 0.3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("has_usage", [False, True])
def test_what_comes_while_it_is_held_waits_and_is_not_counted(organisation, has_usage):
    before, waiting = settle(organisation), settle(organisation)
    if has_usage:
        ingest_segment(message([before]))

    def take_in() -> None:
        try:
            ingest_segment(message([waiting]))
        finally:
            connections.close_all()

    worker = Thread(target=take_in)
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
