"""Workers that race and workers that die: no line lost, none twice, nothing billed twice.

The double of the gateway plays metering: the first request of an id counts.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from django.db import connection

from meterplane.batches import doorbell, limits
from meterplane.batches.advance import advance
from meterplane.batches.models import Batch
from tests import environment
from tests.batches.conftest import drive, request_line, results, row
from tests.batches.gateway_double import Call, Reply, completion
from tests.conftest import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

LINES = 240
WORKER = """
import sys, uuid, django
django.setup()
from meterplane.batches import doorbell
doorbell.ring = lambda *_, **__: None
from meterplane.batches.advance import advance
from meterplane.batches.models import Batch
from tenants.scoping import tenant_scope
tenant_id, batch_id = map(uuid.UUID, sys.argv[1:])
print("ready", flush=True)
while True:
    advance(tenant_id, batch_id)
    with tenant_scope(tenant_id):
        if Batch.objects.get(id=batch_id).status not in Batch.OPEN:
            break
"""


def slow(delay_s: float) -> Callable[[Call], Reply]:
    def answer(call: Call) -> Reply:
        time.sleep(delay_s)
        return completion(call)

    return answer


@contextmanager
def worker(organisation, batch: Batch, gateway) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that does nothing but this batch."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(organisation.id), str(batch.id)],
        env=os.environ | {"GATEWAY_INTERNAL_URL": gateway.url},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def let_leases_end() -> None:
    """As if half a minute had passed since the kill."""
    with psycopg.connect(environment.database_url("postgres")) as admin:
        admin.execute("UPDATE batch_line SET lease_until = now() WHERE status = 'waiting'")


def assert_exact(client, organisation, shown: str, gateway, lines: int) -> None:
    done = client.batches.retrieve(shown)
    assert done.status == "completed"
    assert done.request_counts.to_dict() == {"total": lines, "completed": lines, "failed": 0}
    output = results(client, done.output_file_id)
    assert [line["custom_id"] for line in output] == [str(number) for number in range(lines)]
    for line in output:
        body = line["response"]["body"]
        assert body["choices"][0]["message"]["content"] == line["custom_id"]
    # One usage event a line, and it is the one the output names.
    assert sorted(map(int, gateway.texts_served())) == list(range(lines))
    assert {line["response"]["request_id"] for line in output} == {
        str(request_id) for request_id in gateway.served
    }
    assert done.usage.total_tokens == 3 * lines


@pytest.mark.long  # a worker is killed below, too
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_workers_lose_no_line_and_double_none(client, start, gateway, organisation, seed):
    chance = random.Random(seed)
    gateway.answer = slow(0.03)
    shown = start(*(request_line(str(number), str(number)) for number in range(LINES))).id
    batch = row(organisation, shown)
    kills = 3
    for _ in range(kills):
        with worker(organisation, batch, gateway) as process:
            time.sleep(chance.uniform(0.1, 0.4))
            process.send_signal(signal.SIGKILL)
        let_leases_end()
    drive(organisation, shown)
    print(f"seed {seed}: {len(gateway.calls)} calls for {LINES} lines, {kills} kills")
    assert len(gateway.calls) <= LINES + kills * limits.LINES_AT_ONCE
    assert_exact(client, organisation, shown, gateway, LINES)


def test_two_workers_of_one_batch_do_each_line_once(client, start, gateway, organisation):
    both = threading.Event()

    def answer(call: Call) -> Reply:
        if gateway.at_once > limits.LINES_AT_ONCE:
            both.set()
        both.wait(60)
        return completion(call)

    gateway.answer = answer
    shown = start(*(request_line(str(number), str(number)) for number in range(LINES))).id
    batch = row(organisation, shown)
    with (
        worker(organisation, batch, gateway) as first,
        worker(organisation, batch, gateway) as second,
    ):
        assert (first.wait(60), second.wait(60)) == (0, 0)
    assert len(gateway.calls) == LINES
    assert gateway.at_once_max > limits.LINES_AT_ONCE
    assert_exact(client, organisation, shown, gateway, LINES)


def test_a_worker_that_was_only_slow_changes_no_answer(client, start, gateway, organisation):
    """Its lease ended, another one did the lines; then its own answers arrive."""
    go_on, held = threading.Event(), threading.Semaphore(0)

    def answer(call: Call) -> Reply:
        with gateway.lock:
            first = call.allowed.request_id not in gateway.served and not go_on.is_set()
            gateway.served.setdefault(call.allowed.request_id, call)
        if first:
            held.release()
            go_on.wait(30)
        return completion(call)

    gateway.answer = answer
    lines = limits.LINES_AT_ONCE
    shown = start(*(request_line(str(number), str(number)) for number in range(lines))).id
    batch = row(organisation, shown)
    slow_one = threading.Thread(target=advance_in_a_thread, args=(organisation.id, batch.id))
    slow_one.start()
    for _ in range(lines):
        assert held.acquire(timeout=30)
    let_leases_end()
    drive(organisation, shown)
    go_on.set()
    slow_one.join(30)
    assert_exact(client, organisation, shown, gateway, lines)


def advance_in_a_thread(tenant_id, batch_id) -> None:
    try:
        advance(tenant_id, batch_id)
    finally:
        connection.close()


def test_a_real_celery_worker_runs_a_batch_and_is_killed_in_the_middle(
    client, start, gateway, organisation
):
    gateway.answer = slow(0.03)
    shown = start(*(request_line(str(number), str(number)) for number in range(LINES))).id
    with celery_worker(gateway) as process:
        wait_until(lambda: row(organisation, shown).completed > 50, "50 lines done", 60)
        os.killpg(process.pid, signal.SIGKILL)
    assert row(organisation, shown).status == "in_progress"
    let_leases_end()
    batch = row(organisation, shown)
    with celery_worker(gateway):
        doorbell.ring(organisation.id, batch.id)
        wait_until(lambda: row(organisation, shown).status == "completed", "the batch's end", 60)
    assert_exact(client, organisation, shown, gateway, LINES)


@contextmanager
def celery_worker(gateway) -> Iterator["subprocess.Popen[bytes]"]:
    """The batch worker as `make up` starts it."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "celery", "-A", "meterplane.worker", "worker"),
            *("--queues", "batches", "--pool", "threads", "--concurrency", "4"),
        ],
        env=os.environ | {"GATEWAY_INTERNAL_URL": gateway.url, "CELERY_SKIP_CHECKS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
