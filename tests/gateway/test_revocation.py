"""What runs under a key that may not infer any more is ended, told so, and settled for what it was.

Against a real gateway process, and servers that do as they are told.
"""

import asyncio
import json
import os
import signal
from datetime import timedelta

import httpx2 as httpx
import pytest
import redis
from django.conf import settings
from django.db import connections

from meterplane.contracts import batch_pass, usage
from meterplane.gateway.authenticate import bearer_digest
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError
from meterplane.kernel.ids import uuid7
from tenants.keys import issue_key, revoke_key
from tenants.limits import set_limit
from tenants.models import ApiKey
from tenants.policy_port import recompile
from tenants.scoping import tenant_scope
from tenants.standing import set_standing
from tests.conftest import wait_until
from tests.gateway.conftest import as_if_new
from tests.gateway.deployments import (
    CHAT,
    CHUNKS,
    PRICES,
    TENSOR_ANSWER,
    TENSORS,
    asking,
    delta,
    deployed,
    events,
    let_in,
    model,
    new_name,
    nowhere,
    put_on_sale,
    settlements,
    target,
)
from tests.gateway.engine import event
from tests.triton.scripted import Peer

pytestmark = pytest.mark.django_db(transaction=True)

WORDS = 3
HALF = PRICES | {"batch_multiplier": "0.5"}


@pytest.fixture
def gateway(transactional_db, redis_url, one_gateway):
    return as_if_new(one_gateway)


@pytest.fixture
async def open_streams(onboard, tmp_path):
    """A server that says three words of any kind, and then nothing more; and what it serves."""
    given_up = asyncio.Event()

    def saying(*pieces):
        async def answer(peer: Peer) -> None:
            await peer.send(*pieces)
            await peer.gone()
            given_up.set()

        return answer

    async with deployed(
        saying(CHUNKS, *[event()] * WORDS), saying(CHUNKS, *[delta()] * WORDS), saying()
    ) as (engine, openai, silent):
        made = OpenStreams(given_up)
        put_on_sale(
            tmp_path,
            model(made.engine, "vllm", targets=[target("a", engine.url)], prices=HALF),
            model(made.openai, "openai", targets=[target("a", openai.url)]),
            model(made.silent, "tensor", targets=[target("a", silent.url)]),
        )
        made.tenant = let_in(onboard)
        yield made


class OpenStreams:
    """Names of models whose answers begin and do not end, and who may ask them."""

    def __init__(self, given_up: asyncio.Event) -> None:
        self.engine, self.openai, self.silent = (new_name() for _ in range(3))
        self.given_up = given_up
        self.tenant = None

    def client(self, gateway, secret=""):
        headers = {"Authorization": f"Bearer {secret or self.tenant.secret}"}
        return httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20)


def revoke(tenant):
    try:
        revoke_key(tenant_id=tenant.id, key_id=tenant.key_id)
    finally:
        connections.close_all()


def suspend(tenant):
    set_standing(tenant_id=tenant.id, standing="suspended", reason="unpaid")
    connections.close_all()


def expire(tenant):
    """In a moment: no version tells of it when it happens."""
    with tenant_scope(tenant.id):
        soon = clock.now() + timedelta(milliseconds=700)
        ApiKey.objects.filter(id=tenant.key_id).update(expires_at=soon)
        recompile(tenant.id)
    connections.close_all()


async def ended_after(gateway, tenant, change, answering):
    """Change something once a request is under way: what it is answered, and soon enough."""
    began_ms = clock.now_ms()
    change(tenant)
    answer = await answering
    ended_ms = max(each.settled_at_ms for each in gateway.settles())
    print(f"ended {ended_ms - began_ms} ms after the change began")
    assert ended_ms - began_ms < 20_000  # 2 s are promised; a machine may be busy
    return answer


async def under_way(gateway, count=1):
    await asyncio.to_thread(wait_until, lambda: len(gateway.admits()) >= count, "the admission")


def asked_of(made, surface):
    """Path and body of a stream."""
    if surface == "generate":
        body = {"text_input": "x", "stream": True, "sampling_parameters": '{"max_tokens": 500}'}
        return f"/v2/models/{made.engine}/generate_stream", body
    name = made.engine if surface == "vllm" else made.openai
    return CHAT, asking(name, stream=True, max_tokens=500)


@pytest.mark.parametrize("surface", ["openai", "vllm", "generate"])
async def test_a_stream_of_a_revoked_key_ends_and_says_so_in_its_surfaces_words(
    gateway, open_streams, surface
):
    made = open_streams
    path, body = asked_of(made, surface)
    async with made.client(gateway) as client:
        answering = asyncio.create_task(client.post(path, json=body))
        await under_way(gateway)
        answer = await ended_after(gateway, made.tenant, revoke, answering)
        assert answer.status_code == 200
        assert "[DONE]" not in answer.text
        told = events(answer)[-1]["error"]
        if surface == "generate":
            assert "was revoked" in told
        else:
            assert (told["code"], told["type"]) == ("key_revoked", "authentication_error")
        await asyncio.wait_for(made.given_up.wait(), 20)
        again = await client.post(path, json=body)
        assert again.status_code == 401
    (settle,) = await settlements(gateway)
    assert (settle.status, settle.http_status) == ("interrupted", 401)
    assert settle.tokens_out == answer.text.count("word ") == WORDS
    assert settle.cost_nano > 0


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        (revoke, 401, "key_revoked"),
        (suspend, 403, "account_suspended"),
        (expire, 401, "key_expired"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_whatever_ends_a_keys_right_to_infer_ends_its_answers(
    gateway, open_streams, change, status, code, stream
):
    made = open_streams
    async with made.client(gateway) as client:
        body = asking(made.engine, stream=stream, max_tokens=500)
        answering = asyncio.create_task(client.post(CHAT, json=body))
        await under_way(gateway)
        answer = await ended_after(gateway, made.tenant, change, answering)
    if stream:
        assert events(answer)[-1]["error"]["code"] == code
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    (settle,) = await settlements(gateway)
    assert (settle.status, settle.http_status) == ("interrupted", status)
    assert settle.tokens_out == WORDS


@pytest.fixture
async def queue(gateway, onboard, tmp_path):
    """Two keys of a tenant at a model that takes one request at a time: one is being answered, and
    one waits. The server answers when `let` is set.
    """
    let = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await let.wait()
        await peer.send(TENSOR_ANSWER)

    async with deployed(answer) as (server,):
        name = new_name()
        arms = [target("a", server.url)]
        put_on_sale(tmp_path, model(name, "tensor", targets=arms, in_flight_max=1))
        tenant = let_in(onboard)
        # So that each that was admitted has a reservation.
        where = {"tenant_id": tenant.id, "level": "organisation", "scope_id": tenant.id}
        set_limit(**where, kind="concurrency", window="at_once", amount=100)
        other = issue_key(tenant_id=tenant.id, project_id=tenant.project_id, name="other")
        connections.close_all()
        asked = []
        clients = [
            httpx.AsyncClient(
                base_url=gateway.url, headers={"Authorization": f"Bearer {secret}"}, timeout=20
            )
            for secret in (other.secret, tenant.secret)
        ]
        for count, client in enumerate(clients, 1):
            path = f"/v2/models/{name}/infer"
            asked.append(asyncio.create_task(client.post(path, json=TENSORS)))
            await asyncio.to_thread(wait_until, lambda n=count: in_flight(tenant, n), "admission")
        yield tenant, asked, let
        let.set()
        for client in clients:
            await client.aclose()


def in_flight(tenant, count):
    """Whether so many requests of a tenant are admitted, and not settled."""
    with redis.Redis.from_url(settings.ADMISSION_REDIS_URL) as admission:
        return len(list(admission.scan_iter(f"mp:{{{tenant.id}}}:reservation:*"))) >= count


async def test_a_request_that_waits_for_its_turn_is_ended_and_was_none(gateway, queue):
    tenant, (running, waiting), let = queue
    revoke(tenant)
    answer = await waiting
    assert (answer.status_code, "was revoked" in answer.json()["error"]) == (401, True)
    assert not running.done()
    assert len(gateway.admits()) == 1
    let.set()
    assert (await running).status_code == 200
    (settle,) = await settlements(gateway)
    assert settle.status == "ok"


async def test_a_turn_that_comes_after_the_key_was_revoked_is_not_taken(gateway, queue):
    tenant, (running, waiting), let = queue
    revoke(tenant)
    let.set()  # long before anybody looks
    answers = [await running, await waiting]
    assert [answer.status_code for answer in answers] == [200, 401]
    (settle,) = await settlements(gateway)
    assert settle.key_id != tenant.key_id


async def test_a_key_that_expires_while_its_request_arrives_is_refused(gateway, open_streams):
    made = open_streams
    body = json.dumps(asking(made.engine, max_tokens=5)).encode()
    head = (
        b"POST %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n"
        % (CHAT.encode(), made.tenant.secret.encode(), len(body))
    )
    expire(made.tenant)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(head + body[:-1])
    await asyncio.sleep(1)
    writer.write(body[-1:])
    assert b" 401 " in await reader.readuntil(b"\r\n")
    writer.close()
    assert gateway.admits() == []


async def test_who_waits_for_a_silent_server_is_ended_and_pays_nothing(gateway, open_streams):
    made = open_streams
    async with made.client(gateway) as client:
        path = f"/v2/models/{made.silent}/infer"
        answering = asyncio.create_task(client.post(path, json=TENSORS))
        await under_way(gateway)
        answer = await ended_after(gateway, made.tenant, revoke, answering)
    assert answer.status_code == 401
    assert "was revoked" in answer.json()["error"]
    (settle,) = await settlements(gateway)
    assert (settle.status, settle.cost_nano) == ("interrupted", 0)


async def test_a_line_of_a_batch_is_ended_too_though_nobody_waits_for_it(gateway, open_streams):
    made = open_streams
    digest = bearer_digest(b"Bearer " + made.tenant.secret.encode(), settings.API_KEY_PEPPER)
    signed = batch_pass.sign(
        batch_pass.BatchPass(
            digest=digest,
            request_id=uuid7(),
            batch_id=uuid7(),
            expires_at_ms=clock.now_ms() + 60_000,
        ),
        settings.API_KEY_PEPPER,
    )
    headers = {"Authorization": f"Meterplane-Batch {signed}"}
    body = asking(made.engine, max_tokens=500)
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(CHAT, json=body, timeout=0.5)
        await under_way(gateway)
        revoke(made.tenant)
        (settle,) = await settlements(gateway)
        assert (settle.status, settle.service_tier) == ("interrupted", "batch")
        assert settle.tokens_out == WORDS
        answer = await client.post(CHAT, json=body, timeout=20)
        assert answer.status_code == 401
    await asyncio.wait_for(made.given_up.wait(), 20)


async def test_other_keys_and_other_changes_end_nothing(gateway, open_streams):
    """Another key of the organisation is revoked, and this one's policy changes: it goes on."""
    made, tenant = open_streams, open_streams.tenant
    with tenant_scope(tenant.id):
        other = issue_key(tenant_id=tenant.id, project_id=tenant.project_id, name="other")
    connections.close_all()
    async with made.client(gateway) as mine, made.client(gateway, other.secret) as theirs:
        body = asking(made.engine, stream=True, max_tokens=500)
        staying = asyncio.create_task(mine.post(CHAT, json=body))
        leaving = asyncio.create_task(theirs.post(CHAT, json=body))
        await under_way(gateway, 2)
        with tenant_scope(tenant.id):
            late = clock.now() + timedelta(days=1)
            ApiKey.objects.filter(id=tenant.key_id).update(expires_at=late)
            recompile(tenant.id)
        revoke_key(tenant_id=tenant.id, key_id=other.key.id)
        connections.close_all()
        answer = await leaving
        assert events(answer)[-1]["error"]["code"] == "key_revoked"
        await asyncio.sleep(1.2)  # two more looks
        assert not staying.done()
        staying.cancel()
    first, second = sorted(await settlements(gateway, 2), key=lambda each: each.status)
    assert (first.status, first.key_id) == ("cancelled", tenant.key_id)
    assert (second.status, second.key_id) == ("interrupted", other.key.id)


@pytest.mark.parametrize("trouble", ["stalled", "forgetful"])
async def test_without_redis_postgres_is_asked(start_gateway, open_streams, redis_url, trouble):
    made = open_streams
    gateway = start_gateway(nowhere(), ADMISSION_TIMEOUT_MS="250")
    admission = redis.Redis.from_url(redis_url)
    pid = admission.info("server")["process_id"]

    def change(tenant):
        if trouble == "stalled":
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(WorldError, match="could not be told"):
                revoke(tenant)
        else:  # as if it had been told, and then lost everything
            revoke(tenant)
            admission.flushall()

    try:
        async with made.client(gateway) as client:
            body = asking(made.engine, stream=True, max_tokens=500)
            answering = asyncio.create_task(client.post(CHAT, json=body))
            await under_way(gateway)
            answer = await ended_after(gateway, made.tenant, change, answering)
    finally:
        os.kill(pid, signal.SIGCONT)
        admission.close()
    assert events(answer)[-1]["error"]["code"] == "key_revoked"
    (settle,) = await settlements(gateway)
    assert (settle.status, settle.tokens_out) == ("interrupted", WORDS)


async def test_a_hundred_streams_of_a_key_are_all_ended(gateway, open_streams):
    made, count = open_streams, 100
    limits = httpx.Limits(max_connections=count)
    headers = {"Authorization": f"Bearer {made.tenant.secret}"}

    def all_have_heard_everything():
        written = [each for each in gateway.frames() if isinstance(each, usage.Checkpoint)]
        return len({each.request_id for each in written if each.tokens_out == WORDS}) == count

    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, timeout=60, limits=limits
    ) as client:
        body = asking(made.engine, stream=True, max_tokens=500)
        answering = [asyncio.create_task(client.post(CHAT, json=body)) for _ in range(count)]
        await asyncio.to_thread(wait_until, all_have_heard_everything, "every word", 60)
        answers = await ended_after(gateway, made.tenant, revoke, asyncio.gather(*answering))
    assert {events(each)[-1]["error"]["code"] for each in answers} == {"key_revoked"}
    settles = await settlements(gateway, count)
    assert {(each.status, each.tokens_out) for each in settles} == {("interrupted", WORDS)}
