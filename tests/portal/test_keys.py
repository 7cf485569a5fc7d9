"""An API key's secret is shown once; a revoked key stays revoked."""

import re

from django.contrib.sessions.models import Session

from meterplane.contracts.api_key import is_well_formed
from tenants.models import ApiKey
from tenants.scoping import tenant_scope

SECRET = re.compile(r"mp_live_[0-9A-Za-z]{49}")


def create(client, organisation, **changes):
    form = {"name": "my laptop", "project": str(organisation.project_id)} | changes
    return client.post("/keys/new/", form, headers={"hx-request": "true"})


def test_the_secret_appears_in_the_answer_to_its_creation_and_never_again(owner, organisation):
    created = create(owner, organisation)
    secrets = set(SECRET.findall(created.content.decode()))
    assert len(secrets) == 1
    secret = secrets.pop()
    assert is_well_formed(secret)
    assert created["Cache-Control"] == "no-store"
    for path in ("/keys/", "/keys/new/", "/", "/usage/"):
        page = owner.get(path).content.decode()
        assert secret not in page
        assert not SECRET.search(page)
    kept = [session.get_decoded() for session in Session.objects.all()]
    assert secret not in str(kept)


def test_the_snippet_carries_the_secret_and_this_installations_address(owner, organisation):
    page = create(owner, organisation).content.decode()
    assert "/v1/" in page
    assert page.count("mp_live_") == 2  # by itself, and in the command


def test_the_list_shows_the_end_of_a_key_and_nothing_more(owner, organisation):
    page = owner.get("/keys/").content.decode()
    assert f"mp_live_…{organisation.secret[-4:]}" in page
    assert organisation.secret[:-4] not in page


def test_a_key_without_a_name_is_asked_for_one(owner, organisation):
    page = create(owner, organisation, name="  ").content.decode()
    assert "This field is required" in page
    with tenant_scope(organisation.id):
        assert ApiKey.objects.count() == 1


def test_a_project_of_another_tenant_is_no_choice(owner, organisation, onboard):
    other = onboard("beta")
    page = create(owner, organisation, project=str(other.project_id)).content.decode()
    assert "Select a valid choice" in page
    for tenant in (organisation, other):
        with tenant_scope(tenant.id):
            assert ApiKey.objects.count() == 1


def test_revoking_asks_first_and_then_shows_the_key_as_revoked(owner, organisation):
    path = f"/keys/{organisation.key_id}/revoke/"
    assert "stops working" in owner.get(path).content.decode()
    with tenant_scope(organisation.id):
        assert ApiKey.objects.get().status == "active"
    response = owner.post(path, follow=True)
    assert "first key is revoked" in response.content.decode()
    with tenant_scope(organisation.id):
        assert ApiKey.objects.get().status == "revoked"
    assert f'href="{path}"' not in owner.get("/keys/").content.decode()


def test_without_script_the_form_is_a_page_of_its_own(owner):
    page = owner.get("/keys/new/").content.decode()
    assert page.startswith("<!doctype html>")
    assert "Create an API key" in page


def test_who_created_a_key_is_remembered(owner, organisation):
    create(owner, organisation)
    with tenant_scope(organisation.id):
        assert ApiKey.objects.get(name="my laptop").created_by_id == organisation.owner.id
