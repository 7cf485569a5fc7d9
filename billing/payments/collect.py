"""Collect an invoice: hold its run, perform it, and say where it stands.

Guarantees: safe to call any number of times, anywhere, at once; what was begun is continued (see
`run` and `steps`). Calls to the provider are made outside transactions. A difference parks the
invoice until `resume`; a provider that is away leaves it to the sweep, at growing distances.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import msgspec
from django.db.models import Q

from billing.invoicing.advance import News, advance
from billing.invoicing.models import Invoice
from billing.payments.accounts import ensure_account
from billing.payments.by_hand import issue
from billing.payments.carry import (
    carry_if_too_small,
    order,
    take_along,
    taken_along,
    waiting_for,
)
from billing.payments.mirror import park
from billing.payments.models import CarriedInvoice, Method, PaymentRun
from billing.payments.orders import line_orders
from billing.payments.provider import LineOrder, NoProvider, PaymentProvider, ProviderRefused
from billing.payments.run import LEASE, NO_LOCATION, LeaseLost, Parked, Task, perform_run
from billing.payments.terms import Terms, fix_terms, terms_of
from billing.payments.withdraw import asked_of, withdraw
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.limits import INVOICE_LINES_MAX
from tenants.scoping import tenant_scope

# However long the provider was away, what waited for it is tried within this once it is back. A
# sweep takes 200 at most: 7 calls a second to one that is still away.
RETRY_AFTER_MAX = timedelta(minutes=5)
_UNSETTLED = (Invoice.Status.DRAFT, Invoice.Status.FINALISING, Invoice.Status.OPEN)
_FINISHED = (
    Invoice.Collection.PARKED,
    Invoice.Collection.CARRIED,
    Invoice.Collection.DONE,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where the invoice stands now: `status` is ours, `note` what a person should know."""

    status: str
    collection_state: str
    note: str = ""


def collect(
    tenant_id: UUID,
    invoice_id: UUID,
    provider: PaymentProvider | Callable[[], PaymentProvider],
    *,
    retry: bool = False,
    finish: bool = False,
) -> Outcome:
    """Go as far as possible now. With `retry`, an invoice that was declined is charged once more;
    with `finish`, such a charge that was sent before is sent again under its key, which makes it
    one. A provider that is given as a function is asked for where one is needed.

    Raises `WorldError` when the provider is away: call again later.
    """
    invoice, terms = _begin(tenant_id, invoice_id)
    if terms is None:
        return _outcome(tenant_id, invoice_id)
    if terms.method == Method.MANUAL:
        issue(tenant_id, invoice_id)
        return _outcome(tenant_id, invoice_id)
    try:
        there = provider() if callable(provider) else provider
        with tenant_scope(tenant_id):
            if carry_if_too_small(invoice, there):
                return _outcome(tenant_id, invoice_id)
            terms = fix_terms(invoice_id)
        if terms.method == Method.MANUAL:  # it was said in between, and holds from here on
            return collect(tenant_id, invoice_id, there)
        customer_id = ensure_account(tenant_id, there)
    except NoProvider as none:
        _park_without_provider(tenant_id, invoice_id, none.message)
        return _outcome(tenant_id, invoice_id)
    except ProviderRefused as refused:
        park(tenant_id, invoice_id, _in_words(refused))
        return _outcome(tenant_id, invoice_id)
    run, lines = _run(tenant_id, invoice, customer_id, there)
    token = _lease(tenant_id, run.id)
    if token is not None:
        task = Task(tenant_id, invoice, lines, run, token, there, retry, terms, finish)
        _perform(task)
    return _outcome(tenant_id, invoice_id)


def _begin(tenant_id: UUID, invoice_id: UUID) -> tuple[Invoice, Terms | None]:
    """The invoice, and the terms it is collected under; none where nothing is left to do."""
    with tenant_scope(tenant_id):
        invoice: Invoice = Invoice.objects.get(id=invoice_id)
        if invoice.total_minor == 0 and invoice.status in _UNSETTLED:
            _settle_nothing(invoice)
        if invoice.collection_state in _FINISHED:
            return invoice, None
        return invoice, terms_of(invoice_id)


def _perform(task: Task) -> None:
    """The run, or what is asked of it; what differs or is refused parks its invoice."""
    tenant_id, run = task.tenant_id, task.run
    try:
        with tenant_scope(tenant_id):
            asked = asked_of(run.id)
        if asked is not None:
            withdraw(tenant_id, run, asked, task.provider)
        else:
            note = perform_run(task)
            _await_payment(tenant_id, task.invoice.id, run.id, note)
    except Parked as difference:
        park(tenant_id, task.invoice.id, str(difference))
    except ProviderRefused as refused:
        park(tenant_id, task.invoice.id, _in_words(refused))
    except LeaseLost:
        return
    except WorldError:
        _back_off(tenant_id, run.id)
        raise
    finally:
        _release(tenant_id, run.id, task.token)


def _park_without_provider(tenant_id: UUID, invoice_id: UUID, why: str) -> None:
    """A person has to decide how it is paid. What is the customer's turn is left as it is."""
    with tenant_scope(tenant_id):
        waits = Invoice.objects.filter(
            id=invoice_id, collection_state=Invoice.Collection.PENDING
        ).exists()
    if waits:
        park(tenant_id, invoice_id, why)


def resume(tenant_id: UUID, invoice_id: UUID) -> None:
    """Put a parked invoice back to work once a person has settled the difference.

    Everything is verified again. Raises `CallerError` `not_parked`.
    """
    with tenant_scope(tenant_id):
        moved = Invoice.objects.filter(
            id=invoice_id, collection_state=Invoice.Collection.PARKED
        ).update(collection_state=Invoice.Collection.PENDING, collection_note="")
    if not moved:
        raise CallerError("not_parked", "This invoice is not parked.", status=409)


def _in_words(refused: ProviderRefused) -> str:
    if refused.code == "customer_tax_location_invalid":
        return NO_LOCATION
    return f"The provider refused ({refused.code}): {refused.message}"


def _await_payment(tenant_id: UUID, invoice_id: UUID, run_id: UUID, note: str) -> None:
    """An invoice that is open after its run is the customer's turn, and left alone by the sweep;
    unless something was asked of it meanwhile."""
    with tenant_scope(tenant_id):
        PaymentRun.objects.filter(id=run_id).update(checked_at=clock.now())
        if asked_of(run_id) is not None:
            return
        Invoice.objects.filter(id=invoice_id, status=Invoice.Status.OPEN).exclude(
            collection_state=Invoice.Collection.PARKED
        ).update(collection_state=Invoice.Collection.AWAITING_PAYMENT, collection_note=note)


def _run(
    tenant_id: UUID, invoice: Invoice, customer_id: str, provider: PaymentProvider
) -> tuple[PaymentRun, list[LineOrder]]:
    """The invoice's run and its lines, those of invoices that it takes along included."""
    with tenant_scope(tenant_id):
        run: PaymentRun | None = PaymentRun.objects.filter(invoice_id=invoice.id).first()
        if run is not None:
            return run, _lines(invoice, taken_along(run))
        waiting = waiting_for(invoice)
        lines = _lines(invoice, waiting)
        frozen: list[object] = [str(invoice.id), customer_id, invoice.currency]
        frozen += [[line.uid, line.description, line.amount_minor] for line in lines]
        digest = hashlib.sha256(msgspec.json.encode(frozen)).hexdigest()
        made: PaymentRun
        made, is_new = PaymentRun.objects.get_or_create(
            invoice_id=invoice.id,
            defaults={
                "tenant_id": tenant_id,
                "provider": provider.name,
                "customer_id": customer_id,
                "digest": digest,
            },
        )
        if is_new:
            take_along(made, waiting)
            return made, lines
        return made, _lines(invoice, taken_along(made))


def _lines(invoice: Invoice, along: Sequence[CarriedInvoice]) -> list[LineOrder]:
    orders = line_orders(invoice.id, INVOICE_LINES_MAX - len(along))
    return orders + [order(each) for each in along]


def _lease(tenant_id: UUID, run_id: UUID) -> UUID | None:
    token, now = uuid4(), clock.now()
    free = Q(lease_until__isnull=True) | Q(lease_until__lt=now)
    with tenant_scope(tenant_id):
        taken = PaymentRun.objects.filter(free, id=run_id).update(
            lease_token=token, lease_until=now + LEASE
        )
    return token if taken else None


def _release(tenant_id: UUID, run_id: UUID, token: UUID) -> None:
    with tenant_scope(tenant_id):
        PaymentRun.objects.filter(id=run_id, lease_token=token).update(
            lease_token=None, lease_until=None
        )


def _back_off(tenant_id: UUID, run_id: UUID) -> None:
    with tenant_scope(tenant_id):
        run = PaymentRun.objects.select_for_update().get(id=run_id)
        run.attempts += 1
        pause = min(timedelta(seconds=2 ** min(run.attempts, 12)), RETRY_AFTER_MAX)
        run.next_attempt_at = clock.now() + pause
        run.save(update_fields=["attempts", "next_attempt_at"])


def _settle_nothing(invoice: Invoice) -> None:
    """Nothing is due: final and paid without the provider."""
    advance(invoice.id, News(Invoice.Status.PAID, clock.now()))
    Invoice.objects.filter(id=invoice.id).update(collection_state=Invoice.Collection.DONE)
    invoice.collection_state = Invoice.Collection.DONE


def _outcome(tenant_id: UUID, invoice_id: UUID) -> Outcome:
    with tenant_scope(tenant_id):
        invoice = Invoice.objects.get(id=invoice_id)
    return Outcome(invoice.status, invoice.collection_state, invoice.collection_note)
