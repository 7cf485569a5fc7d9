"""`manage.py rerate --dry-run`: closed periods at what is known today, beside their invoices."""

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.invoicing.rerate import Rerated, rerate
from billing.rating.values import UsageCannotBeRated, month_after, month_of
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_to_text
from tenants.models import Organisation
from tenants.queries import organisation_by_slug
from tenants.scoping import system_scope, tenant_scope


class Command(BaseCommand):
    help = "Rate closed periods again and show each difference to what was invoiced."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Whom, and which month."""
        parser.add_argument(
            "--dry-run", action="store_true", help="required: nothing is ever written"
        )
        parser.add_argument("--organisation", "--org", help="slug; all of them without it")
        parser.add_argument("--period", help="a month in UTC, e.g. 2026-10; all without it")

    def handle(self, *args: Any, **options: Any) -> None:
        """Exits non-zero where a period cannot be rated at all."""
        if not options["dry_run"]:
            raise CommandError(
                "Say --dry-run. Differences reach the next invoice by themselves; invoices that"
                " were made never change."
            )
        since, until = self._month(options["period"])
        failed = []
        for organisation in self._organisations(options["organisation"]):
            try:
                with tenant_scope(organisation.id):
                    periods = rerate(since, until)
            except (UsageCannotBeRated, CallerError) as refused:
                failed.append(organisation.slug)
                self.stdout.write(f"{organisation.slug}: {refused}")
                continue
            for period in periods:
                self._tell(organisation.slug, period)
            if not periods:
                self.stdout.write(f"{organisation.slug}: no closed period")
        if failed:
            raise CommandError(f"{', '.join(failed)} could not be rated")

    def _tell(self, slug: str, it: Rerated) -> None:
        def money(amount_minor: int) -> str:
            return minor_to_text(amount_minor, it.currency)

        invoice = it.invoice_number or "no invoice"
        same = "same hash" if it.hash_equal else "another hash"
        self.stdout.write(
            f"{slug} {it.starts_at:%Y-%m-%d} to {it.ends_at:%Y-%m-%d}: {invoice}"
            f" {money(it.invoiced_minor)} {it.currency}, replayed {money(it.replayed_minor)}"
            f" ({same}); owed and not billed {money(it.difference_minor)}"
        )
        for line in it.differences:
            self.stdout.write(f"  {money(line.amount_minor):>12}  {line.description}")

    def _organisations(self, slug: str | None) -> list[Organisation]:
        with system_scope("an operator rates periods again"):
            if slug is None:
                return list(Organisation.objects.order_by("slug"))
            found = organisation_by_slug(slug)
        if found is None:
            raise CommandError(f"There is no organisation {slug!r}.")
        return [found]

    def _month(self, text: str | None) -> tuple[datetime | None, datetime | None]:
        if text is None:
            return None, None
        try:
            month = month_of(datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC))
        except ValueError:
            raise CommandError(f"{text!r} is not a month like 2026-10.") from None
        return month, month_after(month)
