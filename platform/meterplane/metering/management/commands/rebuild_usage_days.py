"""`manage.py rebuild_usage_days FIRST LAST`: sums by day are made anew from the sums by hour, and
those of the months they are in from all days of these.

Refused while hours and events of the range differ: days made from such hours would agree with them
and hide it.
"""

from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DataError, connection

from tenants.scoping import system_scope


class Command(BaseCommand):
    help = "Makes the sums by day of a range of days anew, from the sums by hour; then by month."

    def add_arguments(self, parser: CommandParser) -> None:
        """Both days belong to the range."""
        parser.add_argument("first", type=date.fromisoformat)
        parser.add_argument("last", type=date.fromisoformat)

    def handle(self, *args: Any, **options: Any) -> None:
        """Ingest waits meanwhile."""
        with system_scope("an operator rebuilds sums"), connection.cursor() as db:
            try:
                db.execute("SELECT rebuild_usage_days(%(first)s, %(last)s)", options)
            except DataError as differ:
                raise CommandError(str(differ).splitlines()[0]) from differ
            self.stdout.write(f"{db.fetchone()[0]} sums by day")
            db.execute("SELECT rebuild_usage_months(%(first)s, %(last)s)", options)
            self.stdout.write(f"{db.fetchone()[0]} sums by month")
            # What was billed by the sums there were is to be looked at again.
            db.execute("UPDATE usage_revision SET revision = revision + 1")
