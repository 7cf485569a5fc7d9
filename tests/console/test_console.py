"""Operators see every tenant, change them through verbs only, and nobody else sees anything."""

import json
import re
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse

from billing.credits.models import CreditHold
from billing.invoicing.close import close_period
from billing.payments.models import WebhookEvent
from billing.pricing.book import ModelPrices
from billing.pricing.entry_read import read_entries
from billing.pricing.models import Price, PriceBookVersion
from billing.pricing.publish import create_draft
from billing.pricing.queries import prices_of
from meterplane.console.site import site
from meterplane.kernel import clock
from meterplane.metering.ingest import ingest_segment
from tenants.models import ApiKey, Organisation
from tenants.scoping import TenantScopeMissing, current_scope, system_scope, tenant_scope
from tests.billing.world import publish_prices
from tests.console.conftest import BACKEND
from tests.metering.segments import message, settle

CHANGELISTS = [
    f"console:{model._meta.app_label}_{model._meta.model_name}_changelist"
    for model in site._registry
]
EXTRA = [
    "console:index", "console:usage_events", "console:usage_by", "console:meters",
    "console:external_events",
]  # fmt: skip


@pytest.fixture
def two_tenants(onboard):
    """Two organisations with usage; one has an invoice. A webhook event waits."""
    version = publish_prices()
    with clock.frozen(clock.now() - timedelta(minutes=2)):
        acme, beta = onboard("acme"), onboard("beta")
        for tenant in (acme, beta):
            ingest_segment(message([settle(tenant, price_version_id=version, tokens_in=10**6)]))
    invoice = close_period(acme.id, clock.now())
    with system_scope("a provider's event arrives"):
        WebhookEvent.objects.create(event_id="evt_1", type="invoice.paid", payload={"id": "evt_1"})
    return acme, beta, invoice


def test_strangers_and_customers_are_kept_out(organisation):
    customer = Client()
    customer.force_login(organisation.owner, backend=BACKEND)
    for route in CHANGELISTS + EXTRA:
        path = reverse(route)
        stranger = Client().get(path)
        assert stranger.status_code == 302, route
        assert stranger["Location"] == f"/console/login/?next={path}"
        assert Client().get(stranger["Location"])["Location"].startswith("/accounts/login/")
        sent = customer.get(path)
        assert sent.status_code == 302, route
        assert customer.get(sent["Location"]).status_code == 403, route


def test_every_list_and_every_row_can_be_looked_at(operator, two_tenants):
    opened = 0
    for model in site._registry:
        name = f"console:{model._meta.app_label}_{model._meta.model_name}"
        assert operator.get(reverse(f"{name}_changelist")).status_code == 200, name
        with system_scope("which rows does a page have"):
            row = model._default_manager.first()
        if row is not None:
            assert operator.get(reverse(f"{name}_change", args=[row.pk])).status_code == 200, name
            opened += 1
    assert opened >= 9


def test_lists_hold_rows_of_every_tenant(operator, two_tenants):
    acme, beta, _ = two_tenants
    keys = operator.get(reverse("console:tenants_apikey_changelist")).text
    assert acme.secret[-4:] in keys
    assert beta.secret[-4:] in keys
    events = operator.get(reverse("console:usage_events")).text
    assert "Acme" in events
    assert "Beta" in events


def test_a_weighted_split_is_visible_and_its_csv_says_the_same(operator, two_tenants):
    acme, beta, _ = two_tenants
    arms = [(acme, "default"), (acme, "default"), (beta, "default"), (beta, "canary")]
    ingest_segment(message([settle(tenant, deployment=arm) for tenant, arm in arms]))
    path = reverse("console:usage_by")
    page = operator.get(path).text
    for shown in ("tiny-lm @ default", "tiny-lm @ canary", "50.0 %", "16.7 %"):
        assert shown in page
    rows = [row.split(",") for row in operator.get(f"{path}?format=csv").text.splitlines()]
    assert rows[0][:2] == ["deployment", "requests"]
    assert {(row[0], row[1]) for row in rows[1:]} == {
        ("tiny-lm", "2"),
        ("tiny-lm @ default", "3"),
        ("tiny-lm @ canary", "1"),
    }
    assert "Chat completions" in operator.get(f"{path}?by=surface").text
    assert operator.get(f"{path}?by=nonsense").status_code == 200


def test_search_finds_an_organisation(operator, two_tenants):
    path = reverse("console:tenants_organisation_changelist")
    page = operator.get(f"{path}?q=beta").text
    assert "Beta" in page
    assert "Acme" not in page


def test_no_page_shows_a_digest_or_a_password_hash(operator, two_tenants):
    acme, _, _ = two_tenants
    with tenant_scope(acme.id):
        digest = bytes(ApiKey.objects.get().digest)
    page = operator.get(reverse("console:tenants_apikey_change", args=[acme.key_id])).text
    assert digest.hex() not in page
    assert "digest" not in page.lower()
    user = operator.get(reverse("console:auth_user_change", args=[acme.owner.pk])).text
    assert acme.owner.password not in user


@pytest.mark.parametrize("route", CHANGELISTS)
def test_nothing_can_be_added_or_deleted_by_a_form(operator, route):
    """But a plan, where exports are sent, credit, a tax rate, an interim threshold and what is done
    about unpaid invoices: their forms call the verb."""
    forms = (
        "tenants_plan", "metering_exportdestination", "metering_exportschedule",
        "credits_creditgrant", "invoicing_taxrate", "invoicing_interimthreshold",
        "payments_dunningpolicy", "payments_dunningoverride",
    )  # fmt: skip
    deletes = ("invoicing_interimthreshold", "payments_dunningoverride")
    may = 200 if route in [f"console:{name}_changelist" for name in forms] else 403
    assert operator.get(reverse(route.replace("changelist", "add"))).status_code == may
    page = operator.get(reverse(route)).text
    may_delete = route in [f"console:{name}_changelist" for name in deletes]
    assert ("delete_selected" in page) is may_delete


def test_a_published_version_cannot_be_changed(operator, db):
    version_id = publish_prices()
    path = reverse("console:pricing_pricebookversion_change", args=[version_id])
    assert 'name="_save"' not in operator.get(path).text
    assert operator.post(path, {}).status_code == 403


def act(client, route, action, *ids):
    """What the list's action menu sends."""
    form = {"action": action, "_selected_action": [str(each) for each in ids]}
    return client.post(reverse(route), form, follow=True)


def test_revoking_a_key_goes_through_its_verb_and_is_remembered(operator, two_tenants):
    acme, beta, _ = two_tenants
    page = act(operator, "console:tenants_apikey_changelist", "revoke", acme.key_id).text
    assert "is revoked" in page
    with tenant_scope(acme.id):
        assert ApiKey.objects.get().status == "revoked"
    with tenant_scope(beta.id):
        assert ApiKey.objects.get().status == "active"
    history = operator.get(reverse("console:tenants_apikey_history", args=[acme.key_id])).text
    assert "revoked" in history


def test_suspending_and_resuming_change_the_standing(operator, two_tenants):
    acme, _, _ = two_tenants
    for action, standing in (("suspend", "suspended"), ("resume", "active")):
        act(operator, "console:tenants_organisation_changelist", action, acme.id)
        with tenant_scope(acme.id):
            assert Organisation.objects.get().standing == standing


def test_holding_to_credit_and_releasing_are_noted(operator, two_tenants):
    acme, _, _ = two_tenants
    page = "console:tenants_organisation_changelist"
    for action, is_held in (("hold", True), ("hold", True), ("release", False)):
        act(operator, page, action, acme.id)
        with tenant_scope(acme.id):
            assert CreditHold.objects.get().is_held is is_held
    history = operator.get(reverse("console:tenants_organisation_history", args=[acme.id])).text
    assert history.count("held to its credit") == 2
    shown = operator.get(reverse("console:tenants_organisation_change", args=[acme.id])).text
    assert "Held to its credit" in shown


def test_a_copy_is_drafted_edited_and_published(operator, db):
    published = publish_prices()
    versions = "console:pricing_pricebookversion_changelist"
    act(operator, versions, "draft_a_copy", published)
    draft = PriceBookVersion.objects.get(status="draft")
    prices = list(draft.prices.order_by("model", "meter"))
    path = reverse("console:pricing_pricebookversion_change", args=[draft.id])
    assert operator.post(path, price_form(draft, [(7, "")] * len(prices))).status_code == 302
    assert set(draft.prices.values_list("unit_price_pico", flat=True)) == {7}
    assert not Price.objects.filter(version_id=published, unit_price_pico=7).exists()
    act(operator, versions, "publish_now", draft.id)
    draft.refresh_from_db()
    assert draft.status == "published"
    again = act(operator, versions, "publish_now", draft.id)
    assert again.status_code == 200


def price_form(draft, prices):
    """What the page of a draft sends: (standard, batch) of each price in the page's order."""
    rows = list(draft.prices.order_by("model", "meter"))
    form: dict[str, object] = {
        "entries-TOTAL_FORMS": 0,
        "entries-INITIAL_FORMS": 0,
        "prices-TOTAL_FORMS": len(rows),
        "prices-INITIAL_FORMS": len(rows),
        "prices-MIN_NUM_FORMS": 0,
        "prices-MAX_NUM_FORMS": 1000,
    }
    for number, (row, (standard, batch)) in enumerate(zip(rows, prices, strict=True)):
        form |= {
            f"prices-{number}-id": str(row.id),
            f"prices-{number}-version": str(draft.id),
            f"prices-{number}-unit_price_pico": standard,
            f"prices-{number}-batch_unit_price_pico": batch,
        }
    return form


def test_batch_prices_are_shown_copied_edited_and_published_whole_or_not_at_all(operator, db):
    versions = "console:pricing_pricebookversion_changelist"
    published = publish_prices({"tiny-lm": ModelPrices(2_000_000, 6_000_000, 0, 1_000_000, 30, 0)})
    page = operator.get(reverse("console:pricing_pricebookversion_change", args=[published])).text
    assert "Batch, per million units" in page
    assert "$1.00" in page
    act(operator, versions, "draft_a_copy", published)
    draft = PriceBookVersion.objects.get(status="draft")
    assert draft.prices.filter(batch_unit_price_pico=1_000_000).count() == 1
    path = reverse("console:pricing_pricebookversion_change", args=[draft.id])
    assert (
        operator.post(path, price_form(draft, [(9, -1)] * 3)).status_code == 200
    )  # told, not kept
    assert operator.post(path, price_form(draft, [(9, 4), (9, 4), (9, "")])).status_code == 302
    refused = act(operator, versions, "publish_now", draft.id).text
    assert "tiny-lm has some batch prices only" in refused
    assert operator.post(path, price_form(draft, [(9, 4)] * 3)).status_code == 302
    act(operator, versions, "publish_now", draft.id)
    draft.refresh_from_db()
    assert draft.status == "published"


def test_an_action_asked_for_by_a_link_does_nothing(operator, two_tenants):
    acme, _, _ = two_tenants
    path = reverse("console:tenants_apikey_changelist")
    operator.get(f"{path}?action=revoke&_selected_action={acme.key_id}")
    with tenant_scope(acme.id):
        assert ApiKey.objects.get().status == "active"


def test_the_dashboard_counts_every_tenant(operator, two_tenants):
    page = operator.get(reverse("console:index")).text
    for label, value in (("Requests today", 2), ("Organisations", 2), ("Unprocessed webhooks", 1)):
        assert re.search(rf"{label}</p>\s*<p[^>]*>{value}</p>", page), label


def test_only_the_console_may_evaluate_script(operator):
    console = operator.get(reverse("console:index"))["Content-Security-Policy"]
    portal = operator.get("/accounts/login/")["Content-Security-Policy"]
    assert "'unsafe-eval'" in console
    assert "'unsafe-eval'" not in portal
    assert "frame-ancestors 'none'" in console


def test_the_systems_door_is_shut_when_the_page_is_done(operator, two_tenants):
    operator.get(reverse("console:index"))
    with pytest.raises(TenantScopeMissing):
        current_scope()


@pytest.mark.django_db(transaction=True)
def test_an_action_the_gateways_could_not_hear_of_is_told_not_thrown(
    operator, organisation, settings, monkeypatch
):
    from meterplane.policy.publish import admission_redis

    monkeypatch.setattr("meterplane.policy.publish.PATIENCE_S", 0.1)
    settings.ADMISSION_REDIS_URL = "unix:///nonexistent.sock"
    admission_redis.cache_clear()
    answer = operator.post(
        "/console/tenants/apikey/",
        {"action": "revoke", "_selected_action": [str(organisation.key_id)]},
        follow=True,
    )
    admission_redis.cache_clear()
    assert answer.status_code == 200
    assert "could not be told" in answer.content.decode()


def test_an_entry_of_a_draft_is_edited_as_json_and_checked(operator, db):
    publish_prices()
    unit = {"type": "unit", "unit_amount": "0.01"}
    entries = [
        {"meter": meter, "price_model": unit}
        for meter in ("requests", "input_tokens", "output_tokens")
    ]
    draft = create_draft(
        book="standard", currency="USD", entries=read_entries(entries, clock.now())
    )
    path = reverse("console:pricing_pricebookversion_change", args=[draft.id])
    assert "price_model" in operator.get(path).text

    def post(model):
        form = price_form(draft, [])
        rows = list(draft.entries.order_by("position"))
        form |= {"entries-TOTAL_FORMS": len(rows), "entries-INITIAL_FORMS": len(rows)}
        for number, row in enumerate(rows):
            form |= {
                f"entries-{number}-id": str(row.id),
                f"entries-{number}-version": str(draft.id),
                f"entries-{number}-position": row.position,
                f"entries-{number}-meter": row.meter,
                f"entries-{number}-match": "{}",
                f"entries-{number}-price_model": json.dumps(model if number == 0 else unit),
                f"entries-{number}-display_name": row.display_name,
            }
        return operator.post(path, form)

    refused = post(unit | {"unit_amount": 0.5})
    assert refused.status_code == 200
    assert "entry[0].price_model.unit_amount is a JSON float" in refused.text
    assert post(unit | {"unit_amount": "0.5"}).status_code == 302
    act(operator, "console:pricing_pricebookversion_changelist", "publish_with_gaps", draft.id)
    prices = prices_of(draft.id)
    assert prices is not None
    assert {each.request_pico for each in prices.prices.values()} == {5 * 10**11}
