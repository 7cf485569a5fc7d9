"""`manage.py reconcile-payments`: hold our books to the provider's, and say so."""

import json
from argparse import ArgumentParser
from datetime import date, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.payments.models import PaymentFinding, ReconciledDay
from billing.payments.reconcile.clearing import Holding, holdings
from billing.payments.reconcile.days import Compared, reconcile_clearing, reconcile_day
from billing.payments.reconcile.report import (
    OfKind,
    finding_told,
    holding_told,
    open_findings,
    summed,
)
from billing.payments.stripe import provider
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError
from meterplane.kernel.money import minor_to_text
from tenants.scoping import system_scope

DAY = timedelta(days=1)
DAYS_MAX = 400
ACCOUNTS_SHOWN_MAX = 20  # of those that hold something; --json tells all


class Command(BaseCommand):
    help = "Compares days with the provider now and prints what differs. Exits 1 if anything does."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """From which day on, and how it is told."""
        parser.add_argument(
            "--since", help="the first UTC day, e.g. 2026-11-01; yesterday where none is named"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object, all it has")

    def handle(self, *args: Any, **options: Any) -> None:
        """Day by day until today, then the clearing accounts; and everything that is open, of
        whatever day."""
        today = clock.now().date()
        day = first = self._day(options["since"], today)
        days = list[Compared]()
        if not options["json"]:
            self.stdout.write(f"{'day (UTC)':<12} {'compared':>10} {'findings':>10}")
        while day <= today:
            try:
                done = reconcile_day(provider(), day)
            except WorldError as away:
                raise CommandError(f"{day} could not be compared: {away.message}") from None
            days.append(done)
            if not options["json"]:
                self.stdout.write(f"{day!s:<12} {done.compared:>10,} {done.open_findings:>10,}")
            day += DAY
        reconcile_clearing(provider())
        held = holdings()
        with system_scope("an operator reads what was compared"):
            kinds = summed(
                ReconciledDay.objects.filter(
                    provider=provider().name, day__gte=first, day__lte=today
                ).values_list("counts", flat=True)
            )
            found = open_findings()
        if options["json"]:
            self.stdout.write(json.dumps(_object(days, kinds, held, found), indent=2))
        else:
            self._tables(kinds, held, found)
        if found:
            raise CommandError(f"{len(found)} findings are open.")

    def _tables(
        self, kinds: tuple[OfKind, ...], held: list[Holding], found: list[PaymentFinding]
    ) -> None:
        self.stdout.write(f"\n{'kind':<14} {'compared':>10} {'agree':>10}")
        for each in kinds:
            self.stdout.write(f"{each.label:<14} {each.compared:>10,} {each.agreed:>10,}")
        shown = [each for each in held if each.balance_minor or each.rest_minor]
        if shown:
            self.stdout.write(
                f"\n{'clearing account':<18} {'organisation':<20} {'holds':>16} {'unexplained':>16}"
                f"  open items"
            )
        for account in shown[:ACCOUNTS_SHOWN_MAX]:
            self.stdout.write(
                f"{account.account:<18} {account.slug:<20} {_money(account.balance_minor, account)}"
                f" {_money(account.rest_minor, account)}  {len(account.items):,}"
            )
        if len(shown) > ACCOUNTS_SHOWN_MAX:
            self.stdout.write(f"... and {len(shown) - ACCOUNTS_SHOWN_MAX:,} more; --json tells all")
        self.stdout.write("")
        for row in found:
            known = f" (acknowledged by {row.acknowledged_by})" if row.acknowledged_at else ""
            self.stdout.write(
                f"{row.day}  {row.get_kind_display()}, {row.get_problem_display()}: {row.said}"
                f"{known}"
            )
        if not found:
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


def _money(amount_minor: int, of: Holding) -> str:
    return f"{f'{minor_to_text(amount_minor, of.currency)} {of.currency}':>16}"


def _object(
    days: list[Compared],
    kinds: tuple[OfKind, ...],
    held: list[Holding],
    found: list[PaymentFinding],
) -> dict[str, Any]:
    return {
        "verdict": "fail" if found else "pass",
        "days": [{"day": str(each.day), "compared": each.compared} for each in days],
        "kinds": {each.kind: {"compared": each.compared, "agreed": each.agreed} for each in kinds},
        "clearing": [holding_told(each) for each in held],
        "findings": [finding_told(each) for each in found],
    }
