"""`manage.py canary`: known requests, from the door to the roll-ups, now."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from meterplane.metering.canary.run import run_canary


class Command(BaseCommand):
    help = "Sends the canary's requests once and prints what became of them. Exits 1 on failure."

    def handle(self, *args: Any, **options: Any) -> None:
        """Takes some seconds: as long as usage takes to be seen."""
        run = run_canary()
        if run is None:
            raise CommandError("Another run is under way; try again in a minute.")
        for step in run.steps:
            mark = "ok    " if step["passed"] else "FAILED"
            self.stdout.write(f"{mark}  {step['name']:<10} {step['said']}")
        if not run.passed:
            raise CommandError("The chain is broken; what failed is above.")
        self.stdout.write(f"Usage was visible {run.visible_after_ms} ms after the answer.")
