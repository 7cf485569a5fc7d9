"""The catalog that is sold, and one Triton that is known."""

import pytest

from meterplane.catalog.sync import sync_catalog
from meterplane.stack.demo import CATALOG
from tests.metering.reconcile import world


@pytest.fixture
def acme(organisation, settings):
    """A tenant whose requests our Triton serves."""
    settings.TRITON_METRICS = [world.TRITON]
    sync_catalog(CATALOG)
    return organisation
