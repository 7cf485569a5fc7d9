"""`manage.py reconcile-payments`: hold our invoices and payments to the provider's, and say so."""

from argparse import ArgumentParser
from datetime import date, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.payments.models import PaymentFinding
from billing.payments.reconcile.days import reconcile_day
from billing.payments.stripe import provider
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError
from tenants.scoping import system_scope

DAY = timedelta(days=1)
DAYS_MAX = 400


class Command(BaseCommand):
    help = "Compares days with the provider now and prints what differs. Exits 1 if anything does."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """From which day on."""
        parser.add_argument(
            "--since", help="the first UTC day, e.g. 2026-11-01; yesterday where none is named"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Day by day until today; then everything that is open, of whatever day."""
        today = clock.now().date()
        day = self._day(options["since"], today)
        self.stdout.write(f"{'day (UTC)':<12} {'compared':>10} {'findings':>10}")
        while day <= today:
            try:
                done = reconcile_day(provider(), day)
            except WorldError as away:
                raise CommandError(f"{day} could not be compared: {away.message}") from None
            self.stdout.write(f"{day!s:<12} {done.compared:>10,} {done.open_findings:>10,}")
            day += DAY
        with system_scope("an operator reads findings"):
            found = list(PaymentFinding.objects.filter(closed_at=None).order_by("day", "id"))
        for each in found:
            self.stdout.write(f"{each.day}  {each.kind}, {each.get_problem_display()}: {each.said}")
        if found:
            raise CommandError(f"{len(found)} findings are open.")
        self.stdout.write("Ours and theirs agree.")

    def _day(self, text: str | None, today: date) -> date:
        if text is None:
            return today - DAY
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise CommandError(f"{text!r} is not a day like 2026-11-01.") from None
        if not today - DAYS_MAX * DAY <= day <= today:
            raise CommandError(f"{text} is not within the last {DAYS_MAX} days.")
        return day
