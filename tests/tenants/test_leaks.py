"""A leaked key is revoked at once, whoever says so; its owner is told, its finder is not."""

import logging
import threading

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from meterplane.contracts import api_key
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.ids import uuid7
from meterplane.policy.publish import admission_redis
from tenants.keys import revoke_key
from tenants.leaks import FOUND_URL_CHARS_MAX, dismiss_leak, report_leak
from tenants.models import ApiKey, LeakReport
from tenants.queries import list_leaks
from tenants.scoping import system_scope, tenant_scope

pytestmark = pytest.mark.django_db


def key_of(organisation):
    with tenant_scope(organisation.id):
        return ApiKey.objects.get(id=organisation.key_id)


def leaks_of(organisation):
    with tenant_scope(organisation.id):
        return list(list_leaks())


def test_a_live_key_is_revoked_and_its_owner_told_where_it_was(organisation):
    report_leak(organisation.secret, "https://pastebin.example/x")
    assert key_of(organisation).status == "revoked"
    (leak,) = leaks_of(organisation)
    assert (leak.key_id, leak.found_url) == (organisation.key_id, "https://pastebin.example/x")


def test_reporting_again_changes_nothing(organisation):
    report_leak(organisation.secret, "here")
    before = key_of(organisation).revoked_at
    report_leak(organisation.secret, "there")
    assert key_of(organisation).revoked_at == before
    assert [leak.found_url for leak in leaks_of(organisation)] == ["here"]


def test_a_key_that_was_revoked_already_is_nobodys_news(organisation):
    revoke_key(tenant_id=organisation.id, key_id=organisation.key_id)
    report_leak(organisation.secret)
    assert leaks_of(organisation) == []


def test_what_is_no_key_costs_no_read_and_an_unknown_one_a_single_read(organisation, settings):
    unknown = api_key.mint("live", settings.API_KEY_PEPPER).secret
    for secret in ("", "mp_live_", unknown[:-1] + "!", "x" * 10_000, "mp_live_\u00e9" + "a" * 48):
        with CaptureQueriesContext(
            connection,
        ) as captured:
            report_leak(secret)
        assert list(captured) == []
    with CaptureQueriesContext(connection) as captured:
        report_leak(unknown)
    reads = [each["sql"] for each in captured if "api_key" in each["sql"]]
    assert len(reads) == 1
    with system_scope("test"):
        assert not LeakReport.objects.exists()


def test_the_read_is_of_an_index(organisation):
    with system_scope("test"), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("EXPLAIN SELECT * FROM api_key WHERE digest = '\\x00'")
        assert "Index Scan" in str(cursor.fetchall())


def test_another_key_of_the_same_owner_stays(onboard):
    acme, globex = onboard("acme"), onboard("globex")
    report_leak(acme.secret)
    assert key_of(globex).status == "active"
    assert leaks_of(globex) == []


def test_the_key_is_kept_nowhere(organisation, caplog):
    caplog.set_level(logging.DEBUG)
    report_leak(organisation.secret, f"https://x.example/?key={organisation.secret}\n\x00&b=1")
    (leak,) = leaks_of(organisation)
    assert leak.found_url == "https://x.example/?key=mp_…&b=1"
    assert organisation.secret[8:] not in caplog.text


def test_a_place_is_kept_up_to_its_bound(organisation):
    report_leak(organisation.secret, "x" * 10_000)
    assert len(leaks_of(organisation)[0].found_url) == FOUND_URL_CHARS_MAX


def test_a_report_is_dismissed_once_and_by_its_owner_only(onboard):
    acme, globex = onboard("acme"), onboard("globex")
    report_leak(acme.secret)
    (leak,) = leaks_of(acme)
    for tenant_id, report_id in ((globex.id, leak.id), (acme.id, uuid7())):
        with pytest.raises(CallerError) as refused:
            dismiss_leak(tenant_id=tenant_id, report_id=report_id, dismissed_by=acme.owner.pk)
        assert (refused.value.code, refused.value.status) == ("leak_not_found", 404)
    assert len(leaks_of(acme)) == 1
    dismiss_leak(tenant_id=acme.id, report_id=leak.id, dismissed_by=acme.owner.pk)
    assert leaks_of(acme) == []
    with tenant_scope(acme.id):
        first = LeakReport.objects.get()
    dismiss_leak(tenant_id=acme.id, report_id=leak.id, dismissed_by=globex.owner.pk)
    with tenant_scope(acme.id):
        again = LeakReport.objects.get()
    assert (again.dismissed_at, again.dismissed_by_id) == (first.dismissed_at, acme.owner.pk)


@pytest.mark.django_db(transaction=True)
def test_gateways_that_were_not_told_are_told_when_it_is_reported_again(
    organisation, settings, monkeypatch
):
    address = settings.ADMISSION_REDIS_URL
    monkeypatch.setattr("meterplane.policy.publish.PATIENCE_S", 0.2)
    settings.ADMISSION_REDIS_URL = "unix:///nonexistent.sock"
    admission_redis.cache_clear()
    with pytest.raises(WorldError, match="could not be told"):
        report_leak(organisation.secret)
    assert key_of(organisation).status == "revoked"
    assert len(leaks_of(organisation)) == 1
    settings.ADMISSION_REDIS_URL = address
    admission_redis.cache_clear()
    name = f"mp:{{{organisation.id}}}:version:{organisation.key_id}"
    told = admission_redis(address).get(name)
    report_leak(organisation.secret)
    assert int(admission_redis(address).get(name)) > int(told)


@pytest.mark.django_db(transaction=True)
def test_of_many_finders_at_once_one_is_noted(organisation):
    def report(number):
        try:
            report_leak(organisation.secret, str(number))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=report, args=(number,)) for number in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(leaks_of(organisation)) == 1
