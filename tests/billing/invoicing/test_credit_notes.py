"""Credit notes: exactly what is left, once, with its taxes, its number and its ledger entry."""

import random
from decimal import Decimal
from threading import Barrier, Thread
from uuid import UUID

import pytest
from django.db import IntegrityError, ProgrammingError, connections, transaction

from billing.credits.grant import grant
from billing.credits.queries import list_grants
from billing.credits.terms import GrantTerms
from billing.invoicing.advance import News, advance
from billing.invoicing.close import close_period
from billing.invoicing.credit import LineAsked, create_credit_note, lines_left
from billing.invoicing.documents import credit_note, invoice_document
from billing.invoicing.models import CreditNote, CreditNoteSeries, Invoice, InvoiceLine
from billing.invoicing.printed import printed_credit_note
from billing.invoicing.taxation import assign_rates, create_rate
from billing.ledger.audit import audit
from billing.ledger.queries import balance_of
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import system_scope, tenant_scope
from tests.billing.world import ingest, used, utc

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)


def invoiced(tenant, prices, status: str = "open", *rates: tuple[str, str]) -> Invoice:
    """October's: 4.44 of input tokens, 2.22 of output tokens, a cent for the request."""
    made = [create_rate(name=f"{mode} {pct}", percentage=pct, mode=mode).id for pct, mode in rates]
    ingest(used(tenant, prices, utc(10, 5), tokens_in=2_220_000, tokens_out=370_000))
    with tenant_scope(tenant.id):
        assign_rates(made)
    invoice = close_period(tenant.id, utc(11, 1))
    assert invoice is not None
    with tenant_scope(tenant.id):
        advance(invoice.id, News(status, clock.now()))
        return Invoice.objects.get(id=invoice.id)


def noted(tenant, invoice: Invoice, key: str, lines=None, **given) -> CreditNote:
    with tenant_scope(tenant.id):
        asked = {"reason": "service_failure", "idempotency_key": key, "lines": lines} | given
        return create_credit_note(invoice.id, **asked)


def lines_of(tenant, invoice: Invoice) -> list[UUID]:
    with tenant_scope(tenant.id):
        lines = InvoiceLine.objects.filter(invoice_id=invoice.id).order_by("position")
        return [line.id for line in lines]


# What each note names of the lines (444, 222, 1 of 19 % on top), and its subtotal, tax and total.
TABLE = """
named                notes
all                  667+127=794
1:444 2:222 3:1      444+85=529 222+42=264 1+0=1
1:100 1:344 2:222    100+19=119 344+66=410 222+42=264
1:q2220000 2:q185000 444+85=529 111+21=132
"""


@pytest.mark.parametrize("line", TABLE.splitlines()[2:])
def test_the_table(acme, prices, line):
    named, notes = line[:21].split(), line[21:].split()
    invoice = invoiced(acme, prices, "paid", ("19", "exclusive"))
    assert invoice.total_minor == 667 + 127
    ids = lines_of(acme, invoice)
    for n, (name, expected) in enumerate(zip(named, notes, strict=True)):
        lines = None
        if name != "all":
            position, _, amount = name.partition(":")
            of = ids[int(position) - 1]
            lines = [
                LineAsked(of, quantity=Decimal(amount[1:]))
                if amount.startswith("q")
                else LineAsked(of, int(amount))
            ]
        made = noted(acme, invoice, f"key {n}", lines)
        found = f"{made.subtotal_minor}+{made.tax_exclusive_minor}={made.total_minor}"
        assert found == expected
        assert made.number == f"ACME-CN-{n + 1:06d}"


def test_any_notes_of_an_invoice_add_up_to_it_to_the_cent(acme, prices):
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    invoice = invoiced(
        acme, prices, "paid", ("19", "exclusive"), ("7.7", "exclusive"), ("2.5", "inclusive")
    )
    for n in range(9):
        with tenant_scope(acme.id):
            left = lines_left(invoice.id)
        asked = [
            LineAsked(line_id, chance.randint(1, each.left_minor))
            for line_id, each in left.items()
            if each.left_minor and chance.random() < 0.6
        ]
        if asked:
            noted(acme, invoice, f"{seed} {n}", asked)
    with tenant_scope(acme.id):
        something = any(each.left_minor for each in lines_left(invoice.id).values())
    if something:
        noted(acme, invoice, "the rest")
    with tenant_scope(acme.id):
        notes = list(CreditNote.objects.all())
        document = invoice_document(invoice.id)
    assert document is not None
    for name in ("subtotal_minor", "tax_exclusive_minor", "tax_inclusive_minor", "total_minor"):
        whole = getattr(invoice, name)
        assert sum(getattr(note, name) for note in notes) == whole, f"seed {seed}: {name}"
    assert document.credited_minor == invoice.total_minor
    with pytest.raises(CallerError) as refused:
        noted(acme, invoice, "more")
    assert refused.value.code == "nothing_to_credit"


def test_the_same_key_makes_one_note_and_other_content_is_refused(acme, prices):
    invoice = invoiced(acme, prices)
    line, *_ = lines_of(acme, invoice)
    first = noted(acme, invoice, "once", [LineAsked(line, 100)])
    again = noted(acme, invoice, "once", [LineAsked(line, 100)])
    assert again.id == first.id
    with pytest.raises(CallerError) as refused:
        noted(acme, invoice, "once", [LineAsked(line, 101)])
    assert refused.value.code == "idempotency_conflict"
    with tenant_scope(acme.id):
        assert CreditNote.objects.count() == 1
        assert CreditNoteSeries.objects.get().last_number == 1


def test_of_an_open_invoice_less_is_due_and_nobody_is_charged_the_whole(acme, prices):
    invoice = invoiced(acme, prices)
    line, *_ = lines_of(acme, invoice)
    noted(acme, invoice, "a", [LineAsked(line, 100)])
    with tenant_scope(acme.id):
        document = invoice_document(invoice.id)
        held = Invoice.objects.get(id=invoice.id)
        owed = balance_of("receivable", "USD")
    assert document is not None
    assert (document.due_minor, owed, held.total_minor) == (567, 567, 667)
    assert held.collection_state == "pending"  # whoever collects hears of it first


@committing
@pytest.mark.parametrize("end", ["paid", "void", "uncollectible"])
def test_the_ledger_agrees_however_a_credited_invoice_ends(acme, prices, end):
    invoice = invoiced(acme, prices, "open", ("19", "exclusive"), ("5", "inclusive"))
    line, *_ = lines_of(acme, invoice)
    noted(acme, invoice, "a", [LineAsked(line, 100)])
    with tenant_scope(acme.id):
        advance(invoice.id, News(end, clock.now()))
        assert balance_of("receivable", "USD") == 0
        paid = balance_of("payments", "USD")
        revenue = balance_of("revenue:input_tokens", "USD")
    if end == "paid":
        noted(acme, invoice, "b")
    if end == "void":
        assert (paid, revenue) == (0, 0)
    assert [(each.check, each.findings) for each in audit() if each.findings] == []


@committing
def test_what_is_given_back_of_a_paid_invoice_is_to_be_refunded_or_purchased_credit(acme, prices):
    invoice = invoiced(acme, prices, "paid", ("19", "exclusive"))
    first, second, _ = lines_of(acme, invoice)
    noted(acme, invoice, "a", [LineAsked(first, 100)], effect="refund")
    noted(acme, invoice, "b", [LineAsked(second, 200)], effect="balance")
    with tenant_scope(acme.id):
        assert balance_of("refunds", "USD") == -119
        assert balance_of("credits:purchased", "USD") == -238
        assert balance_of("receivable", "USD") == 0
        (granted,) = list_grants()
        assert (granted.kind, granted.remaining_minor) == ("purchased", 238)
        assert granted.reason == "Credit note ACME-CN-000002"
    assert [(each.check, each.findings) for each in audit() if each.findings] == []


@committing
def test_credit_that_paid_comes_back_with_its_line_and_never_as_money(acme, prices):
    with tenant_scope(acme.id):
        terms = GrantTerms(
            kind="promotional", currency="USD", amount_minor=300, effective_at=utc(9, 1)
        )
        grant(tenant_id=acme.id, terms=terms, idempotency_key="g", created_by="a test")
    invoice = invoiced(acme, prices, "paid", ("19", "exclusive"))
    assert invoice.total_minor == 367 + 70
    line, *_ = lines_of(acme, invoice)
    with pytest.raises(CallerError) as refused:
        noted(acme, invoice, "more than was asked for", [LineAsked(line, 444)])
    assert refused.value.code == "credit_exceeds_invoice"
    note = noted(acme, invoice, "all of it")
    assert note.total_minor == invoice.total_minor
    with tenant_scope(acme.id):
        (granted,) = list_grants()
        assert granted.remaining_minor == 300
        assert balance_of("refunds", "USD") == -437
    assert [(each.check, each.findings) for each in audit() if each.findings] == []


@committing
@pytest.mark.parametrize("effect", ["", "balance"])
def test_of_what_credit_paid_wholly_only_credit_comes_back(acme, prices, effect):
    with tenant_scope(acme.id):
        terms = GrantTerms(
            kind="promotional", currency="USD", amount_minor=1000, effective_at=utc(9, 1)
        )
        grant(tenant_id=acme.id, terms=terms, idempotency_key="g", created_by="a test")
    invoice = invoiced(acme, prices, "paid", ("19", "exclusive"))
    assert invoice.total_minor == 0  # 4.44, 2.22 and 0.01, and 6.67 of credit
    first, *_, drawn = lines_of(acme, invoice)
    with pytest.raises(CallerError) as refused:
        noted(acme, invoice, "money", [LineAsked(first, 444)], effect=effect)
    assert refused.value.code == "credit_exceeds_invoice"
    note = noted(acme, invoice, "a", [LineAsked(first, 333), LineAsked(drawn, -333)], effect=effect)
    assert (note.subtotal_minor, note.tax_exclusive_minor, note.total_minor) == (0, 0, 0)
    with tenant_scope(acme.id):
        (granted,) = list_grants()
        assert granted.remaining_minor == 333 + 333  # what was never drawn, and what came back
        view = credit_note(note.id)
        assert printed_credit_note(note.id)
    assert view is not None
    assert [line.amount_minor for line in view.lines] == [333, -333]
    rest = noted(acme, invoice, "the rest", effect=effect)
    assert rest.total_minor == 0
    with tenant_scope(acme.id):
        (granted,) = list_grants()
        assert granted.remaining_minor == 1000
        assert balance_of("refunds", "USD") == balance_of("receivable", "USD") == 0
        assert balance_of("revenue:input_tokens", "USD") == 0
    assert [(each.check, each.findings) for each in audit() if each.findings] == []


def test_a_note_over_credit_alone_does_not_keep_the_rest_from_being_collected(acme, prices):
    with tenant_scope(acme.id):
        terms = GrantTerms(
            kind="purchased", currency="USD", amount_minor=333, effective_at=utc(9, 1)
        )
        grant(tenant_id=acme.id, terms=terms, idempotency_key="g", created_by="a test")
    invoice = invoiced(acme, prices, "open", ("19", "exclusive"))
    assert invoice.total_minor == 334 + 63
    first, *_, drawn = lines_of(acme, invoice)
    # Of 19 % of 6.67 (1.27) less 19 % of 3.33 (0.63), half a line's share is 0.425, and 0.315.
    note = noted(acme, invoice, "a", [LineAsked(first, 222), LineAsked(drawn, -222)])
    assert (note.total_minor, note.effect) == (0, "lowers_due")
    with tenant_scope(acme.id):
        held = Invoice.objects.get(id=invoice.id)
        assert balance_of("receivable", "USD") == 397
    assert (held.collection_state, held.collection_note) == ("pending", "")
    assert noted(acme, invoice, "the rest").total_minor == 397


@pytest.mark.parametrize(
    ("status", "given", "code"),
    [
        ("open", {"effect": "refund"}, "credit_effect_invalid"),
        ("paid", {"effect": "lowers_due"}, "credit_effect_invalid"),
        ("open", {"reason": "because"}, "credit_reason_invalid"),
        ("open", {"idempotency_key": " "}, "idempotency_key_invalid"),
        ("open", {"memo": "x" * 401}, "credit_memo_invalid"),
        ("open", {"lines": [LineAsked(UUID(int=5), 1)]}, "line_not_found"),
        ("void", {}, "invoice_not_creditable"),
        ("uncollectible", {}, "invoice_not_creditable"),
    ],
)
def test_what_cannot_be_credited_is_refused_and_nothing_is_written(
    acme, prices, status, given, code
):
    invoice = invoiced(acme, prices, status)
    with pytest.raises(CallerError) as refused:
        noted(acme, invoice, "key", **given)
    assert refused.value.code == code
    with tenant_scope(acme.id):
        assert (CreditNote.objects.count(), CreditNoteSeries.objects.count()) == (0, 0)


@committing
def test_two_at_once_get_numbers_without_a_gap_and_never_more_than_the_line(acme, prices):
    invoice = invoiced(acme, prices)
    line, *_ = lines_of(acme, invoice)
    together, outcomes = Barrier(2), []

    def ask(key: str) -> None:
        try:
            together.wait(20)
            outcomes.append(noted(acme, invoice, key, [LineAsked(line, 300)]).number)
        except CallerError as refused:
            outcomes.append(refused.code)
        finally:
            connections.close_all()

    threads = [Thread(target=ask, args=(key,)) for key in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["ACME-CN-000001", "credit_exceeds_line"]
    assert noted(acme, invoice, "c").number == "ACME-CN-000002"


FORBIDDEN = [
    "INSERT INTO credit_note (id, tenant_id, invoice_id, number, reason, memo, effect, currency,"
    " subtotal_minor, tax_exclusive_minor, tax_inclusive_minor, total_minor, idempotency_key,"
    " request_digest, created_at) SELECT gen_random_uuid(), tenant_id, invoice_id, 'n', reason,"
    " memo, effect, currency, 0, 0, 0, 0, 'k', '', now() FROM credit_note;"
    " SET CONSTRAINTS ALL IMMEDIATE",
    "UPDATE invoice SET paid_minor = -1",
    "UPDATE credit_note SET total_minor = total_minor - 1, subtotal_minor = subtotal_minor - 1",
    "DELETE FROM credit_note_line",
    "UPDATE credit_note_line SET amount_minor = 1",
    "INSERT INTO credit_note_line (id, tenant_id, note_id, position, line_id, amount_minor)"
    " SELECT gen_random_uuid(), l.tenant_id, n.id, 7, l.id, l.amount_minor + 1"
    " FROM invoice_line l, credit_note n WHERE l.position = 2",
    "INSERT INTO credit_note_line (id, tenant_id, note_id, position, line_id, amount_minor)"
    " SELECT gen_random_uuid(), l.tenant_id, n.id, 7, l.id, 1"
    " FROM invoice_line l, credit_note n WHERE l.position = 2; SET CONSTRAINTS ALL IMMEDIATE",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_postgresql_keeps_credit_notes(acme, prices, statement):
    invoice = invoiced(acme, prices)
    line, *_ = lines_of(acme, invoice)
    noted(acme, invoice, "a", [LineAsked(line, 100)])
    with (
        pytest.raises((IntegrityError, ProgrammingError)) as refused,
        system_scope("somebody tries"),
        transaction.atomic(),
        transaction.get_connection().cursor() as cursor,
    ):
        cursor.execute(statement)
    may_not_ask = "permission denied" in str(refused.value)
    is_a_change = statement.startswith(("UPDATE credit_note", "DELETE"))
    assert may_not_ask is is_a_change


def test_its_pdf_is_the_same_bytes_each_time(acme, prices):
    invoice = invoiced(acme, prices, "paid", ("19", "exclusive"))
    note = noted(acme, invoice, "a", memo="Störung am 12. Oktober")
    with tenant_scope(acme.id):
        first, again = printed_credit_note(note.id), printed_credit_note(note.id)
        view = credit_note(note.id)
    assert first == again
    assert view is not None
    assert [line.amount_minor for line in view.lines] == [444, 222, 1]
