"""Stripe computes the taxes: what it says is on our invoice, once, before it is final there."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from billing.invoicing.advance import News, advance
from billing.invoicing.agree import agree
from billing.invoicing.close import close_period
from billing.invoicing.credit import LineAsked, create_credit_note
from billing.invoicing.documents import credit_note, invoice_document
from billing.invoicing.interim import make_interim
from billing.invoicing.invoice_csv import lines_csv
from billing.invoicing.models import AssignedTax, Invoice, InvoiceLine, InvoiceTax, StripeTax
from billing.invoicing.parties import Place, billing_place, set_details
from billing.invoicing.printed import printed_invoice
from billing.invoicing.queries import upcoming_invoice
from billing.invoicing.tax_choice import choose_taxes
from billing.invoicing.taxation import assign_rates, create_rate, end_exemption, exempt
from billing.invoicing.thresholds import set_threshold
from billing.ledger.audit import audit
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect, resume
from billing.payments.mirror import mirror
from billing.pricing.entry_read import read_entries
from billing.pricing.publish import create_draft, publish
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from meterplane.kernel.invariant import InvariantBroken
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import booked, give
from tests.billing.payments.rig import Faulty, Killed, customer_of, read, steps_of
from tests.billing.world import ingest, used

pytestmark = pytest.mark.django_db(transaction=True)


def lives(tenant, country: str, *lines: str) -> None:
    with tenant_scope(tenant.id):
        set_details(
            name="", address="\n".join(lines), country=country, tax_ids=[], purchase_order=""
        )


def by_stripe(tenant, country: str, *lines: str, card: object = None) -> None:
    lives(tenant, country, *lines)
    with tenant_scope(tenant.id):
        choose_taxes([], "stripe")
    if card is not None:
        attach_test_card(tenant.id, card)


def taxes(tenant, invoice) -> list[tuple[str, str, int, int]]:
    with tenant_scope(tenant.id):
        rows = InvoiceTax.objects.filter(invoice_id=invoice.id).order_by("position")
        return [(str(row), row.country, row.taxable_minor, row.amount_minor) for row in rows]


def is_clean() -> bool:
    return all(verdict.holds for verdict in audit())


def test_what_stripe_puts_on_top_is_on_our_invoice_in_the_ledger_and_on_paper(
    organisation, billed, stripe, there
):
    by_stripe(organisation, "DE", "Hauptstr. 1", card=stripe)
    invoice = billed(organisation)
    assert (invoice.total_minor, invoice.taxed_by, invoice.awaits_taxes) == (301, "stripe", True)
    assert collect(organisation.id, invoice.id, stripe).status == "paid"
    ours = read(organisation.id, invoice)
    [theirs] = there.invoices(organisation)
    # 19 % of each line, rounded there: of 3.00 and of 0.01.
    assert (ours.subtotal_minor, ours.tax_exclusive_minor, ours.total_minor) == (301, 57, 358)
    assert (theirs.subtotal, theirs.total, theirs.amount_paid) == (301, 358, 358)
    assert taxes(organisation, invoice) == [("VAT 19 %, by Stripe", "DE", 301, 57)]
    assert {name: booked(organisation)[name] for name in ("payments", "tax:VAT")} == {
        "payments": 358, "tax:VAT": -57,
    }  # fmt: skip
    assert is_clean()
    with tenant_scope(organisation.id):
        document = invoice_document(invoice.id)
        assert document is not None
        assert [each.label for each in document.taxes] == ["VAT 19 %, by Stripe"]
        assert document.tax_note == "Taxes computed by Stripe."
        assert "VAT 19 %, by Stripe" in str(lines_csv(invoice.id))  # whose sum it checks itself
        assert printed_invoice(invoice.id).startswith(b"%PDF")


@pytest.mark.parametrize(
    ("country", "lines", "tax_minor", "told"),
    [
        ("BR", ["Rua 1"], 0, None),
        ("US", ["1 Market St", "San Francisco, CA 94105"], 22, "Sales tax 7.25 %, CA, by Stripe"),
    ],
)
def test_where_the_customer_is_decides(
    organisation, billed, stripe, country, lines, tax_minor, told
):
    by_stripe(organisation, country, *lines, card=stripe)
    invoice = billed(organisation)
    assert collect(organisation.id, invoice.id, stripe).status == "paid"
    ours = read(organisation.id, invoice)
    assert (ours.tax_exclusive_minor, ours.total_minor) == (tax_minor, 301 + tax_minor)
    assert [each[0] for each in taxes(organisation, invoice)] == ([told] if told else [])
    assert ours.taxed_at is not None
    assert ("none to pay" in ours.tax_note) == (told is None)
    assert is_clean()


@pytest.mark.parametrize(
    ("country", "lines", "said"),
    [
        ("US", ["1 Market St", "San Francisco, CA 94105-1234"], ("CA", "94105-1234")),
        ("CA", ["1 Front St", "Toronto, ON  M5V 2T6", "Attn. Billing"], ("ON", "M5V 2T6")),
        ("US", ["PO BOX 94105"], ("", "")),
        ("US", ["San Francisco, Calif. 94105"], ("", "")),
        ("DE", ["Haus CA 94105"], ("", "")),
        ("US", [], ("", "")),
    ],
)
def test_state_and_code_are_read_where_taxes_are_by_state(organisation, country, lines, said):
    lives(organisation, country, *lines)
    with tenant_scope(organisation.id):
        place = billing_place()
    assert (place.country, place.state, place.postal_code) == (country, *said)
    assert place.lines == tuple(" ".join(line.split()) for line in lines)


def test_a_place_that_says_too_little_parks_and_goes_on_once_it_is_given(
    organisation, billed, stripe, there
):
    by_stripe(organisation, "US", "1 Market St", card=stripe)
    invoice = billed(organisation)
    outcome = collect(organisation.id, invoice.id, stripe)
    assert (outcome.status, outcome.collection_state) == ("finalising", "parked")
    assert "give the country in the billing details" in outcome.note
    assert [each.status for each in there.invoices(organisation)] == ["draft"]
    assert is_clean()  # nothing is owed yet
    lives(organisation, "US", "1 Market St", "San Francisco, CA 94105")
    resume(organisation.id, invoice.id)
    assert collect(organisation.id, invoice.id, stripe).status == "paid"
    assert read(organisation.id, invoice).total_minor == 323
    assert len(there.invoices(organisation)) == 1


def test_credit_is_taken_off_the_lines_for_stripe_taxes_what_is_left(
    organisation, billed, stripe, there
):
    by_stripe(organisation, "DE", card=stripe)
    give(organisation, 100, "welcome")
    invoice = billed(organisation)
    assert collect(organisation.id, invoice.id, stripe).status == "paid"
    [theirs] = there.invoices(organisation)
    lines = there.lines(theirs.id)
    assert sorted(amount for _, amount, _ in lines) == [1, 200]
    assert any("(3.00 USD less 1.00 of: " in text for _, _, text in lines)
    assert read(organisation.id, invoice).total_minor == 239 == theirs.total  # 2.01 and 0.38
    assert is_clean()
    give(organisation, 1000, "all of it")
    free = billed(organisation)
    assert (free.total_minor, free.taxed_by) == (0, "rates")  # nothing is asked for
    assert collect(organisation.id, free.id, stripe).status == "paid"
    assert is_clean()


@pytest.mark.long
def test_yen_are_taxed_in_yen(onboard, stripe, there):
    tokyo = onboard("tokyo", currency="JPY")
    prices = {"input_tokens": "0", "output_tokens": "0.5", "requests": "0"}
    entries = [
        {"meter": meter, "price_model": {"type": "unit", "unit_amount": amount}}
        for meter, amount in prices.items()
    ]
    draft = create_draft(book="yen", currency="JPY", entries=read_entries(entries, clock.now()))
    version = publish(draft.id, confirm=["gap"]).version_id
    agree(tenant_id=tokyo.id, body={"book": "yen", "currency": "JPY"}, by="tests")
    by_stripe(tokyo, "JP", card=stripe)
    ingest(used(tokyo, version, clock.now(), tokens_out=1_011))
    invoice = close_period(tokyo.id, clock.now())
    assert invoice is not None
    assert collect(tokyo.id, invoice.id, stripe).status == "paid"
    assert read(tokyo.id, invoice).total_minor == 506 + 51
    assert [each.total for each in there.invoices(tokyo)] == [557]


def at_each(*calls: str, **marked: object) -> list[object]:
    return [pytest.param(call, after, **marked) for call in calls for after in (False, True)]


@pytest.mark.parametrize(
    ("call", "after"),
    [
        ("finalise", False),  # recorded here, and not final there
        *at_each("place_customer", "draft", "lines", "taxes", "finalise", marks=pytest.mark.long),
    ],
)
def test_killed_at_any_call_it_ends_in_one_invoice_with_its_taxes_once(
    organisation, billed, stripe, there, call, after
):
    by_stripe(organisation, "DE", card=stripe)
    invoice = billed(organisation)
    with pytest.raises(Killed):
        collect(organisation.id, invoice.id, Faulty(stripe, call, after=after, fail=Killed))
    assert read(organisation.id, invoice).status == "finalising"
    assert collect(organisation.id, invoice.id, stripe).status == "paid"
    [theirs] = there.invoices(organisation)
    assert (theirs.status, theirs.total) == ("paid", 358)
    assert taxes(organisation, invoice) == [("VAT 19 %, by Stripe", "DE", 301, 57)]
    done = [kind for kind, _, state in steps_of(organisation.id) if state == "done"]
    assert len(done) == len(set(done)), "each step once"
    assert is_clean()


def stopped_before(call: str, tenant, invoice, stripe) -> str:
    """Collected up to a call and no further; the invoice's id there."""

    with pytest.raises(Killed):
        collect(tenant.id, invoice.id, Faulty(stripe, call, after=False, fail=Killed))
    with tenant_scope(tenant.id):
        return str(Invoice.objects.get(id=invoice.id).payment_run.provider_invoice_id)


def test_another_tax_there_than_was_recorded_parks_before_it_is_final(
    organisation, billed, stripe, there
):
    by_stripe(organisation, "DE", card=stripe)
    invoice = billed(organisation)
    their_id = stopped_before("finalise", organisation, invoice, stripe)
    assert read(organisation.id, invoice).total_minor == 358
    france = Place(("Rue 1",), "FR", "", "")
    stripe.place_customer(customer_of(organisation.id), france)
    stripe.tax_again(their_id)
    outcome = collect(organisation.id, invoice.id, stripe)
    assert (outcome.status, outcome.collection_state) == ("finalising", "parked")
    assert "total: ours 358, theirs 361" in outcome.note
    assert [each.status for each in there.invoices(organisation)] == ["draft"]
    assert is_clean()


@pytest.mark.long
def test_one_that_was_made_final_there_too_early_gets_its_taxes_all_the_same(
    organisation, billed, stripe, there
):
    by_stripe(organisation, "DE", card=stripe)
    invoice = billed(organisation)
    their_id = stopped_before("taxes", organisation, invoice, stripe)
    there.client.v1.invoices.finalize_invoice(their_id)
    assert not mirror(organisation.id, invoice.id, stripe.invoice(their_id))
    ours = read(organisation.id, invoice)
    assert (ours.status, ours.collection_state) == ("finalising", "parked")
    assert "resume collecting" in ours.collection_note
    resume(organisation.id, invoice.id)
    assert collect(organisation.id, invoice.id, stripe).status == "paid"
    assert read(organisation.id, invoice).total_minor == 358
    assert is_clean()


def test_one_that_is_voided_there_leaves_no_tax_in_the_books(organisation, billed, stripe, there):
    by_stripe(organisation, "DE")
    invoice = billed(organisation)
    their_id = stopped_before("finalise", organisation, invoice, stripe)
    there.client.v1.invoices.finalize_invoice(their_id)
    there.client.v1.invoices.void_invoice(their_id)
    assert mirror(organisation.id, invoice.id, stripe.invoice(their_id))
    ours = read(organisation.id, invoice)
    assert (ours.status, ours.total_minor) == ("void", 358)
    assert not any(booked(organisation).values())
    assert is_clean()


def test_credit_notes_give_the_tax_back_in_proportion_and_to_the_cent(organisation, billed, stripe):
    by_stripe(organisation, "DE", card=stripe)
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    with tenant_scope(organisation.id):
        line = InvoiceLine.objects.filter(invoice_id=invoice.id).order_by("-amount_minor")[0]
        some = create_credit_note(
            invoice.id, reason="goodwill", idempotency_key="a", lines=[LineAsked(line.id, 100)]
        )
        rest = create_credit_note(invoice.id, reason="goodwill", idempotency_key="b")
        assert [(some.total_minor, some.tax_exclusive_minor)] == [(119, 19)]
        assert [(rest.total_minor, rest.tax_exclusive_minor)] == [(239, 38)]
        shown = credit_note(rest.id)
        assert shown is not None
        assert [each.label for each in shown.taxes] == ["VAT 19 %, by Stripe"]
    assert booked(organisation).get("tax:VAT", 0) == 0
    assert is_clean()


def test_interim_invoices_keep_their_tax_and_the_month_is_taxed_on_the_rest(
    organisation, prices, stripe, there
):
    by_stripe(organisation, "DE", card=stripe)
    with tenant_scope(organisation.id):
        set_threshold("3", by="test")
    ingest(used(organisation, prices, clock.now() - timedelta(milliseconds=1), requests=301))
    interim = make_interim(organisation.id)
    ingest(used(organisation, prices, clock.now() - timedelta(milliseconds=1), requests=200))
    # Closed before the interim one was collected: it is named without a number, and stays a draft.
    final = close_period(organisation.id, clock.now())
    assert interim is not None
    assert final is not None
    assert read(organisation.id, interim).status == "draft"
    assert final.total_minor == 200
    for invoice in (interim, final):
        assert collect(organisation.id, invoice.id, stripe).status == "paid"
    assert [read(organisation.id, each).total_minor for each in (interim, final)] == [358, 238]
    assert sorted(each.total for each in there.invoices(organisation)) == [238, 358]
    assert booked(organisation)["tax:VAT"] == -95
    assert is_clean()
    with tenant_scope(organisation.id):
        note = create_credit_note(final.id, reason="goodwill", idempotency_key="all")
        assert (note.total_minor, note.tax_exclusive_minor) == (238, 38)
    assert is_clean()


@pytest.mark.long
def test_who_leaves_stripe_within_a_month_is_taxed_at_rates_on_the_rest_of_it(
    organisation, prices, stripe
):
    by_stripe(organisation, "DE", card=stripe)
    rate = create_rate(name="GST", percentage="10", mode="exclusive")
    with tenant_scope(organisation.id):
        set_threshold("3", by="test")
    ingest(used(organisation, prices, clock.now() - timedelta(milliseconds=1), requests=301))
    interim = make_interim(organisation.id)
    assert interim is not None
    collect(organisation.id, interim.id, stripe)
    with tenant_scope(organisation.id):
        assign_rates([rate.id])
    ingest(used(organisation, prices, clock.now() - timedelta(milliseconds=1), requests=200))
    with tenant_scope(organisation.id):
        upcoming = upcoming_invoice()
    final = close_period(organisation.id, clock.now())
    assert upcoming is not None
    assert final is not None
    assert (upcoming.total_minor, final.total_minor, final.tax_exclusive_minor) == (220, 220, 20)
    assert collect(organisation.id, final.id, stripe).status == "paid"
    with tenant_scope(organisation.id):
        usage, taken = InvoiceLine.objects.filter(invoice_id=final.id).order_by("position")
        assert (usage.amount_minor, taken.amount_minor) == (501, -301)
        part = [LineAsked(usage.id, 201), LineAsked(taken.id, -101)]
        notes = [
            create_credit_note(final.id, reason="goodwill", idempotency_key=key, lines=lines)
            for key, lines in (("part", part), ("rest", None))
        ]
    assert [note.total_minor for note in notes] == [110, 110]
    assert is_clean()


def test_who_computes_is_chosen_and_refused_in_words(organisation):
    first = "give the country in the billing details first"
    with tenant_scope(organisation.id), pytest.raises(CallerError, match=first):
        choose_taxes([], "stripe")
    lives(organisation, "DE")
    rate = create_rate(name="VAT", percentage="19", mode="exclusive")
    with tenant_scope(organisation.id):
        with pytest.raises(CallerError, match="name no rates"):
            choose_taxes([rate.id], "stripe")
        with pytest.raises(CallerError, match="by rates or by stripe"):
            choose_taxes([], "both")
        choose_taxes([rate.id], "rates")
        choose_taxes([], "stripe")
        choose_taxes([], "stripe")
        with pytest.raises(IntegrityError, match="not both"), transaction.atomic():
            AssignedTax.objects.create(tenant_id=organisation.id, rate_id=rate.id)
        assign_rates([rate.id])
        assert not StripeTax.objects.exists()
        with pytest.raises(IntegrityError, match="not both"), transaction.atomic():
            StripeTax.objects.create(tenant_id=organisation.id)


def test_the_month_that_has_interim_invoices_at_rates_is_closed_at_rates(organisation, prices):
    lives(organisation, "DE")
    rate = create_rate(name="VAT", percentage="19", mode="exclusive")
    with tenant_scope(organisation.id):
        assign_rates([rate.id])
        set_threshold("3", by="test")
    ingest(used(organisation, prices, clock.now() - timedelta(milliseconds=1), requests=301))
    assert make_interim(organisation.id) is not None
    with (
        tenant_scope(organisation.id),
        pytest.raises(CallerError, match="once the month is closed"),
    ):
        choose_taxes([], "stripe")
    close_period(organisation.id, clock.now())
    with tenant_scope(organisation.id):
        choose_taxes([], "stripe")


def test_an_exemption_stands_above_stripe_and_what_is_upcoming_invents_no_number(
    organisation, prices
):
    lives(organisation, "DE")
    with tenant_scope(organisation.id):
        choose_taxes([], "stripe")
    ingest(used(organisation, prices, clock.now() - timedelta(milliseconds=2), requests=301))
    with tenant_scope(organisation.id):
        found = upcoming_invoice()
        assert found is not None
        assert (found.tax_exclusive_minor, found.taxes, found.total_minor) == (0, (), 301)
        assert found.tax_note == "Taxes are computed by Stripe when the invoice is sent."
        exempt("exempt", "charity")
        found = upcoming_invoice()
        assert found is not None
        assert found.tax_note == "Exempt from tax: charity"
    invoice = close_period(organisation.id, clock.now())
    assert invoice is not None
    assert (invoice.taxed_by, invoice.tax_note) == ("rates", "Exempt from tax: charity")
    with tenant_scope(organisation.id):
        end_exemption()


def test_none_is_open_before_its_taxes_are_known_and_they_are_written_once(
    organisation, billed, stripe
):
    by_stripe(organisation, "DE")
    invoice = billed(organisation)

    def refused(**change):
        with pytest.raises(IntegrityError), tenant_scope(organisation.id):
            Invoice.objects.filter(id=invoice.id).update(**change)

    unknown = "once its taxes are known"
    with tenant_scope(organisation.id), pytest.raises(InvariantBroken, match=unknown):
        advance(invoice.id, News("open", clock.now()))
    now = clock.now()
    refused(taxed_at=now, tax_exclusive_minor=5, total_minor=306)  # still a draft
    with tenant_scope(organisation.id):
        advance(invoice.id, News("finalising", now))
    refused(status="open", number="X-1", finalised_at=now)
    refused(tax_exclusive_minor=5, total_minor=306)  # not as its taxes
    refused(taxed_at=now, tax_exclusive_minor=5, total_minor=307)  # another subtotal
    refused(taxed_at=now, tax_exclusive_minor=5, total_minor=306)  # no tax is 5: seen at commit
    refused(taxed_by="rates")
    assert collect(organisation.id, invoice.id, stripe).status == "open"
    refused(taxed_at=now)
    refused(tax_exclusive_minor=58, total_minor=359)
    with tenant_scope(organisation.id):
        row = InvoiceTax.objects.get()
    row.pk, row.position, row.provider_rate, row.amount_minor = uuid7(), 9, "txr_2", 0
    with pytest.raises(IntegrityError, match="takes no taxes"), tenant_scope(organisation.id):
        row.save(force_insert=True)
