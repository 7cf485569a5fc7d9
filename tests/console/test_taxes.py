"""An operator makes tax rates, retires them, and says how an organisation is taxed."""

import re
from html import unescape

from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from billing.invoicing.models import AssignedTax, TaxRate
from billing.invoicing.parties import set_details
from billing.invoicing.taxation import create_rate, exemption, taxed_how
from meterplane.console.taxed import taxes_in_words
from tenants.scoping import tenant_scope
from tests.console.conftest import BACKEND

ADD = "console:invoicing_taxrate_add"
RATES = "console:invoicing_taxrate_changelist"
VAT = {"name": "VAT", "percentage": "19", "mode": "exclusive", "country": "de", "label": ""}


def words(answer) -> str:
    return unescape(re.sub(r"<[^>]+>", " ", answer.text))


def taxes_page(organisation) -> str:
    return reverse("console:tenants_organisation_change_taxes", args=[organisation.id])


def rate(name: str = "VAT", percentage: str = "19") -> TaxRate:
    return create_rate(name=name, percentage=percentage, mode="exclusive", country="DE")


def test_a_rate_is_made_once_and_retired_for_good(operator):
    assert "made here once, then assigned" in words(operator.get(reverse(RATES)))
    assert operator.post(reverse(ADD), VAT).status_code == 302
    again = operator.post(reverse(ADD), VAT)
    assert "This rate is in use already" in words(again)
    made = TaxRate.objects.get()
    assert str(made) == "VAT 19 %"
    assert made.country == "DE"

    act = {"action": "retire", "_selected_action": [str(made.id)]}
    assert "VAT 19 % is retired" in words(operator.post(reverse(RATES), act, follow=True))
    made.refresh_from_db()
    retired_at = made.retired_at
    assert retired_at is not None
    assert "was retired already" in words(operator.post(reverse(RATES), act, follow=True))
    made.refresh_from_db()
    assert made.retired_at == retired_at
    history = words(operator.get(reverse("console:invoicing_taxrate_history", args=[made.pk])))
    assert "Added" in history
    assert history.count("retired") == 1
    # Not in use any more, so that it can be made anew; and it never changes.
    assert operator.post(reverse(ADD), VAT).status_code == 302
    page = reverse("console:invoicing_taxrate_change", args=[made.pk])
    assert operator.post(page, VAT | {"percentage": "7"}).status_code == 403


def test_a_rate_that_cannot_be_is_refused_in_words(operator):
    for change, said in [
        ({"percentage": "19,5"}, "A percentage is a text from 0 to 100"),
        ({"percentage": "101"}, "A percentage is a text from 0 to 100"),
        ({"percentage": "7.77777"}, "at most 4 decimals"),
        ({"percentage": ""}, "required"),
        ({"country": "1"}, "two capital letters"),
        ({"name": ""}, "required"),
        ({"mode": "both"}, "not one of the available choices"),
    ]:
        answer = operator.post(reverse(ADD), VAT | change)
        assert answer.status_code == 200, change
        assert said in words(answer), change
    assert not TaxRate.objects.exists()


def test_an_organisation_gets_rates_and_an_exemption_and_its_neighbour_nothing(
    operator, organisation, onboard
):
    beta = onboard("beta")
    page = taxes_page(organisation)
    assert "no tax rate in use yet" in words(operator.get(page))
    vat, city = rate(), rate("City tax", "2.5")
    assert "VAT 19 % (DE), on top of prices" in words(operator.get(page))

    both = {"rates": [str(vat.id), str(city.id)], "exemption": "", "reason": ""}
    assert operator.post(page, both).status_code == 302
    assert operator.post(page, both).status_code == 302
    with tenant_scope(organisation.id):
        assert [each.name for each in taxed_how()[1]] == ["City tax", "VAT"]
    with tenant_scope(beta.id):
        assert taxes_in_words() == "no tax"
    assert "City tax 2.5 % (DE)" in words(
        operator.get(reverse("console:tenants_organisation_change", args=[organisation.id]))
    )

    exempt = {"rates": [str(vat.id)], "exemption": "reverse_charge", "reason": "ATU12345678"}
    assert operator.post(page, exempt).status_code == 302
    with tenant_scope(organisation.id):
        found = exemption()
        assert found is not None
        assert (found.kind, found.reason) == ("reverse_charge", "ATU12345678")
        assert AssignedTax.objects.get().rate_id == vat.id
    assert operator.post(page, both).status_code == 302
    with tenant_scope(organisation.id):
        assert exemption() is None

    # Each change is remembered with who made it; what changed nothing is not.
    told = [each.change_message for each in LogEntry.objects.order_by("id")]
    assert told == [
        "taxes: City tax 2.5 % (DE), on top of prices, VAT 19 % (DE), on top of prices",
        "taxes: Reverse charge: tax is to be accounted for by the recipient. ATU12345678",
        "taxes: City tax 2.5 % (DE), on top of prices, VAT 19 % (DE), on top of prices",
    ]
    assert {each.user.username for each in LogEntry.objects.all()} == {"op@example.com"}


def test_stripe_is_chosen_instead_of_rates_where_it_knows_the_country(operator, organisation):
    vat, page = rate(), taxes_page(organisation)
    stripe = {"computed_by": "stripe", "rates": [], "exemption": "", "reason": ""}
    assert "give the country in the billing details first" in words(operator.post(page, stripe))
    with tenant_scope(organisation.id):
        set_details(name="", address="", country="DE", tax_ids=[], purchase_order="")
    assert "name no rates" in words(operator.post(page, stripe | {"rates": [str(vat.id)]}))
    assert "computed by Stripe, from the next invoice on" in words(
        operator.post(page, stripe, follow=True)
    )
    assert [each.change_message for each in LogEntry.objects.all()] == ["taxes: computed by Stripe"]
    operator.post(page, stripe | {"computed_by": "rates", "rates": [str(vat.id)]})
    with tenant_scope(organisation.id):
        assert taxes_in_words() == "VAT 19 % (DE), on top of prices"


def test_what_is_refused_leaves_an_organisation_as_it_was(operator, organisation):
    vat = rate()
    page = taxes_page(organisation)
    nothing = {"rates": [], "exemption": "", "reason": ""}
    operator.post(page, nothing | {"rates": [str(vat.id)]})
    for change, said in [
        ({"exemption": "exempt"}, "Say why, in at most 200 characters"),
        ({"reason": "because"}, "Choose which exemption the reason is for"),
        ({"exemption": "holy"}, "not one of the available choices"),
        ({"rates": [str(organisation.id)]}, "not one of the available choices"),
    ]:
        answer = operator.post(page, nothing | change)
        assert answer.status_code == 200, change
        assert said in words(answer), change
    with tenant_scope(organisation.id):
        assert [each.name for each in taxed_how()[1]] == ["VAT"]
        assert exemption() is None


def test_a_customer_has_none_of_these_pages_and_a_wrong_address_no_page(operator, organisation):
    customer = Client()
    customer.force_login(organisation.owner, backend=BACKEND)
    for path in (reverse(ADD), taxes_page(organisation)):
        sent = customer.post(path, VAT)
        assert sent.status_code == 302
        assert customer.get(sent["Location"]).status_code == 403
    assert not TaxRate.objects.exists()
    for missing in ("01900000-0000-7000-8000-000000000000", "x"):
        path = reverse("console:tenants_organisation_change_taxes", args=[missing])
        assert operator.get(path).status_code == 404
