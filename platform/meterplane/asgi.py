"""The control plane's ASGI entry: portal, control API, console, webhooks."""

import gc
import os
from importlib import import_module

from django.conf import settings
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "meterplane.settings")
django_application = get_asgi_application()
import_module(settings.ROOT_URLCONF)  # what cannot work fails here, and not at a first request

from meterplane.batches.bounded_body import bounded  # noqa: E402  its imports need Django set up

application = bounded(django_application)
# What was loaded stays: a collection need not walk it while somebody waits for a page.
gc.collect()
gc.freeze()
