"""The Celery application, its settings and its schedule.

A message is a doorbell: state lives in PostgreSQL, every task looks for work and finishes it, so a
lost message delays and a doubled one changes nothing. The settings below make loss and doubling
rare, they are not what correctness rests on.
"""

import gc
import os

import django
from celery import Celery
from celery.signals import worker_process_init
from django.apps import apps
from django.conf import settings
from kombu import Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "meterplane.settings")

VISIBILITY_TIMEOUT_S = 3600  # a message whose worker vanished comes back after this
TASK_TIME_LIMIT_S = 600  # below the visibility timeout, or a long task would run twice
# Above the 10 s that a worker's blocking read may take; a broker silent for longer is gone.
BROKER_SILENCE_S = 30
SWEEP_EVERY_S = 30
CATCH_UP_WITH_EVENTS_EVERY_S = 3600
RECONCILE_PAYMENTS_EVERY_S = 60  # recent days are due each ten minutes, the others each night
DUN_EVERY_S = 60
PARTITIONS_EVERY_S = 3600
ARCHIVE_EVERY_S = 3600  # a day is due once; what was cut short is finished within the hour
CREDIT_GRANTS_EVERY_S = 10
RETURN_GRANTS_EVERY_S = 5
REAP_RESERVATIONS_EVERY_S = 15
RAISE_ALERTS_EVERY_S = 30
FOLD_GRANTS_EVERY_S = 600
LOOK_AT_TRITON_EVERY_S = 60
RECONCILE_EVERY_S = 60  # hours are due once; a segment that comes late opens its hour again
FORGET_RECONCILED_EVERY_S = 3600
DELIVER_EXPORTS_EVERY_S = 60
FOLLOW_PRICES_EVERY_S = 60
FOLLOW_CREDIT_EVERY_S = 5  # what a period cost that is just over is withheld until it is seen
LEARN_EVERY_S = 3600  # each time all events of a week are read
CLOSE_MONTHS_EVERY_S = 900  # an hour after its end a month is due
MAKE_INTERIMS_EVERY_S = 300
GRANT_CREDIT_EVERY_S = 60
AUDIT_LEDGER_EVERY_S = 900  # once a night; what was cut short is gone on with
EXPIRE_CREDIT_EVERY_S = 300  # it is no balance any more by then: this only writes it off
# A batch keeps its worker busy for half a minute at a time, and usage must be visible in seconds:
# batches wait in a queue of their own. A worker that is told no queue serves both.
QUEUE, BATCH_QUEUE = "celery", "batches"

app = Celery("meterplane")
app.conf.update(
    broker_url=settings.CELERY_BROKER_URL,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,  # a worker waits for its broker, however long
    # Celery's manual names all three places; one that is left out falls back to an hour.
    broker_transport_options={
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "socket_connect_timeout": 5,
        "socket_timeout": BROKER_SILENCE_S,
    },
    result_backend_transport_options={"visibility_timeout": VISIBILITY_TIMEOUT_S},
    visibility_timeout=VISIBILITY_TIMEOUT_S,
    accept_content=["json"],
    task_serializer="json",
    result_serializer="json",
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_time_limit=TASK_TIME_LIMIT_S,
    task_soft_time_limit=TASK_TIME_LIMIT_S - 30,
    worker_soft_shutdown_timeout=10,
    worker_enable_soft_shutdown_on_idle=True,
    worker_hijack_root_logger=False,
    task_default_queue=QUEUE,
    task_queues=[Queue(QUEUE), Queue(BATCH_QUEUE)],
    task_routes={"batches.work": {"queue": BATCH_QUEUE}},
    timezone="UTC",
    enable_utc=True,
    beat_schedule={
        "sweep payments": {"task": "payments.sweep", "schedule": SWEEP_EVERY_S},
        "reload credit": {"task": "payments.reload", "schedule": SWEEP_EVERY_S},
        "catch up with events": {
            "task": "payments.catch_up",
            "schedule": CATCH_UP_WITH_EVENTS_EVERY_S,
            "options": {"expires": CATCH_UP_WITH_EVENTS_EVERY_S},
        },
        "reconcile payments": {
            "task": "payments.reconcile",
            "schedule": RECONCILE_PAYMENTS_EVERY_S,
            "options": {"expires": RECONCILE_PAYMENTS_EVERY_S},
        },
        "dun": {
            "task": "payments.dun",
            "schedule": DUN_EVERY_S,
            "options": {"expires": DUN_EVERY_S},
        },
        "sweep batches": {"task": "batches.sweep", "schedule": SWEEP_EVERY_S},
        "sweep exports": {"task": "metering.sweep_exports", "schedule": SWEEP_EVERY_S},
        "deliver exports": {
            "task": "metering.deliver_exports",
            "schedule": DELIVER_EXPORTS_EVERY_S,
            "options": {"expires": DELIVER_EXPORTS_EVERY_S},
        },
        "partitions ahead": {"task": "metering.ensure_partitions", "schedule": PARTITIONS_EVERY_S},
        "archive usage": {"task": "metering.archive_days", "schedule": ARCHIVE_EVERY_S},
        # Rung so often that one which nobody heard in time is better forgotten.
        "credit grants": {
            "task": "policy.credit_grants",
            "schedule": CREDIT_GRANTS_EVERY_S,
            "options": {"expires": CREDIT_GRANTS_EVERY_S},
        },
        "return stranded grants": {
            "task": "policy.return_stranded_grants",
            "schedule": RETURN_GRANTS_EVERY_S,
            "options": {"expires": RETURN_GRANTS_EVERY_S},
        },
        "reap reservations": {
            "task": "policy.reap_reservations",
            "schedule": REAP_RESERVATIONS_EVERY_S,
            "options": {"expires": REAP_RESERVATIONS_EVERY_S},
        },
        "raise alerts": {
            "task": "policy.raise_alerts",
            "schedule": RAISE_ALERTS_EVERY_S,
            "options": {"expires": RAISE_ALERTS_EVERY_S},
        },
        "follow prices": {
            "task": "policy.follow_prices",
            "schedule": FOLLOW_PRICES_EVERY_S,
            "options": {"expires": FOLLOW_PRICES_EVERY_S},
        },
        "follow credit": {
            "task": "policy.follow_credit",
            "schedule": FOLLOW_CREDIT_EVERY_S,
            "options": {"expires": FOLLOW_CREDIT_EVERY_S},
        },
        "fold grants": {"task": "policy.fold_grants", "schedule": FOLD_GRANTS_EVERY_S},
        "look at Triton": {
            "task": "metering.look_at_triton",
            "schedule": LOOK_AT_TRITON_EVERY_S,
            "options": {"expires": LOOK_AT_TRITON_EVERY_S},
        },
        "reconcile": {
            "task": "metering.reconcile",
            "schedule": RECONCILE_EVERY_S,
            "options": {"expires": RECONCILE_EVERY_S},
        },
        "forget what was reconciled": {
            "task": "metering.forget_reconciled",
            "schedule": FORGET_RECONCILED_EVERY_S,
        },
        "learn reservations": {"task": "policy.learn_reservations", "schedule": LEARN_EVERY_S},
        "grant credit": {
            "task": "credits.grant_due",
            "schedule": GRANT_CREDIT_EVERY_S,
            "options": {"expires": GRANT_CREDIT_EVERY_S},
        },
        "close months": {
            "task": "invoicing.close_months",
            "schedule": CLOSE_MONTHS_EVERY_S,
            "options": {"expires": CLOSE_MONTHS_EVERY_S},
        },
        "make interim invoices": {
            "task": "invoicing.make_interims",
            "schedule": MAKE_INTERIMS_EVERY_S,
            "options": {"expires": MAKE_INTERIMS_EVERY_S},
        },
        "audit the ledger": {
            "task": "ledger.audit_nightly",
            "schedule": AUDIT_LEDGER_EVERY_S,
            "options": {"expires": AUDIT_LEDGER_EVERY_S},
        },
        "expire credit": {
            "task": "invoicing.expire_credit",
            "schedule": EXPIRE_CREDIT_EVERY_S,
            "options": {"expires": EXPIRE_CREDIT_EVERY_S},
        },
    },
)
if settings.CANARY_EVERY_S:
    app.conf.beat_schedule["canary"] = {
        "task": "metering.canary",
        "schedule": settings.CANARY_EVERY_S,
        "options": {"expires": settings.CANARY_EVERY_S},
    }
app.set_default()


def _installed() -> list[str]:
    """Every installed app may have a `tasks` module."""
    if not apps.ready:
        django.setup()
    return [config.name for config in apps.get_app_configs()]


app.autodiscover_tasks(_installed)


@worker_process_init.connect
def keep_what_was_loaded(**_told: object) -> None:
    """A collection need not walk it between the steps of a task."""
    gc.collect()
    gc.freeze()
