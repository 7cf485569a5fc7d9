"""`manage.py forget_journal_root ROOT`: what was on a disk that is gone is waited for no longer."""

from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from meterplane.metering.watermark import forget


class Command(BaseCommand):
    help = "Waits no longer for the journals of a root whose disk is gone for good."

    def add_arguments(self, parser: CommandParser) -> None:
        """The root, as the shipper's log and `journal_watermark` name it."""
        parser.add_argument("root", type=UUID)

    def handle(self, *args: Any, **options: Any) -> None:
        """What was admitted there and never taken in counts as never spent from now on."""
        if not forget(options["root"]):
            raise CommandError(
                f"no journal root is called {options['root']}; see the table journal_watermark"
            )
