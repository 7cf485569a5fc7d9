"""`manage.py seed_demo_history`: weeks of usage and a paid invoice. Needs shipper and worker."""

from django.core.management.base import BaseCommand

from meterplane.stack import layout
from meterplane.stack.demo_history import load_history


class Command(BaseCommand):
    """Load the demo's past through the real pipeline."""

    requires_system_checks = ()  # they import every view; tests run them
    help = "Load weeks of demo usage through journal, shipper and worker, and invoice last month."

    def handle(self, *args: object, **options: object) -> None:
        """Run it."""
        written = load_history(layout.current())
        self.stdout.write(f"{written} requests of history written, taken in and invoiced")
