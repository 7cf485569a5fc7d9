"""From a line to exactly its events, and from a request to its lines, whatever arrived when."""

import csv
import io
import random
from collections import Counter
from datetime import datetime
from threading import Event, Thread
from typing import get_args
from uuid import UUID

import msgspec
import pytest
from django.db import connections, transaction

from billing.invoicing.close import close_period
from billing.invoicing.event_csv import events_csv
from billing.invoicing.invoice_csv import usage_csv
from billing.invoicing.line_events import COUNTERS, billed_on, line_source
from billing.invoicing.models import BillingPeriod, Invoice, InvoiceLine
from billing.invoicing.rerate import rerate
from billing.pricing.book import ModelPrices
from billing.pricing.entry import Entry, match_of
from billing.pricing.price_model import read_price_model
from billing.pricing.publish import create_draft, publish
from meterplane.contracts.usage import Priority, Settle
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from meterplane.metering import counted_events
from meterplane.metering.archive import archive_day
from meterplane.metering.queries import request_by_id
from tenants.scoping import system_scope, tenant_scope
from tests.billing.world import ingest, used, utc

# Each segment is a transaction of its own, as in life: what a close had seen is decided by them.
pytestmark = pytest.mark.django_db(transaction=True)


def lines_of(tenant) -> list[InvoiceLine]:
    with tenant_scope(tenant.id):
        lines = InvoiceLine.objects.select_related("invoice")
        return list(lines.order_by("invoice__period_end", "position"))


def ids_of(tenant, line: InvoiceLine) -> list[UUID]:
    text = b"".join(events_csv(tenant.id, line.invoice_id, line.id)).decode()
    return [UUID(row["request_id"]) for row in csv.DictReader(io.StringIO(text))]


def is_of(event: Settle, line: InvoiceLine) -> bool:
    return (
        (event.model, event.service_tier) == (line.model, line.service_tier)
        and line.period_start.timestamp() * 1000 <= event.admitted_at_ms
        and event.admitted_at_ms < line.period_end.timestamp() * 1000
        and getattr(event, COUNTERS[line.meter]) > 0
    )


@pytest.mark.parametrize("batch_size", [10, pytest.param(60, marks=pytest.mark.long)])
def test_random_usage_with_late_arrivals_is_in_one_line_each(acme, prices, batch_size):
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    sent: list[Settle] = []
    for until in (utc(10, 17, 5, 30), utc(11, 1), utc(11, 20)):
        batch = [
            used(
                acme,
                prices,
                utc(chance.choice([9, 10]), chance.randrange(1, 31), chance.randrange(24)),
                chance.choice(["tiny-lm", "minilm"]),
                tokens_in=chance.choice([0, chance.randrange(1, 5000)]),
                tokens_out=chance.randrange(3) * 7,
            )
            for _ in range(batch_size)
        ]
        ingest(*batch[:4])
        ingest(*batch[4:], *chance.sample(sent, min(3, len(sent))))  # some are told twice
        sent += batch
        close_period(acme.id, until)
    claimed: Counter[tuple[UUID, str]] = Counter()
    for line in lines_of(acme):
        with tenant_scope(acme.id):
            source = line_source(line.invoice_id, line.id)
        ids = ids_of(acme, line)
        assert source.units == line.quantity, f"seed {seed}: {line}"
        assert (source.agrees, source.is_exact, source.events) == (True, True, len(ids))
        assert ids == sorted(ids)
        assert set(ids) <= {event.request_id for event in sent if is_of(event, line)}
        claimed.update((request_id, line.meter) for request_id in ids)
    assert set(claimed.values()) == {1}
    free = {("minilm", "output_tokens"), ("minilm", "requests")}
    expected = {
        (event.request_id, meter)
        for event in sent
        for meter, counter in COUNTERS.items()
        if getattr(event, counter) and (event.model, meter) not in free
    }
    assert set(claimed) == expected, f"seed {seed}"


def test_a_request_knows_its_lines_and_each_line_its_request(acme, prices):
    early = used(acme, prices, utc(10, 5), tokens_in=10)
    ingest(early)
    october = close_period(acme.id, utc(11, 1))
    late = used(acme, prices, utc(10, 6), tokens_in=20)
    free = used(acme, prices, utc(10, 7), "minilm", tokens_out=5)
    open_yet = used(acme, prices, utc(11, 23))
    ingest(late, free, open_yet)
    november = close_period(acme.id, utc(11, 20))
    assert october is not None
    assert november is not None
    with tenant_scope(acme.id):
        told = {
            name: billed_on(request_by_id(event.request_id))
            for name, event in (
                ("early", early),
                ("late", late),
                ("free", free),
                ("open", open_yet),
            )
        }
    assert {(e.invoice_id, e.meter, e.units, e.is_late) for e in told["early"].lines} == {
        (october.id, "input_tokens", 10, False),
        (october.id, "requests", 1, False),
    }
    assert {(e.invoice_id, e.meter, e.units, e.is_late) for e in told["late"].lines} == {
        (november.id, "input_tokens", 20, True),
        (november.id, "requests", 1, True),
    }
    for event, name in ((early, "early"), (late, "late")):
        for line in told[name].lines:
            with tenant_scope(acme.id):
                row = InvoiceLine.objects.get(id=line.line_id)
            assert ids_of(acme, row) == [event.request_id]
    assert told["free"].lines == ()
    assert told["free"].closed_at is not None
    assert (told["open"].lines, told["open"].closed_at) == ((), None)


def test_what_was_being_taken_in_while_a_period_closed_is_late_though_it_began_before(acme, prices):
    ingest(used(acme, prices, utc(10, 5)))
    straggler = used(acme, prices, utc(10, 6))
    began, closed = Event(), Event()

    def take_in() -> None:
        try:
            with transaction.atomic():
                with connections["default"].cursor() as cursor:
                    cursor.execute("SELECT now()")  # the instant it is ingested at
                began.set()
                assert closed.wait(20)
                ingest(straggler)
        finally:
            connections.close_all()

    worker = Thread(target=take_in)
    worker.start()
    assert began.wait(20)
    close_period(acme.id, utc(11, 1))
    closed.set()
    worker.join()
    close_period(acme.id, utc(11, 20))
    first, late = lines_of(acme)
    with system_scope("the test looks at when it came in"):
        period = BillingPeriod.objects.get(ends_at=utc(11, 1))
    with tenant_scope(acme.id):
        assert request_by_id(straggler.request_id).ingested_at < period.usage_seen_at
    assert (first.is_late, late.is_late) == (False, True)
    assert straggler.request_id not in ids_of(acme, first)
    assert ids_of(acme, late) == [straggler.request_id]


def test_a_close_waits_for_usage_that_is_about_to_be_there(acme, prices):
    ingest(used(acme, prices, utc(10, 5)))
    came = used(acme, prices, utc(10, 6))
    taken_in, may_commit = Event(), Event()

    def take_in() -> None:
        try:
            with transaction.atomic():
                ingest(came)
                taken_in.set()
                may_commit.wait(1)  # nobody sets it: the close has to wait for the commit
        finally:
            connections.close_all()

    worker = Thread(target=take_in)
    worker.start()
    assert taken_in.wait(20)
    close_period(acme.id, utc(11, 1))
    worker.join()
    (line,) = lines_of(acme)
    assert line.quantity == 2
    assert came.request_id in ids_of(acme, line)


def graduated() -> UUID:
    """Input tokens of every model together by tiers, and a flat amount; the rest is free."""
    model = {
        "type": "graduated",
        "tiers": [
            {"up_to": "1000", "unit_amount": "0.001", "flat_amount": "1"},
            {"up_to": None, "unit_amount": "0.0001"},
        ],
    }
    free = {"type": "unit", "unit_amount": "0"}
    entries = [
        Entry(uuid7(), meter, match_of({}), read_price_model(told), meter)
        for meter, told in (("input_tokens", model), ("output_tokens", free), ("requests", free))
    ]
    draft = create_draft(book="standard", currency="USD", entries=entries)
    return publish(draft.id).version_id


def test_a_line_of_tiers_has_what_its_entry_matched_since_the_close_before(acme, late_november):
    version = graduated()
    first = [
        used(acme, version, utc(10, 3), "tiny-lm", tokens_in=700),
        used(acme, version, utc(10, 4), "minilm", "batch", tokens_in=800),
    ]
    ingest(*first)
    close_period(acme.id, utc(10, 10))
    rest = [
        used(acme, version, utc(10, 5), tokens_in=50),  # of the part that is closed, arrived later
        used(acme, version, utc(10, 20), tokens_in=60),
    ]
    ingest(*rest)
    close_period(acme.id, utc(11, 1))
    late = used(acme, version, utc(10, 6), tokens_in=70)
    ingest(late, used(acme, version, utc(11, 2), tokens_in=1))
    close_period(acme.id, utc(11, 20))
    expected = {
        utc(10, 10): [(1500, first)],
        utc(11, 1): [(110, rest)],
        utc(11, 20): [(1, None), (70, [late])],
    }
    found: dict[datetime, list[InvoiceLine]] = {}
    for line in lines_of(acme):
        found.setdefault(line.invoice.period_end, []).append(line)
    assert set(found) == set(expected)
    for end, lines in found.items():
        for line, (quantity, events) in zip(lines, expected[end], strict=True):
            assert (line.quantity, line.unit_price_pico) == (quantity, None)
            with tenant_scope(acme.id):
                assert line_source(line.invoice_id, line.id).agrees
            if events is not None:
                ids = sorted(event.request_id for event in events)
                assert ids_of(acme, line) == ids
    with tenant_scope(acme.id):
        (billed,) = billed_on(request_by_id(late.request_id)).lines
    assert (billed.line_id, billed.units) == (found[utc(11, 20)][1].id, 70)


def placed(acme, version: UUID, chance: random.Random) -> Settle:
    event = used(acme, version, utc(10, chance.randrange(1, 31), chance.randrange(24)),
                 chance.choice(["tiny-lm", "minilm"]), tokens_in=chance.randrange(500),
                 tokens_out=chance.randrange(3))  # fmt: skip
    return msgspec.structs.replace(
        event,
        priority=chance.choice(get_args(Priority)),
        region=chance.choice(["", "eu", "us"]),
        gpu_type=chance.choice(["", "H100"]),
    )


def by_place(*served: tuple[str, dict[str, str], dict[str, str]]) -> UUID:
    """A version: each meter free but for these prices of it."""
    everything = [(meter, {}, FREE_UNIT) for meter in COUNTERS]
    entries = [
        Entry(uuid7(), meter, match_of(match), read_price_model(model), f"{meter} {match}")
        for meter, match, model in (*everything, *served)
    ]
    return publish(create_draft(book="standard", currency="USD", entries=entries).id).version_id


FREE_UNIT = {"type": "unit", "unit_amount": "0"}


def test_a_line_of_a_region_has_exactly_the_events_that_were_served_there(acme, late_november):
    """Beside a version that matches by nothing of the kind, whose lines are as they ever were."""
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    prices = {
        "tiny-lm": ModelPrices(1_000_000, 1_000_000, 0),
        "minilm": ModelPrices(1_000_000, 0, 0),
    }
    before = publish(create_draft(book="standard", currency="USD", prices=prices).id).version_id
    unit, dear = ({"type": "unit", "unit_amount": each} for each in ("0.001", "0.002"))
    tiers = {"type": "graduated", "tiers": [{"up_to": "100", "unit_amount": "0.1"},
                                            {"up_to": None, "unit_amount": "0.01"}]}  # fmt: skip
    version = by_place(
        ("input_tokens", {"region": "eu"}, unit),
        ("input_tokens", {"region": "eu", "gpu_type": "H100"}, dear),
        ("requests", {"priority": "high"}, tiers),
    )
    sent = [placed(acme, chance.choice([before, version, version]), chance) for _ in range(40)]
    ingest(*sent[:30])
    close_period(acme.id, utc(11, 1))
    ingest(*sent[30:])  # late
    close_period(acme.id, utc(11, 20))
    found: Counter[tuple[UUID, str]] = Counter()
    lines = lines_of(acme)
    for line in lines:
        with tenant_scope(acme.id):
            assert line_source(line.invoice_id, line.id).agrees, f"seed {seed}: {line}"
        ids = ids_of(acme, line)
        found.update((request_id, line.meter) for request_id in ids)
        for event in sent:
            if event.request_id in ids and line.price_version_id == version:
                told = (line.breakdown or {}).get("match", {"priority": "high"})
                assert {name: getattr(event, name) for name in told} == told
    expected = {
        (each.request_id, meter)
        for each in sent
        for meter, counter in COUNTERS.items()
        if getattr(each, counter) and is_priced(each, meter, version)
    }
    assert found == dict.fromkeys(expected, 1), f"seed {seed}"
    # Of one price, model and tier there is one line in each invoice: as many as without places.
    old = [
        (e.invoice_id, e.model, e.meter, e.is_late) for e in lines if e.price_version_id == before
    ]
    assert len(old) == len(set(old))
    for event in sent[25:35]:
        with tenant_scope(acme.id):
            told_lines = billed_on(request_by_id(event.request_id)).lines
        assert {each.meter for each in told_lines} == {
            meter for request_id, meter in expected if request_id == event.request_id
        }
    with tenant_scope(acme.id):
        assert all(each.hash_equal or each.differences == () for each in rerate())


def is_priced(event: Settle, meter: str, version: UUID) -> bool:
    if event.price_version_id != version:
        return meter == "input_tokens" or (meter, event.model) == ("output_tokens", "tiny-lm")
    places = {"input_tokens": event.region == "eu", "requests": event.priority == "high"}
    return places.get(meter, False)


def test_pages_go_on_behind_the_last_request_and_hold_each_once(acme, prices):
    ingest(*(used(acme, prices, utc(10, 1 + n % 28, n % 24)) for n in range(23)))
    close_period(acme.id, utc(11, 1))
    (line,) = lines_of(acme)
    seen: list[UUID] = []
    with tenant_scope(acme.id):
        part = line_source(line.invoice_id, line.id).part
        while rows := counted_events.page(part, 5, seen[-1] if seen else None):
            seen += [row.request_id for row in rows]
        assert counted_events.page(part, 5, UUID(int=7)) == []  # no request can have this id
    assert len(seen) == len(set(seen)) == 23
    assert seen == ids_of(acme, line)


def test_of_archived_days_it_is_said_that_they_are_not_here(acme, prices, settings, tmp_path):
    settings.ARCHIVE_DIR = tmp_path
    ingest(used(acme, prices, utc(9, 5)), used(acme, prices, utc(9, 6)))
    close_period(acme.id, utc(10, 1))
    (line,) = lines_of(acme)
    archive_day(utc(9, 5).date())
    for ask in (
        lambda: line_source(line.invoice_id, line.id),
        lambda: events_csv(acme.id, line.invoice_id, line.id),
        lambda: usage_csv(acme.id, line.invoice_id),
    ):
        with tenant_scope(acme.id), pytest.raises(CallerError) as refused:
            ask()
        assert (refused.value.code, refused.value.status) == ("events_archived", 409)
        assert "2026-09-05" in refused.value.message


def test_the_usage_appendix_adds_up_to_each_line(acme, prices):
    ingest(*(used(acme, prices, utc(10, 1 + n % 3), tokens_in=n * 7) for n in range(9)))
    close_period(acme.id, utc(11, 1))
    ingest(used(acme, prices, utc(10, 2), tokens_in=5))
    november = close_period(acme.id, utc(11, 20))
    assert november is not None
    with tenant_scope(acme.id):
        invoices = list(Invoice.objects.all())
    for invoice in invoices:
        text = b"".join(usage_csv(acme.id, invoice.id)).decode()
        sums: Counter[str] = Counter()
        for row in csv.DictReader(io.StringIO(text)):
            sums[row["line"]] += int(row["quantity"])
            assert row["project"] == "Default"
            assert row["day"].startswith("2026-10-")
        with tenant_scope(acme.id):
            lines = InvoiceLine.objects.filter(invoice_id=invoice.id)
            assert sums == {str(line.id): line.quantity for line in lines}


def test_another_tenants_line_is_missing(acme, prices, onboard):
    ingest(used(acme, prices, utc(10, 5)))
    close_period(acme.id, utc(11, 1))
    (line,) = lines_of(acme)
    other = onboard("globex")
    for invoice_id, line_id in ((line.invoice_id, line.id), (uuid7(), line.id)):
        with tenant_scope(other.id), pytest.raises(CallerError) as refused:
            line_source(invoice_id, line_id)
        assert refused.value.status == 404
