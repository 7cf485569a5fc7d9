"""`manage.py close-period`: close, rate, invoice and, with --now, collect; told as it goes."""

import time
from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.invoicing.close import close_period
from billing.invoicing.models import Invoice
from billing.invoicing.queries import invoice_with_lines
from billing.payments.collect import collect
from billing.payments.owed import to_pay
from billing.payments.stripe import provider
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.money import minor_to_text, pico_to_text
from tenants.models import Organisation
from tenants.queries import organisation_by_slug
from tenants.scoping import system_scope, tenant_scope

COLLECTED_WITHIN_S = 60
POLL_S = 0.5


class Command(BaseCommand):
    help = "Close the billing period of an organisation and make its invoice."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Who, and up to when."""
        who = parser.add_mutually_exclusive_group(required=True)
        who.add_argument("--org", help="slug of the organisation")
        who.add_argument("--all", action="store_true", help="every organisation")
        when = parser.add_mutually_exclusive_group(required=True)
        when.add_argument("--now", action="store_true", help="up to now, and collect at once")
        when.add_argument("--until", help="up to this UTC day, e.g. 2026-11-01")

    def handle(self, *args: Any, **options: Any) -> None:
        """Exits non-zero with a sentence when something could not be done."""
        until = clock.now() if options["now"] else self._day(options["until"])
        for organisation in self._organisations(options["org"]):
            try:
                self._close(organisation, until, options["now"])
            except (CallerError, WorldError) as failure:
                raise CommandError(f"{organisation.slug}: {failure.message}") from None

    def _organisations(self, slug: str | None) -> list[Organisation]:
        with system_scope("an operator closes periods"):
            if slug is None:
                return list(Organisation.objects.order_by("slug"))
            found = organisation_by_slug(slug)
        if found is None:
            raise CommandError(f"There is no organisation {slug!r}.")
        return [found]

    def _day(self, text: str) -> datetime:
        try:
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        except ValueError:
            raise CommandError(f"{text!r} is not a day like 2026-11-01.") from None

    def _close(self, organisation: Organisation, until: datetime, now: bool) -> None:
        """Months that ended earlier get invoices of their own; each is shown and collected."""
        invoice = close_period(organisation.id, until)
        pending = self._pending(organisation)
        if invoice is None:
            self.stdout.write(f"{organisation.slug}: nothing used since the last invoice.")
        elif invoice.id not in [each.id for each in pending]:
            self._table(organisation, invoice)
            self._result(organisation, invoice)
        for each in pending:
            self._table(organisation, each)
            if now:
                self._collect(organisation, each)

    def _pending(self, organisation: Organisation) -> list[Invoice]:
        with tenant_scope(organisation.id):
            return list(
                Invoice.objects.filter(collection_state=Invoice.Collection.PENDING).order_by(
                    "period_end"
                )
            )

    def _collect(self, organisation: Organisation, invoice: Invoice) -> None:
        """To the end. A worker's sweep may hold the run already: then we wait for what it does."""
        self.stdout.write("collecting ...")
        deadline = time.monotonic() + COLLECTED_WITHIN_S
        outcome = collect(organisation.id, invoice.id, provider)
        while outcome.collection_state == Invoice.Collection.PENDING:
            if time.monotonic() > deadline:
                raise CommandError("another worker holds this invoice and does not finish.")
            time.sleep(POLL_S)
            outcome = collect(organisation.id, invoice.id, provider)
        self._result(organisation, invoice)
        if outcome.collection_state == Invoice.Collection.PARKED:
            raise CommandError(f"the invoice is parked for a person to look at:\n{outcome.note}")
        if outcome.collection_state == Invoice.Collection.AWAITING_PAYMENT:
            with tenant_scope(organisation.id):
                lines = to_pay(invoice.id)
            if lines:  # that it waits is how it is paid
                self.stdout.write("\n".join(lines))
                return
            raise CommandError(outcome.note or "the customer has not paid yet.")

    def _result(self, organisation: Organisation, invoice: Invoice) -> None:
        with tenant_scope(organisation.id):
            done = Invoice.objects.get(id=invoice.id)
        self.stdout.write(f"invoice {done.number or '(draft)'} is {done.status}")
        if done.hosted_url:
            self.stdout.write(done.hosted_url)

    def _table(self, organisation: Organisation, invoice: Invoice) -> None:
        with tenant_scope(organisation.id):
            view = invoice_with_lines(invoice.id)
        if view is None:
            return
        self.stdout.write(
            f"{organisation.name}: {view.period_start:%Y-%m-%d %H:%M} to "
            f"{view.period_end:%Y-%m-%d %H:%M} UTC"
        )
        for line in view.lines:
            amount = minor_to_text(line.amount_minor, view.currency)
            if line.unit_price_pico is None:
                self.stdout.write(f"  {line.description[:64]:<64} {amount:>12}")
                continue
            unit = pico_to_text(line.unit_price_pico)
            served = "" if line.service_tier == "standard" else f" ({line.service_tier})"
            use = f"{line.model + served:<20} {line.meter:<14} {line.quantity:>14,} x {unit:<12}"
            self.stdout.write(f"  {use} {amount:>12}")
        total = minor_to_text(view.total_minor, view.currency)
        self.stdout.write(f"  {'total':<64} {total:>12} {view.currency}")
