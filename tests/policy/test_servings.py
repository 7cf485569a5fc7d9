"""How models are reached, as gateways are told: versions that change with what they say."""

from datetime import timedelta

import msgspec
import psycopg
import pytest
from django.db import transaction

from meterplane.catalog.models import Model
from meterplane.catalog.sync import sync_catalog
from meterplane.contracts import serving as contract
from meterplane.kernel import clock
from meterplane.policy.compile import recompile_everyone
from meterplane.policy.models import GatewayModel
from meterplane.policy.servings import VERSIONS_KEPT, current_servings, forget_superseded
from tenants.scoping import system_scope
from tests import environment
from tests.policy.conftest import CATALOG, policy_of

pytestmark = pytest.mark.django_db


def serving(name: str, version: int) -> contract.ModelServing:
    row = GatewayModel.objects.get(name=name, version=version)
    return contract.decode(msgspec.json.encode(row.document))


def versions(name: str) -> list[int]:
    return list(GatewayModel.objects.filter(name=name).values_list("version", flat=True))


def test_every_model_of_a_policy_names_a_serving_that_can_be_read(selling):
    models = policy_of(selling).models
    assert len(models) == 3
    for model in models.values():
        told = serving(model.name, model.serving_version)
        assert (told.name, told.version) == (model.name, model.serving_version)
        assert told.targets == [contract.Target(upstream=model.upstream)]


def test_a_model_says_since_when_it_is_on_offer_and_what_batches_pay(selling):
    models = policy_of(selling).models
    created_at = Model.objects.get(name="tiny-lm").created_at
    assert models["tiny-lm"].created_at_s == int(created_at.timestamp())
    prices, batch = models["tiny-lm"].prices, models["tiny-lm"].batch_prices
    assert batch is not None
    assert batch.input_token_pico * 2 == prices.input_token_pico
    assert batch.output_token_pico * 2 == prices.output_token_pico
    assert models["identity"].batch_prices is None


def test_what_did_not_change_keeps_its_version(selling):
    before = policy_of(selling)
    told = set(GatewayModel.objects.values_list("name", "version"))
    recompile_everyone()
    assert policy_of(selling) == before
    assert set(GatewayModel.objects.values_list("name", "version")) == told


def test_a_model_that_changed_gets_a_version_that_every_policy_names(selling, onboard):
    other = onboard("globex")
    before = policy_of(selling)
    targets = [
        {"name": "stable", "weight": 9, "servers": ["http://triton-a:8000/"]},
        {"name": "canary", "upstream": "tiny-lm-next", "version": "2"},
    ]
    Model.objects.filter(name="tiny-lm").update(
        targets=targets, fallbacks=["all-minilm-l6-v2"], idle_timeout_s=2.5, bill_errors=True
    )
    recompile_everyone()
    after = policy_of(selling)
    version = after.models["tiny-lm"].serving_version
    assert version > before.models["tiny-lm"].serving_version
    assert policy_of(other).models["tiny-lm"].serving_version == version
    assert after.version > before.version
    told = serving("tiny-lm", version)
    assert told.targets == [
        contract.Target(
            name="stable", upstream="tiny-lm", weight=9, servers=["http://triton-a:8000"]
        ),
        contract.Target(name="canary", upstream="tiny-lm-next", version="2"),
    ]
    assert (told.fallbacks, told.idle_timeout_s, told.bill_errors) == (
        ["all-minilm-l6-v2"], 2.5, True,
    )  # fmt: skip
    same = before.models["identity"].serving_version
    assert after.models["identity"].serving_version == same


def test_the_version_before_stays_for_gateways_that_still_name_it(selling):
    old = policy_of(selling).models["tiny-lm"].serving_version
    Model.objects.filter(name="tiny-lm").update(tokenizer="new")
    recompile_everyone()
    assert serving("tiny-lm", old).tokenizer == ""


def test_a_model_without_a_price_or_a_buyer_has_a_serving_all_the_same(db):
    sync_catalog(CATALOG)
    assert recompile_everyone() == 0
    assert set(GatewayModel.objects.values_list("name", flat=True)) == {
        "all-minilm-l6-v2", "identity", "tiny-lm",
    }  # fmt: skip


def test_old_versions_are_forgotten_but_for_the_last_few(selling):
    start = clock.now()
    for hour in range(9):
        with clock.frozen(start + timedelta(hours=2 * hour)):
            Model.objects.filter(name="tiny-lm").update(tokenizer=f"folder-{hour}")
            recompile_everyone()
    assert len(versions("tiny-lm")) == VERSIONS_KEPT
    assert policy_of(selling).models["tiny-lm"].serving_version == max(versions("tiny-lm"))
    assert len(versions("identity")) == 1


def test_versions_of_the_last_hour_are_kept_however_many(selling):
    for number in range(9):
        Model.objects.filter(name="tiny-lm").update(tokenizer=f"folder-{number}")
        recompile_everyone()
    assert len(versions("tiny-lm")) == 10


def test_a_version_a_policy_still_names_is_never_forgotten(selling):
    """A policy that was not compiled again, as of an organisation this change never saw."""
    named = policy_of(selling).models["tiny-lm"].serving_version
    start = clock.now()
    for hour in range(1, 9):
        with clock.frozen(start + timedelta(hours=2 * hour)):
            Model.objects.filter(name="tiny-lm").update(tokenizer=f"folder-{hour}")
            current_servings()
            with system_scope("forget what nobody names"):
                forget_superseded()
    assert len(versions("tiny-lm")) == VERSIONS_KEPT + 1
    assert policy_of(selling).models["tiny-lm"].serving_version == named
    assert serving("tiny-lm", named)


@pytest.mark.django_db(transaction=True)
def test_the_gateways_role_reads_servings_and_writes_none(selling):
    with psycopg.connect(
        environment.database_url("meterplane_gateway"), autocommit=True
    ) as gateway:
        rows = gateway.execute("SELECT name, version, document::text FROM gateway_model").fetchall()
        told = [contract.decode(text) for _, _, text in rows]
        assert [(name, version) for name, version, _ in rows] == [
            (each.name, each.version) for each in told
        ]
        assert len(told) == 3
        for statement in (
            "DELETE FROM gateway_model",
            "UPDATE gateway_model SET version = 1",
            "INSERT INTO gateway_model VALUES ('x', 1, '{}', now())",
            "SELECT nextval('gateway_model_version')",
            "SELECT name FROM catalog_model",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                gateway.execute(statement)


@pytest.mark.django_db(transaction=True)
def test_a_change_and_its_serving_are_seen_together_or_not_at_all(selling):
    """Whoever reads a new policy can read the serving it names: they commit as one."""

    before = policy_of(selling)
    with transaction.atomic():
        Model.objects.filter(name="tiny-lm").update(tokenizer="new")
        recompile_everyone()
        assert len(versions("tiny-lm")) == 2
        with psycopg.connect(environment.database_url("meterplane_gateway")) as gateway:
            seen = gateway.execute("SELECT count(*) FROM gateway_model WHERE name = 'tiny-lm'")
            assert seen.fetchone() == (1,)
        transaction.set_rollback(True)
    assert policy_of(selling) == before
    assert len(versions("tiny-lm")) == 1
