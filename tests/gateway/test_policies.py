"""What a worker holds of PostgreSQL: policies that share what is equal, and servings."""

import asyncio
import tracemalloc
from uuid import UUID

import msgspec
import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from meterplane.contracts import api_key, policy, serving
from meterplane.gateway import policy_documents, servings
from meterplane.gateway.authenticate import bearer_digest
from meterplane.gateway.policies import Policies
from meterplane.gateway.policy_documents import PolicyDocuments
from meterplane.gateway.servings import Servings
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.ids import uuid7
from tests import environment
from tests.gateway.admission_bench import limit

PEPPER = b"p" * 32


def model(name, pico=1):
    prices = policy.UnitPrices(input_token_pico=pico, output_token_pico=2, request_pico=3)
    return policy.ModelPolicy(
        name=name,
        upstream=name,
        adapter="vllm",
        prices=prices,
        context_tokens_max=4096,
        output_tokens_max=1024,
        output_tokens_default=256,
        description="A model of fifty, as an operator would describe it.",
        batch_prices=prices,
        serving_version=1,
    )


def document(models, **changed):
    values = {
        "version": 1,
        "key_id": uuid7(),
        "tenant_id": uuid7(),
        "project_id": uuid7(),
        "status": "active",
        "status_reason": "",
        "expires_at_ms": None,
        "currency": "eur",
        "price_version_id": UUID(int=1),
        "models": {each.name: each for each in models},
        "limits": [limit(amount=60, burst=10)],
    }
    return policy.encode(policy.KeyPolicy(**values | changed)).decode()


def test_a_shared_policy_is_the_one_the_contract_decodes():
    documents = PolicyDocuments()
    for text in (document([model("a"), model("b", 7)]), document([]), document([], limits=[])):
        assert documents.decode(text) == policy.decode(text)


def test_equal_models_of_different_keys_are_one_object_and_unequal_ones_are_not():
    documents = PolicyDocuments()
    first, second = (documents.decode(document([model("a"), model("b")])) for _ in range(2))
    other = documents.decode(document([model("a", pico=9)]))
    assert first.models["a"] is second.models["a"]
    assert first.models["b"] is second.models["b"]
    assert other.models["a"].prices.input_token_pico == 9
    assert first.models["a"].prices.input_token_pico == 1


def test_what_is_shared_has_a_bound(monkeypatch):
    monkeypatch.setattr(policy_documents, "MODELS_SHARED_MAX", 3)
    documents = PolicyDocuments()
    for number in range(20):
        text = document([model(f"m{number}")])
        assert documents.decode(text) == policy.decode(text)
    assert len(documents._shared) == 3


def test_a_full_cache_of_policies_with_fifty_models_stays_below_a_hundred_megabytes():
    """A hundredth of 16,384 keys, so a hundredth of the memory."""
    models, documents = [model(f"provider/model-{number}") for number in range(50)], None
    texts = [document(models) for _ in range(164)]
    tracemalloc.start()
    documents = PolicyDocuments()
    held = [documents.decode(text) for text in texts]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(held) == 164
    assert size < 1_000_000


@pytest.mark.parametrize(
    "broken",
    [
        '{"version": 1}',
        document([]).replace('"models":{}', '"models":{"a":{"name":"a"}}'),
        document([]).replace('"models":{}', '"models":[]'),
        document([]).replace('"active"', '"asleep"'),
    ],
)
def test_a_document_that_is_no_policy_is_refused(broken):
    with pytest.raises(msgspec.ValidationError):
        PolicyDocuments().decode(broken)


def test_a_header_is_known_by_all_of_it():
    one, two = (api_key.mint("live", PEPPER) for _ in range(2))
    for _ in range(2):  # computed, then held
        assert bearer_digest(b"Bearer " + one.secret.encode(), PEPPER) == one.digest
        assert bearer_digest(b"bearer  " + two.secret.encode(), PEPPER) == two.digest
        assert bearer_digest(b"Bearer " + one.secret.encode(), b"q" * 32) != one.digest
        for wrong in (one.secret[:-1] + "!", one.secret[:-6] + two.secret[-6:], one.secret[:-1]):
            with pytest.raises(CallerError):
                bearer_digest(b"Bearer " + wrong.encode(), PEPPER)


@pytest.fixture
async def pool(transactional_db):
    async with AsyncConnectionPool(
        environment.database_url("meterplane_gateway"),
        min_size=1,
        max_size=2,
        kwargs={"autocommit": True},
        open=False,
    ) as opened:
        yield opened


def store(name, version, text):
    with psycopg.connect(environment.database_url("postgres"), autocommit=True) as admin:
        admin.execute(
            "INSERT INTO gateway_model (name, version, document, compiled_at)"
            " VALUES (%s, %s, %s, now())",
            (name, version, text),
        )


def encoded(name, version, **values):
    targets = [serving.Target(upstream="up")]
    made = serving.ModelServing(name=name, version=version, targets=targets, **values)
    return serving.encode(made).decode()


@pytest.mark.django_db(transaction=True)
async def test_a_serving_is_read_once_by_all_who_ask_and_then_held(pool):
    store("m", 1, encoded("m", 1))
    store("m", 2, encoded("m", 2, bill_errors=True))
    found = Servings(pool)
    assert found.held("m", 1) is None
    answers = await asyncio.gather(*(found.find("m", 1) for _ in range(20)))
    assert {id(each) for each in answers} == {id(found.held("m", 1))}
    assert found.reads == 1
    assert (await found.find("m", 2)).bill_errors
    assert not found.held("m", 1).bill_errors


@pytest.mark.django_db(transaction=True)
async def test_a_serving_that_is_not_there_is_asked_for_once_a_moment(pool, monkeypatch):
    found = Servings(pool)
    assert [await found.find("m", 7) for _ in range(10)] == [None] * 10
    assert found.reads == 1
    monkeypatch.setattr(servings, "ABSENT_MEMORY_S", 0)
    found = Servings(pool)
    assert await found.find("m", 7) is None
    store("m", 7, encoded("m", 7))
    assert (await found.find("m", 7)).version == 7


@pytest.mark.django_db(transaction=True)
async def test_a_serving_that_is_none_is_our_fault_and_not_held(pool):
    store("m", 1, '{"name": "m"}')
    with pytest.raises(WorldError) as failure:
        await Servings(pool).find("m", 1)
    assert (failure.value.code, failure.value.status) == ("serving_unavailable", 503)


@pytest.mark.django_db(transaction=True)
async def test_servings_and_policies_without_a_database_are_unavailable(pool):
    await pool.close()
    for reading in (Servings(pool).find("m", 1), Policies(pool).find(b"d" * 32)):
        with pytest.raises(WorldError) as failure:
            await reading
        assert failure.value.status == 503


@pytest.mark.django_db(transaction=True)
async def test_a_reader_who_leaves_takes_the_answer_from_nobody(pool):
    store("m", 1, encoded("m", 1))
    found = Servings(pool)
    first = asyncio.create_task(found.find("m", 1))
    second = asyncio.create_task(found.find("m", 1))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).name == "m"
    assert found.reads == 1
