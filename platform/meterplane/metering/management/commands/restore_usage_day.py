"""`manage.py restore_usage_day DAY`: a day's events are in PostgreSQL again, and counted once."""

from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from meterplane.kernel.errors import CallerError
from meterplane.metering.archive import RESTORED_DAYS, restore_day


class Command(BaseCommand):
    help = "Brings the events of an archived day back from its file, without counting them again."

    def add_arguments(self, parser: CommandParser) -> None:
        """The day, as 2025-01-31."""
        parser.add_argument("day", type=date.fromisoformat)

    def handle(self, *args: Any, **options: Any) -> None:
        """They go again by themselves after some days."""
        try:
            events = restore_day(options["day"])
        except CallerError as refused:
            raise CommandError(refused.message) from refused
        self.stdout.write(f"{events} events are back, for {RESTORED_DAYS} days")
