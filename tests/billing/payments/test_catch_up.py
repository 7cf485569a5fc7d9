"""Events that were never delivered are found in the provider's list; those that fail wait."""

from datetime import UTC, datetime, timedelta

import pytest

from billing.payments import catch_up as catching_up
from billing.payments import inbox, tasks
from billing.payments.accounts import attach_test_card
from billing.payments.catch_up import LISTED_FOR, OVERLAP, catch_up
from billing.payments.collect import collect
from billing.payments.events_port import ListedEvent
from billing.payments.models import EventWatermark, WebhookEvent
from billing.payments.provider import ProviderUnavailable
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import system_scope
from tests.billing.payments.rig import read, standing
from tests.stripe_sandbox.rig import KEY

pytestmark = pytest.mark.django_db(transaction=True)

# Minutes at which one that always fails is tried: 15 s apart, then twice as long each time, 1 h.
WAITS = [0, 1, 2, 3, 5, 9, 17, 33, 65, 125]
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


class Listing:
    """A provider that has these events: (instant, id)."""

    name = "stripe"

    def __init__(self, *events: tuple[datetime, str]) -> None:
        self.events = list(events)
        self.asked: list[tuple[datetime, datetime]] = []
        self.away_at = 0

    def events_between(self, start, end, most):
        self.asked.append((start, end))
        if len(self.asked) == self.away_at:
            raise ProviderUnavailable("away", "no answer")
        found = [
            ListedEvent(name, "invoice.paid", {"id": name})
            for at, name in reversed(self.events)
            if start <= at < end
        ]
        return None if most is not None and len(found) > most else found


def stored() -> set[str]:
    with system_scope("test"):
        return set(WebhookEvent.objects.values_list("event_id", flat=True))


def watermark(at: datetime | None = None) -> datetime:
    with system_scope("test"):
        if at is not None:
            EventWatermark.objects.create(provider="stripe", read_until=at)
        return EventWatermark.objects.get().read_until


def test_what_was_never_delivered_ends_in_the_same_state(organisation, billed, stripe, there):
    """No webhook endpoint at all: the hourly look alone."""
    attach_test_card(organisation.id, stripe, "pm_card_chargeCustomerFail")
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    attach_test_card(organisation.id, stripe)
    [theirs] = there.invoices(organisation)
    there.client.v1.invoices.pay(theirs.id)
    assert (read(organisation.id, invoice).status, standing(organisation.id)) == (
        "open",
        "past_due",
    )
    tasks.catch_up_with_events()
    while inbox.due_events(1):  # what others did in this sandbox is listed too
        tasks.sweep()
    assert (read(organisation.id, invoice).status, standing(organisation.id)) == ("paid", "active")
    with system_scope("test"):
        about = WebhookEvent.objects.filter(payload__data__object__id=theirs.id)
        assert "invoice.paid" in about.values_list("type", flat=True)
        assert set(about.values_list("origin", flat=True)) == {"listed"}
        known = WebhookEvent.objects.count()
    tasks.catch_up_with_events()
    with system_scope("test"):
        assert WebhookEvent.objects.count() == known
        assert not WebhookEvent.objects.filter(processed_at__isnull=True).exists()


def test_after_an_outage_all_is_read_that_is_left(db):
    events = [(NOW - timedelta(days=n, minutes=1), f"evt_{n:02}") for n in range(40)]
    watermark(NOW - timedelta(days=40))
    with clock.frozen(NOW):
        assert catch_up(Listing(*events)) == 30
    assert stored() == {name for at, name in events if at >= NOW - LISTED_FOR}
    assert watermark() == NOW


def test_a_run_that_breaks_off_is_gone_on_with_where_it_was(db):
    began = NOW - timedelta(days=5)
    watermark(began)
    listing = Listing(*((began + timedelta(hours=7 * n), f"evt_{n:02}") for n in range(17)))
    listing.away_at = 3
    with clock.frozen(NOW):
        with pytest.raises(ProviderUnavailable):
            catch_up(listing)
        assert began < watermark() < NOW
        assert 0 < len(stored()) < 17
        catch_up(listing)
    assert len(stored()) == 17
    assert listing.asked[3][0] == listing.asked[2][0] - OVERLAP


def test_more_than_a_slice_may_hold_is_read_by_smaller_ones(db, monkeypatch):
    monkeypatch.setattr(catching_up, "EVENTS_MAX", 5)
    began = NOW - timedelta(days=3)
    watermark(began)
    crowd = [(began + timedelta(seconds=90 * n), f"evt_{n:03}") for n in range(300)]
    at_once = [(NOW - timedelta(hours=2), f"evt_once_{n}") for n in range(50)]
    with clock.frozen(NOW):
        for _ in range(20):
            catch_up(Listing(*crowd, *at_once))
            if watermark() == NOW:
                break
    assert len(stored()) == 350
    assert watermark() == NOW


def test_what_is_listed_late_is_found_by_the_overlap(db):
    listing = Listing((NOW - timedelta(minutes=30), "evt_1"))
    watermark(NOW - timedelta(hours=1))
    with clock.frozen(NOW):
        catch_up(listing)
        listing.events.append((NOW - timedelta(minutes=40), "evt_late"))
        assert catch_up(listing) == 1
    assert stored() == {"evt_1", "evt_late"}


def test_before_there_is_a_customer_nothing_of_the_past_is_read(db):
    with clock.frozen(NOW):
        assert catch_up(Listing((NOW - timedelta(days=3), "evt_1"))) == 0
    assert watermark() == NOW


def test_one_that_fails_waits_longer_each_time_and_keeps_no_other_waiting(
    db, stripe, settings, monkeypatch
):
    settings.STRIPE_API_KEY = KEY
    monkeypatch.setattr(tasks, "process_event", broken := Broken({"evt_bad"}))
    monkeypatch.setattr(tasks, "SWEEP_MAX", 1)  # one at a time: a bad one could block all
    began = clock.now()
    with system_scope("test"):
        for name in ("evt_bad", "evt_good"):
            inbox.take_in(name, "invoice.paid", {"data": {"object": {"object": "x"}}}, "delivered")
    tried = []
    for minute in (*range(40), 64, 65, 66, 124, 125):
        with clock.frozen(began + timedelta(minutes=minute, seconds=1)):
            before = broken.count("evt_bad")
            tasks.sweep()
            tasks.sweep()
            if broken.count("evt_bad") > before:
                tried.append(minute)
    assert tried == WAITS
    assert broken.count("evt_good") >= 1
    with system_scope("test"):
        bad = WebhookEvent.objects.get(event_id="evt_bad")
    assert (bad.failures, bad.failure) == (10, "ValueError: cannot")
    assert bad.processed_at is None


class Broken:
    """Processing that fails for some."""

    def __init__(self, bad: set[str]) -> None:
        self.bad, self.seen = bad, list[str]()

    def count(self, name: str) -> int:
        return self.seen.count(name)

    def __call__(self, event_id: str, _provider: object) -> str:
        self.seen.append(event_id)
        if event_id in self.bad:
            raise ValueError("cannot")
        inbox.note_processed(event_id, "done")
        return "done"


def test_an_event_is_processed_again_on_demand(organisation, billed, stripe, there):
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    [theirs] = there.invoices(organisation)
    told = {"data": {"object": {"object": "invoice", "id": theirs.id}}}
    with system_scope("test"):
        inbox.take_in("evt_1", "invoice.paid", told, "delivered")
    tasks.process_webhook("evt_1")
    there.client.v1.invoices.void_invoice(theirs.id)
    with system_scope("test"):
        assert WebhookEvent.objects.get().outcome == "open, as known"
        inbox.process_again("evt_1")
        with pytest.raises(CallerError, match="no event evt_2"):
            inbox.process_again("evt_2")
    tasks.process_webhook("evt_1")
    with system_scope("test"):
        assert WebhookEvent.objects.get().outcome == "void"
    assert read(organisation.id, invoice).status == "void"


def test_only_what_was_processed_long_ago_is_forgotten(db):
    with clock.frozen(NOW - inbox.KEPT - timedelta(days=1)), system_scope("test"):
        for name in ("evt_done", "evt_waits"):
            inbox.take_in(name, "x", {}, "delivered")
        WebhookEvent.objects.filter(event_id="evt_done").update(processed_at=clock.now())
    with clock.frozen(NOW):
        with system_scope("test"):
            inbox.take_in("evt_new", "x", {}, "delivered")
            WebhookEvent.objects.filter(event_id="evt_new").update(processed_at=clock.now())
        assert inbox.forget_old() == 1
    assert stored() == {"evt_waits", "evt_new"}
