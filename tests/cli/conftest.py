"""The command as it is typed, at a real web process."""

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from meterplane.cli.main import app
from tests.batches.conftest import web
from tests.conftest import OnboardedOrganisation

__all__ = ["web"]

Run = Callable[..., Any]


@pytest.fixture
def run(web: str, organisation: OnboardedOrganisation) -> Run:
    """Run the command for the organisation: `run("usage", "--json")`."""

    def typed(*words: str, **changed: str) -> Any:
        environment = {"METERPLANE_URL": web, "METERPLANE_API_KEY": organisation.secret}
        told = CliRunner().invoke(app, list(words), env=environment | changed)
        assert told.exception is None or isinstance(told.exception, SystemExit), told.output
        return told

    return typed
