"""Celery: `celery -A meterplane.worker`. An installed app: every Django process can send."""

from meterplane.worker.app import app

__all__ = ["app"]
