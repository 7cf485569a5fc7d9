"""Cards, top-ups and auto-reload, clicked through in the portal and asked for by the API."""

import re
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client
from rest_framework.test import APIClient

from billing.payments import tasks
from billing.payments.accounts import attach_test_card
from billing.payments.models import CardSetup, TopUp
from tenants.keys import issue_operator_key
from tenants.models import Member
from tenants.scoping import tenant_scope
from tests.billing.ledger.rig import held

pytestmark = pytest.mark.django_db(transaction=True)
AT = "/api/v1/organisations/acme"
RULES = {"is_on": "on", "threshold": "10", "amount": "20", "month_max": "45"}
CHANGING = ("/billing/card/new/", "/billing/card/manage/", "/billing/top-ups/new/",
            "/billing/auto-reload/", "/billing/auto-reload/resume/")  # fmt: skip


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def as_role(tenant, role: str) -> Client:
    name = f"{role}@role.example"
    user = User.objects.create_user(name, name, "x" * 20)
    with tenant_scope(tenant.id):
        Member.objects.create(tenant_id=tenant.id, user=user, role=role)
    return client_of(user)


@pytest.fixture
def owner(organisation) -> Client:
    return client_of(organisation.owner)


@pytest.fixture
def operator(db) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_operator_key('tests')}")
    return client


def go(address: str, settings) -> str:
    """The path of one of our pages that the provider led back to."""
    assert address.startswith(settings.PUBLIC_WEB_URL)
    return address.removeprefix(settings.PUBLIC_WEB_URL)


def test_a_card_is_added_at_stripe_and_shown_when_the_customer_is_back(
    owner, organisation, stripe, there, settings
):
    assert "No card yet" in owner.get("/billing/").text
    sent = owner.post("/billing/card/new/")
    assert (sent.status_code, sent["Location"].startswith(there.sandbox.url)) == (302, True)
    back = go(there.press(sent["Location"]), settings)
    page = owner.get(back, follow=True).text
    assert "The card is added" in page
    assert re.search(r"Visa</strong>.*4242", page)
    assert "Replace card" in page
    manage = owner.post("/billing/card/manage/")["Location"]
    portal = there.sandbox.request("GET", manage.removeprefix(there.sandbox.url), key=None)
    assert f"{settings.PUBLIC_WEB_URL}/billing/card/" in portal.text
    assert owner.get("/billing/card/").status_code == 302


def test_credit_is_bought_in_the_portal(owner, organisation, stripe, there, settings):
    attach_test_card(organisation.id, stripe)
    form = owner.get("/billing/top-ups/new/").text
    press = re.search(r'name="press" value="([0-9a-f-]+)"', form)
    assert press is not None
    said = {"amount": "25.50", "press": press[1]}
    sent = [owner.post("/billing/top-ups/new/", said)["Location"] for _ in range(2)]
    assert sent[0] == sent[1]  # pressed twice
    with tenant_scope(organisation.id):
        top_up = TopUp.objects.get()
    assert "nothing was charged" in owner.get(f"/billing/top-ups/{top_up.id}/", follow=True).text
    again = owner.post(f"/billing/top-ups/{top_up.id}/pay/")["Location"]
    page = owner.get(go(there.press(again), settings), follow=True).text
    assert "$25.50 of credit is added" in page
    assert held(organisation.id)["credits:purchased"] == -2550
    paid = owner.post(f"/billing/top-ups/{top_up.id}/pay/", follow=True)
    assert "$25.50 of credit is added" in paid.text


@pytest.mark.parametrize("amount", ["", "4.99", "a lot", "10000.01", "25.001"])
def test_an_amount_out_of_bounds_is_refused_at_its_field(owner, organisation, stripe, amount):
    page = owner.post("/billing/top-ups/new/", {"amount": amount, "press": str(uuid4())})
    assert page.status_code == 200
    assert 'data-invalid="true"' in page.text
    with tenant_scope(organisation.id):
        assert not TopUp.objects.exists()


def test_auto_reload_is_set_paused_and_resumed_in_the_portal(owner, organisation, stripe):
    refused = owner.post("/billing/auto-reload/", RULES)
    assert "Add a card first" in refused.text
    attach_test_card(organisation.id, stripe, "pm_card_chargeCustomerFail")
    assert owner.post("/billing/auto-reload/", RULES).status_code == 302
    page = owner.get("/billing/").text
    assert "Buys $20.00 when less than $10.00 is left" in page
    tasks.reload()
    page = owner.get("/billing/").text
    assert "Auto-reload is paused" in page
    assert "declined" in page
    assert "goes on" in owner.post("/billing/auto-reload/resume/", follow=True).text
    assert "Auto-reload is paused" not in owner.get("/billing/").text
    assert owner.post("/billing/auto-reload/", RULES | {"is_on": "off"}).status_code == 302
    assert "<dd>Off</dd>" in owner.get("/billing/").text


def test_only_who_does_the_billing_may(organisation, stripe):
    for role, may in (("admin", True), ("billing", True), ("developer", False), ("viewer", False)):
        member = as_role(organisation, role)
        for path in CHANGING:
            assert (member.post(path).status_code != 403) is may, (role, path)
        page = member.get("/billing/").text
        assert ("Add a card" in page, "Add credit" in page) == (may, may), role


def test_what_is_another_organisations_is_missing(organisation, onboard, owner, stripe):
    other = onboard("globex")
    theirs = client_of(other.owner)
    attach_test_card(organisation.id, stripe)
    theirs.post("/billing/card/new/")
    theirs.post("/billing/top-ups/new/", {"amount": "20", "press": str(uuid4())})
    with tenant_scope(other.id):
        top_up, setup = TopUp.objects.get().id, CardSetup.objects.get().id
    assert owner.get(f"/billing/top-ups/{top_up}/").status_code == 404
    assert owner.post(f"/billing/top-ups/{top_up}/pay/").status_code == 404
    assert owner.get(f"/billing/card/{setup}/").status_code == 404


def test_a_provider_that_is_away_is_told_and_nothing_breaks(owner, organisation, settings):
    settings.STRIPE_API_KEY = ""
    page = owner.post("/billing/card/new/", follow=True)
    assert "Payments are not set up here" in page.text
    said = {"amount": "25", "press": str(uuid4())}
    assert "Payments are not set up here" in owner.post("/billing/top-ups/new/", said).text
    assert owner.get(f"/billing/top-ups/{uuid4()}/", follow=True).status_code == 200


def test_the_control_api_does_the_same(operator, organisation, stripe, there):
    assert operator.get(f"{AT}/payment-methods").json() == {"default": None}
    there.press(operator.post(f"{AT}/payment-methods/session").json()["url"])
    with tenant_scope(organisation.id):
        setup = CardSetup.objects.get()
    client_of(organisation.owner).get(f"/billing/card/{setup.id}/")
    card = {"brand": "visa", "last4": "4242"}
    assert operator.get(f"{AT}/payment-methods").json() == {"default": card}
    assert "/p/session/" in operator.post(f"{AT}/billing-portal/session").json()["url"]
    named = {"HTTP_IDEMPOTENCY_KEY": "one"}
    opened = operator.post(f"{AT}/top-ups", {"amount": "25"}, format="json", **named)
    assert opened.status_code == 201
    told = opened.json()
    assert (told["amount"], told["state"], told["grant_id"]) == ("25.00", "wanted", None)
    there.press(told["url"])
    assert operator.get(f"{AT}/top-ups/{told['id']}").json()["state"] == "wanted"
    settled = operator.post(f"{AT}/top-ups/{told['id']}/check").json()
    assert (settled["state"], bool(UUID(settled["grant_id"]))) == ("paid", True)
    [listed] = operator.get(f"{AT}/top-ups").json()
    assert listed == settled
    rules = RULES | {"is_on": True}
    shown = operator.put(f"{AT}/auto-reload", rules, format="json").json()
    assert (shown["threshold"], shown["month_max"], shown["is_on"]) == ("10.00", "45.00", True)
    assert shown["reloaded_this_month"] == "0.00"
    assert operator.get(f"{AT}/auto-reload").json() == shown
    assert operator.post(f"{AT}/auto-reload/resume").status_code == 409


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("top-ups", {"amount": "1"}, 400, "top_up_invalid"),
        ("top-ups", {"amount": ["25"]}, 400, None),
        ("top-ups", {}, 400, None),
        (f"top-ups/{UUID(int=9)}/check", {}, 404, "top_up_not_found"),
    ],
)
def test_what_the_api_cannot_do_is_a_problem(operator, organisation, stripe, path, body, status,
                                             code):  # fmt: skip
    named = {"HTTP_IDEMPOTENCY_KEY": "one"}
    answer = operator.post(f"{AT}/{path}", body, format="json", **named)
    assert answer.status_code == status
    assert code is None or answer.json()["code"] == code


def test_the_api_wants_a_name_for_a_top_up_and_a_known_organisation(
    operator, organisation, onboard, stripe
):
    answer = operator.post(f"{AT}/top-ups", {"amount": "25"}, format="json")
    assert (answer.status_code, answer.json()["field"]) == (400, "idempotency_key")
    other = AT.replace("acme", "nobody")
    assert operator.post(f"{other}/payment-methods/session").status_code == 404
    assert APIClient().post(f"{AT}/payment-methods/session").status_code == 401


def test_only_pages_that_send_customers_to_pay_may_lead_to_the_provider(owner, settings):
    allowed = f"form-action 'self' {settings.STRIPE_API_BASE};"
    for path, may in (("/billing/", True), ("/billing/top-ups/new/", True), ("/keys/", False)):
        policy = owner.get(path)["Content-Security-Policy"]
        assert (allowed in f"{policy};") is may, path
