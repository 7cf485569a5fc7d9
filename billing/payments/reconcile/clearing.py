"""Clearing accounts return to zero: what they hold is explained by open items, to the minor unit.

    receivable        invoices that are open: what is due of each
    refunds           what was said to be paid back and is not there yet: credit notes, and bought
                      credit that nobody uses
    customer_balance  what customers paid too much and did not get back
    disputed          what banks hold in disputes that are not over, or were won within a day:
                      what is won has to come back
    payments          what came in and went out at the provider, by the act that it is of: money
                      that is there, as payouts to a bank are not recorded

An account holds the sum of its items and nothing else: a rest was posted on one side only. Once
all is paid, paid back and decided, the first four are at zero. That what came in and went out is
what the provider has is compared one by one beside this (`kinds`).

Guarantees: one instant of the database is looked at. An account of another domain is one more
function in `CLEARED`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Count, F, Q, Sum

from billing.credits.models import CreditMovement
from billing.invoicing.models import CreditNote, Invoice
from billing.invoicing.record import as_recorded
from billing.ledger.accounts import CUSTOMER_BALANCE, DISPUTED, PAYMENTS, RECEIVABLE, REFUNDS
from billing.ledger.models import LedgerBalance, LedgerLeg
from billing.payments.dispute_models import OVER
from billing.payments.disputed import SIGN
from billing.payments.models import (
    Dispute,
    DisputeMovement,
    PaymentFinding,
    RecordedPayment,
    Refund,
)
from billing.payments.reconcile.compare import Found
from billing.payments.reconcile.looked import Looked
from meterplane.kernel import clock
from meterplane.kernel.money import minor_to_text
from tenants.models import Organisation
from tenants.scoping import system_scope

AT_ONCE = 500
COMES_BACK_WITHIN = timedelta(days=1)
ITEMS_NAMED_MAX = 3  # of a finding; the console and `--json` name all
_GONE = (Refund.State.FAILED, Refund.State.REFUSED)
_NOT_THERE_YET = (*_GONE, Refund.State.ASKED)


class Item(NamedTuple):
    """One thing that is open, and what it makes its account hold; a debit is positive."""

    tenant_id: UUID
    currency: str
    name: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Holding:
    """A clearing account of an organisation in one currency, and what explains it."""

    tenant_id: UUID
    slug: str
    account: str
    currency: str
    balance_minor: int
    items: Sequence[Item]

    @property
    def rest_minor(self) -> int:
        """What no open item explains."""
        return self.balance_minor - sum(item.amount_minor for item in self.items)


def clearing() -> Looked:
    """Every clearing account, and a finding for each rest."""
    held = holdings()
    found = [
        Found(
            "left_over",
            f"{each.account}:{each.tenant_id}:{each.currency}",
            "",
            _said(each),
            our_amount=f"{minor_to_text(each.rest_minor, each.currency)} {each.currency}",
        )
        for each in held
        if each.rest_minor
    ]
    return Looked(PaymentFinding.Kind.CLEARING, len(held), found, is_of_day=False)


def holdings() -> list[Holding]:
    """Of every organisation and currency the accounts that hold something, or should."""
    with _one_instant():
        rows = LedgerBalance.objects.filter(account__in=CLEARED)
        balances = {
            (row.account, row.tenant_id, row.currency): int(row.balance_minor) for row in rows
        }
        items: dict[tuple[str, UUID, str], list[Item]] = defaultdict(list)
        for account, read in CLEARED.items():
            for item in read():
                items[account, item.tenant_id, item.currency].append(item)
        slugs = dict(Organisation.objects.values_list("id", "slug"))
    found = [
        Holding(
            tenant_id,
            slugs[tenant_id],
            account,
            currency,
            balances.get((account, tenant_id, currency), 0),
            items.get((account, tenant_id, currency), ()),
        )
        for account, tenant_id, currency in balances.keys() | items.keys()
    ]
    return sorted(found, key=lambda each: (each.slug, each.currency, each.account))


def open_invoices() -> Iterator[Item]:
    """What is due of each invoice that is open, less what arrived of it by bank transfer."""
    arrived = dict(
        RecordedPayment.objects.filter(invoice__status=Invoice.Status.OPEN)
        .order_by()
        .values_list("invoice_id")
        .annotate(sum=Sum(F("amount_minor") - F("balance_minor")))
    )
    for invoice, due_minor, _ in _recorded(Q(status=Invoice.Status.OPEN)):
        left_minor = due_minor - int(arrived.get(invoice.id, 0))
        if left_minor:
            yield _item(invoice, f"invoice {invoice.number} is open", left_minor)


def promised() -> Iterator[Item]:
    """What credit notes promise to pay back, less what was paid back of it; and unused credit."""
    notes = CreditNote.objects.filter(effect=CreditNote.Effect.REFUND, total_minor__gt=0)
    paid_back = _gone_back("owed_minor")
    rows = (
        notes.order_by("invoice__number")
        .values_list("tenant_id", "currency", "invoice_id", "invoice__number")
        .annotate(sum=Sum("total_minor"))
    )
    for tenant_id, currency, invoice_id, number, promised_minor in rows:
        left_minor = int(promised_minor) - paid_back.get(invoice_id, 0)
        if left_minor:
            yield Item(
                tenant_id,
                currency,
                f"credit notes of invoice {number} are to be paid back",
                -left_minor,
            )
    unused = CreditMovement.objects.filter(kind=CreditMovement.Kind.REFUNDED).order_by()
    of_tenant = unused.values_list("tenant_id", "grant__currency").annotate(sum=Sum("amount_minor"))
    for tenant_id, currency, amount_minor in of_tenant:
        yield Item(
            tenant_id,
            currency,
            "bought credit that was not used is to be paid back",
            -abs(int(amount_minor)),
        )


def overpaid() -> Iterator[Item]:
    """What was paid of an invoice beyond what was due, less what went back of it."""
    gone_back = _gone_back("balance_minor")
    lowered = CreditNote.objects.filter(effect=CreditNote.Effect.LOWERS_DUE).values("invoice_id")
    may_be = Q(paid_minor__gt=F("total_minor")) | Q(id__in=lowered)
    for invoice, _, over_minor in _recorded(may_be & Q(status=Invoice.Status.PAID)):
        left_minor = over_minor - gone_back.get(invoice.id, 0)
        if left_minor:
            name = f"too much was paid of invoice {invoice.number}"
            yield _item(invoice, name, -left_minor)


def held_by_banks() -> Iterator[Item]:
    """What each dispute has that is not over; what was won needs a moment to come back."""
    still_held = ~Q(dispute__status__in=OVER) | Q(
        dispute__status=Dispute.Status.WON, dispute__closed_at__gt=clock.now() - COMES_BACK_WITHIN
    )
    rows = (
        DisputeMovement.objects.filter(still_held, kind__in=SIGN)
        .order_by("dispute_id")
        .values_list(
            "tenant_id", "currency", "dispute__provider_dispute_id", "dispute__status", "kind"
        )
        .annotate(sum=Sum("amount_minor"))
    )
    sums: dict[tuple[UUID, str, str], int] = defaultdict(int)
    for tenant_id, currency, their_id, status, kind, amount_minor in rows:
        name = f"dispute {their_id} ({Dispute.Status(status).label.lower()})"
        sums[tenant_id, currency, name] += SIGN[kind] * int(amount_minor)
    for (tenant_id, currency, name), held_minor in sums.items():
        if held_minor:
            yield Item(tenant_id, currency, name, held_minor)


def _gone_back(column: str) -> dict[UUID, int]:
    """By invoice: what refunds paid back of that, and what of it a bank that decided for the
    customer has taken instead."""
    sums: dict[UUID, int] = defaultdict(int)
    lost, recovered = DisputeMovement.Kind.LOST, DisputeMovement.Kind.RECOVERED
    of_disputes = DisputeMovement.objects.filter(dispute__invoice__isnull=False)
    for rows, invoice, sign in (
        (Refund.objects.exclude(state__in=_NOT_THERE_YET), "invoice_id", 1),
        (of_disputes.filter(kind=lost), "dispute__invoice_id", 1),
        (of_disputes.filter(kind=recovered), "dispute__invoice_id", -1),
    ):
        for invoice_id, sum_minor in rows.order_by().values_list(invoice).annotate(sum=Sum(column)):
            sums[invoice_id] += sign * int(sum_minor)
    return dict(sums)


def moved() -> Iterator[Item]:
    """By the act: what came in, and what went out."""
    rows = (
        LedgerLeg.objects.filter(account=PAYMENTS)
        .order_by("entry__kind")
        .values_list("tenant_id", "currency", "entry__kind")
        .annotate(sum=Sum("amount_minor"), count=Count("id"))
    )
    for tenant_id, currency, kind, amount_minor, count in rows:
        name = f"{kind.replace('.', ' ').replace('_', ' ')} ({count:,})"
        yield Item(tenant_id, currency, name, int(amount_minor))


CLEARED: Mapping[str, Callable[[], Iterator[Item]]] = {
    RECEIVABLE: open_invoices,
    REFUNDS: promised,
    CUSTOMER_BALANCE: overpaid,
    DISPUTED: held_by_banks,
    PAYMENTS: moved,
}


def _recorded(which: Q) -> Iterator[tuple[Invoice, int, int]]:
    """Each of these invoices, what is due of it, and what was paid beyond that."""
    rows = Invoice.objects.filter(which).order_by("id")
    page = list(rows[:AT_ONCE])
    while page:
        recorded = as_recorded(page)
        for invoice in page:
            yield invoice, recorded[invoice.id].due_minor, recorded[invoice.id].overpaid_minor
        page = list(rows.filter(id__gt=page[-1].id)[:AT_ONCE])


def _item(invoice: Invoice, name: str, amount_minor: int) -> Item:
    return Item(invoice.tenant_id, invoice.currency, name, amount_minor)


def _said(held: Holding) -> str:
    def text(amount_minor: int) -> str:
        return f"{minor_to_text(amount_minor, held.currency)} {held.currency}"

    named = [f"{item.name}: {text(item.amount_minor)}" for item in held.items[:ITEMS_NAMED_MAX]]
    if len(held.items) > ITEMS_NAMED_MAX:
        named.append(f"and {len(held.items) - ITEMS_NAMED_MAX} more")
    explained = "; ".join(named) or "nothing is open"
    return (
        f"{held.account} of {held.slug} holds {text(held.balance_minor)}, of which"
        f" {text(held.rest_minor)} is of no open item ({explained})"
    )


@contextmanager
def _one_instant() -> Iterator[None]:
    """Inside another transaction it is as exact as that one is."""
    is_first = not connection.in_atomic_block
    with transaction.atomic():
        if is_first:  # before the door, which asks PostgreSQL something
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        with system_scope("clearing accounts are looked at"):
            yield
