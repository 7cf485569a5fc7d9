"""A shipper says what it read by itself, under the ids that events must have."""

import asyncio
from uuid import uuid4

import msgspec
import pytest

from meterplane.kernel.ids import uuid7
from meterplane.metering.manifest import ManifestBroken, manifest_of, read_manifest
from meterplane.metering.models import UsageEvent
from meterplane.metering.reconcile.spread import spread
from meterplane.metering.ship import Shipper
from tenants.scoping import system_scope
from tests.metering.segments import settle
from tests.metering.test_ship import written


def test_ids_are_listed_by_model_and_server(organisation):
    first, second = settle(organisation, server="a"), settle(organisation, server="a")
    other = settle(organisation, model="identity")
    listed = {(m, s): ids for m, s, ids in read_manifest(manifest_of([first, other, second]))}
    assert listed == {
        ("tiny-lm", "a"): [first.request_id, second.request_id],
        ("identity", ""): [other.request_id],
    }


@pytest.mark.parametrize("broken", [b"", b"\xc1", msgspec.msgpack.encode([["m", "s", b"short"]])])
def test_what_is_none_is_told(broken):
    with pytest.raises(ManifestBroken):
        list(read_manifest(broken))


def test_what_can_be_no_event_is_listed_all_the_same(organisation):
    stranger = settle(
        organisation, request_id=uuid4(), provenance="checkpoint", service_tier="batch"
    )
    [(_, _, ids)] = read_manifest(manifest_of([stranger]))
    assert ids == [stranger.request_id]


@pytest.mark.django_db(transaction=True)
def test_a_shipped_journal_is_in_the_manifest_as_it_is_in_the_events(organisation, tmp_path):
    """A line of a batch that was cut twice, and then answered, is three events: so here."""
    from meterplane.metering.ingest import ingest_segments

    line = settle(organisation, service_tier="batch")
    cut = [
        msgspec.structs.replace(
            line,
            provenance="checkpoint",
            status="interrupted",
            admitted_at_ms=line.admitted_at_ms + n,
        )
        for n in (1, 2)
    ]
    asyncio.run(written(tmp_path, [*cut, line, settle(organisation)]))
    sent = []
    shipper = Shipper(
        tmp_path, send=lambda together: (sent.extend(together), ingest_segments(together))
    )
    while not sent:
        shipper.step()
    [(_, _, ids)] = read_manifest(sent[0].manifest)
    with system_scope("test"):
        events = set(UsageEvent.objects.values_list("request_id", flat=True))
    assert len(ids) == 4
    assert set(ids) == events


@pytest.mark.django_db(transaction=True)
def test_a_manifest_of_nonsense_holds_up_nobody(organisation):
    """What a hostile or older shipper sends: unreadable, from outside of time, from long ago."""
    from django.db import connection

    from meterplane.metering.ingest import ingest_segment
    from tests.metering.segments import message

    nonsense = [
        b"\xc1",
        msgspec.msgpack.encode([["m", "s", uuid7(2**47).bytes + uuid4().bytes]]),
        msgspec.msgpack.encode([["m", "s", uuid7(1_500_000_000_000).bytes]]),
        msgspec.msgpack.encode([["m\0", "s", uuid7(1_600_000_000_000).bytes]]),
    ]
    for manifest in nonsense:
        made = message([settle(organisation)])
        ingest_segment(msgspec.structs.replace(made, manifest=manifest))
    assert spread() == 4
    assert spread() == 0
    with system_scope("test"), connection.cursor() as cursor:
        cursor.execute(
            "SELECT cardinality(ids), hour > now() - interval '2 h' FROM journal_manifest"
        )
        assert cursor.fetchall() == [(2, True), (1, True)]
