"""What `up` refuses, and what starting afresh removes."""

import fcntl
import io
from pathlib import Path

import pytest
from rich.console import Console

from meterplane.stack import up
from meterplane.stack.layout import Layout
from meterplane.stack.up import UpOptions


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "var")
    made.create()
    return made


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_reset_without_somebody_to_ask_is_refused(
    layout: Layout, console: Console, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    layout.secrets.write_text("kept")
    assert up.up(layout, UpOptions(reset=True), console) == 1
    assert "--yes" in said(console)
    assert layout.secrets.read_text() == "kept"


def test_starting_afresh_removes_data_and_keeps_logs(layout: Layout):
    (layout.postgres / "data").mkdir(parents=True)
    layout.secrets.write_text("x")
    layout.log("web").write_text("a line")
    up.wipe(layout)
    assert not layout.postgres.exists()
    assert not layout.secrets.exists()
    assert layout.log("web").read_text() == "a line"


def test_two_supervisors_of_one_installation_cannot_start(layout: Layout, console: Console):
    with layout.lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert up.up(layout, UpOptions(), console) == 1
    assert "under way" in said(console)


def test_a_port_base_out_of_range_is_told_in_one_line(layout: Layout, console: Console):
    assert up.up(layout, UpOptions(port_base=80), console) == 1
    assert "--port-base 80 is out of range" in said(console)


def test_half_an_external_server_is_told_before_anything_starts(
    layout: Layout, console: Console, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STRIPE_API_BASE", "https://stripe.example")
    monkeypatch.delenv("STRIPE_API_KEY")
    assert up.up(layout, UpOptions(port_base=21_700), console) == 1
    assert "STRIPE_API_KEY" in said(console)
    assert not layout.postgres.exists()
