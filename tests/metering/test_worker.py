"""Celery's settings: what they promise is asserted, and a real worker takes a segment in."""

import os
import subprocess
import sys

import pytest

from meterplane.metering.models import UsageEvent
from meterplane.metering.ship import send_to_worker
from meterplane.worker import app as celery
from meterplane.worker.app import TASK_TIME_LIMIT_S, VISIBILITY_TIMEOUT_S
from tenants.scoping import tenant_scope
from tests.conftest import stop, wait_until
from tests.metering.segments import message, settle


def test_a_lost_or_doubled_message_is_made_rare():
    conf = celery.conf
    assert conf.task_acks_late
    assert conf.task_reject_on_worker_lost
    assert conf.worker_prefetch_multiplier == 1
    assert conf.task_ignore_result
    assert conf.accept_content == ["json"]
    assert conf.task_serializer == "json"
    assert conf.result_serializer == "json"
    assert conf.worker_soft_shutdown_timeout > 0
    assert conf.worker_enable_soft_shutdown_on_idle
    assert conf.broker_connection_max_retries is None
    assert conf.task_soft_time_limit < conf.task_time_limit == TASK_TIME_LIMIT_S
    assert TASK_TIME_LIMIT_S < VISIBILITY_TIMEOUT_S
    assert conf.visibility_timeout == VISIBILITY_TIMEOUT_S
    assert conf.broker_transport_options["visibility_timeout"] == VISIBILITY_TIMEOUT_S
    assert conf.result_backend_transport_options["visibility_timeout"] == VISIBILITY_TIMEOUT_S


def test_payments_are_swept_every_half_minute_and_days_are_made_ahead():
    schedule = {entry["task"]: entry["schedule"] for entry in celery.conf.beat_schedule.values()}
    assert schedule["payments.sweep"] == 30
    assert schedule["metering.ensure_partitions"] <= 86_400


def test_every_scheduled_task_exists():
    celery.loader.import_default_modules()
    for entry in celery.conf.beat_schedule.values():
        assert entry["task"] in celery.tasks


@pytest.mark.django_db(transaction=True)
def test_a_real_worker_takes_a_segment_in(organisation):
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "meterplane.worker", "worker", "-c", "1"],
        env=os.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        send_to_worker([message([settle(organisation) for _ in range(7)])])

        def stored() -> bool:
            with tenant_scope(organisation.id):
                return UsageEvent.objects.count() == 7

        wait_until(stored, "the worker storing 7 events", 40)
    finally:
        stop(worker)
