"""An operator sees what differs from the provider, since when and by how much, and says what is
done about it."""

import csv
import io
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from billing.ledger.entry import Entry, Leg
from billing.ledger.post import post_entry
from billing.payments.models import PaymentFinding, ReconciledDay
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.scoping import system_scope, tenant_scope

FINDINGS = "console:payments_paymentfinding_changelist"
FINDING = "console:payments_paymentfinding_change"
ACKNOWLEDGE = "console:payments_paymentfinding_acknowledge"
OURS = str(uuid7())


@pytest.fixture
def found(db) -> PaymentFinding:
    """An open one of three hours, one that is gone, and the day that they are of."""
    now = clock.now()
    with system_scope("test"):
        for said, kind, closed in (
            ("=it was <i>gone</i>", "refund", now),
            ("it differs by a cent", "payment", None),
        ):
            PaymentFinding.objects.create(
                provider="stripe", day=now.date(), kind=kind, problem="different", our_id=OURS,
                their_id="in_1", said=said, opened_at=now - timedelta(hours=3), closed_at=closed,
                our_amount="3.01 USD", their_amount="3.02 USD",
            )  # fmt: skip
        counts = {"invoice": {"compared": 5, "agreed": 5}, "payment": {"compared": 3, "agreed": 2}}
        ReconciledDay.objects.create(
            provider="stripe", day=now.date(), compared=8, compared_at=now, counts=counts
        )
        first: PaymentFinding = PaymentFinding.objects.get(closed_at=None)
    return first


def test_open_ones_are_first_with_age_amounts_and_both_sides(operator, found, settings):
    settings.STRIPE_API_KEY, settings.STRIPE_API_BASE = "sk_test_12345678", ""
    page = operator.get(reverse(FINDINGS)).text
    assert page.index("it differs by a cent") < page.index("&lt;i&gt;gone&lt;/i&gt;")
    for said in ("3.01 USD", "3.02 USD", "3 h", "Payments do not add up", "2 of 3 payments"):
        assert said in page, said
    assert "https://dashboard.stripe.com/test/invoices/in_1" in page
    closed = operator.get(reverse(FINDINGS) + "?state=closed").text
    assert "it differs by a cent" not in closed
    assert "gone" in closed
    one = operator.get(reverse(FINDING, args=[found.pk])).text
    assert reverse("console:invoicing_invoice_change", args=[OURS]) in one
    days = operator.get(reverse("console:payments_reconciledday_changelist")).text
    assert f"{clock.now():%Y-%m-%d}" in days


def test_who_acknowledges_is_remembered_and_the_alarm_is_silent(operator, found):
    alarm = "payments do not add up"
    assert alarm in operator.get(reverse("console:index")).text
    where = reverse(ACKNOWLEDGE, args=[found.pk])
    assert "it differs by a cent" in operator.get(where).text
    assert "required" in operator.post(where, {"note": ""}).text
    done = operator.post(where, {"note": "=Stripe was asked"}, follow=True).text
    assert "It is acknowledged" in done
    assert "op@example.com" in done
    with system_scope("test"):
        [noted] = LogEntry.objects.filter(object_id=str(found.pk))
    assert noted.change_message == "acknowledged: =Stripe was asked"
    assert alarm not in operator.get(reverse("console:index")).text
    assert "it differs by a cent" in operator.get(reverse(FINDINGS) + "?state=acknowledged").text
    assert "it differs by a cent" not in operator.get(reverse(FINDINGS) + "?state=open").text
    with system_scope("test"):
        PaymentFinding.objects.update(closed_at=clock.now())
    assert where not in operator.get(reverse(FINDING, args=[found.pk])).text
    assert "both sides agree again" in operator.post(where, {"note": "late"}).text


def test_the_file_has_what_the_list_shows(operator, found):
    def rows(query: str) -> list[dict[str, str]]:
        answer = operator.get(reverse("console:payment_findings_csv") + query)
        assert answer["Content-Type"].startswith("text/csv")
        return list(csv.DictReader(io.StringIO(answer.content.decode())))

    assert len(rows("")) == 2
    [row] = rows("?kind__exact=payment&state=open")
    amounts = (row["state"], row["our_amount"], row["their_amount"])
    assert amounts == ("open", "3.01 USD", "3.02 USD")
    [closed] = rows("?state=closed")
    assert closed["said"] == "'=it was <i>gone</i>"  # no formula of a spreadsheet
    page = operator.get(reverse(FINDINGS) + "?state=closed").text
    assert f"{reverse('console:payment_findings_csv')}?state=closed" in page


def test_without_findings_it_says_when_it_was_compared_and_how_many_agree(operator, db):
    assert "Nothing was compared yet" in operator.get(reverse(FINDINGS)).text
    now = clock.now()
    counts = {
        "invoice": {"compared": 7, "agreed": 7},
        "credit_note": {"compared": 5, "agreed": 5},
    }
    with system_scope("test"):
        ReconciledDay.objects.create(
            provider="stripe", day=now.date(), compared_at=now, compared=12, counts=counts
        )
    page = " ".join(operator.get(reverse(FINDINGS)).text.split())
    assert f"Last compared at {now:%Y-%m-%d %H:%M:%S} UTC" in page
    for said in ("Ours and theirs agree", "7 invoices,", "5 credit notes<"):
        assert said in page, said


def test_clearing_accounts_show_what_is_open_and_what_is_not_explained(operator, organisation):
    where = reverse("console:clearing_accounts")
    assert "No clearing account holds anything" in operator.get(where).text
    legs = (Leg("payments", 301), Leg("receivable", -301))
    with tenant_scope(organisation.id):
        post_entry(Entry("invoice.paid", str(uuid7()), "USD", legs, clock.now(), "of no invoice"))
    page = operator.get(where).text
    for said in ("receivable", "acme", "invoice paid (1)", "3.01"):
        assert said in page, said
    rest = operator.get(where + "?show=rest").text
    assert "receivable" in rest
    assert "invoice paid (1)" not in rest
