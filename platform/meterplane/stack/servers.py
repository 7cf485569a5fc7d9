"""Where every server of this stack is: started here from a wheel, or given by the environment.

A server is external exactly when its variable is set; then it is neither started nor stopped here.
`DATABASE_URL` given from outside is an *administrative* URL: with it the roles are made and their
own URLs derived, so the application never runs with its rights.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

from billing.payments import stripe_settings
from meterplane.stack.embedded import postgres, redis
from meterplane.stack.installation import Secrets
from meterplane.stack.layout import Layout
from meterplane.stack.ports import Ports

GIVEN_BY = {
    "postgres": "DATABASE_URL",
    "broker": "REDIS_URL",
    "admission": "ADMISSION_REDIS_URL",
    "triton": "TRITON_URLS",
    "stripe": "STRIPE_API_BASE",
}


class ConfigurationError(Exception):
    """The environment asks for something that cannot be; says what to change."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Addresses and credentials. `external` holds the names of the servers that are not ours."""

    external: frozenset[str]
    admin_database_url: str
    owner_database_url: str
    app_database_url: str
    gateway_database_url: str
    redis_url: str
    celery_broker_url: str
    admission_redis_url: str
    triton_urls: str
    stripe_api_base: str
    stripe_api_key: str
    stripe_webhook_secret: str
    web_url: str
    gateway_url: str
    # Where our own processes find each other, whatever the public addresses are.
    gateway_internal_url: str
    control_url: str
    # `host:port`; empty where an external Triton's gRPC was not given: then we speak none.
    triton_grpc_urls: str
    grpc_address: str
    metrics_url: str
    # As `TRITON_METRICS_URLS` has it; empty where an external Triton's was not given.
    triton_metrics_urls: str

    def is_ours(self, name: str) -> bool:
        """True if this stack starts and stops that server."""
        return name not in self.external

    @property
    def triton_url(self) -> str:
        """The first inference server."""
        return self.triton_urls.split(",")[0].strip().rstrip("/")


def locate(
    layout: Layout, ports: Ports, secrets: Secrets, given: Mapping[str, str] = os.environ
) -> Servers:
    """Where everything is. Raises `ConfigurationError`."""
    external = frozenset(name for name, variable in GIVEN_BY.items() if given.get(variable))
    own_grpc = "" if "triton" in external else ports.address("triton-grpc")
    own_metrics = ""
    if "triton" not in external:
        own_metrics = f"{ports.url('triton')}|{own_grpc}={ports.url('triton-metrics')}/metrics"
    triton_grpc_urls = given.get("TRITON_GRPC_URLS") or own_grpc
    if "stripe" in external and not given.get("STRIPE_API_KEY"):
        raise ConfigurationError("STRIPE_API_BASE is set; set STRIPE_API_KEY to its key too.")
    admin = given.get("DATABASE_URL") or postgres.url(
        layout.postgres, user=postgres.SUPERUSER, password=secrets.postgres_password
    )
    if "postgres" in external and not urlsplit(admin).path.strip("/"):
        raise ConfigurationError("DATABASE_URL names no database; end it with /meterplane.")
    app, gateway, owner = (
        as_role(admin, role, secrets.database_passwords[role])
        for role in ("meterplane_app", "meterplane_gateway", "meterplane_owner")
    )
    return Servers(
        external=external,
        admin_database_url=admin,
        owner_database_url=owner,
        app_database_url=app,
        gateway_database_url=gateway,
        redis_url=given.get("REDIS_URL") or redis.url(layout.broker, secrets.broker_password),
        celery_broker_url=given.get("CELERY_BROKER_URL", ""),
        admission_redis_url=given.get("ADMISSION_REDIS_URL")
        or redis.url(layout.admission, secrets.admission_password),
        triton_urls=given.get("TRITON_URLS") or ports.url("triton"),
        stripe_api_base=given.get("STRIPE_API_BASE") or ports.url("stripe"),
        stripe_api_key=given.get("STRIPE_API_KEY", "")
        if "stripe" in external
        else secrets.stripe_api_key,
        stripe_webhook_secret=given.get("STRIPE_WEBHOOK_SECRET", ""),
        web_url=given.get("PUBLIC_WEB_URL") or ports.url("web"),
        gateway_url=given.get("PUBLIC_GATEWAY_URL") or ports.url("gateway"),
        gateway_internal_url=ports.url("gateway"),
        control_url=ports.url("web"),
        triton_grpc_urls=triton_grpc_urls,
        metrics_url=ports.url("gateway-metrics") + "/metrics",
        triton_metrics_urls=given.get("TRITON_METRICS_URLS") or own_metrics,
        grpc_address=(given.get("PUBLIC_GRPC_ADDRESS") or ports.address("gateway-grpc"))
        if triton_grpc_urls
        else "",
    )


def check_payments(servers: Servers, given: Mapping[str, str] = os.environ) -> None:
    """Before anything starts: what the control plane would refuse to start with.

    Raises `ConfigurationError`.
    """
    if given.get("PAYMENT_PROVIDER") == stripe_settings.NO_PROVIDER:
        return
    environment = given.get("METERPLANE_ENV") or "development"
    fault = stripe_settings.account_fault(
        servers.stripe_api_key, servers.stripe_api_base, environment
    )
    if servers.stripe_webhook_secret and not fault:  # an empty one is the sandbox's to give
        fault = stripe_settings.secrets_fault(servers.stripe_webhook_secret)
    if fault:
        raise ConfigurationError(fault)


def as_role(admin_url: str, role: str, password: str) -> str:
    """The same database for another role."""
    parts = urlsplit(admin_url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{quote(password, safe='')}@{place}"))


def maintenance_url(admin_url: str) -> str:
    """The same server's `postgres` database, where another database can be created."""
    return urlunsplit(urlsplit(admin_url)._replace(path="/postgres"))


def database_name(admin_url: str) -> str:
    """The database a URL names."""
    return urlsplit(admin_url).path.strip("/")
