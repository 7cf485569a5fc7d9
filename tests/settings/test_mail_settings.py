"""Who delivers mail is one address in the environment."""

import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from meterplane.settings.env import Environment
from tests.conftest import ROOT

SHOW = """
import meterplane.settings as s
print(s.EMAIL_BACKEND.split(".")[-2], s.EMAIL_HOST, s.EMAIL_PORT, s.EMAIL_HOST_USER,
      s.EMAIL_HOST_PASSWORD, s.EMAIL_USE_TLS, s.EMAIL_USE_SSL)
"""


@pytest.mark.parametrize(
    ("url", "means"),
    [
        ("", "console  587   False False"),
        ("smtp://mail.example", "smtp mail.example 587   False False"),
        ("smtp://us%40x:a%2Fb@mail.example", "smtp mail.example 587 us@x a/b True False"),
        ("smtps://us:word@mail.example", "smtp mail.example 465 us word False True"),
        ("smtps://us:word@mail.example:2465", "smtp mail.example 2465 us word False True"),
    ],
)
def test_an_address_says_all_of_it(url, means):
    values = {"SMTP_URL": url, "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)])}
    told = subprocess.run(
        [sys.executable, "-c", SHOW], env=os.environ | values, capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip
    assert told.rstrip("\n") == means


@pytest.mark.parametrize("url", ["mail.example", "http://mail.example", "smtp://", "smtp://:25"])
def test_what_is_no_address_is_refused_without_printing_it(url, monkeypatch):
    monkeypatch.setenv("SMTP_URL", url)
    with pytest.raises(ValidationError) as refused:
        Environment()
    assert "smtp://user:password@host:587" in str(refused.value)
