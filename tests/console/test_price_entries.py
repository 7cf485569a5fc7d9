"""An operator writes an entry of a draft in a form, sees what usage would cost, publishes it."""

import re
from html import unescape

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from billing.pricing.copy import draft_copy, unit_prices_as_entries
from billing.pricing.models import PriceBookVersion, PriceEntry
from billing.pricing.queries import prices_of
from meterplane.catalog.meters_change import create_meter
from meterplane.catalog.meters_check import read_definition
from tests.billing.conftest import acme, late_november, prices  # noqa: F401  fixtures
from tests.billing.world import ingest, publish_prices, used, utc
from tests.catalog.test_meters import GPU
from tests.console.conftest import BACKEND

pytestmark = pytest.mark.django_db
UNIT = {
    "meter": "input_tokens", "match.model": "tiny-lm", "match.service_tier": "standard",
    "display_name": "What you send", "price_model.type": "unit",
    "price_model.unit_amount": "0.00000015", "quantity": "1,000,000",
}  # fmt: skip
TIERS = {
    "meter": "output_tokens", "price_model.type": "graduated",
    "price_model.tiers[0].up_to": "5", "price_model.tiers[0].unit_amount": "0",
    "price_model.tiers[0].flat_amount": "100", "price_model.tiers[1].unit_amount": "1",
    "quantity": "22",
}  # fmt: skip


@pytest.fixture
def draft(db) -> PriceBookVersion:
    """A copy of published unit prices."""
    return draft_copy(publish_prices())


def words(answer) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def new(draft) -> str:
    return reverse("console:price_entry_new", args=[draft.id])


def values(answer) -> dict[str, str]:
    inputs = re.findall(r'<input type="text"[^>]* name="([^"]+)"[^>]* value="([^"]*)"', answer.text)
    return {name: unescape(value) for name, value in inputs}


def test_usage_is_priced_as_it_is_typed_and_nothing_is_stored(operator, draft):
    assert "Fill in the price" in words(operator.get(new(draft)))
    for form, said in [
        (UNIT, "1,000,000 units cost 0.15 USD"),
        (UNIT | {"quantity": "2500000"}, "2,500,000 units cost 0.38 USD exactly 0.375"),
        (TIERS, "22 units cost 117.00 USD"),
        (TIERS | {"price_model.type": "volume"}, "22 units cost 22.00 USD"),
        (UNIT | {"quantity": "much"}, "A quantity must be decimal text"),
        (UNIT | {"price_model.unit_amount": "much"}, "This must be decimal text"),
        (UNIT | {"price_model.unit_amount": ""}, "Fill in the price"),
    ]:  # fmt: skip
        answer = operator.post(new(draft), form)
        assert answer.status_code == 200
        assert said in words(answer), form
    assert not PriceEntry.objects.filter(version=draft).exists()


def test_a_row_of_tiers_is_added_by_a_button(operator, draft):
    more = values(operator.post(new(draft), TIERS | {"act": "add_tier"}))
    assert more["price_model.tiers[1].up_to"] == ""
    assert more["price_model.tiers[2].unit_amount"] == ""
    assert "price_model.tiers[2].up_to" not in more
    left = values(operator.post(new(draft), TIERS | {"act": "remove_tier:0"}))
    assert left["price_model.tiers[0].unit_amount"] == "1"


def test_an_entry_is_added_once_and_changed_in_its_place(operator, draft):
    save = {"act": "save"}
    added = operator.post(new(draft), UNIT | save)
    assert added.status_code == 302
    again = operator.post(new(draft), UNIT | save)
    assert "prices input_tokens of model=tiny-lm, service_tier=standard already" in words(again)
    (row,) = PriceEntry.objects.filter(version=draft)
    assert row.match == {"model": "tiny-lm", "service_tier": "standard"}
    assert row.price_model == {"type": "unit", "unit_amount": "0.00000015", "free_units": "0"}

    its_page = reverse("console:price_entry", args=[draft.id, row.id])
    assert its_page in operator.get(added["Location"]).text
    shown = values(operator.get(its_page))
    assert shown["price_model.unit_amount"] == "0.00000015"
    assert shown["display_name"] == "What you send"
    changed = TIERS | save | {"display_name": ""}
    assert operator.post(its_page, changed).status_code == 302
    row.refresh_from_db()
    assert (row.meter, row.match, row.position) == ("output_tokens", {}, 1)
    assert row.display_name == "Output tokens"
    assert row.price_model["tiers"][1] == {"up_to": None, "unit_amount": "1", "flat_amount": "0"}
    told = [each.change_message for each in LogEntry.objects.order_by("id")]
    assert [each.rsplit(" ", 1)[-1] for each in told] == ["added", "changed"]


def test_a_refusal_stands_beside_its_field_and_nothing_is_stored(operator, draft):
    for change, field, said in [
        ({"price_model.unit_amount": ""}, "price_model.unit_amount", "This is missing."),
        (TIERS | {"price_model.tiers[0].up_to": "0"}, "price_model.tiers[0].up_to", "This must"),
        ({"act": "json", "json": '{"type": "unit", "unit_amount": 0.1}'}, "json", "float"),
    ]:
        answer = operator.post(new(draft), UNIT | {"act": "save"} | change)
        beside = re.search(rf'id="id_{re.escape(field)}-error">([^<]+)<', answer.text)
        assert beside is not None, change
        assert said in unescape(beside[1]), change
    assert '{"type": "unit", "unit_amount": 0.1}</textarea>' in unescape(answer.text)
    # What belongs to no field that is shown is said on top.
    for change, said in [
        ({"match.colour": "red"}, "cannot be matched by 'colour'"),
        ({"meter": "nothing\0"}, "There is no meter 'nothing'"),
    ]:
        assert said in words(operator.post(new(draft), UNIT | change | {"act": "save"}))
    assert not PriceEntry.objects.filter(version=draft).exists()


def test_pasted_json_fills_the_form(operator, draft):
    pasted = {"act": "json", "json": '{"type": "flat", "amount": "10"}'}
    answer = operator.post(new(draft), UNIT | pasted)
    assert "1,000,000 units cost 10.00 USD" in words(answer)
    assert values(answer)["display_name"] == "What you send"


def test_a_declared_meter_offers_its_own_dimensions(operator, draft):
    create_meter("gpu_hours", read_definition(GPU), by="x")
    page = operator.post(new(draft), UNIT | {"meter": "gpu_hours", "act": "refresh"})
    assert "match.model" not in values(page)
    assert "match.gpu" in values(page)
    assert "match.model" in values(operator.get(new(draft)))


def test_a_draft_of_unit_prices_becomes_one_of_entries_and_is_published_on_confirmation(
    operator,
    acme,  # noqa: F811
    prices,  # noqa: F811
):
    ingest(used(acme, prices, utc(10, 5), tokens_in=1_000_000))
    draft = draft_copy(prices)
    assert "Its first entry takes the place of them all" in words(operator.get(new(draft)))
    assert operator.post(new(draft), {"act": "unit_prices"}).status_code == 302
    assert unit_prices_as_entries(draft.id) == 0
    row = PriceEntry.objects.get(version=draft, meter="input_tokens", match__model="tiny-lm")
    dearer = {
        "meter": "input_tokens", "match.model": "tiny-lm", "match.service_tier": "standard",
        "price_model.type": "unit", "price_model.unit_amount": "0.000005", "act": "save",
    }  # fmt: skip
    its_page = reverse("console:price_entry", args=[draft.id, row.id])
    assert operator.post(its_page, dearer).status_code == 302
    PriceEntry.objects.filter(version=draft, match__model="minilm").delete()

    page = reverse("console:pricing_pricebookversion_publish", args=[draft.id])
    shown = words(operator.get(page))
    assert "minilm was priced and has no price here." in shown
    assert "acme $2.01 $5.01 +$3.00" in shown
    refused = operator.post(page, {"effective_at_0": "", "effective_at_1": ""})
    assert "Confirm this, or change the draft." in words(refused)
    early = {"effective_at_0": "2020-01-01", "effective_at_1": "00:00", "gap": "on"}
    assert "already applies at" in words(operator.post(page, early))
    assert prices_of(draft.id) is None
    meant = {"effective_at_0": "", "effective_at_1": "", "gap": "on"}
    assert operator.post(page, meant).status_code == 302
    published = prices_of(draft.id)
    assert published is not None
    assert published.prices["tiny-lm"].input_token_pico == 5_000_000
    last = LogEntry.objects.latest("id")
    assert last.change_message == "published, confirmed: gap"
    # And then nothing of it changes any more.
    count = LogEntry.objects.count()
    assert "is published" in words(operator.post(page, meant, follow=True)).lower()
    for path in (its_page, new(draft)):
        assert "does not change" in words(operator.post(path, dearer, follow=True))
    assert LogEntry.objects.count() == count


def test_what_cannot_be_confirmed_stops_a_version(operator, draft):
    unit_prices_as_entries(draft.id)
    PriceEntry.objects.get(version=draft, meter="requests", match__model="tiny-lm").delete()
    page = reverse("console:pricing_pricebookversion_publish", args=[draft.id])
    shown = operator.get(page)
    assert "tiny-lm has standard prices, but none for requests" in words(shown)
    assert "change the draft, then publish it" in words(shown)
    assert "nobody would have paid" in words(shown)
    answer = operator.post(page, {"effective_at_0": "", "effective_at_1": ""})
    assert "a price that is missing is not zero" in words(answer)
    assert prices_of(draft.id) is None


def test_a_customer_has_none_of_these_pages_and_a_wrong_address_no_page(
    operator, draft, organisation
):
    customer = Client()
    customer.force_login(organisation.owner, backend=BACKEND)
    sent = customer.post(new(draft), UNIT | {"act": "save"})
    assert customer.get(sent["Location"]).status_code == 403
    assert not PriceEntry.objects.filter(version=draft).exists()
    for route, args in [
        ("console:price_entry_new", [organisation.id]),
        ("console:price_entry", [draft.id, organisation.id]),
        ("console:pricing_pricebookversion_publish", [organisation.id]),
    ]:
        assert operator.get(reverse(route, args=args)).status_code == 404
