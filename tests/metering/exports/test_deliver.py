"""Schedules and buckets, against a real S3 server on loopback that checks signatures."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import boto3
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.metering.exports import content
from meterplane.metering.exports import deliver as delivering
from meterplane.metering.exports.bucket import Bucket, check_endpoint
from meterplane.metering.exports.deliver import deliver_due
from meterplane.metering.exports.destination import save_destination, save_schedule
from meterplane.metering.exports.destination import test_connection as probe
from meterplane.metering.models import Export, ExportDelivery, ExportDestination, ExportSchedule
from tenants.scoping import system_scope
from tests.conftest import free_port, wait_until
from tests.metering.exports.written import take_in, worked
from tests.metering.segments import settle

pytestmark = pytest.mark.django_db(transaction=True)
NOW = datetime(2026, 11, 3, 12, 30, tzinfo=UTC)
DAY = "exports/events/2026/11/02"
EVERYTHING = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
POLICY = {"Version": "2012-10-17", "Statement": [EVERYTHING]}


class Store:
    """A store with one bucket and one access key. Signatures are checked."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.post("reset", b"")
        self.post("reset-auth", b"1000")
        anybody = {"aws_access_key_id": "root", "aws_secret_access_key": "root"}
        self.client = boto3.client("s3", "eu-central-1", endpoint_url=endpoint, **anybody)
        place = {"LocationConstraint": "eu-central-1"}
        self.client.create_bucket(Bucket="usage", CreateBucketConfiguration=place)
        iam = boto3.client("iam", "eu-central-1", endpoint_url=endpoint, **anybody)
        iam.create_user(UserName="meterplane")
        iam.put_user_policy(
            UserName="meterplane", PolicyName="all", PolicyDocument=json.dumps(POLICY)
        )
        self.key = iam.create_access_key(UserName="meterplane")["AccessKey"]
        credentials = {
            "aws_access_key_id": self.key["AccessKeyId"],
            "aws_secret_access_key": self.key["SecretAccessKey"],
        }
        self.client = boto3.client("s3", "eu-central-1", endpoint_url=endpoint, **credentials)
        self.post("reset-auth", b"0")

    def post(self, what: str, body: bytes) -> None:
        asked = urllib.request.Request(
            f"{self.endpoint}/moto-api/{what}", body, {"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(asked, timeout=30).close()

    def keys(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket="usage").get("Contents", [])
        return [each["Key"] for each in found]

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket="usage", Key=key)["Body"].read()

    def destination(self, secret: str | None = None, **changes) -> ExportDestination:
        values = {
            "name": "warehouse", "endpoint": self.endpoint, "region": "eu-central-1",
            "bucket": "usage", "prefix": "exports/", "access_key_id": self.key["AccessKeyId"],
        } | changes  # fmt: skip
        row = ExportDestination(**values)
        with system_scope("test"):
            save_destination(row, self.key["SecretAccessKey"] if secret is None else secret)
        return row


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    port = free_port()
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    moto.start()
    yield f"http://127.0.0.1:{port}"
    moto.stop()


@pytest.fixture
def store(server) -> Store:
    return Store(server)


@pytest.fixture
def noon() -> Iterator[None]:
    with clock.frozen(NOW):
        yield


def schedule(destination, **changes) -> ExportSchedule:
    values = {
        "name": "all-events", "destination": destination, "kind": "events", "format": "parquet",
        "every": "daily", "next_period": NOW - timedelta(days=1),
    } | changes  # fmt: skip
    row = ExportSchedule(**values)
    with system_scope("test"):
        save_schedule(row)
    return row


def delivery() -> ExportDelivery:
    with system_scope("test"):
        return ExportDelivery.objects.get()


def deliver() -> ExportDelivery:
    """The beat's task and the workers', until nothing moves."""
    deliver_due()
    with system_scope("test"):
        waiting = list(Export.objects.filter(state__in=Export.OPEN))
    for export in waiting:
        worked(export)
    deliver_due()
    return delivery()


def yesterday(tenant, **changes):
    return settle(tenant, at_ms=clock.to_ms(NOW - timedelta(days=1)), **changes)


@pytest.mark.usefixtures("noon")
def test_a_day_is_in_the_bucket_as_it_is_in_the_table(store, organisation, onboard):
    frames = [yesterday(organisation, cost_nano=n) for n in range(1, 30)]
    frames += [yesterday(onboard("globex")), settle(organisation)]
    take_in(frames)
    schedule(store.destination())
    done = deliver()
    assert (done.state, done.revision, done.error, done.rows) == ("delivered", 1, "", 30)
    key, said = (
        f"{DAY}/all-events.parquet",
        json.loads(store.read(f"{DAY}/all-events_manifest.json")),
    )
    assert store.keys() == [key, f"{DAY}/all-events_manifest.json"]
    body = store.read(key)
    rows = pq.read_table(io.BytesIO(body)).to_pylist()
    assert sorted(row["request_id"] for row in rows) == sorted(
        str(frame.request_id) for frame in frames[:-1]
    )
    assert sum(row["cost"] for row in rows) * 10**9 == sum(f.cost_nano for f in frames[:-1])
    assert said == {
        "schedule": "all-events", "kind": "events", "format": "parquet", "object": key,
        "period_start": "2026-11-02T00:00:00Z", "period_end": "2026-11-03T00:00:00Z",
        "revision": 1, "rows": 30, "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(), "cost": {"USD": "0.000013935"},
    }  # fmt: skip
    with system_scope("test"):
        assert not Export.objects.exists()


@pytest.mark.usefixtures("noon")
def test_late_usage_makes_a_new_revision_and_nothing_else_does(store, organisation):
    take_in([yesterday(organisation)])
    schedule(store.destination(), tenant_id=organisation.id, filters={"status": "ok"})
    key = f"{DAY}/all-events.parquet"
    assert deliver().revision == 1
    first = store.read(key)
    assert deliver().revision == 1
    take_in([yesterday(organisation, status="error")])  # which its filter leaves out
    again = deliver()
    assert (again.revision, again.events_seen, store.read(key)) == (1, 2, first)
    take_in([yesterday(organisation)])
    assert (deliver().revision, deliver().rows) == (2, 2)
    said = json.loads(store.read(f"{DAY}/all-events_manifest.json"))
    assert (said["revision"], said["sha256"]) == (2, hashlib.sha256(store.read(key)).hexdigest())


WORKER = """
import sys, django
django.setup()
from datetime import datetime
from meterplane.kernel import clock
from meterplane.metering.exports.deliver import deliver_due
with clock.frozen(datetime.fromisoformat(sys.argv[1])):
    deliver_due()
"""


@pytest.mark.usefixtures("noon")
@pytest.mark.parametrize(
    "failpoint",
    [
        "export.delivery.after_object",
        pytest.param("export.delivery.after_manifest", marks=pytest.mark.long),
    ],
)
def test_killed_while_sending_it_sends_the_same_again(store, organisation, failpoint):
    take_in([yesterday(organisation) for _ in range(5)])
    schedule(store.destination())
    deliver_due()
    with system_scope("test"):
        worked(Export.objects.get())
    died = subprocess.run(
        [sys.executable, "-c", WORKER, NOW.isoformat()],
        env=os.environ | {"METERPLANE_FAILPOINT": failpoint},
        timeout=100,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    assert delivery().state == "sending"
    first = store.read(f"{DAY}/all-events.parquet")
    wait_until(lambda: deliver().state == "delivered", "the delivery")
    assert store.read(f"{DAY}/all-events.parquet") == first
    assert json.loads(store.read(f"{DAY}/all-events_manifest.json"))["revision"] == 1


@pytest.mark.usefixtures("noon")
def test_what_is_wrong_is_said_and_tried_again_later(store, organisation):
    take_in([yesterday(organisation)])
    destination = store.destination(bucket="missing")
    schedule(destination)
    failed = deliver()
    assert failed.error == f"There is no bucket 'missing' at {store.endpoint}."
    assert (failed.state, failed.attempts) == ("sending", 1)
    assert failed.try_at == NOW + timedelta(minutes=1)
    deliver_due()
    assert delivery().attempts == 1  # not before its time
    for attempt, (values, words) in enumerate(
        (
            ({"bucket": "usage", "secret": "wrong"}, "The secret is not that of the access key id"),
            ({"access_key_id": "AKIANOBODY"}, "does not know the access key id"),
            ({"endpoint": f"http://127.0.0.1:{free_port()}"}, "cannot be reached"),
        ),
        2,
    ):
        secret = values.pop("secret", "")
        with system_scope("test"):
            for name, value in values.items():
                setattr(destination, name, value)
            save_destination(destination, secret)
        with clock.frozen(delivery().try_at):
            deliver_due()
        assert words in delivery().error
        assert delivery().attempts == attempt
    destination.endpoint, destination.access_key_id = store.endpoint, store.key["AccessKeyId"]
    with system_scope("test"):
        save_destination(destination, store.key["SecretAccessKey"])
    with clock.frozen(delivery().try_at):
        deliver_due()
    assert (delivery().state, delivery().error, delivery().attempts) == ("delivered", "", 0)


@pytest.mark.usefixtures("noon")
def test_a_file_that_was_let_go_of_before_it_was_sent_is_made_again(store, organisation):
    take_in([yesterday(organisation)])
    schedule(store.destination())
    deliver_due()
    with system_scope("test"):
        export = Export.objects.get()
        worked(export)
        content.remove(export.id)
        Export.objects.all().delete()
    assert deliver().state == "delivered"


@pytest.mark.usefixtures("noon")
def test_periods_follow_each_other_and_none_is_left_out(store, organisation, monkeypatch):
    del organisation
    monkeypatch.setattr(delivering, "PERIODS_PER_SWEEP_MAX", 3)
    row = schedule(store.destination(), every="hourly", next_period=NOW - timedelta(hours=5))
    for _ in range(3):
        delivering._begin_periods(row.id)
    with system_scope("test"):
        starts = [
            each.period_start.hour for each in ExportDelivery.objects.order_by("period_start")
        ]
    assert starts == [7, 8, 9, 10, 11]
    with clock.frozen(NOW.replace(hour=13, minute=9)):
        delivering._begin_periods(row.id)
    with system_scope("test"):
        assert ExportDelivery.objects.count() == 5  # usage of the hour's end may still arrive


def test_a_connection_is_tested_with_an_object_that_is_gone_afterwards(store):
    probe(store.destination())
    assert store.keys() in ([], ["exports/"])  # Arrow keeps the folder, empty
    with pytest.raises(WorldError, match="no bucket"):
        probe(store.destination(name="other", bucket="missing"))


def test_secrets_are_sealed_or_the_workers_own(store, settings, monkeypatch):
    row = store.destination()
    secret = store.key["SecretAccessKey"]
    assert secret not in row.secret_sealed
    with system_scope("test"):
        assert secret not in str(ExportDestination.objects.values())
    by_name = store.destination("", name="by-name", secret_env="EXPORT_SECRET")
    with pytest.raises(WorldError, match="EXPORT_SECRET; set it"):
        probe(by_name)
    monkeypatch.setenv("EXPORT_SECRET", secret)
    probe(by_name)
    settings.SECRET_KEY = "another" * 8
    with pytest.raises(WorldError, match="enter it again"):
        probe(row)


def test_nothing_is_sent_where_clouds_keep_credentials(store):
    for endpoint in (
        "http://169.254.169.254", "http://[fe80::1]:9000", "http://[::ffff:169.254.169.254]",
        "http://[fd00:ec2::254]", "ftp://store", "http://key:secret@store", "http://store/a",
        "http://2852039166",
    ):  # fmt: skip
        with pytest.raises(CallerError):
            check_endpoint(endpoint)
    row = store.destination()
    row.endpoint = "http://169.254.169.254"
    with pytest.raises(WorldError, match="link-local"):
        Bucket(row)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"bucket": "No"}, "bucket"),
        ({"prefix": "../up"}, "prefix"),
        ({"secret_env": "lower"}, "secret_env"),
        ({"secret": ""}, "secret"),
    ],
)
def test_a_destination_that_cannot_be_is_refused(store, changes, field):
    with pytest.raises(CallerError) as refused:
        store.destination(**({"secret": ""} if "secret_env" in changes else {}) | changes)
    assert refused.value.field == field


def test_a_schedule_that_cannot_be_is_refused(store):
    destination = store.destination()
    for changes, field in (
        ({"name": "With Space"}, "name"),
        ({"filters": {"from": "2026-01-01"}}, "filters"),
        ({"filters": {"colour": "red"}}, "colour"),
        ({"kind": "focus", "filters": {"bucket": "month"}}, "bucket"),
    ):
        with pytest.raises(CallerError) as refused:
            schedule(destination, **changes)
        assert refused.value.field == field
