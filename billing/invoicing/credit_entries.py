"""What taxes and credit notes are in the ledger, and what the audit expects of credit notes.

A tax on top of prices is an account of its own beside the revenue; one that prices contain is taken
out of the revenue of the meters, in proportion to it. A credit note takes back both as they were
booked: what all notes so far take back, less what the earlier ones did, so that those that use an
invoice up leave nothing of it in any account. It posts in the transaction that makes it:

    open invoice   revenue, tax less; that much less is due, and drawn credit comes back
    paid invoice   revenue, tax less; the money is to be refunded
    ... balance    the same, refunded at once into a grant of purchased credit
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

from django.db.models import QuerySet, Sum

from billing.invoicing.credit_back import gave_back_by_account
from billing.invoicing.credit_lines import GIVEN_BACK
from billing.invoicing.entries import added
from billing.invoicing.models import CreditNote, CreditNoteLine, CreditNoteTax, InvoiceLine
from billing.ledger import movements
from billing.ledger.accounts import revenue
from billing.ledger.accounts import tax as tax_account
from billing.ledger.entry import Entry
from billing.ledger.sources import Expected, Page, Source
from meterplane.kernel.money import split_by_largest_remainder

CREDITED = "credit_note.made"
KEPT = "credit_note.kept"
NOTES_PER_PAGE = 500


@dataclass(frozen=True, slots=True)
class TaxPart:
    """One tax of an invoice or a credit note."""

    name: str
    mode: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class GivenBack:
    """What credit notes take back: revenue by account, and taxes by the invoice's own."""

    earned: Mapping[str, int] = field(default_factory=dict)
    taxes: Mapping[UUID, TaxPart] = field(default_factory=dict)

    def __add__(self, other: "GivenBack") -> "GivenBack":
        taxes = dict(self.taxes)
        for tax_id, part in other.taxes.items():
            before = taxes.get(tax_id)
            amount_minor = part.amount_minor + (before.amount_minor if before is not None else 0)
            taxes[tax_id] = replace(part, amount_minor=amount_minor)
        return GivenBack(added(self.earned, other.earned), taxes)

    @property
    def by_account(self) -> dict[str, int]:
        """As `with_taxes` books them, in the order of the taxes."""
        return with_taxes(self.earned, self.taxes.values())


@dataclass(frozen=True, slots=True)
class Correction:
    """A credit note by account, and what of it is drawn credit that comes back."""

    note: CreditNote
    by_account: Mapping[str, int]
    restored_minor: int

    @property
    def effect(self) -> str:
        return self.note.effect

    @property
    def invoice_id(self) -> UUID:
        return self.note.invoice_id


def account_of_tax(name: str) -> str:
    """The account of a tax: its name in the letters an account has."""
    letters = [letter if letter.isascii() and letter.isalnum() else "-" for letter in name]
    return tax_account("".join(letters).strip("-")[:64] or "other")


def with_taxes(earned: Mapping[str, int], taxes: Iterable[TaxPart]) -> dict[str, int]:
    """Revenue by account with taxes beside it: those on top added, those inside taken out."""
    by_account = dict(sorted(earned.items()))
    weights = [abs(amount) for amount in by_account.values()]
    for tax in taxes:
        if tax.mode == "inclusive" and earned:
            sign = -1 if tax.amount_minor < 0 else 1
            parts = split_by_largest_remainder(abs(tax.amount_minor), weights)
            for account, part in zip(sorted(earned), parts, strict=True):
                by_account[account] -= sign * part
        account = account_of_tax(tax.name)
        by_account[account] = by_account.get(account, 0) + tax.amount_minor
    return by_account


def difference(until: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """What each account has more."""
    return added(until, {name: -amount for name, amount in before.items()})


def corrections(notes: "QuerySet[CreditNote]") -> list[Correction]:
    """Credit notes as the ledger sees them, each after the earlier ones of its invoice."""
    asked = {note.id for note in notes}
    invoices = {note.invoice_id for note in notes}
    # By number, which they got one after the other: clocks and ids of two hosts may disagree.
    found = list(CreditNote.objects.filter(invoice_id__in=invoices).order_by("number"))
    ids = [note.id for note in found]
    earned, restored, came_back = _lines(ids)
    gave_back = gave_back_by_account({note.invoice_id for note in found if note.id in came_back})
    for note in found:
        if note.id in came_back:
            of = gave_back[note.invoice_id]
            parts = split_by_largest_remainder(came_back[note.id], list(of.values()))
            earned[note.id] = added(earned[note.id], dict(zip(of, parts, strict=True)))
    taxes: dict[UUID, dict[UUID, TaxPart]] = defaultdict(dict)
    rows = CreditNoteTax.objects.filter(note_id__in=ids).select_related("tax")
    for row in rows.order_by("tax__position"):
        taxes[row.note_id][row.tax_id] = TaxPart(row.tax.name, row.tax.mode, row.amount_minor)
    so_far: dict[UUID, GivenBack] = defaultdict(GivenBack)
    corrected = []
    for note in found:
        before = so_far[note.invoice_id]
        until = so_far[note.invoice_id] = before + GivenBack(earned[note.id], taxes[note.id])
        by_account = difference(until.by_account, before.by_account)
        corrected.append(Correction(note, by_account, restored[note.id]))
    return sorted(
        (each for each in corrected if each.note.id in asked), key=lambda each: each.note.id
    )


def entries_of_note(corrected: Correction) -> list[Entry]:
    """What a credit note posts."""
    note = corrected.note
    refunded = 0 if note.effect == CreditNote.Effect.LOWERS_DUE else note.total_minor
    made = movements.credit_note(corrected.by_account, refunded_minor=refunded)
    entries = [(CREDITED, made)]
    if note.effect == CreditNote.Effect.BALANCE and note.total_minor:
        entries.append((KEPT, movements.refund_paid(note.total_minor)))
    return [
        Entry(
            kind, str(note.id), note.currency, legs, note.created_at, f"Credit note {note.number}"
        )
        for kind, legs in entries
    ]


def _lines(
    ids: Collection[UUID],
) -> tuple[dict[UUID, dict[str, int]], dict[UUID, int], dict[UUID, int]]:
    """By note: revenue by account, credit that comes back, and what of it earlier invoices drew.

    The last stays given back, whatever becomes of the invoice that gave it: it is as if the lines
    that it made up for had never been less.
    """
    rows = (
        CreditNoteLine.objects.filter(note_id__in=ids)
        .order_by()
        .values_list("note_id", "line__kind", "line__meter")
        .annotate(sum=Sum("amount_minor"))
    )
    earned: dict[UUID, dict[str, int]] = defaultdict(dict)
    restored: dict[UUID, int] = defaultdict(int)
    came_back: dict[UUID, int] = {}
    for note_id, kind, meter, amount_minor in rows:
        if kind == InvoiceLine.Kind.CREDIT and meter == GIVEN_BACK:
            came_back[note_id] = int(amount_minor)
        elif kind == InvoiceLine.Kind.CREDIT:
            restored[note_id] -= int(amount_minor)
        else:
            account = revenue(meter or kind)
            earned[note_id][account] = earned[note_id].get(account, 0) + int(amount_minor)
    return earned, restored, came_back


def _page(after: UUID | None) -> Page:
    notes = CreditNote.objects.order_by("id")
    if after is not None:
        notes = notes.filter(id__gt=after)
    ids = list(notes.values_list("id", flat=True)[:NOTES_PER_PAGE])
    page = corrections(CreditNote.objects.filter(id__in=ids))
    expected = [
        Expected(each.note.tenant_id, entry) for each in page for entry in entries_of_note(each)
    ]
    return Page(tuple(expected), None if len(page) < NOTES_PER_PAGE else page[-1].note.id)


CREDIT_NOTES = Source("credit_notes", "every credit note", frozenset({CREDITED, KEPT}), _page)
