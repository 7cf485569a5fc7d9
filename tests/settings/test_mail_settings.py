"""Who delivers mail is one address in the environment."""

import pytest
from pydantic import ValidationError

from meterplane.settings.env import Environment


@pytest.mark.parametrize(
    ("url", "means"),
    [
        ("", ("", 587, "", "", False, False)),
        ("smtp://mail.example", ("mail.example", 587, "", "", False, False)),
        ("smtp://us%40x:a%2Fb@mail.example", ("mail.example", 587, "us@x", "a/b", True, False)),
        ("smtps://us:word@mail.example", ("mail.example", 465, "us", "word", False, True)),
        ("smtps://mail.example:2465", ("mail.example", 2465, "", "", False, True)),
    ],
)
def test_an_address_says_all_of_it(url, means, monkeypatch):
    monkeypatch.setenv("SMTP_URL", url)
    assert Environment().mail_server() == means


@pytest.mark.parametrize(
    "url", ["mail.example", "http://us:word@mail.example", "smtp://", "smtp://us:word@"]
)
def test_what_is_no_address_is_refused_without_printing_it(url, monkeypatch):
    monkeypatch.setenv("SMTP_URL", url)
    with pytest.raises(ValidationError) as refused:
        Environment()
    assert "smtp://user:password@host:587" in str(refused.value)
    assert "word@mail" not in str(refused.value)
