"""The control plane's ASGI entry: portal, control API, console, webhooks."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "meterplane.settings")
application = get_asgi_application()
