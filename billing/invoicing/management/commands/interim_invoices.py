"""`manage.py interim_invoices`: invoice now whoever has used enough of a month that is not over.

Workers do the same every few minutes: this is for who does not want to wait, and it is safe beside
them.
"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.invoicing.due import SHARDS
from billing.invoicing.interim import interim_shard
from meterplane.kernel.money import minor_to_text


class Command(BaseCommand):
    help = "Make the interim invoices that are due; none twice."

    def handle(self, *args: Any, **options: Any) -> None:
        """Exits non-zero when some organisation could not be looked at, and names it."""
        made = 0
        problems = []
        for shard in range(SHARDS):
            for looked in interim_shard(shard):
                if looked.problem:
                    problems.append(f"{looked.tenant_id}: {looked.problem}")
                if looked.invoice is not None:
                    made += 1
                    total = minor_to_text(looked.invoice.total_minor, looked.invoice.currency)
                    what = f"{looked.invoice.id} of {total} {looked.invoice.currency}"
                    self.stdout.write(f"{looked.tenant_id}: interim invoice {what}")
        self.stdout.write(f"{made} interim invoices were made.")
        if problems:
            raise CommandError("\n".join(problems))
