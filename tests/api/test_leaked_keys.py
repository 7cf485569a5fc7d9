"""Anybody may say that a key is in the open; nobody learns from the answer which keys are live."""

import itertools
import logging
import secrets
from datetime import timedelta

import pytest
from django.conf import settings
from rest_framework.test import APIClient

from meterplane.api import leaked_keys
from meterplane.contracts import api_key
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError
from tenants.keys import revoke_key
from tenants.models import ApiKey, LeakReport
from tenants.queries import list_leaks
from tenants.scoping import system_scope, tenant_scope

pytestmark = pytest.mark.django_db

PATH = "/api/v1/leaked-keys"


@pytest.fixture
def finder() -> APIClient:
    """Somebody with an address that nobody had before."""
    return APIClient(REMOTE_ADDR=f"10.{'.'.join(str(b) for b in secrets.token_bytes(3))}")


def report(client, body, **extra):
    return client.post(PATH, body, format="json", **extra)


def status_of(organisation):
    with tenant_scope(organisation.id):
        return ApiKey.objects.get(id=organisation.key_id).status


def unknown():
    return api_key.mint("live", settings.API_KEY_PEPPER).secret


def test_whoever_posts_a_live_key_ends_it_and_its_owner_is_told(finder, organisation):
    answer = report(finder, {"key": organisation.secret, "url": "https://paste.example/1"})
    assert answer.status_code == 202
    assert status_of(organisation) == "revoked"
    with tenant_scope(organisation.id):
        assert [leak.found_url for leak in list_leaks()] == ["https://paste.example/1"]


def test_every_well_made_report_is_answered_alike(finder, onboard):
    live, dead = onboard("acme"), onboard("globex")
    revoke_key(tenant_id=dead.id, key_id=dead.key_id)
    told = [live.secret, live.secret, dead.secret, unknown(), "mp_live_typo", "", "x" * 5000]
    answers = [report(finder, {"key": each}) for each in told]
    assert {answer.status_code for answer in answers} == {202}
    assert {answer.content for answer in answers} == {b'{"status":"accepted"}'}
    assert len({str(sorted(answer.headers)) for answer in answers}) == 1
    with system_scope("test"):
        assert [leak.tenant_id for leak in LeakReport.objects.all()] == [live.id]


def test_several_are_reported_at_once_as_secret_scanners_do(finder, onboard):
    tenants = [onboard(slug) for slug in ("acme", "globex", "initech")]
    body = [
        {
            "token": each.secret,
            "type": "meterplane_key",
            "url": "https://git.example/",
            "source": "x",
        }
        for each in tenants[:2]
    ]
    assert report(finder, [*body, {"key": unknown()}]).status_code == 202
    assert [status_of(each) for each in tenants] == ["revoked", "revoked", "active"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], "reports_out_of_range"),
        ([{"key": "x"}] * 101, "reports_out_of_range"),
        ({}, "report_invalid"),
        ("mp_live_", "report_invalid"),
        (7, "report_invalid"),
        ([[]], "report_invalid"),
        ({"key": 7}, "report_invalid"),
        ({"key": None, "url": "x"}, "report_invalid"),
    ],
)
def test_what_is_no_report_is_refused(finder, body, code):
    answer = report(finder, body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_one_report_that_is_none_stops_them_all(finder, organisation):
    assert report(finder, [{"key": organisation.secret}, {}]).status_code == 400
    assert status_of(organisation) == "active"


def test_a_hundred_are_taken_and_a_hundred_and_one_are_not(finder):
    assert report(finder, [{"key": "x"}] * 100).status_code == 202


def test_an_address_may_report_so_often_and_another_one_still_may(finder, organisation):
    often = leaked_keys.REQUESTS_PER_MINUTE_MAX
    with clock.frozen(clock.now()):
        answers = [report(finder, {"key": "x"}) for _ in range(often)]
        assert {answer.status_code for answer in answers} == {202}
        refused = report(finder, {"key": organisation.secret})
        assert refused.status_code == 429
        assert 1 <= int(refused["Retry-After"]) <= 60
        # Who says to come from elsewhere is not believed.
        assert report(finder, {"key": "x"}, HTTP_X_FORWARDED_FOR="10.9.9.9").status_code == 429
        assert report(APIClient(REMOTE_ADDR="192.0.2.7"), {"key": "x"}).status_code == 202
    assert status_of(organisation) == "active"
    with clock.frozen(clock.now() + timedelta(minutes=1)):
        assert report(finder, {"key": organisation.secret}).status_code == 202


def test_one_subscribers_addresses_are_one():
    def network(text):
        return leaked_keys._network(text)

    assert network("2001:db8:1:2::1") == network("2001:db8:1:2:ffff::9")
    assert network("2001:db8:1:2::1") != network("2001:db8:1:3::1")
    assert network("::ffff:192.0.2.1") != network("::ffff:192.0.2.2")
    assert network("192.0.2.1") != network("192.0.2.2")
    assert network("") == network("unix") == "unknown"


def test_a_leak_is_ended_also_when_nobody_can_count(finder, organisation, settings):
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "unix:///nonexistent.sock",
        }
    }
    assert report(finder, {"key": organisation.secret}).status_code == 202
    assert status_of(organisation) == "revoked"


def test_gateways_that_were_not_told_are_the_finders_to_know_and_the_others_end_all_the_same(
    finder, onboard, monkeypatch
):
    acme, globex = onboard("acme"), onboard("globex")
    seen = itertools.count()
    really = leaked_keys.report_leak

    def first_fails(secret, url):
        really(secret, url)
        if next(seen) == 0:
            raise WorldError("policy_not_published", "Not told.", retry_after_s=2)

    monkeypatch.setattr(leaked_keys, "report_leak", first_fails)
    answer = report(finder, [{"key": acme.secret}, {"key": globex.secret}])
    assert (answer.status_code, answer["Retry-After"]) == (503, "2")
    assert (status_of(acme), status_of(globex)) == ("revoked", "revoked")


def test_no_key_is_logged_or_given_back(finder, organisation, caplog):
    caplog.set_level(logging.DEBUG)
    secret = organisation.secret
    bodies = [{"key": secret}, [{"key": secret}, {}], {"key": secret, "url": secret}]
    answers = [report(finder, body) for body in bodies]
    answers.append(
        finder.post(PATH, f'{{"key": "{secret}"', content_type="application/json")  # cut short
    )
    assert answers[-1].status_code == 400
    for answer in answers:
        assert secret[8:] not in answer.content.decode()
    assert secret[8:] not in caplog.text


def test_it_is_only_posted_to(finder):
    for method in ("get", "put", "delete"):
        assert getattr(finder, method)(PATH).status_code == 405
