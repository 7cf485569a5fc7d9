"""Keys that cannot be keys cost nobody a read, however many are tried.

What Redis was asked is what it counts of its commands; what PostgreSQL was asked is when each
connection of the gateways began its last statement.
"""

import asyncio
import random
import re
import string
import time
from collections import Counter

import psycopg
import pytest
import redis
from django.conf import settings

from meterplane.contracts import api_key
from tests import environment

pytestmark = pytest.mark.django_db(transaction=True)

TOKENS, TOKENS_LONG = 20_000, 1_000_000
CONNECTIONS = 8
PIPELINED = 32  # requests of a connection that are sent before their answers are read
BODY = b'{"model":"tiny-lm","messages":[{"role":"user","content":"x"}]}'
TARGETS = (
    b"POST /v1/chat/completions", b"POST /v1/embeddings", b"GET /v1/models", b"GET /v1/batches",
    b"POST /v2/models/identity/infer", b"GET /v2/models/identity", b"POST /v2/models/m/generate",
)  # fmt: skip
BASE62 = api_key.ALPHABET
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
OURS = {"cmdstat_info", "cmdstat_auth", "cmdstat_select", "cmdstat_client", "cmdstat_hello"}


def garbage(random_: random.Random) -> bytes:
    """An Authorization header that no key is in; most are nearly one."""

    def some(alphabet, count):
        return "".join(random_.choices(alphabet, k=count))

    def damaged(secret):
        at = random_.randrange(len(secret))
        return secret[:at] + random_.choice(BASE62.replace(secret[at], "")) + secret[at + 1 :]

    kinds = (
        lambda: "Bearer mp_live_" + some(BASE62, 49),
        lambda: "Bearer mp_live_" + some(BASE62, random_.randrange(120)),
        lambda: "Bearer mp_admin_" + some(BASE62, 49),
        lambda: "Bearer sk-" + some(BASE62, 48),
        lambda: "Bearer " + some(string.printable[:94], random_.randrange(300)),
        lambda: "Bearer " + some("\xe9\xff\x80\xfc", 57),
        lambda: "Basic " + some(BASE62 + "+/=", 40),
        lambda: some(string.printable[:94], random_.randrange(80)),
        lambda: "Meterplane-Batch " + some(BASE62 + "._-", random_.randrange(400)),
        lambda: "bearer  " + damaged(api_key.mint("live", settings.API_KEY_PEPPER).secret),
    )
    header = random_.choice(kinds)()
    found = header.partition(" ")[2].strip()
    # Of 4,000,000,000 with the right form one has its check sum, and is a key like any other.
    return garbage(random_) if api_key.is_well_formed(found) else header.encode("latin-1")


async def try_keys(url: str, count: int, seed: int) -> Counter[int]:
    """The statuses of so many requests, each with another key."""
    random_, statuses = random.Random(seed), Counter()
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    while count:
        batch = min(PIPELINED, count)
        count -= batch
        for _ in range(batch):
            target, key = random_.choice(TARGETS), garbage(random_)
            body = BODY if target.startswith(b"POST") else b""
            writer.write(
                b"%b HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\nContent-Length: %d\r\n\r\n%b"
                % (target, key, len(body), body)
            )
        answers = b""
        while len(found := STATUS.findall(answers)) < batch:
            part = await reader.read(65536)
            assert part, "a refusal keeps its connection"
            answers += part
        statuses.update(int(each) for each in found)
    writer.close()
    return statuses


def asked_of_redis(redis_url):
    """How often each command was called."""
    with redis.Redis.from_url(redis_url) as admission:
        stats = admission.info("commandstats")
    return {name: each["calls"] for name, each in stats.items() if name not in OURS}


def asked_of_postgres():
    """When each connection of a gateway began its last statement."""
    with psycopg.connect(environment.database_url("postgres")) as admin:
        rows = admin.execute(
            "SELECT pid, query_start FROM pg_stat_activity WHERE usename = 'meterplane_gateway'"
        ).fetchall()
    return dict(rows)


async def cost_nothing(gateway, redis_url, count):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    before = asked_of_redis(redis_url), asked_of_postgres()
    began = time.monotonic()
    each = count // CONNECTIONS
    told = await asyncio.gather(
        *(try_keys(gateway.url, each, seed + number) for number in range(CONNECTIONS))
    )
    statuses = sum(told, Counter())
    print(f"{count} keys, {statuses}, {count / (time.monotonic() - began):.0f} a second")
    assert statuses == {401: each * CONNECTIONS}
    assert (asked_of_redis(redis_url), asked_of_postgres()) == before


def the_counts_count(gateway, redis_url, acme):
    """A key that might be one is looked up, and one that is one is admitted: both are seen."""
    before = asked_of_redis(redis_url), asked_of_postgres()
    unknown = api_key.mint("live", settings.API_KEY_PEPPER).secret
    with gateway.client(unknown) as client:
        assert client.get("/v1/models").status_code == 401
    assert asked_of_postgres() != before[1]
    with gateway.client(acme.secret) as client:
        chat = {"model": "tiny-lm", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        assert client.post("/v1/chat/completions", json=chat).status_code == 200
    assert asked_of_redis(redis_url) != before[0]


async def test_keys_that_cannot_be_keys_are_refused_without_asking_anybody(
    gateway, redis_url, acme
):
    await cost_nothing(gateway, redis_url, TOKENS)
    the_counts_count(gateway, redis_url, acme)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_a_million_of_them_too(gateway, redis_url, acme):
    await cost_nothing(gateway, redis_url, TOKENS_LONG)
    the_counts_count(gateway, redis_url, acme)
