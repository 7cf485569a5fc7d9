"""What the gateway will be told, compiled from tenants, catalog and prices."""

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from billing.invoicing.agree import agree
from billing.pricing.catalog_prices import publish_catalog_prices
from meterplane.catalog.models import Model
from meterplane.catalog.sync import read_catalog, sync_catalog
from meterplane.contracts import policy as contract
from meterplane.kernel import clock, money
from meterplane.kernel.errors import CallerError
from meterplane.policy.compile import recompile_everyone
from meterplane.policy.models import GatewayPolicy
from tenants.scoping import tenant_scope

pytestmark = pytest.mark.django_db
CATALOG = Path(__file__).resolve().parents[2] / "infra" / "triton" / "catalog.json"


def policy_of(organisation) -> contract.KeyPolicy:
    with tenant_scope(organisation.id):
        row = GatewayPolicy.objects.get(key_id=organisation.key_id)
    return msgspec.convert(row.document, contract.KeyPolicy)


def test_a_model_without_a_price_is_not_for_sale(organisation):
    sync_catalog(CATALOG)
    recompile_everyone()
    assert policy_of(organisation).models == {}


def test_the_catalogs_prices_reach_every_key(organisation):
    sync_catalog(CATALOG)
    publish_catalog_prices(CATALOG)
    assert recompile_everyone() == 1
    models = policy_of(organisation).models
    assert set(models) == {"all-minilm-l6-v2", "tiny-lm", "identity"}
    entries = {e["name"]: e for e in json.loads(CATALOG.read_bytes())["models"]}
    for name, model in models.items():
        prices = entries[name]["prices"]
        assert model.prices.input_token_pico == Decimal(prices["input_token"]) * money.PICO
        assert model.prices.request_pico == Decimal(prices["request"]) * money.PICO


def test_recompiling_what_did_not_change_keeps_its_version(organisation):
    before = policy_of(organisation)
    recompile_everyone()
    assert policy_of(organisation) == before


def test_a_model_taken_off_the_catalog_leaves_every_policy(organisation):
    sync_catalog(CATALOG)
    publish_catalog_prices(CATALOG)
    Model.objects.filter(name="identity").update(is_active=False)
    recompile_everyone()
    assert "identity" not in policy_of(organisation).models


@pytest.mark.parametrize(
    "text", ["", "{}", '{"models": 3}', '{"models": [{"name": "x"}]}', "not json"]
)
def test_a_broken_catalog_file_is_refused_and_changes_nothing(tmp_path, text):
    broken = tmp_path / "catalog.json"
    broken.write_text(text)
    with pytest.raises(CallerError, match=r"catalog\.json"):
        read_catalog(broken)


def test_a_request_holds_what_a_contract_makes_of_it_and_is_told_the_list_price(organisation):
    sync_catalog(CATALOG)
    publish_catalog_prices(CATALOG)
    recompile_everyone()
    before = policy_of(organisation).models["tiny-lm"]
    assert before.reserve_prices is None
    dearer = [
        {"meter": "output_tokens", "match": {"model": "tiny-lm"}, "display_name": "Output",
         "price_model": {"type": "graduated", "tiers": [
             {"up_to": "100", "unit_amount": "0"}, {"up_to": None, "unit_amount": "0.5"}]}},
        {"meter": "input_tokens", "match": {"model": "tiny-lm"}, "display_name": "Input",
         "price_model": {"type": "unit", "unit_amount": "0"}},
    ]  # fmt: skip
    body = {"starts_at": f"{clock.now() + timedelta(days=30):%Y-%m-%dT00:00:00Z}"}
    agree(tenant_id=organisation.id, body=body | {"entries": dearer}, by="sales")
    models = policy_of(organisation).models
    agreed = models["tiny-lm"]
    assert agreed.prices == before.prices
    assert agreed.reserve_prices.output_token_pico == money.PICO // 2
    assert agreed.reserve_prices.input_token_pico == before.prices.input_token_pico
    assert models["identity"].reserve_prices is None
