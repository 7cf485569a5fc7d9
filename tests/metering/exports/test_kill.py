"""A worker that dies anywhere: the next goes on, and the file is that of a quiet run."""

import os
import random
import signal
import subprocess
import sys
from uuid import UUID

import pytest

from meterplane.metering.exports import content
from meterplane.metering.exports.request import find_export
from meterplane.metering.models import Export, ExportPart
from tenants.scoping import system_scope
from tests.conftest import wait_until
from tests.metering.exports.written import asked, content_of, take_in, worked
from tests.metering.segments import random_settles

pytestmark = pytest.mark.django_db(transaction=True)

PART_ROWS = 40
WORKER = f"""
import sys, time, uuid, django
django.setup()
from meterplane.metering.exports import advance
advance.PART_ROWS = {PART_ROWS}
while True:  # until it dies: PostgreSQL may not have noticed the death of the one before
    advance.step(uuid.UUID(sys.argv[1])) or time.sleep(0.05)
"""
FAILPOINTS = (
    "export.content.before_save@2",
    "export.part.after_write@3",
    "export.part.before_commit@2",
    "export.step.after_commit@1",
    "export.file.after_write",
)


@pytest.fixture
def quiet(organisation, monkeypatch):
    """Usage, and what exports of it are when nobody is killed, by format."""
    monkeypatch.setattr("meterplane.metering.exports.advance.PART_ROWS", PART_ROWS)
    monkeypatch.setattr("meterplane.metering.exports.source.PAGE_ROWS", 10)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    take_in(random_settles(organisation, random.Random(seed), 180))
    made = {kind: worked(asked(organisation.id, *kind)) for kind in KINDS}
    return {kind: (content_of(each), each.sha256) for kind, each in made.items()}


KINDS = (("events", "csv"), ("events", "parquet"), ("focus", "parquet"))


def die(export_id: UUID, failpoint: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", WORKER, str(export_id)],
        env=os.environ | {"METERPLANE_FAILPOINT": failpoint},
        timeout=100,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, failpoint


def finish(organisation, export: Export) -> Export:
    """As the sweep would: the dead worker's lock is gone once PostgreSQL has noticed."""
    wait_until(lambda: worked(find_export(organisation.id, export.id)).state == "done", "the file")
    return find_export(organisation.id, export.id)


def assert_as_if_nothing_had_been(organisation, quiet, kind, export) -> None:
    done = finish(organisation, export)
    assert (content_of(done), done.sha256) == quiet[kind]
    with system_scope("test"):
        parts = list(ExportPart.objects.filter(export_id=export.id))
        assert sum(part.rows for part in parts) == done.rows
    assert all(content.digest_of(export.id, part.number) == "" for part in parts)


def test_killed_in_a_part_and_in_the_end_an_export_is_the_same_to_the_byte(organisation, quiet):
    kind = ("events", "parquet")
    export = asked(organisation.id, *kind)
    for failpoint in ("export.part.after_write@2", "export.file.after_write"):
        die(export.id, failpoint)
    assert_as_if_nothing_had_been(organisation, quiet, kind, export)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_killed_at_any_step_every_kind_is_the_same_to_the_byte(
    organisation, quiet, kind, failpoint
):
    export = asked(organisation.id, *kind)
    if kind[0] == "focus":
        failpoint = failpoint.partition("@")[0]
    die(export.id, failpoint)
    assert_as_if_nothing_had_been(organisation, quiet, kind, export)


def test_a_part_that_is_not_as_it_was_written_is_written_anew(organisation, quiet):
    kind = ("events", "csv")
    export = asked(organisation.id, *kind)
    die(export.id, "export.part.before_commit@3")
    content.store(export.id, 1, lambda target: target.write(b"damaged"))
    assert_as_if_nothing_had_been(organisation, quiet, kind, export)
