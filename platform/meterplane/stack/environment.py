"""Which environment each process gets: what it needs, and no credential beyond that.

Needs neither Django nor a running server, so `manage.py` can read it before anything else.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from meterplane.stack import processes
from meterplane.stack.installation import Secrets
from meterplane.stack.layout import Layout, current, write_private

if TYPE_CHECKING:  # every management command comes through here; servers imports their clients
    from meterplane.stack.servers import Servers

# Ours to set: what the user's shell says about them is read by `servers.locate`, not passed on.
OURS = (
    "DATABASE_URL",
    "MIGRATION_DATABASE_URL",
    "GATEWAY_DATABASE_URL",
    "REDIS_URL",
    "CELERY_BROKER_URL",
    "ADMISSION_REDIS_URL",
    "TRITON_URLS",
    "TRITON_GRPC_URLS",
    "TRITON_METRICS_URLS",
    "STRIPE_API_BASE",
    "STRIPE_API_KEY",
    "STRIPE_WEBHOOK_SECRET",
    "SMTP_URL",
    "API_KEY_PEPPER",
    "RECEIPT_SIGNING_KEYS",
    "DJANGO_SECRET_KEY",
    "JOURNAL_DIR",
    "FILES_DIR",
    "GATEWAY_INTERNAL_URL",
    "CONTROL_URL",
    "PUBLIC_WEB_URL",
    "PUBLIC_GATEWAY_URL",
    "PUBLIC_GRPC_ADDRESS",
    "GATEWAY_HOST",
    "GATEWAY_PORT",
    "GATEWAY_GRPC_PORT",
    "GATEWAY_WORKER",
)
CANARY_EVERY_S = "300"
LOOPBACK_NAMES = "127.0.0.1,localhost,::1"


def inherited() -> dict[str, str]:
    """The user's environment without our variables, and no proxy for loopback addresses."""
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    for name in ("NO_PROXY", "no_proxy"):
        kept[name] = ",".join(filter(None, [kept.get(name, ""), LOOPBACK_NAMES]))
    return kept | {"PYTHONUNBUFFERED": "1"}


def bare() -> dict[str, str]:
    """What a server that is not Python of ours needs from this machine."""
    return {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ
    }


def control_plane(layout: Layout, servers: "Servers", secrets: Secrets) -> dict[str, str]:
    """Web, workers and management commands. The database role is the application's."""
    return {
        "DJANGO_SETTINGS_MODULE": "meterplane.settings",
        "METERPLANE_ENV": os.environ.get("METERPLANE_ENV", "development"),
        "METERPLANE_VAR": str(layout.var),
        "DATABASE_URL": servers.app_database_url,
        "REDIS_URL": servers.redis_url,
        "CELERY_BROKER_URL": servers.celery_broker_url,
        "ADMISSION_REDIS_URL": servers.admission_redis_url,
        "TRITON_URLS": servers.triton_urls,
        "TRITON_METRICS_URLS": servers.triton_metrics_urls,
        "STRIPE_API_BASE": servers.stripe_api_base,
        "STRIPE_API_KEY": servers.stripe_api_key,
        "STRIPE_WEBHOOK_SECRET": servers.stripe_webhook_secret or secrets.stripe_webhook_secret,
        "STRIPE_ACCOUNT_ID": os.environ.get("STRIPE_ACCOUNT_ID", ""),
        "PAYMENT_PROVIDER": os.environ.get("PAYMENT_PROVIDER", "stripe"),
        **({} if has_provider() else without_payments()),
        "SMTP_URL": os.environ.get("SMTP_URL", ""),
        "API_KEY_PEPPER": secrets.api_key_pepper,
        "RECEIPT_SIGNING_KEYS": secrets.receipt_signing_keys,
        "DJANGO_SECRET_KEY": secrets.django_secret_key,
        "JOURNAL_DIR": str(layout.journal),
        "FILES_DIR": str(layout.files),
        "GATEWAY_INTERNAL_URL": servers.gateway_internal_url,
        "PUBLIC_WEB_URL": servers.web_url,
        "PUBLIC_GATEWAY_URL": servers.gateway_url,
        "CANARY_EVERY_S": os.environ.get("CANARY_EVERY_S", CANARY_EVERY_S),
    }


def migration(servers: "Servers") -> dict[str, str]:
    """On top of the control plane's: the role that owns the tables."""
    return {
        "DATABASE_URL": servers.owner_database_url,
        "MIGRATION_DATABASE_URL": servers.owner_database_url,
    }


def has_provider() -> bool:
    """Whether invoices are collected through one; PAYMENT_PROVIDER=none says that they are not."""
    return os.environ.get("PAYMENT_PROVIDER", "") != "none"


def without_payments() -> dict[str, str]:
    """On top of the control plane's, for what speaks to no provider: it gets no key, and may run
    before there is a webhook endpoint whose secret it would want."""
    return {
        "PAYMENT_PROVIDER": "none",
        "STRIPE_API_KEY": "",
        "STRIPE_WEBHOOK_SECRET": "",
    }


def data_plane(
    layout: Layout, servers: "Servers", secrets: Secrets, *, port: int, worker: str
) -> dict[str, str]:
    """The gateway: no Stripe, no broker, no application role."""
    return {
        "METERPLANE_ENV": os.environ.get("METERPLANE_ENV", "development"),
        "GATEWAY_DATABASE_URL": servers.gateway_database_url,
        "ADMISSION_REDIS_URL": servers.admission_redis_url,
        "TRITON_URLS": servers.triton_urls,
        "API_KEY_PEPPER": secrets.api_key_pepper,
        "JOURNAL_DIR": str(layout.journal),
        "PUBLIC_GATEWAY_URL": servers.gateway_url,
        "CONTROL_URL": servers.control_url,
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_WORKER": worker,
    }


def grpc_plane(
    layout: Layout, servers: "Servers", secrets: Secrets, *, port: int, worker: str
) -> dict[str, str]:
    """The gRPC gateway: the gateway's, with a port and a journal of its own."""
    return data_plane(layout, servers, secrets, port=port, worker=worker) | {
        "GATEWAY_GRPC_PORT": str(port),
        "TRITON_GRPC_URLS": servers.triton_grpc_urls,
    }


def keep(layout: Layout, values: Mapping[str, str]) -> None:
    """Let management commands from other shells find the running stack."""
    write_private(layout.environment, msgspec.json.encode(dict(values)))


def forget(layout: Layout) -> None:
    """The stack is gone."""
    layout.environment.unlink(missing_ok=True)


def kept(layout: Layout) -> dict[str, str]:
    """The running stack's environment; empty when none runs."""
    try:
        return msgspec.json.decode(layout.environment.read_bytes(), type=dict[str, str])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def adopt_running_stack() -> None:
    """Make this a process of the running stack, if there is one.

    The stack's values win: a shell's own DATABASE_URL is an administrator's, and row-level security
    would not bind it. What the supervisor starts was told everything and adopts nothing.
    """
    if processes.MARKER not in os.environ:
        os.environ.update(kept(current()))
