"""What is said of the payment provider is judged before anything starts, without printing keys."""

import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from meterplane.settings.env import Environment
from tests.conftest import ROOT

TEST, LIVE = "sk_test_0123456789abcdef", "sk_live_0123456789abcdef"
ONE, TWO = "whsec_0123456789abcdef0123", "whsec_abcdef0123456789abcd"
SANDBOX = "http://127.0.0.1:8703"
IS_GOOD = {
    "METERPLANE_ENV": "development",
    "PAYMENT_PROVIDER": "stripe",
    "STRIPE_API_BASE": "",
    "STRIPE_API_KEY": TEST,
    "STRIPE_WEBHOOK_SECRET": ONE,
}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch):
    def read(**said: str) -> Environment:
        for name, value in (IS_GOOD | said).items():
            monkeypatch.setenv(name, value)
        return Environment()

    return read


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"STRIPE_API_KEY": "rk_test_0123456789abcdef", "STRIPE_API_BASE": SANDBOX},
        {"METERPLANE_ENV": "test", "STRIPE_API_BASE": SANDBOX},
        {"STRIPE_WEBHOOK_SECRET": f"{TWO}, {ONE}"},
        {"METERPLANE_ENV": "production", "STRIPE_API_KEY": LIVE},
        {"METERPLANE_ENV": "production", "STRIPE_API_KEY": "rk_live_0123456789abcdef"},
        {"METERPLANE_ENV": "production", "STRIPE_API_KEY": LIVE,
         "STRIPE_API_BASE": "https://proxy.example"},
    ],
)  # fmt: skip
def test_what_can_be_meant_starts(read, said):
    found = read(**said)
    assert found.stripe_key() == (IS_GOOD | said)["STRIPE_API_KEY"]


@pytest.mark.parametrize(
    ("said", "variable", "says"),
    [
        ({"STRIPE_API_KEY": ""}, "stripe_api_key", "is empty: set it to .*PAYMENT_PROVIDER=none"),
        ({"STRIPE_API_KEY": "pk_test_0123456789abcdef"}, "stripe_api_key", "publishable key"),
        ({"STRIPE_API_KEY": f"{TEST}\n"}, "stripe_api_key", "white space around it: remove it"),
        ({"STRIPE_API_KEY": "sk_test_"}, "stripe_api_key", "must be one of sk_test_"),
        ({"STRIPE_API_KEY": ONE}, "stripe_api_key", "must be one of sk_test_"),
        ({"STRIPE_API_BASE": "ftp://stripe"}, "stripe_api_base", "STRIPE_API_BASE must be a URL"),
        ({"STRIPE_API_KEY": LIVE}, "stripe_api_key", "METERPLANE_ENV is development: real"),
        ({"STRIPE_API_KEY": LIVE, "METERPLANE_ENV": "test"}, "stripe_api_key", "is test: real"),
        ({"STRIPE_API_KEY": LIVE, "METERPLANE_ENV": "production", "STRIPE_API_BASE": SANDBOX},
         "stripe_api_key", "leave STRIPE_API_BASE empty"),
        ({"STRIPE_API_KEY": LIVE, "METERPLANE_ENV": "production",
          "STRIPE_API_BASE": "http://proxy.example"}, "stripe_api_key", "begin it with https"),
        ({"METERPLANE_ENV": "production"}, "stripe_api_key", "is a test key and METERPLANE_ENV"),
        ({"STRIPE_WEBHOOK_SECRET": " , "}, "stripe_webhook_secret", "is empty, so no webhook"),
        ({"STRIPE_WEBHOOK_SECRET": f"{ONE},{TWO},{ONE}"}, "stripe_webhook_secret", "has 3 secrets"),
        ({"STRIPE_WEBHOOK_SECRET": f"{ONE},{TEST}"}, "stripe_webhook_secret", "secret 2 of 2"),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_short"}, "stripe_webhook_secret", "secret 1 of 1"),
        ({"PAYMENT_PROVIDER": "paypal"}, "payment_provider", "'stripe' or 'none'"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_a_sentence_without_the_key(read, said, variable, says):
    with pytest.raises(ValidationError, match=says) as refused:
        read(**said)
    assert [each["loc"] for each in refused.value.errors()] == [(variable,)]
    assert "0123" not in str(refused.value)


def test_all_that_is_wrong_is_said_at_once(read):
    with pytest.raises(ValidationError) as refused:
        read(STRIPE_API_KEY="", STRIPE_WEBHOOK_SECRET="", JOURNAL_DIR="", EXPORT_DAYS="0")
    assert {each["loc"][0] for each in refused.value.errors()} == {
        "stripe_api_key", "stripe_webhook_secret", "export_days",
    }  # fmt: skip


def test_who_wants_no_provider_says_so_and_no_key_is_kept(read):
    found = read(PAYMENT_PROVIDER="none", STRIPE_API_KEY="", STRIPE_WEBHOOK_SECRET="")
    assert (found.stripe_key(), found.webhook_secrets()) == ("", [])
    found = read(PAYMENT_PROVIDER="none")
    assert (found.stripe_key(), found.webhook_secrets()) == ("", [])


def test_a_process_with_an_empty_key_does_not_start():
    environment = os.environ | IS_GOOD | {"STRIPE_API_KEY": "", "STRIPE_WEBHOOK_SECRET": "whsec_x"}
    ended = subprocess.run(
        [sys.executable, "-c", "import meterplane.settings"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert "STRIPE_API_KEY is empty: set it to a secret or restricted key" in ended.stderr
    assert "STRIPE_WEBHOOK_SECRET, secret 1 of 1" in ended.stderr
