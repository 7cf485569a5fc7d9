"""What is compared, kind by kind: invoices and what was paid into them here, the others beside it.

A new kind is a function that returns a `Kind`, and a line in `KINDS`.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from django.db.models import Q

from billing.invoicing.entries import PAID
from billing.invoicing.models import Invoice
from billing.ledger.accounts import BAD_DEBT, CUSTOMER_BALANCE, RECEIVABLE
from billing.ledger.queries import entries_by_source
from billing.payments.carry import carried_by
from billing.payments.models import PaymentFinding, PaymentRun
from billing.payments.process import refresh
from billing.payments.provider import PaymentProvider
from billing.payments.reconcile.compare import Row
from billing.payments.reconcile.customer_kind import customers
from billing.payments.reconcile.disputes import disputes
from billing.payments.reconcile.kind import BROUGHT_WITHIN, Kind, customers_of
from billing.payments.reconcile.note_kind import credit_notes
from billing.payments.reconcile.refund_kind import refunds
from billing.payments.reconcile.top_up_kind import top_ups
from billing.payments.reconcile_port import TheirInvoice, TheirPayment
from billing.payments.terms import by_hand
from meterplane.kernel import clock
from tenants.scoping import system_scope

_S = Invoice.Status
_AS_THEIRS: Mapping[str, str] = {_S.FINALISING: _S.DRAFT}  # a draft there until it has its number
_WAITING = (Invoice.Collection.PENDING, Invoice.Collection.PARKED)


def invoices(provider: PaymentProvider) -> Kind:
    """Invoices, by status and total. Of theirs those are ours that say so, or whose customer is."""

    def row(their: TheirInvoice) -> Row:
        return Row(
            their.our_id,
            their.their_id,
            f"invoice {their.number or their.their_id}",
            their.status,
            their.currency,
            None if their.status == _S.DRAFT else their.total_minor,
            their.made_at,
        )

    def made(start: datetime, end: datetime) -> list[Row]:
        found = provider.invoices_made(start, end)
        customers = customers_of(provider, {each.customer_id for each in found})
        return [row(each) for each in found if each.our_id or each.customer_id in customers]

    def one(their_id: str) -> Row | None:
        their = provider.invoice_made(their_id)
        return row(their) if their is not None else None

    def own(their_ids: Collection[str]) -> list[Row]:
        return _invoice_rows(_runs(provider, their_ids))

    def own_made(start: datetime, end: datetime) -> list[Row]:
        of_day = Q(created_at__gte=start, created_at__lt=end)
        with system_scope("our invoices of a day"):
            runs = PaymentRun.objects.filter(of_day, provider=provider.name).exclude(
                provider_invoice_id=None
            )
            rows = _invoice_rows(list(runs.select_related("invoice")))
            late = Invoice.objects.filter(
                Q(payment_run=None) | Q(payment_run__provider_invoice_id=None),
                of_day,
                created_at__lt=clock.now() - BROUGHT_WITHIN,
                collection_state__in=_WAITING,
            )
            late = late.exclude(total_minor=0).exclude(by_hand())  # those are not brought there
            return rows + [_row_of(invoice, "", 0) for invoice in late]

    return Kind(
        PaymentFinding.Kind.INVOICE, made, one, own, own_made, lambda each: _refresh(provider, each)
    )


def payments(provider: PaymentProvider) -> Kind:
    """What was paid into invoices: the provider's payments and the balance that it carries, against
    what our ledger took off the invoice for it. Its id is the invoice's."""

    def row(their: TheirInvoice, parts: Sequence[TheirPayment]) -> Row:
        paid = [each for each in parts if each.status == _S.PAID]
        is_open = not paid and any(each.status == _S.OPEN for each in parts)
        paid_minor = sum(each.amount_minor for each in paid)
        if parts and not paid and not is_open:
            # Paid elsewhere: what was asked of a card is canceled, and the invoice says how much.
            paid_minor = max(their.paid_minor, 0)
        named = ", ".join(sorted(each.payment_id for each in paid)) or "nothing"
        others = [each.currency for each in paid if each.currency != their.currency]
        return Row(
            their.our_id,
            their.their_id,
            f"payment of invoice {their.number or their.their_id} ({named})",
            _S.OPEN if is_open else _S.PAID,
            others[0] if others else their.currency,
            paid_minor + their.balance_minor,
            their.made_at,
        )

    def made(start: datetime, end: datetime) -> list[Row]:
        found = [each for each in provider.invoices_made(start, end) if each.status == _S.PAID]
        parts: dict[str, list[TheirPayment]] = defaultdict(list)
        for payment in provider.payments_made(start, end):
            parts[payment.their_invoice_id].append(payment)
        known = {
            run.provider_invoice_id for run in _runs(provider, {each.their_id for each in found})
        }
        # Invoices that are not ours are told of as such, and not once more.
        return [row(each, parts[each.their_id]) for each in found if each.their_id in known]

    def one(their_id: str) -> Row | None:
        their = provider.invoice_made(their_id)
        if their is None or their.status != _S.PAID:
            return None
        return row(their, provider.payments_of(their_id))

    def own(their_ids: Collection[str]) -> list[Row]:
        return _payment_rows(_runs(provider, their_ids))

    def own_made(start: datetime, end: datetime) -> list[Row]:
        with system_scope("our payments of a day"):
            runs = PaymentRun.objects.filter(
                created_at__gte=start, created_at__lt=end, provider=provider.name
            ).exclude(provider_invoice_id=None)
            found = list(runs.select_related("invoice"))
        return _payment_rows(found)

    return Kind(
        PaymentFinding.Kind.PAYMENT, made, one, own, own_made, lambda each: _refresh(provider, each)
    )


KINDS: tuple[Callable[[PaymentProvider], Kind], ...] = (
    *(customers, invoices, payments, top_ups, refunds, credit_notes, disputes),
)


def _runs(provider: PaymentProvider, their_ids: Collection[str]) -> list[PaymentRun]:
    with system_scope("our side of invoices at the provider"):
        return list(
            PaymentRun.objects.filter(
                provider=provider.name, provider_invoice_id__in=their_ids
            ).select_related("invoice")
        )


def _invoice_rows(runs: Collection[PaymentRun]) -> list[Row]:
    """Theirs is of the invoice and of those that it takes along."""
    with system_scope("what runs take along"):
        along = carried_by(runs)
    return [
        _row_of(
            run.invoice,
            run.provider_invoice_id or "",
            sum(each.amount_minor or 0 for each in along.get(run.id, ())),
            under_way=_is_held(run),
        )
        for run in runs
    ]


def _is_held(run: PaymentRun) -> bool:
    """A worker has it now."""
    return run.lease_until is not None and run.lease_until > clock.now()


def _row_of(invoice: Invoice, their_id: str, along_minor: int, *, under_way: bool = False) -> Row:
    status = _AS_THEIRS.get(invoice.status, invoice.status)
    total_minor = invoice.total_minor + along_minor
    amount_minor = None if their_id and status == _S.DRAFT else total_minor
    name = f"invoice {invoice.number or invoice.id}"
    return Row(
        our_id=str(invoice.id),
        their_id=their_id,
        name=name,
        status=status,
        currency=invoice.currency,
        amount_minor=amount_minor,
        made_at=invoice.created_at,
        under_way=under_way,
    )


def _payment_rows(runs: Collection[PaymentRun]) -> list[Row]:
    """One for each run that is paid: what its entries took off what was owed, those of invoices
    that it takes along too, and what was paid beyond that."""
    paid = [run for run in runs if run.invoice.status == _S.PAID]
    with system_scope("what the ledger has of payments"):
        along = carried_by(paid)
        of = {run.id: [run.invoice_id, *(row.invoice_id for row in along[run.id])] for run in paid}
        entries = entries_by_source({PAID}, {str(each) for ids in of.values() for each in ids})
    settled: Mapping[tuple[UUID, str], int] = {
        source: sum(
            -leg.amount_minor
            for entry in found
            for leg in entry.legs
            if leg.account in (RECEIVABLE, BAD_DEBT, CUSTOMER_BALANCE)
        )
        for source, found in entries.items()
    }
    return [
        Row(
            str(run.invoice_id),
            str(run.provider_invoice_id),
            f"payment of invoice {run.invoice.number}",
            _S.PAID,
            run.invoice.currency,
            sum(settled.get((run.tenant_id, str(each)), 0) for each in of[run.id]),
            run.created_at,
            under_way=_is_held(run),
        )
        for run in paid
    ]


def _refresh(provider: PaymentProvider, their_id: str) -> None:
    for run in _runs(provider, [their_id]):
        refresh(run.tenant_id, run.invoice_id, their_id, provider)
