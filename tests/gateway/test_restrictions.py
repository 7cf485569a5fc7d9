"""What a key may be used for, from where, and what every answer tells of its limits."""

from ipaddress import ip_network

import httpx2 as httpx
import pytest

from meterplane.gateway.addresses import caller_address, check_address
from meterplane.kernel.errors import CallerError
from tenants.limits import set_limit, set_restriction
from tests.conftest import wait_until
from tests.gateway.test_budgets import CHAT, INFER

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def restrict(tenant, **what):
    set_restriction(tenant_id=tenant.id, level="key", scope_id=tenant.key_id, **what)


def asked(client, call):
    answer = client.post(call[0], json=call[1])
    error = None if answer.is_success else answer.json()["error"]
    return answer.status_code, error["code"] if isinstance(error, dict) else error


@pytest.mark.django_db(transaction=True)
def test_a_key_is_used_for_what_it_may_be_and_for_nothing_else(gateway, acme):
    with gateway.client(acme.secret) as client:
        assert asked(client, CHAT)[0] == asked(client, INFER)[0] == 200
        restrict(acme, surfaces=["openai.chat"])
        assert asked(client, CHAT)[0] == 200
        status, words = asked(client, INFER)
        assert (status, "may not be used for kserve.infer" in words) == (403, True)
        restrict(acme, models=["identity"])
        assert asked(client, CHAT) == (404, "model_not_found")
        names = {each["id"] for each in client.get("/v1/models").json()["data"]}
        assert names == {"identity"}
        restrict(acme)
        wait_until(lambda: asked(client, CHAT)[0] == 200, "a refusal being no older than a second")
    assert len(gateway.admits()) == 4


@pytest.mark.django_db(transaction=True)
def test_a_key_is_used_from_where_it_may_be(gateway, acme):
    with gateway.client(acme.secret) as client:
        restrict(acme, ip_ranges=["203.0.113.0/24"])
        assert asked(client, CHAT) == (403, "address_not_allowed")
        client.headers["x-forwarded-for"] = "203.0.113.7"
        assert asked(client, CHAT) == (403, "address_not_allowed"), "anybody can write that"
        restrict(acme, ip_ranges=["203.0.113.0/24", "127.0.0.0/8"])
        wait_until(lambda: asked(client, CHAT)[0] == 200, "a refusal being no older than a second")
    assert len(gateway.admits()) == 1


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "found"),
    [
        ("198.51.100.1", b"203.0.113.7", "198.51.100.1"),  # no proxy of ours
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", b"203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", b"192.0.2.9, 203.0.113.7", "203.0.113.7"),  # the first is the caller's word
        ("10.0.0.1", b"192.0.2.9, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("fd00::1", b"2001:db8::7", "2001:db8::7"),
        ("10.0.0.1", b"nonsense", "nonsense"),
        ("10.0.0.1", b"", ""),
    ],
)
def test_a_trusted_proxys_word_is_taken_and_nobody_elses(peer, forwarded_for, found):
    assert caller_address(peer, forwarded_for, PROXIES) == found
    assert caller_address(peer, forwarded_for, ()) == peer


@pytest.mark.parametrize("address", ["", "nonsense", "203.0.114.1", "::ffff:203.0.114.1"])
def test_an_address_that_is_not_known_is_not_allowed(address):
    check_address(["203.0.113.0/24"], "203.0.113.9")
    check_address(["203.0.113.0/24"], "::ffff:203.0.113.9")
    with pytest.raises(CallerError) as refused:
        check_address(["203.0.113.0/24"], address)
    assert refused.value.status == 403


@pytest.mark.django_db(transaction=True)
def test_the_budget_a_caller_is_told_falls_by_what_was_billed(gateway, acme):
    set_limit(
        tenant_id=acme.id, level="organisation", scope_id=acme.id, kind="spend", window="month",
        amount=10**9,
    )  # fmt: skip
    told, billed = [], []
    with gateway.client(acme.secret) as client:
        for _ in range(5):
            answer = client.post(CHAT[0], json=CHAT[1])
            assert answer.headers["x-meterplane-budget"] == "organisation-month"
            assert answer.headers["x-meterplane-budget-limit"] == "1.000000000"
            told.append(round(float(answer.headers["x-meterplane-budget-remaining"]) * 10**9))
            billed.append(gateway.settles()[-1].cost_nano)
    assert told == [10**9 - sum(billed[: n + 1]) for n in range(5)]
    assert billed[0] > 0
    assert "organisation-requests-minute" in answer.headers["ratelimit"]
    assert answer.headers["x-ratelimit-limit-requests"] == "6000"


@pytest.mark.django_db(transaction=True)
def test_a_refused_caller_is_told_the_limit_too(gateway, acme):
    set_limit(
        tenant_id=acme.id, level="key", scope_id=acme.key_id, kind="total_tokens", window="minute",
        amount=10,
    )  # fmt: skip
    with gateway.client(acme.secret) as client:
        answer: httpx.Response = client.post(CHAT[0], json=CHAT[1])
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "request_too_large"
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-ratelimit-remaining-tokens"] == "0"
    assert "retry-after" not in answer.headers
    assert gateway.admits() == []
