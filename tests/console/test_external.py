"""Operators find an external event, what was said of it, and what a meter counts."""

import pytest
from django.urls import reverse

from meterplane.catalog.meters_change import create_meter
from meterplane.catalog.meters_check import read_definition
from meterplane.metering.external.overlays import amend, deprecate
from tests.catalog.test_meters import GPU
from tests.metering.external.sent import event, send

pytestmark = pytest.mark.django_db
EVENTS = reverse("console:external_events")


def test_an_event_is_found_by_organisation_source_and_id(operator, organisation, onboard):
    onboard("globex")
    send(event("first-id"), event("second-id"), event("their-id", subject="globex"))
    for query, found in [
        ({}, {"first-id", "second-id", "their-id"}),
        ({"organisation": "acme"}, {"first-id", "second-id"}),
        ({"organisation": "nobody"}, set()),
        ({"source": "/jobs/7", "id": "second-id"}, {"second-id"}),
        ({"source": "/jobs/8"}, set()),
        ({"organisation": "\0"}, {"first-id", "second-id", "their-id"}),
    ]:
        page = operator.get(EVENTS, query)
        assert page.status_code == 200
        rows = page.text.partition("<tbody")[2]
        assert {each for each in ("first-id", "second-id", "their-id") if each in rows} == found


def test_an_event_shows_its_history_as_text(operator, organisation):
    (sent,) = send(event("<b>1</b>", data={"gpu_seconds": 12, "note": "<script>"}))
    receipt = sent.receipt.id
    amend(receipt, at=None, data='{"gpu_seconds":7.10000000000000001}', reason="log", by="ops 1")
    deprecate(receipt, reason="it ran twice", by="ops 2")
    page = operator.get(reverse("console:external_event", args=[receipt])).text
    for text in ("7.10000000000000001", "ops 1", "ops 2", "it ran twice", "no, corrected 2 times"):
        assert text in page
    assert "<b>1</b>" not in page
    assert "&lt;script&gt;" in page
    missing = reverse("console:external_event", args=["01900000-0000-7000-8000-000000000000"])
    assert operator.get(missing).status_code == 404


def test_a_meter_shows_how_it_counts_and_what_it_counted(operator, organisation):
    create_meter("gpu_hours", read_definition(GPU), by="ops")
    send(event(data={"gpu_seconds": 5400, "gpu": "h200"}))
    listed = operator.get(reverse("console:meters")).text
    for text in ("gpu_hours", "input_tokens", "sum of data.gpu_seconds", "built in"):
        assert text in listed
    page = operator.get(reverse("console:meter", args=["gpu_hours"])).text
    for text in ("data.gpu in", "÷ 3600", "half_up to 6 digits", "1.5", "the beginning"):
        assert text in page
    assert operator.get(reverse("console:meter", args=["input_tokens"])).status_code == 200
    assert operator.get(reverse("console:meter", args=["nobody"])).status_code == 404
