"""`manage.py collect_assets`: the portal's files, named by content, without compressing them.

A production image compresses them once, at build time (`collectstatic`, half a minute of two
cores). A stack on one's own machine reads the same manifest and is served over loopback, where
compression buys nothing. Skipped when the packages and our own files are those of last time.
"""

import hashlib
import os
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from django.core.management.base import BaseCommand

PLAIN = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
STAMP = ".collected"


class Command(BaseCommand):
    """Collect static files if they changed."""

    requires_system_checks = ()  # they import every view; tests run them
    help = "Collect the portal's static files, uncompressed, if they changed since last time."

    def handle(self, *args: object, **options: object) -> None:
        """Run it."""
        stamp = Path(settings.STATIC_ROOT) / STAMP
        state = _fingerprint()
        if stamp.exists() and stamp.read_text() == state:
            self.stdout.write("static files are as they were")
            return
        settings.STORAGES["staticfiles"] = {"BACKEND": PLAIN}
        call_command("collectstatic", interactive=False, clear=True, verbosity=0)
        stamp.write_text(state)
        self.stdout.write("static files collected")


def _fingerprint() -> str:
    """Of every source file: its path, size and time of change."""
    digest = hashlib.sha256()
    for finder in get_finders():
        for path, storage in finder.list([]):
            found = os.stat(storage.path(path))
            digest.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()
