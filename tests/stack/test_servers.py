"""Each embedded server gives way to an external one, by its variable."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from meterplane.stack import servers
from meterplane.stack.blueprint import Blueprint
from meterplane.stack.component import check_order
from meterplane.stack.installation import Secrets
from meterplane.stack.layout import Layout
from meterplane.stack.ports import OFFSETS, Ports
from meterplane.stack.servers import ConfigurationError, Servers

PORTS = Ports({name: 8700 + offset for name, offset in OFFSETS.items()}, {})
SECRETS = Secrets.generate()
SERVER_COMPONENTS = {"postgres", "broker", "admission", "triton", "stripe"}


def located(**given: str) -> Servers:
    return servers.locate(Layout(Path("/srv/var")), PORTS, SECRETS, given)


def names(tmp_path: Path, **given: str) -> set[str]:
    layout = Layout(tmp_path)
    found = servers.locate(layout, PORTS, SECRETS, given)
    components = Blueprint(layout, PORTS, found).components()
    check_order(components)
    return {component.name for component in components}


def test_nothing_given_means_everything_is_started_here(tmp_path: Path):
    assert names(tmp_path) >= SERVER_COMPONENTS
    assert located().external == frozenset()


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("postgres", {"DATABASE_URL": "postgresql://root:pw@db:5432/meterplane"}),
        ("broker", {"REDIS_URL": "redis://cache:6379/0"}),
        ("admission", {"ADMISSION_REDIS_URL": "redis://limits:6379/0"}),
        ("triton", {"TRITON_URLS": "http://gpu-1:8000,http://gpu-2:8000"}),
        ("stripe", {"STRIPE_API_BASE": "https://stripe", "STRIPE_API_KEY": "sk_test_1"}),
    ],
)
def test_a_given_server_is_not_started_here(tmp_path: Path, name: str, given: dict[str, str]):
    assert SERVER_COMPONENTS - names(tmp_path, **given) == {name}


def test_who_collects_through_nobody_gets_no_sandbox_and_no_webhook_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usual = names(tmp_path)
    monkeypatch.setenv("PAYMENT_PROVIDER", "none")
    assert usual - names(tmp_path) == {"stripe", "webhook"}


def test_grpc_is_served_where_triton_speaks_it(tmp_path: Path):
    assert "gateway-grpc" in names(tmp_path)
    assert located().grpc_address == "127.0.0.1:8702"
    given = {"TRITON_URLS": "http://gpu-1:8000"}
    assert "gateway-grpc" not in names(tmp_path, **given)
    assert located(**given).grpc_address == ""
    given |= {"TRITON_GRPC_URLS": "gpu-1:8001", "PUBLIC_GRPC_ADDRESS": "api.example:443"}
    assert "gateway-grpc" in names(tmp_path, **given)
    assert located(**given).grpc_address == "api.example:443"
    assert located(**given).triton_grpc_urls == "gpu-1:8001"


def test_the_application_never_gets_the_administrators_rights():
    found = located(DATABASE_URL="postgresql://root:p%40ss@db:5432/meterplane?sslmode=require")
    assert found.admin_database_url.startswith("postgresql://root:")
    for role, url in (
        ("meterplane_owner", found.owner_database_url),
        ("meterplane_app", found.app_database_url),
        ("meterplane_gateway", found.gateway_database_url),
    ):
        parts = urlsplit(url)
        assert (parts.username, parts.password) == (role, SECRETS.database_passwords[role])
        assert (parts.hostname, parts.port) == ("db", 5432)
        assert (parts.path, parts.query) == ("/meterplane", "sslmode=require")


def test_the_embedded_database_is_reached_by_a_socket_with_a_role_each():
    found = located()
    assert urlsplit(found.app_database_url).username == "meterplane_app"
    assert "host=" in found.app_database_url
    assert servers.database_name(found.app_database_url) == "meterplane"
    assert servers.database_name(servers.maintenance_url(found.admin_database_url)) == "postgres"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"STRIPE_API_BASE": "https://api.stripe.example"}, "STRIPE_API_KEY"),
        ({"DATABASE_URL": "postgresql://root@db:5432"}, "names no database"),
    ],
)
def test_half_an_external_server_is_refused(given: dict[str, str], says: str):
    with pytest.raises(ConfigurationError, match=says):
        located(**given)


TEST, LIVE = "sk_test_0123456789abcdef", "sk_live_0123456789abcdef"
ELSEWHERE = {"STRIPE_API_BASE": "https://api.stripe.com", "STRIPE_API_KEY": TEST}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"STRIPE_API_KEY": "pk_test_0123456789"}, "publishable key"),
        ({"STRIPE_API_KEY": LIVE}, "METERPLANE_ENV is development"),
        ({"METERPLANE_ENV": "production"}, "is a test key"),
        ({"STRIPE_WEBHOOK_SECRET": TEST}, "must begin with whsec_"),
    ],
)
def test_nothing_starts_that_the_control_plane_would_refuse(given: dict[str, str], says: str):
    given = ELSEWHERE | given
    with pytest.raises(ConfigurationError, match=says) as refused:
        servers.check_payments(located(**given), given)
    assert "0123" not in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        {},
        ELSEWHERE,
        ELSEWHERE | {"STRIPE_API_KEY": LIVE, "METERPLANE_ENV": "production"},
        ELSEWHERE | {"STRIPE_API_KEY": "none at all", "PAYMENT_PROVIDER": "none"},
    ],
)
def test_the_sandbox_a_test_account_and_no_provider_start(given: dict[str, str]):
    servers.check_payments(located(**given), given)
