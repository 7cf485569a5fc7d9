"""Who sees what: nobody without signing in, members their own, and a role what it may."""

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client

from billing.invoicing.close import close_period
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.metering.ingest import ingest_segment
from tenants.models import Member
from tenants.queries import list_keys
from tenants.scoping import tenant_scope
from tests.billing.world import publish_prices
from tests.metering.segments import message, settle
from tests.portal import history

PAGES = ["/", "/usage/", "/keys/", "/keys/new/", "/billing/"]
ROLES = ["owner", "admin", "developer", "billing", "viewer"]
MANAGERS = {"owner", "admin", "developer"}


ABSENT = "01900000-0000-7000-8000-000000000000"  # the same in every test process


@pytest.mark.parametrize("path", [*PAGES, f"/requests/{ABSENT}/", f"/billing/{ABSENT}/"])
def test_a_stranger_is_sent_to_sign_in(db, path):
    response = Client().get(path)
    assert response.status_code == 302
    assert response["Location"] == f"/accounts/login/?next={path}"


def test_signing_in_with_the_password_opens_the_overview(organisation):
    client = Client()
    credentials = {"login": organisation.owner.email, "password": organisation.owner_password}
    response = client.post("/accounts/login/", credentials, follow=True)
    assert response.redirect_chain == [("/", 302)]
    assert "Overview" in response.content.decode()


def test_a_wrong_password_says_so_and_opens_nothing(organisation):
    client = Client()
    credentials = {"login": organisation.owner.email, "password": "not the password"}
    response = client.post("/accounts/login/", credentials)
    assert "not correct" in response.content.decode()
    assert client.get("/").status_code == 302


def test_signing_out_takes_the_session_with_it(owner):
    assert owner.get("/").status_code == 200
    owner.post("/accounts/logout/")
    assert owner.get("/").status_code == 302


def test_nobody_signs_up_by_themselves(db):
    client = Client()
    form = {"email": "new@example.com", "password1": "a long pass phrase 9"}
    client.post("/accounts/signup/", form)
    assert not User.objects.filter(email="new@example.com").exists()
    assert "By invitation" in client.get("/accounts/signup/").content.decode()


@pytest.mark.parametrize("role", ROLES)
def test_every_role_can_look_at_every_list(as_role, role):
    client = as_role(role)
    for path in ("/", "/usage/", "/keys/", "/billing/"):
        assert client.get(path).status_code == 200, path


@pytest.mark.parametrize("role", ROLES)
def test_only_owners_admins_and_developers_make_and_revoke_keys(organisation, as_role, role):
    client = as_role(role)
    may = role in MANAGERS
    form = {"name": "from the portal", "project": str(organisation.project_id)}
    assert client.get("/keys/new/").status_code == (200 if may else 403)
    assert client.post("/keys/new/", form).status_code == (200 if may else 403)
    revoked = client.post(f"/keys/{organisation.key_id}/revoke/")
    assert revoked.status_code == (302 if may else 403)
    with tenant_scope(organisation.id):
        by_id = {key.id: key.status for key in list_keys()}
    assert len(by_id) == (2 if may else 1)
    assert by_id[organisation.key_id] == ("revoked" if may else "active")
    offers = "Create API key" in client.get("/keys/").content.decode()
    assert offers == may


@pytest.fixture
def neighbour(onboard):
    """Another tenant with a request and an invoice."""
    history.offer()
    other = onboard("neighbour")
    settles = history.live_through(other, days=2)
    return other, settles[0].request_id


def without_id(page, path: str) -> str:
    """The page without the id it was asked for, and without what is new on each page."""
    text = page.text.replace(path.split("/")[2], "")
    return re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "", text)


def test_what_belongs_to_another_tenant_looks_exactly_like_what_does_not_exist(owner, neighbour):
    other, request_id = neighbour
    theirs = [f"/requests/{request_id}/", f"/keys/{other.key_id}/revoke/"]
    missing = [f"/requests/{uuid7()}/", f"/keys/{uuid7()}/revoke/"]
    for theirs_path, missing_path in zip(theirs, missing, strict=True):
        found, absent = owner.get(theirs_path), owner.get(missing_path)
        assert (found.status_code, absent.status_code) == (404, 404)
        # An id that was typed is shown again: beside it, the two pages are the same.
        assert without_id(found, theirs_path) == without_id(absent, missing_path)
        assert dict(found.headers) == dict(absent.headers)


def test_another_tenants_key_cannot_be_revoked(owner, neighbour):
    other, _ = neighbour
    assert owner.post(f"/keys/{other.key_id}/revoke/").status_code == 404
    with tenant_scope(other.id):
        assert {key.status for key in list_keys()} == {"active"}


def test_another_tenants_invoice_is_missing(owner, onboard, organisation):
    version = publish_prices()
    with clock.frozen(clock.now() - timedelta(minutes=1)):
        other = onboard("neighbour")
        ingest_segment(message([settle(other, price_version_id=version, tokens_in=10**6)]))
    invoice = close_period(other.id, clock.now())
    assert invoice is not None
    found, absent = owner.get(f"/billing/{invoice.id}/"), owner.get(f"/billing/{uuid7()}/")
    assert found.status_code == absent.status_code == 404
    assert found.content == absent.content
    assert owner.get(f"/billing/{invoice.id}/?format=csv").status_code == 404


def test_usage_shows_no_trace_of_another_tenant(owner, neighbour):
    _, request_id = neighbour
    for path in ("/", "/usage/?period=30d", "/usage/?period=30d&group=key", "/billing/"):
        page = owner.get(path).content.decode()
        assert str(request_id) not in page
        assert "Assistant, production" not in page


def test_a_member_of_two_organisations_switches_between_them(organisation, onboard, signed_in):
    second = onboard("beta")
    with tenant_scope(second.id):
        Member.objects.create(tenant_id=second.id, user=organisation.owner, role="viewer")
    client = signed_in(organisation.owner)
    assert "Acme · all times" in client.get("/").content.decode()
    assert client.post("/switch/", {"organisation": str(second.id)}).status_code == 302
    assert "Beta · all times" in client.get("/").content.decode()
    assert client.get("/keys/new/").status_code == 403  # a viewer there


def test_nobody_switches_into_an_organisation_they_do_not_belong_to(owner, onboard):
    other = onboard("beta")
    assert owner.post("/switch/", {"organisation": str(other.id)}).status_code == 404
    session = owner.session
    session["organisation"] = str(other.id)  # even if a session said so
    session.save()
    assert "Acme · all times" in owner.get("/").content.decode()


def test_a_user_without_an_organisation_is_told_what_to_do(db, signed_in):
    user = User.objects.create_user("lone@example.com", "lone@example.com", "x" * 20)
    page = signed_in(user).get("/").content.decode()
    assert "No organisation yet" in page


def test_an_operator_without_an_organisation_lands_in_the_console(db, signed_in):
    user = User.objects.create_superuser("op@example.com", "op@example.com", "x" * 20)
    response = signed_in(user).get("/")
    assert (response.status_code, response["Location"]) == (302, "/console/")


def test_forms_without_a_token_are_refused(organisation):
    client = Client(enforce_csrf_checks=True)
    client.force_login(organisation.owner, backend="django.contrib.auth.backends.ModelBackend")
    response = client.post(f"/keys/{organisation.key_id}/revoke/")
    assert response.status_code == 403
    assert "no longer valid" in response.content.decode()
