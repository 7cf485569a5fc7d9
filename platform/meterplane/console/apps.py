"""The operator's console."""

from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    """Registers every page with the console's own site; Django's default admin site is not used."""

    name = "meterplane.console"
    label = "console"

    def ready(self) -> None:
        """Registering needs the models, so it waits for the app registry."""
        from meterplane.console import register

        register.everything()
