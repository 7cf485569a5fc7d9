"""The environment, typed and checked once at start. Every problem is reported in one list.

Guarantees: no secret is empty, no URL of an unknown scheme gets through. Knows nothing of Django.
"""

import re
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pydantic import AfterValidator, Field, ValidationInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from billing.payments import stripe_settings
from billing.payments.stripe_settings import NO_PROVIDER
from meterplane.contracts.receipt import signing_keys
from meterplane.kernel.decimals import text_to_decimal
from meterplane.kernel.money import minor_digits
from meterplane.triton.metrics import measured_servers

SECRET_CHARS_MIN = 32
OVERLAYS = {"amend", "deprecate", "backfill"}


def _is_pepper(text: str) -> str:
    if len(bytes.fromhex(text)) < 32:
        raise ValueError("must be at least 64 hexadecimal digits (32 bytes)")
    return text


def _is_signing_keys(text: str) -> str:
    signing_keys(text)  # names the one that is none
    return text


def _is_redis(url: str) -> str:
    if urlsplit(url).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("must start with redis://, rediss:// or unix://")
    return url


def _is_postgres(url: str) -> str:
    if urlsplit(url).scheme not in {"postgresql", "postgres"}:
        raise ValueError("must start with postgresql://")
    return url


def _is_metrics(text: str) -> str:
    measured_servers(text)
    return text


def _are_overlays(text: str) -> str:
    if not {part.strip() for part in text.split(",") if part.strip()} <= OVERLAYS:
        raise ValueError(f"must name some of {', '.join(sorted(OVERLAYS))}, or none")
    return text


def _is_account(text: str) -> str:
    if text and not re.fullmatch(r"acct_[A-Za-z0-9]{1,64}", text):
        raise ValueError("must be an account's id, acct_..., or empty")
    return text


def _is_stripe(text: str, info: ValidationInfo) -> str:
    if info.data.get("payment_provider") != NO_PROVIDER:
        _refuse(stripe_settings.base_fault(text))
    return text


def _is_key(text: str, info: ValidationInfo) -> str:
    """For this installation: a live key belongs to production, a test key does not."""
    told = info.data
    if told.get("payment_provider") != NO_PROVIDER:
        _refuse(
            stripe_settings.key_fault(text)
            or stripe_settings.place_fault(text, told.get("stripe_api_base", ""))
            or stripe_settings.mode_fault(text, told.get("meterplane_env", ""))
        )
    return text


def _are_webhook_secrets(text: str, info: ValidationInfo) -> str:
    if info.data.get("payment_provider") != NO_PROVIDER:
        _refuse(stripe_settings.secrets_fault(text))
    return text


def _refuse(fault: str) -> None:
    if fault:
        raise ValueError(fault)


def _is_mail_server(url: str) -> str:
    parts = urlsplit(url)
    if url and (parts.scheme not in {"smtp", "smtps"} or not parts.hostname):
        raise ValueError("must be smtp://user:password@host:587, smtps://..., or empty")
    return url


def _are_thresholds(text: str) -> str:
    thresholds(text)
    return text


RedisURL = Annotated[str, AfterValidator(_is_redis)]
PostgresURL = Annotated[str, AfterValidator(_is_postgres)]


class MailServer(NamedTuple):
    """An SMTP server."""

    host: str
    port: int
    user: str
    password: str
    turns_to_tls: bool
    is_tls: bool


class Environment(BaseSettings):
    """What the web, worker and management processes read from the environment."""

    # What is wrong with a secret is said without it.
    model_config = SettingsConfigDict(
        env_prefix="", case_sensitive=False, extra="ignore", hide_input_in_errors=True
    )

    meterplane_env: Literal["development", "test", "production"] = "production"
    django_secret_key: str = Field(min_length=SECRET_CHARS_MIN)
    api_key_pepper: Annotated[str, AfterValidator(_is_pepper)]
    receipt_signing_keys: Annotated[str, AfterValidator(_is_signing_keys)]
    database_url: PostgresURL
    redis_url: RedisURL
    admission_redis_url: RedisURL
    celery_broker_url: str = ""
    # Through whom invoices are collected. Nobody is meant only if it is said: with "none" what is
    # set of Stripe's is not used.
    payment_provider: Literal["stripe", "none"] = "stripe"
    stripe_api_base: Annotated[str, AfterValidator(_is_stripe)] = ""
    # Judged together with what stands above them.
    stripe_api_key: Annotated[str, AfterValidator(_is_key)] = Field(default="", repr=False)
    stripe_webhook_secret: Annotated[str, AfterValidator(_are_webhook_secrets)] = Field(
        default="", repr=False
    )
    # Whose events are taken in: acct_..., as Stripe's dashboard shows it. Events of the account
    # itself carry none; those of a connected one do, and are refused unless it is this.
    stripe_account_id: Annotated[str, AfterValidator(_is_account)] = ""
    public_web_url: str = "http://127.0.0.1:8700"
    public_gateway_url: str = "http://127.0.0.1:8701"
    journal_dir: str = "var/journal"
    meterplane_var: str = "var"
    files_dir: str = ""
    archive_dir: str = ""
    # 0: for ever. Billing looks for late usage in periods that ended within 400 days; one that was
    # closed early reads events at its edges, and its first day is up to a month before.
    usage_retention_days: int = Field(default=434, ge=0)
    gateway_internal_url: str = ""
    triton_metrics_urls: Annotated[str, AfterValidator(_is_metrics)] = ""
    canary_every_s: int = Field(default=0, ge=0)
    canary_models: str = ""
    provider_name: str = Field(default="Meterplane", min_length=1)
    # Who invoices are from. The address by lines, which a semicolon ends; the name is the
    # provider's where none is given.
    seller_name: str = Field(default="", max_length=120)
    seller_address: str = Field(default="", max_length=600)
    seller_tax_id: str = Field(default="", max_length=60)
    seller_email: str = Field(default="", max_length=120)
    # Where invoices that nobody collects are paid to. By lines, which a semicolon ends.
    seller_bank_details: str = Field(default="", max_length=600)
    # Who delivers mail, such as smtp://user:password@host:587 (which turns to TLS) or smtps://...;
    # where it is empty, mails are written to the log of the process that sends them.
    smtp_url: Annotated[str, AfterValidator(_is_mail_server)] = Field(default="", repr=False)
    # From which unbilled spend on an organisation is invoiced before its month is over, such as
    # "USD 500, JPY 50000"; with another currency, and where this is empty, it is not.
    interim_thresholds: Annotated[str, AfterValidator(_are_thresholds)] = ""
    export_days: int = Field(default=7, ge=1, le=365)
    event_overlays: Annotated[str, AfterValidator(_are_overlays)] = "amend,deprecate,backfill"
    event_window_days: int = Field(default=100, ge=1, le=3650)

    def broker_url(self) -> str:
        """The broker in Celery's spelling."""
        return self.celery_broker_url or celery_spelling(self.redis_url)

    def overlays(self) -> frozenset[str]:
        """How external events may be changed here."""
        return frozenset(p.strip() for p in self.event_overlays.split(",") if p.strip())

    def seller(self) -> dict[str, str]:
        """Who invoices are from; the address by lines."""
        lines = [part.strip() for part in self.seller_address.split(";")]
        return {
            "name": self.seller_name or self.provider_name,
            "address": "\n".join(line for line in lines if line),
            "tax_id": self.seller_tax_id,
            "email": self.seller_email,
        }

    def bank_details(self) -> str:
        """Where to transfer money to, by lines."""
        lines = [part.strip() for part in self.seller_bank_details.split(";")]
        return "\n".join(line for line in lines if line)

    def mail_server(self) -> MailServer:
        """Who delivers mail; a host that is empty is nobody. A password is only sent over TLS."""
        parts = urlsplit(self.smtp_url)
        is_tls = parts.scheme == "smtps"
        return MailServer(
            host=parts.hostname or "",
            port=parts.port or (465 if is_tls else 587),
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            turns_to_tls=bool(parts.username) and not is_tls,
            is_tls=is_tls,
        )

    def interims(self) -> dict[str, str]:
        """Thresholds of interim invoices by currency."""
        return thresholds(self.interim_thresholds)

    def stripe_key(self) -> str:
        """Empty without a provider: nothing can be called then."""
        return "" if self.payment_provider == NO_PROVIDER else self.stripe_api_key

    def webhook_secrets(self) -> list[str]:
        """Stripe webhook secrets, newest first: two during a rotation."""
        if self.payment_provider == NO_PROVIDER:
            return []
        return stripe_settings.webhook_secrets(self.stripe_webhook_secret)


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The process's environment. Raises `pydantic.ValidationError` naming every bad variable."""
    return Environment()  # type: ignore[call-arg]


def thresholds(text: str) -> dict[str, str]:
    """`USD 500, JPY 50000` by currency. Raises `ValueError`."""
    found: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        currency, _, amount = part.partition(" ")
        digits = minor_digits(currency)
        number = text_to_decimal(amount.strip())
        if currency in found or not 1 <= number <= 1_000_000_000 or round(number, digits) != number:
            raise ValueError(
                f"{part!r} is not a currency, once, and 1 to 1,000,000,000 of it with at most"
                f" {digits} decimals"
            )
        found[currency] = amount.strip()
    return found


def celery_spelling(url: str) -> str:
    """Celery writes a Redis unix socket as `redis+socket://`, redis-py as `unix://`."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    password = f":{parts.password}@" if parts.password else ""
    return f"redis+socket://{password}{parts.path}?virtual_host={quote(database)}"


def django_database(url: str) -> dict[str, object]:
    """Django's DATABASES entry for a libpq URL, over TCP or a unix socket given as `?host=`."""
    from psycopg.conninfo import conninfo_to_dict

    known = conninfo_to_dict(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": known.pop("dbname", ""),
        "USER": known.pop("user", ""),
        "PASSWORD": known.pop("password", ""),
        "HOST": known.pop("host", ""),
        "PORT": str(known.pop("port", "")),
        "OPTIONS": known,
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        # A request is one transaction, opened by the tenant door; see tenants/scoping.py.
        "ATOMIC_REQUESTS": False,
    }
