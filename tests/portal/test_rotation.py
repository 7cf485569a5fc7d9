"""Rotating a key: its successor's secret is shown once. A leak is told until it is dismissed."""

import re
from datetime import timedelta

import pytest

from meterplane.contracts.api_key import is_well_formed
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError
from meterplane.kernel.ids import uuid7
from tenants.leaks import report_leak
from tenants.models import ApiKey
from tenants.queries import list_leaks
from tenants.scoping import tenant_scope

SECRET = re.compile(r"mp_live_[0-9A-Za-z]{49}")


def rotate(client, organisation, overlap="24"):
    path = f"/keys/{organisation.key_id}/rotate/"
    return client.post(path, {"overlap": overlap}, headers={"hx-request": "true"})


def keys_of(organisation):
    with tenant_scope(organisation.id):
        return {key.id: key for key in ApiKey.objects.all()}


def test_it_is_asked_how_long_both_work(owner, organisation):
    page = owner.get(f"/keys/{organisation.key_id}/rotate/").content.decode()
    for hours in (0, 1, 24, 168, 720):
        assert f'<option value="{hours}"' in page
    assert '<option value="24" selected' in page
    assert len(keys_of(organisation)) == 1


def test_the_successors_secret_is_shown_once_and_the_list_says_who_replaces_whom(
    owner, organisation
):
    made = rotate(owner, organisation, "168")
    (secret,) = set(SECRET.findall(made.content.decode()))
    assert is_well_formed(secret)
    assert made["Cache-Control"] == "no-store"
    assert "works until" in made.content.decode()
    page = owner.get("/keys/").content.decode()
    assert secret not in page
    assert f"Replaced by …{secret[-4:]}" in page
    old = keys_of(organisation)[organisation.key_id]
    assert old.expires_at - clock.now() > timedelta(days=6)
    assert f"{old.expires_at:%d %b %H:%M:%S}" in page
    assert f'href="/keys/{old.id}/rotate/"' not in page  # its successor is the one to rotate
    assert f'href="/keys/{old.id}/revoke/"' in page


def test_without_overlap_the_old_one_has_stopped(owner, organisation):
    assert "has stopped working" in rotate(owner, organisation, "0").content.decode()
    assert keys_of(organisation)[organisation.key_id].status == "revoked"


def test_a_key_that_has_ended_is_shown_so_and_counts_no_more(owner, organisation):
    rotate(owner, organisation, "1")
    with clock.frozen(clock.now() + timedelta(hours=2)):
        page = owner.get("/keys/").content.decode()
    assert ">Expired<" in page
    assert "1 active" in page


def test_what_cannot_be_rotated_says_why(owner, organisation):
    rotate(owner, organisation)
    assert "rotated already" in rotate(owner, organisation).content.decode()
    assert len(keys_of(organisation)) == 2


@pytest.mark.parametrize("overlap", ["", "5", "-1", "x"])
def test_an_overlap_is_one_of_the_choices(owner, organisation, overlap):
    page = rotate(owner, organisation, overlap).content.decode()
    assert not SECRET.search(page)
    assert len(keys_of(organisation)) == 1


def test_gateways_that_could_not_be_told_are_admitted(owner, organisation, monkeypatch):
    def untold(**_):
        raise WorldError("policy_not_published", "Not told.")

    monkeypatch.setattr("meterplane.portal.views.keys.rotate_key", untold)
    path = f"/keys/{organisation.key_id}/rotate/"
    page = owner.post(path, {"overlap": "24"}, follow=True).content.decode()
    assert "not every gateway knows" in page


@pytest.mark.parametrize("role", ["owner", "admin", "developer", "billing", "viewer"])
def test_only_who_manages_keys_rotates_and_dismisses(organisation, as_role, role):
    client, may = as_role(role), role in {"owner", "admin", "developer"}
    assert client.get(f"/keys/{organisation.key_id}/rotate/").status_code == (200 if may else 403)
    assert rotate(client, organisation).status_code == (200 if may else 403)
    assert len(keys_of(organisation)) == (2 if may else 1)
    report_leak(organisation.secret, "https://paste.example/")
    page = client.get("/keys/").content.decode()
    assert "found in the open" in page
    with tenant_scope(organisation.id):
        (leak,) = list_leaks()
    path = f"/keys/leaks/{leak.id}/dismiss/"
    assert (path in page) == may
    assert client.get(path).status_code == 405
    assert client.post(path).status_code == (302 if may else 403)
    assert ("found in the open" in client.get("/keys/").content.decode()) != may


def test_another_tenants_key_and_leak_are_as_missing_as_none(owner, onboard):
    other = onboard("beta")
    report_leak(other.secret)
    with tenant_scope(other.id):
        (leak,) = list_leaks()
    for theirs, never in (
        (f"/keys/{other.key_id}/rotate/", f"/keys/{uuid7()}/rotate/"),
        (f"/keys/leaks/{leak.id}/dismiss/", f"/keys/leaks/{uuid7()}/dismiss/"),
    ):
        found, absent = owner.post(theirs), owner.post(never)
        assert found.status_code == absent.status_code == 404
        assert found.content == absent.content
    assert "found in the open" not in owner.get("/keys/").content.decode()
    with tenant_scope(other.id):
        assert list_leaks().count() == 1


def test_what_a_finder_wrote_is_text(owner, organisation):
    report_leak(organisation.secret, '"><script>alert(1)</script><a href="javascript:x">')
    page = owner.get("/keys/").content.decode()
    assert "<script>alert" not in page
    assert "javascript:x" in page
    assert 'href="javascript' not in page
