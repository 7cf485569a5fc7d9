"""`manage.py reconcile`: hold journal, events, roll-ups and Triton to each other, and say so."""

from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from meterplane.kernel import clock
from meterplane.metering.models import Reconciliation
from meterplane.metering.reconcile.hours import oldest_hour, reconcile, reconcile_hour
from meterplane.metering.reconcile.queries import verdicts_between
from meterplane.metering.reconcile.spread import HOUR, SEGMENTS_MAX, hour_of, spread
from meterplane.metering.reconcile.sums import compare_sums
from tenants.queries import organisation_by_slug
from tenants.scoping import system_scope, tenant_scope

SHOWN = timedelta(days=1)


class Command(BaseCommand):
    help = "Reconciles what is due, or one hour, and prints the verdicts. Exits 1 if one failed."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which hour, and whose roll-ups."""
        parser.add_argument("--hour", help="this UTC hour alone, e.g. 2026-11-29T14")
        parser.add_argument(
            "--organisation", help="slug: only hold this one's events to its roll-ups"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """The last day's hours unless told otherwise."""
        hour = self._hour(options["hour"])
        if options["organisation"]:
            self._of_organisation(options["organisation"], hour)
            return
        while spread() == SEGMENTS_MAX:
            pass
        if hour is not None:
            reconcile_hour(hour)
        else:
            while reconcile():
                pass
        start = clock.now() - SHOWN if hour is None else hour
        end = clock.now() if hour is None else hour + HOUR
        with system_scope("an operator reads verdicts"):
            rows = verdicts_between(start, end)
        self._table(rows)
        failed = sum(row.verdict == "fail" for row in rows)
        if failed:
            raise CommandError(f"{failed} of {len(rows)} do not add up.")
        undecided = sum(row.verdict == "open" for row in rows)
        self.stdout.write(f"{len(rows) - undecided} add up, {undecided} are open.")

    def _hour(self, text: str | None) -> datetime | None:
        if text is None:
            return None
        try:
            at = datetime.fromisoformat(text if ":" in text else f"{text}:00")
        except ValueError:
            raise CommandError(f"{text!r} is not an hour like 2026-11-29T14.") from None
        hour = hour_of(at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC))
        if not oldest_hour() <= hour <= clock.now():
            raise CommandError(
                f"{text} is not an hour that can be looked at: manifests are kept from"
                f" {oldest_hour():%Y-%m-%dT%H} on."
            )
        return hour

    def _of_organisation(self, slug: str, hour: datetime | None) -> None:
        with system_scope("an operator names an organisation"):
            organisation = organisation_by_slug(slug)
        if organisation is None:
            raise CommandError(f"There is no organisation {slug!r}.")
        last = hour_of(clock.now()) - HOUR
        hours = [hour] if hour else [last - n * HOUR for n in range(SHOWN // HOUR)]
        failed = 0
        for each in hours:
            with tenant_scope(organisation.id):
                sums = compare_sums(each)
            for model in sorted({*sums.events, *sums.differences}):
                told = sums.differences.get(model, [])
                failed += bool(told)
                self.stdout.write(
                    f"{each:%Y-%m-%d %H:00}  {model:<24} {sums.events.get(model, 0):>10,}"
                    f"  {'fail' if told else 'pass'}  {'; '.join(told)}".rstrip()
                )
        if failed:
            raise CommandError(f"{failed} of its sums do not add up.")
        self.stdout.write(f"What {slug} used and what was summed up of it agree.")

    def _table(self, rows: list[Reconciliation]) -> None:
        self.stdout.write(
            f"{'hour (UTC)':<17} {'model':<22} {'server':<26} {'journal':>9} {'events':>9}"
            f" {'rolled up':>9} {'Triton':>9} {'accounted for':>15}  verdict"
        )
        for row in rows:
            bounds = "" if row.triton is None else f"{row.triton_low:,} to {row.triton_high:,}"
            self.stdout.write(
                f"{row.hour:%Y-%m-%d %H:%M}  {row.model:<22.22} {row.server or '(none)':<26.26}"
                f" {row.journal:>9,} {row.events:>9,} {_shown(row.rolled_up):>9}"
                f" {_shown(row.triton):>9} {bounds:>15}  {row.verdict}"
            )
            if row.reason:
                self.stdout.write(f"    {row.reason}")


def _shown(count: int | None) -> str:
    return "" if count is None else f"{count:,}"
