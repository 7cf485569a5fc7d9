"""Servers that are slow, full, dead or wrong: who is asked next, who is not, and what it costs.

Against a real gateway process. However a request ends: one SETTLE under its id, paid once, at the
prices of the model that served.
"""

import asyncio
import random
import time

import httpx
import pytest
from django.db import connections

from meterplane.metering.ingest import ingest_segment
from meterplane.metering.queries import request_by_id
from tenants.limits import set_priority
from tenants.scoping import tenant_scope
from tests.gateway.conftest import as_if_new, end, launch
from tests.gateway.deployments import (
    CHAT,
    CHUNKS,
    IN_NANO,
    NOT_NOW,
    OUT_NANO,
    TENSOR_ANSWER,
    TENSOR_NANO,
    TENSORS,
    asking,
    clients_of,
    completion,
    delta,
    deployed,
    deployed_at,
    events,
    last_event,
    let_in,
    model,
    new_name,
    nowhere,
    put_on_sale,
    says,
    settlements,
    target,
    totals,
    whole,
)
from tests.gateway.engine import event
from tests.metering.segments import message

pytestmark = pytest.mark.django_db(transaction=True)

# The split is drawn by `random`: a gateway with a known seed draws the same again.
SEED = random.SystemRandom().randrange(2**32)
SEEDED = [
    "-c",
    f"import random; random.seed({SEED}); import meterplane.gateway.__main__ as m;"
    " raise SystemExit(m.main())",
]


@pytest.fixture(scope="module")
def one_gateway(django_db_setup, tmp_path_factory):
    print(f"seed {SEED}")
    gateway = launch(tmp_path_factory.mktemp("failover") / "gateway", nowhere(), SEEDED)
    yield gateway
    end(gateway)


@pytest.fixture
def gateway(transactional_db, redis_url, one_gateway):
    return as_if_new(one_gateway)


@pytest.fixture
async def shop(gateway, onboard, tmp_path):
    """`shop(models...)`: a client of a tenant who may use them."""
    async with clients_of(gateway, onboard, tmp_path) as open_for:
        yield open_for


async def ask_many(client, path, body, count, at_once):
    gate = asyncio.Semaphore(at_once)

    async def one():
        async with gate:
            return (await client.post(path, json=body)).status_code

    return await asyncio.gather(*(one() for _ in range(count)))


def infer(name):
    return f"/v2/models/{name}/infer"


def slow(answer, seconds):
    async def behave(peer):
        await asyncio.sleep(seconds)
        await peer.send(answer)

    return behave


async def vanish(peer):
    """Take the request, and be gone before a byte of an answer."""
    peer.reset()


# --- one model on several servers


async def test_equal_servers_share_the_load_and_a_slow_one_gets_less(shop, gateway):
    fast = slow(TENSOR_ANSWER, 0.01)
    async with deployed(fast, fast, fast, slow(TENSOR_ANSWER, 0.2)) as servers:
        name = new_name()
        urls = [each.url for each in servers]
        client = shop(model(name, "tensor", targets=[target("a", *urls)]))
        assert set(await ask_many(client, infer(name), TENSORS, 400, 16)) == {200}
        *equal, lagging = (each.asked for each in servers)
    print("asked", equal, lagging)
    assert sum(equal) + lagging == 400
    assert min(equal) >= 70  # of 133, were they asked in turn
    assert lagging <= 60
    settled = await settlements(gateway, 400)
    assert {each.retries for each in settled} == {0}
    assert {each.server for each in settled} == set(urls)


async def test_a_dead_server_is_left_out_and_comes_back_when_it_lives(shop, gateway):
    answer = says(TENSOR_ANSWER)
    async with deployed(answer, answer) as (_, away):
        port = int(away.url.rpartition(":")[2])
    async with deployed(answer) as (alive,):
        name = new_name()
        client = shop(model(name, "tensor", targets=[target("a", alive.url, away.url)]))
        assert set(await ask_many(client, infer(name), TENSORS, 60, 4)) == {200}
        settled = await settlements(gateway, 60)
        assert {each.server for each in settled} == {alive.url}
        # Connecting to the dead one was tried until that failed: by four at once at most.
        assert 1 <= sum(each.retries for each in settled) <= 4
        async with deployed_at([port], answer) as (back,):
            deadline = time.monotonic() + 15
            while not back.asked and time.monotonic() < deadline:
                await client.post(infer(name), json=TENSORS)
                await asyncio.sleep(0.05)
            assert back.probed >= 1
            before = back.asked
            assert set(await ask_many(client, infer(name), TENSORS, 60, 4)) == {200}
            assert back.asked - before >= 12


async def test_one_that_has_no_room_is_not_the_last_word(shop, gateway):
    async with deployed(says(NOT_NOW), says(TENSOR_ANSWER)) as (full, free):
        name = new_name()
        client = shop(model(name, "tensor", targets=[target("a", full.url, free.url)]))
        assert set(await ask_many(client, infer(name), TENSORS, 40, 1)) == {200}
    settled = await settlements(gateway, 40)
    assert full.asked >= 1
    assert free.asked == 40
    assert sum(each.retries for each in settled) == full.asked
    assert {each.cost_nano for each in settled} == {TENSOR_NANO}


async def test_all_servers_dead_is_503_and_free(shop, gateway):
    name = new_name()
    client = shop(model(name, "tensor", targets=[target("a", nowhere(), nowhere())]))
    answer = await client.post(infer(name), json=TENSORS)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "Nothing was charged" in answer.json()["error"]
    (settled,) = await settlements(gateway)
    assert (settled.status, settled.http_status) == ("error", 503)
    assert (settled.cost_nano, settled.requests, settled.retries) == (0, 0, 1)


async def test_what_may_have_run_is_not_sent_to_anyone_else(shop, gateway):
    """Three ways on: another server of the target, another target, a fallback. None is taken."""
    async with deployed(vanish, vanish, says(completion())) as (first, second, other):
        name, spare = new_name(), new_name()
        targets = [target("a", first.url, second.url), target("b", first.url, second.url)]
        client = shop(
            model(name, targets=targets, fallbacks=[spare]),
            model(spare, targets=[target("a", other.url)]),
        )
        answer = await client.post(CHAT, json=asking(name))
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "upstream_unavailable"
        assert (first.asked + second.asked, other.asked) == (1, 0)
    (settled,) = await settlements(gateway)
    assert (settled.status, settled.cost_nano, settled.retries) == ("error", 0, 0)


async def test_a_kept_connection_that_was_closed_meanwhile_is_asked_anew_and_paid_once(
    shop, gateway
):
    async def once_each(peer):
        await peer.send(TENSOR_ANSWER)
        peer.close()

    async with deployed(once_each) as (server,):
        name = new_name()
        client = shop(model(name, "tensor", targets=[target("a", server.url)]))
        assert set(await ask_many(client, infer(name), TENSORS, 30, 1)) == {200}
        assert server.asked == 30
    settled = await settlements(gateway, 30)
    assert sum(each.cost_nano for each in settled) == 30 * TENSOR_NANO


async def test_an_answer_that_began_is_not_begun_again_elsewhere(shop, gateway):
    """Neither one that breaks nor one that ends in silence."""

    async def breaks(peer):
        await peer.send(CHUNKS, delta())
        peer.reset()

    async with deployed(breaks, says(completion())) as (broken, other):
        name, spare = new_name(), new_name()
        client = shop(
            model(name, targets=[target("a", broken.url)], fallbacks=[spare]),
            model(spare, targets=[target("a", other.url)]),
        )
        answer = await client.post(CHAT, json=asking(name, stream=True))
        assert answer.status_code == 200
        assert last_event(answer)["error"]["code"] == "upstream_broken"
        assert (broken.asked, other.asked) == (1, 0)
    (settled,) = await settlements(gateway)
    assert (settled.status, settled.http_status, settled.cost_nano) == ("error", 502, 0)


# --- other models, other deployments


async def test_a_fallback_serves_at_its_own_prices_and_the_event_says_so(shop, gateway):
    dear = {"input_token": "0.000002", "output_token": "0.000005", "request": "0"}
    async with deployed(says(NOT_NOW), says(completion(4, 3))) as (full, other):
        name, gone, spare = new_name(), new_name(), new_name()
        client = shop(
            model(name, targets=[target("a", full.url)], fallbacks=[gone, spare]),
            model(gone, targets=[target("a", nowhere())]),
            model(spare, targets=[target("a", other.url)], prices=dear),
        )
        answer = await client.post(CHAT, json=asking(name))
        assert answer.status_code == 200
        assert (full.asked, other.asked) == (1, 1)
    (settled,) = await settlements(gateway)
    assert (settled.model, settled.requested_model) == (spare, name)
    assert (settled.retries, settled.server) == (2, other.url)
    assert settled.cost_nano == 4 * 2000 + 3 * 5000
    admits = gateway.admits()
    assert [each.model for each in admits] == [name, gone, spare]
    assert len({each.reserved_nano for each in admits}) == 1
    # The dearest of the three, for the longest answer: nine tokens.
    assert settled.reserved_nano >= 9 * 5000 + 4 * 2000


async def test_the_event_says_in_which_class_where_and_on_what_it_was_served(
    gateway, onboard, tmp_path
):
    async with deployed(says(completion()), says(NOT_NOW)) as (server, full):
        name, spare = new_name(), new_name()
        here = target("a", server.url, region="eu-west", gpu_type="H100")
        put_on_sale(
            tmp_path,
            model(name, targets=[target("a", full.url, region="us-east")], fallbacks=[spare]),
            model(spare, targets=[here]),
        )
        tenant = let_in(onboard)
        set_priority(tenant_id=tenant.id, priority="high", weight=1)
        connections.close_all()
        headers = {"Authorization": f"Bearer {tenant.secret}"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
            assert (await client.post(CHAT, json=asking(name))).status_code == 200
    (settled,) = await settlements(gateway)
    told = [(each.priority, each.region, each.gpu_type) for each in (*gateway.admits(), settled)]
    # The last ADMIT is what a crash would be settled from.
    assert told == [
        ("high", "us-east", ""),
        ("high", "eu-west", "H100"),
        ("high", "eu-west", "H100"),
    ]
    await asyncio.to_thread(taken_in, tenant, settled)


def taken_in(tenant, settled):
    try:
        ingest_segment(message([settled]))
        with tenant_scope(tenant.id):
            event = request_by_id(settled.request_id)
        assert event is not None
        assert (event.priority, event.region, event.gpu_type) == ("high", "eu-west", "H100")
    finally:
        connections.close_all()


async def test_a_fallback_answers_a_stream_and_says_its_own_name(shop, gateway):
    pieces = CHUNKS, event(), event(tokens=2), event("", 0, "stop"), b"0\r\n\r\n"
    async with deployed(says(NOT_NOW), says(*pieces)) as (_, other):
        name, spare = new_name(), new_name()
        client = shop(
            model(name, "vllm", targets=[target("a", nowhere())], fallbacks=[spare]),
            model(spare, "vllm", targets=[target("a", other.url)]),
        )
        answer = await client.post(CHAT, json=asking(name, stream=True))
    assert answer.text.endswith("data: [DONE]\n\n")
    assert {each["model"] for each in events(answer)} == {spare}
    (settled,) = await settlements(gateway)
    assert (settled.status, settled.model, settled.tokens_out) == ("ok", spare, 3)
    assert settled.cost_nano == 4 * IN_NANO + 3 * OUT_NANO


async def test_a_fallback_the_budget_cannot_pay_is_none(shop, gateway, onboard, tmp_path):
    """What may serve is reserved at the dearest: a fallback never costs more than was held."""
    dear = {"input_token": "0.1", "output_token": "0.1", "request": "0"}
    async with deployed(says(completion())) as (server,):
        here, away, spare = new_name(), new_name(), new_name()
        put_on_sale(
            tmp_path,
            model(here, targets=[target("a", server.url)], fallbacks=[spare]),
            model(away, targets=[target("a", nowhere())], fallbacks=[spare]),
            model(spare, targets=[target("a", server.url)], prices=dear),
        )
        tenant = let_in(onboard, monthly_budget_nano=1_000_000)
        with gateway.client(tenant.secret) as client:
            answers = [
                await asyncio.to_thread(client.post, CHAT, json=asking(name))
                for name in (here, away)
            ]
        assert [answer.status_code for answer in answers] == [200, 503]
        assert server.asked == 1
    assert [settle.model for settle in gateway.settles()] == [here, away]


async def test_a_canary_gets_its_share_and_usage_tells_the_arms_apart(shop, gateway):
    print(f"seed {SEED}")
    count, share = 1000, 0.1
    async with deployed(says(TENSOR_ANSWER), says(TENSOR_ANSWER)) as (stable, canary):
        name = new_name()
        client = shop(
            model(
                name,
                "tensor",
                targets=[
                    target("stable", stable.url, weight=9),
                    target("canary", canary.url, version="2"),
                    target("resting", nowhere(), weight=0),
                ],
            )
        )
        assert set(await ask_many(client, infer(name), TENSORS, count, 8)) == {200}
    settled = await settlements(gateway, count)
    arms = [each.deployment for each in settled]
    # 100 expected, standard deviation 9.5: beyond 4.5 of those once in 150,000 runs.
    print("canary", arms.count("canary"), "of", count)
    assert abs(arms.count("canary") - count * share) <= 4.5 * (count * share * (1 - share)) ** 0.5
    assert (arms.count("stable"), arms.count("canary")) == (stable.asked, canary.asked)
    servers = {(each.deployment, each.server) for each in settled}
    assert servers == {("stable", stable.url), ("canary", canary.url)}


async def test_a_canary_that_is_down_costs_nobody_an_answer(shop, gateway):
    async with deployed(says(TENSOR_ANSWER)) as (stable,):
        name = new_name()
        arms = [target("stable", stable.url), target("canary", nowhere(), weight=3)]
        client = shop(model(name, "tensor", targets=arms))
        assert set(await ask_many(client, infer(name), TENSORS, 60, 4)) == {200}
    settled = await settlements(gateway, 60)
    assert {each.deployment for each in settled} == {"stable"}
    moved = sum(each.retries for each in settled)
    assert 25 <= moved <= 58  # three of four drew the canary; that bound fails once in 10^6
    admitted = [each.deployment for each in gateway.admits()]
    assert (admitted.count("stable"), admitted.count("canary")) == (60, moved)


# --- errors and what they cost


async def test_an_error_inside_a_200_is_an_error_and_nobody_else_is_asked(shop, gateway):
    failed = whole({"error": {"message": "CUDA is gone", "code": 500}})
    async with deployed(says(failed), says(completion())) as (wrong, other):
        name, spare = new_name(), new_name()
        client = shop(
            model(name, targets=[target("a", wrong.url)], fallbacks=[spare]),
            model(spare, targets=[target("a", other.url)]),
        )
        answer = await client.post(CHAT, json=asking(name))
        assert answer.status_code == 502
        assert "CUDA is gone" in answer.json()["error"]["message"]
        assert other.asked == 0
    (settled,) = await settlements(gateway)
    assert (settled.status, settled.http_status, settled.cost_nano) == ("error", 502, 0)


@pytest.mark.parametrize("adapter", ["openai", "vllm"])
@pytest.mark.parametrize("bills", [False, True])
async def test_a_stream_that_fails_is_free_unless_its_model_bills_errors(
    shop, gateway, adapter, bills
):
    pieces = {"openai": delta(), "vllm": event()}

    async def breaks(peer):
        await peer.send(CHUNKS, *[pieces[adapter]] * 3)
        peer.reset()

    async with deployed(breaks) as (server,):
        name = new_name()
        arms = [target("a", server.url)]
        client = shop(model(name, adapter, targets=arms, bill_errors=bills))
        answer = await client.post(CHAT, json=asking(name, stream=True))
        assert last_event(answer)["error"]["code"] == "upstream_broken"
    (settled,) = await settlements(gateway)
    assert (settled.status, settled.http_status) == ("error", 502)
    assert (settled.tokens_out, settled.requests) == ((3, 1) if bills else (0, 0))
    assert settled.cost_nano == settled.tokens_in * IN_NANO + settled.tokens_out * OUT_NANO


async def test_a_stream_of_many_tokens_is_whole_and_paid_once(shop, gateway):
    """The control of the tests here: the same servers, nothing wrong."""
    async with deployed(says(CHUNKS, *[delta()] * 50, totals(4, 50))) as (server,):
        name = new_name()
        client = shop(model(name, targets=[target("a", server.url)]))
        answer = await client.post(CHAT, json=asking(name, stream=True))
    assert answer.text.endswith("data: [DONE]\n\n")
    (settled,) = await settlements(gateway)
    assert settled.cost_nano == 4 * IN_NANO + 50 * OUT_NANO
