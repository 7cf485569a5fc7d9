"""What must hold from an invoice's lines to its last credit note: taxes, credit, ledger."""

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID

from hypothesis import strategies as st

from billing.credits.cover import Payable, Payer, cover
from billing.invoicing.credit_entries import GivenBack, TaxPart, difference, with_taxes
from billing.invoicing.credited import LineLeft, TaxedLine, by_amount, tax_part
from billing.invoicing.entries import Invoiced, entries_of
from billing.invoicing.tax import Taxed, tax
from billing.ledger import movements
from billing.ledger.accounts import revenue
from meterplane.kernel.ids import uuid7
from tests.billing.invoicing.test_tax import rates
from tests.billing.properties import holds_for
from tests.billing.world import utc

METERS = ["input_tokens", "output_tokens", "requests", "discount"]
AT = utc(11, 1)
OWED = ["receivable", "payments", "bad_debt"]


@dataclass
class Bill:
    """An invoice's lines by position: usage by meter, then what credit pays of it, below zero."""

    meters: dict[int, str]
    lines: dict[int, int]
    taxed: Taxed[int]
    purchased_minor: int
    promotional_minor: int
    left: dict[int, LineLeft] = field(default_factory=dict)
    noted: Counter[UUID] = field(default_factory=Counter)  # of each tax, what went back so far

    @property
    def taxes(self) -> list[TaxPart]:
        """As the invoice has them."""
        return [TaxPart(e.rate.name, e.rate.mode, e.amount_minor) for e in self.taxed.taxes]

    @property
    def booked(self) -> dict[str, int]:
        """What the ledger gets of it."""
        return with_taxes(self.earned(self.lines), self.taxes)

    def earned(self, of: dict[int, int]) -> dict[str, int]:
        """By account, credit aside."""
        found: Counter[str] = Counter()
        for position, amount in of.items():
            if position in self.meters:
                found[revenue(self.meters[position])] += amount
        return dict(found)


@dataclass
class Note:
    """A credit note: of each line so much, what that is, and the credit that comes back."""

    amounts: dict[int, int]
    back: GivenBack
    restored_minor: int


@st.composite
def bills(draw):
    """Credit is drawn as it is for an invoice: from grants in their order."""
    amounts = st.one_of(st.integers(-30, 30), st.integers(-(10**6), 10**9)).filter(bool)
    meters = dict(enumerate(draw(st.lists(st.sampled_from(METERS), min_size=1, max_size=6)), 1))
    lines = {position: draw(amounts) for position in meters}
    payables = [Payable("a", meters[position], amount) for position, amount in lines.items()]
    scopes = st.sampled_from([frozenset[str](), frozenset({"requests"})])
    grants = draw(st.lists(st.tuples(st.integers(1, 10**6), scopes), max_size=2))
    paid = cover([Payer(amount, meters_only=only) for amount, only in grants], payables)
    for amount in filter(None, paid):
        lines[len(lines) + 1] = -amount
    purchased, promotional = [*paid, 0, 0][:2]
    return Bill(
        meters, lines, tax(lines, draw(rates)), purchased, promotional,
        {position: LineLeft(amount, Decimal(1)) for position, amount in lines.items()},
    )  # fmt: skip


def note_of(bill: Bill, amounts: dict[int, int]) -> Note:
    """Give back so much of each line, with its part of the taxes, as a credit note does."""
    taxes = {}
    for each in bill.taxed.taxes:
        lines = [
            TaxedLine(each.by_line[position], left, amounts.get(position, 0))
            for position, left in bill.left.items()
        ]
        part = tax_part(each.amount_minor, bill.noted[each.rate.id], lines)
        bill.noted[each.rate.id] += part
        taxes[each.rate.id] = TaxPart(each.rate.name, each.rate.mode, part)
    for position, amount in amounts.items():
        left = bill.left[position]
        credited = left.credited_minor + by_amount(left, amount, "USD", "x")
        bill.left[position] = LineLeft(left.amount_minor, left.quantity, credited)
    restored = -sum(amount for each, amount in amounts.items() if each not in bill.meters)
    return Note(amounts, GivenBack(bill.earned(amounts), taxes), restored)


def notes_until_nothing_is_left(bill: Bill, data):
    """Of any lines, any amounts, in any order; the last takes what is left."""
    while any(left.left_minor for left in bill.left.values()):
        open_lines = [position for position, left in bill.left.items() if left.left_minor]
        if data.draw(st.booleans()):
            yield note_of(bill, {each: bill.left[each].left_minor for each in open_lines})
            continue
        chosen = data.draw(st.lists(st.sampled_from(open_lines), unique=True, min_size=1))
        chosen += [each for each in open_lines if each in bill.meters and each not in chosen][:1]
        amounts = {}
        for position in chosen:
            left = bill.left[position].left_minor
            sign = 1 if left > 0 else -1
            amounts[position] = sign * data.draw(st.integers(1, abs(left)))
        yield note_of(bill, amounts)


@holds_for(bills(), st.data())
def test_the_credit_notes_of_a_whole_invoice_are_its_exact_negative(bill, data):
    """Line by line, tax by tax, and in every account of the ledger."""
    lines: Counter[int] = Counter()
    accounts: Counter[str] = Counter()
    so_far = GivenBack()
    for note in notes_until_nothing_is_left(bill, data):
        lines.update(note.amounts)
        before, so_far = so_far, so_far + note.back
        by_account = difference(so_far.by_account, before.by_account)
        accounts.update(by_account)
        on_top = sum(
            part.amount_minor for part in note.back.taxes.values() if part.mode == "exclusive"
        )
        total = sum(note.amounts.values()) + on_top
        assert sum(by_account.values()) == total + note.restored_minor
    assert lines == bill.lines
    taxes = {rate_id: part.amount_minor for rate_id, part in so_far.taxes.items()}
    assert taxes == {each.rate.id: each.amount_minor for each in bill.taxed.taxes}
    assert accounts == Counter(bill.booked)


@holds_for(bills(), st.data(), st.sampled_from(["open", "paid", "void", "uncollectible"]))
def test_every_entry_of_an_invoice_is_zero_in_sum_and_a_void_leaves_nothing(bill, data, status):
    """Credit that was drawn, and a credit note while it was open, included."""
    note = Note({}, GivenBack(), 0)
    if data.draw(st.booleans()):
        note = next(notes_until_nothing_is_left(bill, data))
    lowered = note.back.by_account
    # What was drawn last comes back first.
    given_back = min(note.restored_minor, bill.promotional_minor)
    bought_back = note.restored_minor - given_back
    entries = [
        movements.credit_drawn(
            purchased_minor=bill.purchased_minor, promotional_minor=bill.promotional_minor
        ),
        movements.credit_note(lowered),
        movements.credit_restored(purchased_minor=bought_back, promotional_minor=given_back),
    ]
    called_for = entries_of(
        Invoiced(
            id=uuid7(), name="Invoice ACME-000001", status=status, currency="USD",
            total_minor=bill.taxed.total_minor, earned=bill.booked, finalised_at=AT, paid_at=AT,
            moved_at=AT, drawn_minor=bill.purchased_minor + bill.promotional_minor,
            lowered=lowered, restored_minor=note.restored_minor,
        )
    )  # fmt: skip
    entries += [entry.legs for entry in called_for]
    if status == "void":
        entries.append(
            movements.credit_restored(
                purchased_minor=bill.purchased_minor - bought_back,
                promotional_minor=bill.promotional_minor - given_back,
            )
        )
    balances: Counter[str] = Counter()
    for legs in entries:
        assert sum(leg.amount_minor for leg in legs) == 0
        for leg in legs:
            balances[leg.account] += leg.amount_minor
    if status == "void":
        assert not any(balances.values()), "as if there had been no invoice"
    else:
        due = bill.taxed.total_minor - sum(lowered.values()) + note.restored_minor
        holds = {"open": "receivable", "paid": "payments", "uncollectible": "bad_debt"}[status]
        assert {name: balances[name] for name in OWED} == dict.fromkeys(OWED, 0) | {holds: due}


@holds_for(bills(), st.randoms(use_true_random=False))
def test_an_entry_is_the_same_in_whatever_order_its_revenue_is_read(bill, random):
    earned = list(bill.earned(bill.lines).items())
    random.shuffle(earned)
    again = with_taxes(dict(earned), bill.taxes)
    total = sum(bill.booked.values())
    assert movements.invoice_finalised(total, again) == movements.invoice_finalised(
        total, bill.booked
    )
