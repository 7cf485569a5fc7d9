"""`manage.py ship_journal`: the shipper of this host, until SIGTERM."""

import logging
import signal
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from meterplane.metering.ship import Shipper


class Command(BaseCommand):
    help = "Ships sealed journal segments to the workers until it is told to stop."

    def handle(self, *args: Any, **options: Any) -> None:
        """Runs in the foreground; a second of work is finished at SIGTERM."""
        stopping = False

        def stop(_signal: int, _frame: FrameType | None) -> None:
            nonlocal stopping
            stopping = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        logging.getLogger(__name__).info("shipping %s", settings.JOURNAL_DIR)
        Shipper(settings.JOURNAL_DIR).run(lambda: stopping)
