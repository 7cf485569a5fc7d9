"""`manage.py seed_demo`: catalog, prices, the operator and the demo organisation. Idempotent."""

from django.core.management.base import BaseCommand

from meterplane.stack import layout
from meterplane.stack.demo import provide_demo


class Command(BaseCommand):
    """Make the demo organisation, or leave it as it is."""

    requires_system_checks = ()  # they import every view; tests run them
    help = "Make the demo organisation with its keys and logins; what is there stays."

    def handle(self, *args: object, **options: object) -> None:
        """Run it."""
        provide_demo(layout.current())
        self.stdout.write("the demo organisation is there")
