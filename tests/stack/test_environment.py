"""Each process gets the credentials it needs and no others."""

import os
from pathlib import Path

import msgspec
import pytest

from meterplane.stack import environment, servers
from meterplane.stack.installation import Secrets
from meterplane.stack.layout import Layout
from meterplane.stack.ports import OFFSETS, Ports
from meterplane.stack.processes import MARKER

PORTS = Ports({name: 8700 + offset for name, offset in OFFSETS.items()}, {})
SECRETS = Secrets.generate()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def test_the_gateway_holds_no_credential_of_the_control_plane(layout: Layout):
    located = servers.locate(layout, PORTS, SECRETS, {})
    values = environment.data_plane(layout, located, SECRETS, port=8701, worker="local")
    text = msgspec.json.encode(values).decode()
    assert SECRETS.database_passwords["meterplane_gateway"] in text
    for secret in (
        SECRETS.database_passwords["meterplane_app"],
        SECRETS.database_passwords["meterplane_owner"],
        SECRETS.postgres_password,
        SECRETS.stripe_api_key,
        SECRETS.django_secret_key,
        SECRETS.receipt_signing_keys,
        SECRETS.broker_password,
    ):
        assert secret not in text


def test_the_control_plane_holds_neither_the_owners_nor_the_superusers_password(layout: Layout):
    located = servers.locate(layout, PORTS, SECRETS, {})
    text = msgspec.json.encode(environment.control_plane(layout, located, SECRETS)).decode()
    assert SECRETS.database_passwords["meterplane_app"] in text
    assert SECRETS.database_passwords["meterplane_owner"] not in text
    assert SECRETS.postgres_password not in text


def test_the_users_own_addresses_are_not_inherited(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://admin@elsewhere/x")
    monkeypatch.setenv("NO_PROXY", "intranet")
    values = environment.inherited()
    assert "DATABASE_URL" not in values
    assert values["NO_PROXY"].split(",") == ["intranet", "127.0.0.1", "localhost", "::1"]


def test_a_management_command_becomes_part_of_the_running_stack(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("METERPLANE_VAR", str(layout.var))
    monkeypatch.setenv("DATABASE_URL", "postgresql://admin@elsewhere/x")
    environment.keep(layout, {"DATABASE_URL": "postgresql://meterplane_app@here/x"})
    assert layout.environment.stat().st_mode & 0o777 == 0o600
    with monkeypatch.context() as started_by_the_supervisor:
        started_by_the_supervisor.setenv(MARKER, str(layout.var))
        environment.adopt_running_stack()
        assert os.environ["DATABASE_URL"].endswith("elsewhere/x")
    environment.adopt_running_stack()
    assert os.environ["DATABASE_URL"].endswith("here/x")


def test_without_a_running_stack_nothing_is_adopted(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("METERPLANE_VAR", str(layout.var))
    before = dict(os.environ)
    environment.adopt_running_stack()
    assert dict(os.environ) == before


def test_a_step_that_pays_nobody_gets_no_key_and_needs_none(layout: Layout):
    located = servers.locate(layout, PORTS, SECRETS, {})
    values = environment.control_plane(layout, located, SECRETS) | environment.without_payments()
    assert SECRETS.stripe_api_key not in values.values()
    assert values["PAYMENT_PROVIDER"] == "none"


def test_who_collects_through_nobody_gets_no_key_and_the_mail_servers_word_is_the_control_planes(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SMTP_URL", "smtp://us:word@mail.example:587")
    located = servers.locate(layout, PORTS, SECRETS, {})
    assert environment.control_plane(layout, located, SECRETS)["STRIPE_API_KEY"]
    monkeypatch.setenv("PAYMENT_PROVIDER", "none")
    values = environment.control_plane(layout, located, SECRETS)
    assert (values["PAYMENT_PROVIDER"], values["STRIPE_API_KEY"]) == ("none", "")
    assert values["SMTP_URL"] == "smtp://us:word@mail.example:587"
    assert "SMTP_URL" not in environment.inherited()
