"""Secrets are generated per installation, once, and nobody else can read them."""

import re
import stat
from pathlib import Path

import msgspec
import pytest

from meterplane.contracts.receipt import signing_keys
from meterplane.stack import installation
from meterplane.stack.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def test_secrets_are_generated_once_and_private(layout: Layout):
    first = installation.load(layout)
    assert installation.load(layout) == first
    assert stat.S_IMODE(layout.secrets.stat().st_mode) == 0o600


def test_two_installations_share_no_secret():
    one, other = installation.Secrets.generate(), installation.Secrets.generate()
    for field in (
        "postgres_password",
        "api_key_pepper",
        "django_secret_key",
        "stripe_api_key",
        "receipt_signing_keys",
    ):
        assert getattr(one, field) != getattr(other, field)
    assert not set(one.database_passwords.values()) & set(other.database_passwords.values())
    assert one.owner.password != other.owner.password


def test_generated_secrets_are_accepted_where_they_are_used():
    made = installation.Secrets.generate()
    assert len(bytes.fromhex(made.api_key_pepper)) >= 32
    assert len(made.django_secret_key) >= 50
    assert len(signing_keys(made.receipt_signing_keys)) == 1
    assert re.fullmatch(r"sk_test_[0-9a-f]{32}", made.stripe_api_key)
    assert re.fullmatch(r"([a-z2-9]{4}-){3}[a-z2-9]{4}", made.owner.password)


def test_an_update_keeps_everything_else(layout: Layout):
    before = installation.load(layout)
    installation.update(layout, demo_api_key="mp_live_x")
    after = installation.load(layout)
    assert after.demo_api_key == "mp_live_x"
    assert after.api_key_pepper == before.api_key_pepper
    assert stat.S_IMODE(layout.secrets.stat().st_mode) == 0o600


def test_an_installation_older_than_receipts_gets_its_key_once(layout: Layout):
    before = installation.load(layout)
    installation.store(layout, msgspec.structs.replace(before, receipt_signing_keys=""))
    after = installation.load(layout)
    assert len(signing_keys(after.receipt_signing_keys)) == 1
    assert installation.load(layout) == after
    assert after.django_secret_key == before.django_secret_key


def test_a_damaged_file_is_named_and_never_replaced(layout: Layout):
    layout.secrets.write_text("{")
    with pytest.raises(ValueError, match=r"secrets\.json is damaged"):
        installation.load(layout)
    assert layout.secrets.read_text() == "{"
