"""Each finding says what is wrong and how to mend it."""

import io
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from meterplane.stack import doctor, installation, ports
from meterplane.stack.doctor import Finding
from meterplane.stack.layout import Layout
from tests.stripe_sandbox.rig import KEY, Sandbox

GIVEN = (
    *("DATABASE_URL", "REDIS_URL", "ADMISSION_REDIS_URL", "STRIPE_API_BASE", "STRIPE_API_KEY"),
    *("DJANGO_SECRET_KEY", "PAYMENT_PROVIDER"),
)
DEPLOYED = {
    **{name: os.environ[name] for name in GIVEN if name in os.environ},
    "STRIPE_API_KEY": KEY,
    "STRIPE_ACCOUNT_ID": "acct_sandbox",
    "PUBLIC_WEB_URL": "http://127.0.0.1:8700/",
}
FINE = Finding("Python", "ok", "fine")
FULL = Finding("Disk", "broken", "full" * 60, "Free some.")


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    for variable in GIVEN:
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
    ("told", "said"),
    [
        ({"STRIPE_API_KEY": "pk_test_0123456789"}, "STRIPE_API_KEY is a publishable key"),
        ({"STRIPE_API_KEY": "sk_live_0123456789"}, "METERPLANE_ENV is development"),
        ({"METERPLANE_ENV": "production"}, "METERPLANE_ENV is production"),
        ({"STRIPE_API_BASE": "stripe.example"}, "STRIPE_API_BASE must be a URL"),
    ],
)
def test_what_is_set_of_stripe_is_judged_before_a_start(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, told: dict[str, str], said: str
):
    installation.load(layout)
    usual = {"STRIPE_API_BASE": "https://stripe.example", "STRIPE_API_KEY": "sk_test_0123456789",
             "METERPLANE_ENV": "development"}  # fmt: skip
    for name, value in (usual | told).items():
        monkeypatch.setenv(name, value)
    found = finding(layout, "Stripe settings")
    assert found.verdict == "broken"
    assert said in found.saying
    assert "0123456789" not in found.saying + found.fix


def test_who_collects_through_nobody_is_told_so(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAYMENT_PROVIDER", "none")
    assert finding(layout, "Stripe").saying.startswith("PAYMENT_PROVIDER is none")


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    running = Sandbox(tmp_path / "stripe.sqlite3").start()
    yield running
    running.stop()


def test_where_we_are_deployed_the_account_is_looked_at(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, db: None
):
    for name, value in DEPLOYED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STRIPE_API_BASE", sandbox.url)
    found = {each.subject: each for each in doctor.examine(layout)}
    assert found["Stripe account"].saying == "acct_sandbox, as STRIPE_ACCOUNT_ID says"
    assert found["Stripe: invoices"].verdict == "ok"
    assert found["Stripe webhook"].verdict == "broken"
    assert "http://127.0.0.1:8700/webhooks/stripe" in found["Stripe webhook"].saying
    sandbox.stop()
    found = {each.subject: each for each in doctor.examine(layout)}
    assert "cannot be reached" in found["Stripe"].saying
    assert "Stripe: invoices" not in found


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
    assert doctor.tell([FINE], console) == 0
    assert doctor.tell([FULL], console) == 1


def test_each_finding_is_one_line_in_a_log():
    out = io.StringIO()
    doctor.tell([FINE, Finding("Clock", "note", "late", "Wait."), FULL], Console(file=out))
    lines = [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]
    assert lines[0].split() == ["ok", "Python", "fine"]
    assert lines[1].split() == ["warn", "Clock", "late", "·", "Wait."]
    assert lines[2].startswith("  FAIL  Disk")
    assert lines[2].endswith("fullfull · Free some.")
    assert lines[3].strip() == "3 checks, 1 broken"


def test_a_program_reads_the_same_as_json(capsys: pytest.CaptureFixture[str]):
    assert doctor.tell_json([FINE, FULL, FULL]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["broken"] == 2
    fine, full, _ = told["checks"]
    assert fine == {"subject": "Python", "verdict": "ok", "saying": "fine", "fix": ""}
    assert full["verdict"] == "FAIL"


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
