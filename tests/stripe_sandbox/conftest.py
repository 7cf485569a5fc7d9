"""One sandbox process per test process, shared; tests that kill theirs make their own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stripe

from stripe_sandbox.settings import DEFAULTS as _DEFAULTS
from tests.stripe_sandbox.rig import Books, Receiver, Sandbox


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    running = Sandbox(tmp_path_factory.mktemp("stripe") / "stripe.sqlite3").start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def _second_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    running = Sandbox(tmp_path_factory.mktemp("movable") / "stripe.sqlite3").start()
    yield running
    running.stop()


@pytest.fixture
def movable(_second_sandbox: Sandbox) -> Iterator[Books]:
    """A second sandbox, whose time and settings a test may change without disturbing others."""
    yield Books(_second_sandbox)
    _second_sandbox.control("/webhooks/release")
    kept = {name: value for name, value in _DEFAULTS.items() if name != "clock_offset_s"}
    _second_sandbox.control("/settings", kept)


@pytest.fixture
def own_sandbox(tmp_path: Path) -> Iterator[Callable[..., Sandbox]]:
    """Start a sandbox of one's own: `own_sandbox("--key", "sk_test_x")`."""
    started: list[Sandbox] = []

    def start(*arguments: str) -> Sandbox:
        started.append(Sandbox(tmp_path / f"stripe{len(started)}.sqlite3", *arguments))
        return started[-1].start()

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def client(sandbox: Sandbox) -> stripe.StripeClient:
    return sandbox.client()


@pytest.fixture
def books(sandbox: Sandbox) -> Books:
    return Books(sandbox)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiving = Receiver()
    stop = receiving.start()
    yield receiving
    stop()
