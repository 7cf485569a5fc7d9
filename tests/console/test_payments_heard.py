"""An operator sees what the provider told us, and has it processed again."""

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse
from rest_framework.test import APIClient

from billing.payments import inbox
from billing.payments.models import WebhookEvent
from tenants.keys import issue_operator_key
from tenants.scoping import system_scope

INBOX = "console:payments_webhookevent_changelist"
EVENT = "console:payments_webhookevent_change"
API = "/api/v1/webhook-events"


@pytest.fixture
def told(db):
    """Three events: processed, waiting, failing."""
    with system_scope("test"):
        for name in ("evt_done", "evt_waits", "evt_fails"):
            payload = {"note": f"<b>{name}</b>"}
            inbox.take_in(name, "invoice.paid", payload, WebhookEvent.Origin.DELIVERED)
    inbox.note_processed("evt_done", "paid, as known")
    inbox.note_failure("evt_fails", "Stripe is away")


@pytest.fixture
def api(db) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_operator_key('tests')}")
    return client


def test_the_inbox_is_listed_filtered_and_shown(operator, told):
    page = operator.get(reverse(INBOX)).text
    for said in ("evt_done", "paid, as known", "evt_fails", "Failing", "Waiting"):
        assert said in page, said
    failing = operator.get(reverse(INBOX) + "?state=failing").text
    assert "evt_fails" in failing
    assert "evt_waits" not in failing
    one = operator.get(reverse(EVENT, args=["evt_fails"])).text
    assert "Stripe is away" in one
    assert "&lt;b&gt;evt_fails&lt;/b&gt;" in one


def test_events_are_processed_again_and_it_is_remembered_who_asked(operator, told):
    asked = {"action": "process_these_again", "_selected_action": ["evt_done", "evt_fails"]}
    page = operator.post(reverse(INBOX), asked, follow=True).text
    assert "evt_done is processed again" in page
    with system_scope("test"):
        again = set(inbox.due_events(10))
        noted = LogEntry.objects.filter(change_message="processed again")
        assert set(noted.values_list("object_id", flat=True)) == {"evt_done", "evt_fails"}
    assert again == {"evt_done", "evt_fails", "evt_waits"}


def test_operators_keys_list_the_inbox_and_process_again(api, told):
    rows = api.get(API).json()
    assert {row["event_id"] for row in rows} == {"evt_done", "evt_waits", "evt_fails"}
    [failing] = api.get(API, {"state": "failing"}).json()
    assert (failing["failures"], failing["failure"]) == (1, "Stripe is away")
    assert failing["payload"] == {"note": "<b>evt_fails</b>"}
    [done] = api.get(API, {"state": "processed", "type": "invoice.paid"}).json()
    assert done["outcome"] == "paid, as known"
    assert api.get(API, {"before": "2020-01-01T00:00:00Z"}).json() == []
    again = api.post(f"{API}/evt_done/process-again")
    assert (again.status_code, again.json()["processed_at"]) == (202, None)
    assert "evt_done" in inbox.due_events(10)


@pytest.mark.parametrize(
    ("query", "field"), [({"state": "odd"}, "state"), ({"before": "soon"}, "before")]
)
def test_what_is_asked_wrongly_is_told(api, query, field):
    refused = api.get(API, query)
    assert refused.status_code == 400
    assert field in str(refused.json())


def test_an_event_nobody_knows_cannot_be_processed_again(api, organisation):
    assert api.post(f"{API}/evt_none/process-again").status_code == 404
    tenants = APIClient()
    tenants.credentials(HTTP_AUTHORIZATION=f"Bearer {organisation.secret}")
    assert tenants.get(API).status_code == 401
