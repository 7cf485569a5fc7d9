"""Which requests are looked at, how often who is asked about them, and which are ended."""

import asyncio
import os
import signal
import time
from uuid import UUID

import msgspec
import pytest
import redis.asyncio as redis
from psycopg_pool import AsyncConnectionPool

from meterplane.contracts import admission_keys as names
from meterplane.contracts.policy import KeyPolicy
from meterplane.gateway import revocation
from meterplane.gateway.lua_calls import LuaCalls
from meterplane.gateway.policies import Policies, Standing, database_unavailable
from meterplane.gateway.revocation import OpenRuns
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.ids import uuid7
from tests.conftest import wait_until


def policy_of(tenant_id=None, **changed):
    values = {
        "version": 7,
        "key_id": uuid7(),
        "tenant_id": tenant_id or uuid7(),
        "project_id": uuid7(),
        "status": "active",
        "status_reason": "",
        "expires_at_ms": None,
        "currency": "EUR",
        "price_version_id": UUID(int=1),
        "models": {},
        "limits": [],
    }
    return KeyPolicy(**values | changed)


class Request:
    """A request that is told of its end. `settled`: there is nothing left to end."""

    def __init__(self, *, settled=False):
        self.run = type("Run", (), {"settled": object() if settled else None})
        self.refusal = None
        self.ended = 0

    def end_early(self, why):
        assert why == "refused"
        self.ended += 1
        return self.ended == 1


class KnownPolicies(Policies):
    """PostgreSQL's part: what it knows of each digest. `asked` are the digests of each read."""

    def __init__(self):
        super().__init__(AsyncConnectionPool("", open=False))
        self.known = {}
        self.asked = []

    async def standings(self, digests):
        self.asked.append(list(digests))
        if self.known is None:
            raise database_unavailable()
        return {digest: self.known[digest] for digest in digests if digest in self.known}


class Bench:
    """Open runs whose looks a test makes itself."""

    def __init__(self, calls, server):
        self.calls, self.server, self.policies = calls, server, KnownPolicies()
        self.runs = OpenRuns(calls, self.policies)

    async def admit(self, digest, policy, request=None):
        """A request under a policy that is current everywhere."""
        request = request or Request()
        await self.publish(policy)
        self.policies.known[digest] = standing_of(policy)
        self.runs.note(digest, policy, request)
        return request

    async def publish(self, policy):
        await self.server.set(names.version(policy.tenant_id, policy.key_id), policy.version)

    async def change(self, digest, policy, **changed):
        changed = msgspec.structs.replace(policy, version=policy.version + 1, **changed)
        self.policies.known[digest] = standing_of(changed)
        await self.publish(changed)
        return changed


def standing_of(policy):
    return Standing(policy.version, policy.status, policy.status_reason, policy.expires_at_ms)


@pytest.fixture
async def bench(redis_url):
    calls = LuaCalls(redis_url, (), timeout_s=2.0)
    calls.start()
    async with redis.Redis.from_url(redis_url) as server:
        yield Bench(calls, server)
    await calls.close()


async def test_while_nothing_runs_nobody_is_asked(bench):
    request = await bench.admit(b"a", policy_of())
    bench.runs.forget(b"a", request)
    bench.runs.forget(b"a", request)
    await bench.runs.look()
    assert (bench.calls.calls, bench.policies.asked, bench.runs._keys) == (0, [], {})


async def test_keys_that_did_not_change_cost_a_call_for_each_organisation(bench):
    tenants = [uuid7() for _ in range(3)]
    requests = [
        await bench.admit(b"%d/%d" % (t, k), policy_of(tenant))
        for t, tenant in enumerate(tenants)
        for k in range(10)
        for _ in range(2)  # two requests of a key are looked at together
    ]
    await bench.runs.look()
    assert (bench.calls.calls, bench.policies.asked) == (3, [])
    assert not any(request.ended for request in requests)


async def test_a_change_is_found_among_any_number_of_keys(bench):
    tenant, count = uuid7(), 3 * revocation.KEYS_PER_CALL // 2
    policies = [policy_of(tenant) for _ in range(count)]
    requests = [await bench.admit(b"%d" % n, each) for n, each in enumerate(policies)]
    await bench.change(b"11", policies[11], status="revoked")
    await bench.change(b"300", policies[300], status="suspended", status_reason="unpaid")
    await bench.change(b"301", policies[301])
    await bench.runs.look()
    assert bench.calls.calls == 2
    assert [sorted(read) for read in bench.policies.asked] == [[b"11", b"300", b"301"]]
    told = {n: each.refusal.code for n, each in enumerate(requests) if each.refusal}
    assert told == {11: "key_revoked", 300: "account_suspended"}
    await bench.runs.look()
    assert {b"301"}.isdisjoint(bench.policies.asked[-1])  # its change is known by now
    assert bench.runs.cut == 2


async def test_a_key_that_is_no_more_may_infer_no_more(bench):
    policy = policy_of()
    request = await bench.admit(b"a", policy)
    await bench.change(b"a", policy)
    del bench.policies.known[b"a"]
    await bench.runs.look()
    assert request.refusal.code == "key_revoked"


async def test_what_has_settled_is_let_end_and_what_is_ending_is_not_ended_again(bench):
    policy = policy_of()
    settled = await bench.admit(b"a", policy, Request(settled=True))
    ending = await bench.admit(b"a", policy)
    ending.end_early("refused")  # its caller left
    other = await bench.admit(b"a", policy)
    await bench.change(b"a", policy, status="revoked")
    await bench.runs.look()
    await bench.runs.look()
    assert (settled.ended, settled.refusal, ending.refusal) == (0, None, None)
    assert other.refusal.code == "key_revoked"
    assert bench.runs.cut == 1


async def test_an_expiry_comes_without_any_change_and_may_have_been_put_off(bench):
    soon = policy_of(expires_at_ms=clock.now_ms() + 60_000)
    past = policy_of(expires_at_ms=clock.now_ms() - 1)
    later = policy_of(expires_at_ms=clock.now_ms() - 1)
    requests = [await bench.admit(b"%d" % n, each) for n, each in enumerate((soon, past, later))]
    bench.policies.known[b"2"] = Standing(8, "active", "", clock.now_ms() + 60_000)
    await bench.runs.look()
    codes = [each.refusal and each.refusal.code for each in requests]
    assert codes == [None, "key_expired", None]


async def test_who_is_admitted_under_a_newer_policy_tells_of_it(bench):
    policy = policy_of()
    await bench.admit(b"a", policy)
    newer = msgspec.structs.replace(policy, version=9)
    request = await bench.admit(b"a", newer)
    await bench.runs.look()
    assert bench.policies.asked == []
    # A read that began before that admission is behind it.
    bench.policies.known[b"a"] = Standing(8, "suspended", "", None)
    await bench.publish(msgspec.structs.replace(policy, version=10))
    await bench.runs.look()
    assert request.refusal is None


@pytest.mark.parametrize("trouble", ["forgetful", "stalled"])
async def test_where_redis_says_nothing_postgres_is_asked_once_a_second(
    bench, monkeypatch, trouble
):
    monkeypatch.setattr(revocation, "ANSWER_S", 0.05)
    policy = policy_of()
    request = await bench.admit(b"a", policy)
    pid = (await bench.server.info("server"))["process_id"]
    if trouble == "stalled":
        await bench.runs.look()  # connects
        os.kill(pid, signal.SIGSTOP)
    else:
        await bench.server.flushall()
    try:
        began = time.monotonic()
        bench.policies.known = {b"a": standing_of(policy)}
        while time.monotonic() - began < 2.5:
            await bench.runs.look()
            await asyncio.sleep(0.05)
        seconds = time.monotonic() - began
        assert 2 <= len(bench.policies.asked) <= 1 + seconds / revocation.POSTGRES_EVERY_S
        assert request.refusal is None
        bench.policies.known = {}
        bench.runs._read_at = 0.0
        await bench.runs.look()
        assert request.refusal.code == "key_revoked"
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_redis_that_stalls_is_waited_for_once_however_many_ask(bench, monkeypatch):
    monkeypatch.setattr(revocation, "ANSWER_S", 0.2)
    for number in range(3 * revocation.CALLS_AT_ONCE):
        await bench.admit(b"%d" % number, policy_of())
    await bench.runs.look()
    before = bench.calls.calls
    pid = (await bench.server.info("server"))["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        await bench.runs.look()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert bench.calls.calls - before == revocation.CALLS_AT_ONCE
    assert [len(read) for read in bench.policies.asked] == [3 * revocation.CALLS_AT_ONCE]


async def test_while_neither_answers_nothing_is_ended_and_then_it_is(bench):
    policy = policy_of()
    request = await bench.admit(b"a", policy)
    await bench.change(b"a", policy, status="revoked")
    known, bench.policies.known = bench.policies.known, None
    await bench.runs.look()
    assert request.refusal is None
    bench.policies.known = known
    await bench.runs.look()
    assert request.refusal.code == "key_revoked"


async def test_who_waited_to_begin_is_asked_about_once_more(bench):
    policy = policy_of()
    await bench.admit(b"a", policy)
    await bench.runs.confirm(b"a")
    assert (bench.calls.calls, bench.policies.asked) == (1, [])
    policy = await bench.change(b"a", policy)  # and may go on
    await bench.runs.confirm(b"a")
    await bench.runs.confirm(b"a")
    assert bench.policies.asked == [[b"a"]]
    await bench.change(b"a", policy, status="suspended", status_reason="unpaid")
    with pytest.raises(CallerError) as refused:
        await bench.runs.confirm(b"a")
    assert refused.value.code == "account_suspended"


async def test_while_nobody_can_say_who_waited_does_not_begin(bench):
    await bench.admit(b"a", policy_of())
    await bench.server.flushall()
    await bench.runs.confirm(b"a")  # as PostgreSQL says
    bench.policies.known = None
    with pytest.raises(WorldError) as unknown:
        await bench.runs.confirm(b"a")
    assert unknown.value.status == 503


async def test_who_waited_does_not_begin_without_what_it_reserved(bench):
    """A Redis that was lost took it along; what it was granted may be granted again by now."""
    policy = policy_of()
    await bench.admit(b"a", policy)
    await bench.server.set(names.reservation(policy.tenant_id, "x:1"), "held")
    await bench.runs.confirm(b"a", "x:1")
    await bench.server.flushall()
    await bench.server.set(names.version(policy.tenant_id, policy.key_id), policy.version)
    await bench.runs.confirm(b"a")  # one that reserved nothing has lost nothing
    with pytest.raises(WorldError) as lost:
        await bench.runs.confirm(b"a", "x:1")
    assert (lost.value.status, lost.value.code) == (503, "budget_rebuilding")


async def test_who_waited_does_not_begin_while_redis_cannot_say_what_it_holds(bench):
    policy = policy_of()
    await bench.admit(b"a", policy)
    await bench.server.set(names.reservation(policy.tenant_id, "x:1"), "held")
    pid = (await bench.server.info("server"))["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        await bench.runs.confirm(b"a")  # its key: as PostgreSQL says
        with pytest.raises(WorldError) as silent:
            await bench.runs.confirm(b"a", "x:1")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert silent.value.status == 503


async def test_a_look_that_fails_is_not_the_last(bench, monkeypatch):
    monkeypatch.setattr(revocation, "LOOK_EVERY_S", 0.01)
    policy = policy_of()
    request = await bench.admit(b"a", policy)
    await bench.change(b"a", policy, status="revoked")

    async def broken(digests):
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(bench.policies, "standings", broken)
    bench.runs.start()
    await asyncio.sleep(0.1)
    monkeypatch.undo()
    await asyncio.to_thread(wait_until, lambda: request.refusal is not None, "another look")
    await bench.runs.close()
    assert request.refusal.code == "key_revoked"
