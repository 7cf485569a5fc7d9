"""Django app `worker`: importing its package configures Celery for every Django process."""

from django.apps import AppConfig


class WorkerConfig(AppConfig):
    name = "meterplane.worker"
    label = "worker"
    verbose_name = "Worker"
