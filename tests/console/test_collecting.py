"""An operator watches invoices on their way to the provider, and finds what is parked."""

from datetime import timedelta

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing.invoicing.models import Invoice
from billing.payments.mirror import park
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.payments.closed import Closed

PAGE = "console:collecting"
DIFFERENCE = "Ours and theirs differ:\n<b>total</b>: ours 3.01, theirs 3.00"


def test_before_the_first_invoice_it_says_what_will_be_shown(operator, db):
    page = operator.get(reverse(PAGE)).text
    assert "No invoice was closed yet" in page
    assert 'hx-trigger="every 15s"' in page
    assert "progressbar" not in page


def test_it_shows_how_far_it_is_and_asks_again_by_itself(operator, organisation):
    closed, now = Closed(organisation), clock.now()
    closed.add(1_200, "done", now - timedelta(minutes=30))
    closed.add(40, "pending", now - timedelta(minutes=30))
    closed.finalise(20, now - timedelta(seconds=9), timedelta(milliseconds=1))
    page = operator.get(reverse(PAGE)).text
    assert "Bringing invoices to the provider" in page
    for said in ("1,200", "of 1,240", "40", "nobody is at it now", "/s", 'aria-valuenow="96"'):
        assert said in page, said
    assert f'hx-get="{reverse(PAGE)}"' in page
    assert 'hx-trigger="every 2s"' in page
    assert 'viewBox="0 0 1240 1"' in page


def test_what_is_parked_leads_to_what_differs(operator, organisation):
    Closed(organisation).add(1, "pending", clock.now())
    with tenant_scope(organisation.id):
        invoice_id = Invoice.objects.get().id
    park(organisation.id, invoice_id, DIFFERENCE)
    page = operator.get(reverse(PAGE)).text
    where = reverse("console:invoicing_invoice_change", args=[invoice_id])
    said = "&lt;b&gt;total&lt;/b&gt;: ours 3.01, theirs 3.00"
    assert f'<a class="underline" href="{where}#collection-note">{said}</a>' in page
    assert organisation.slug.title() in page
    shown = operator.get(where).text
    assert (
        f'id="collection-note" class="console-note">Ours and theirs differ:\n{said}</div>' in shown
    )


def test_asking_costs_one_statement_over_invoices_while_nothing_is_parked(operator, organisation):
    Closed(organisation).add(5, "pending", clock.now())
    operator.get(reverse(PAGE))
    with CaptureQueriesContext(connection) as asked:
        operator.get(reverse(PAGE))
    assert sum("invoice" in each["sql"] for each in asked.captured_queries) == 1


def test_only_operators_see_it(client, db):
    assert client.get(reverse(PAGE)).status_code == 302
