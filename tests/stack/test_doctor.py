"""Each finding says what is wrong and how to mend it."""

import io
import os
import socket
import time
from pathlib import Path

import pytest
from rich.console import Console

from meterplane.stack import doctor, installation, ports
from meterplane.stack.doctor import Finding
from meterplane.stack.layout import Layout


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    for variable in ("DATABASE_URL", "REDIS_URL", "ADMISSION_REDIS_URL", "STRIPE_API_BASE"):
        monkeypatch.delenv(variable, raising=False)
    made = Layout(tmp_path / "var")
    made.create()
    return made


def finding(layout: Layout, subject: str) -> Finding:
    [found] = [each for each in doctor.examine(layout) if each.subject == subject]
    return found


def test_a_machine_where_nothing_ran_yet_has_nothing_broken(layout: Layout):
    findings = doctor.examine(layout)
    assert [each for each in findings if each.verdict == "broken"] == []
    assert finding(layout, "Stack").verdict == "note"


def test_a_taken_port_is_named(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "USUAL_BASE", port - ports.OFFSETS["gateway"])
        found = finding(layout, "Ports")
    assert found.verdict == "note"
    assert str(port) in found.saying
    assert "PORT_BASE" in found.fix


def test_secrets_that_others_can_read_are_broken(layout: Layout):
    installation.load(layout)
    assert finding(layout, "Secrets").verdict == "ok"
    layout.secrets.chmod(0o644)
    found = finding(layout, "Secrets")
    assert found.verdict == "broken"
    assert found.fix == "Run: chmod 600 var/secrets.json"


@pytest.mark.parametrize(
    ("key", "verdict"),
    [("sk_test_abc", "ok"), ("sk_live_abc", "note"), ("pk_test_abc", "broken")],
)
def test_the_stripe_key_is_judged_by_its_shape(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, key: str, verdict: str
):
    installation.load(layout)
    monkeypatch.setenv("STRIPE_API_BASE", "https://stripe.example")
    monkeypatch.setenv("STRIPE_API_KEY", key)
    assert finding(layout, "Stripe key").verdict == verdict


def test_a_database_that_cannot_be_reached_is_broken_with_a_fix(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
):
    installation.load(layout)
    monkeypatch.setenv("DATABASE_URL", "postgresql://postgres@127.0.0.1:9/meterplane")
    found = finding(layout, "PostgreSQL")
    assert found.verdict == "broken"
    assert "DATABASE_URL" in found.fix


def test_a_damaged_secrets_file_is_a_finding_and_not_a_crash(layout: Layout):
    layout.secrets.write_text("{")
    assert finding(layout, "Configuration").verdict == "broken"


def test_broken_things_make_the_exit_status_one():
    console = Console(file=io.StringIO())
    assert doctor.tell([Finding("Python", "ok", "fine")], console) == 0
    assert doctor.tell([Finding("Disk", "broken", "full", "Free some.")], console) == 1


def test_usage_that_waits_is_told_and_since_when(layout: Layout):
    assert finding(layout, "Usage") == Finding("Usage", "ok", "no usage waits to be taken in")
    home = layout.journal / "gateway.018f0000-0000-7000-8000-000000000001"
    home.mkdir()
    for number in range(2):
        (home / f"018f0000-0000-7000-8000-00000000000{number}.sealed").write_bytes(bytes(2**20))
    found = finding(layout, "Usage")
    assert found.verdict == "ok", "it has just been written"
    assert found.saying.startswith("2 segments of usage (2.0 MB) wait to be taken in, since ")
    long_ago = time.time() - 3 * 86_400 - 60
    os.utime(home / "018f0000-0000-7000-8000-000000000001.sealed", (long_ago, long_ago))
    found = finding(layout, "Usage")
    assert found.verdict == "note"
    assert found.saying.endswith("since 3 days ago")
    assert "PostgreSQL" in found.fix
