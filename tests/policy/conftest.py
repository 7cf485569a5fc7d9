"""The catalog on sale, and what a key's policy then says."""

from pathlib import Path

import msgspec
import pytest

from billing.pricing.catalog_prices import publish_catalog_prices
from meterplane.catalog.sync import sync_catalog
from meterplane.contracts import policy as contract
from meterplane.policy.compile import recompile_everyone
from meterplane.policy.models import GatewayPolicy
from tenants.scoping import tenant_scope

CATALOG = Path(__file__).resolve().parents[2] / "infra" / "triton" / "catalog.json"


@pytest.fixture
def selling(organisation):
    """The catalog on sale to one tenant."""
    sync_catalog(CATALOG)
    publish_catalog_prices(CATALOG)
    recompile_everyone()
    return organisation


def policy_of(tenant) -> contract.KeyPolicy:
    with tenant_scope(tenant.id):
        row = GatewayPolicy.objects.get(key_id=tenant.key_id)
    return contract.decode(msgspec.json.encode(row.document))
