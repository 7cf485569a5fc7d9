"""Collect an invoice: hold its run, perform it, and say where it stands.

Guarantees: safe to call any number of times, anywhere, at once; what was begun is continued (see
`run` and `steps`). Calls to the provider are made outside transactions. A difference parks the
invoice until `resume`; a provider that is away leaves it to the sweep, at growing distances.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import msgspec
from django.db.models import Q

from billing.invoicing.advance import News, advance
from billing.invoicing.models import Invoice
from billing.payments.accounts import ensure_account
from billing.payments.by_hand import is_by_hand, issue
from billing.payments.mirror import park
from billing.payments.models import PaymentRun
from billing.payments.orders import line_orders
from billing.payments.provider import LineOrder, PaymentProvider, ProviderRefused
from billing.payments.run import LEASE, LeaseLost, Parked, Task, perform_run
from billing.payments.terms import fix_terms
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from tenants.scoping import tenant_scope

RETRY_AFTER_MAX = timedelta(hours=1)
_UNSETTLED = (Invoice.Status.DRAFT, Invoice.Status.FINALISING, Invoice.Status.OPEN)
_FINISHED = (Invoice.Collection.PARKED, Invoice.Collection.DONE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where the invoice stands now: `status` is ours, `note` what a person should know."""

    status: str
    collection_state: str
    note: str = ""


def collect(
    tenant_id: UUID,
    invoice_id: UUID,
    provider: PaymentProvider,
    *,
    retry: bool = False,
    finish: bool = False,
) -> Outcome:
    """Go as far as possible now. With `retry`, an invoice that was declined is charged once more;
    with `finish`, such a charge that was sent before is sent again under its key, which makes it
    one.

    Raises `WorldError` when the provider is away: call again later.
    """
    with tenant_scope(tenant_id):
        invoice: Invoice = Invoice.objects.get(id=invoice_id)
        if invoice.total_minor == 0 and invoice.status in _UNSETTLED:
            _settle_nothing(invoice)
    if invoice.collection_state in _FINISHED:
        return _outcome(tenant_id, invoice_id)
    if is_by_hand(tenant_id, invoice_id):
        issue(tenant_id, invoice_id)
        return _outcome(tenant_id, invoice_id)
    with tenant_scope(tenant_id):
        terms = fix_terms(invoice_id)
        lines = line_orders(invoice_id)
    try:
        customer_id = ensure_account(tenant_id, provider)
    except ProviderRefused as refused:
        park(tenant_id, invoice_id, _in_words(refused))
        return _outcome(tenant_id, invoice_id)
    run = _run(tenant_id, invoice, customer_id, lines, provider)
    token = _lease(tenant_id, run.id)
    if token is None:
        return _outcome(tenant_id, invoice_id)
    try:
        note = perform_run(
            Task(tenant_id, invoice, lines, run, token, provider, retry, terms, finish)
        )
        _await_payment(tenant_id, invoice_id, note)
    except Parked as difference:
        park(tenant_id, invoice_id, str(difference))
    except ProviderRefused as refused:
        park(tenant_id, invoice_id, _in_words(refused))
    except LeaseLost:
        return _outcome(tenant_id, invoice_id)
    except WorldError:
        _back_off(tenant_id, run.id)
        raise
    finally:
        _release(tenant_id, run.id, token)
    return _outcome(tenant_id, invoice_id)


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
    return f"The provider refused ({refused.code}): {refused.message}"


def _await_payment(tenant_id: UUID, invoice_id: UUID, note: str) -> None:
    """An invoice that is open after its run is the customer's turn, and left alone by the sweep."""
    with tenant_scope(tenant_id):
        Invoice.objects.filter(id=invoice_id, status=Invoice.Status.OPEN).exclude(
            collection_state=Invoice.Collection.PARKED
        ).update(collection_state=Invoice.Collection.AWAITING_PAYMENT, collection_note=note)
        PaymentRun.objects.filter(invoice_id=invoice_id).update(checked_at=clock.now())


def _run(
    tenant_id: UUID,
    invoice: Invoice,
    customer_id: str,
    lines: list[LineOrder],
    provider: PaymentProvider,
) -> PaymentRun:
    frozen = [str(invoice.id), customer_id, invoice.currency, invoice.total_minor]
    frozen += [[line.uid, line.description, line.amount_minor] for line in lines]
    digest = hashlib.sha256(msgspec.json.encode(frozen)).hexdigest()
    with tenant_scope(tenant_id):
        run: PaymentRun
        run, _ = PaymentRun.objects.get_or_create(
            invoice_id=invoice.id,
            defaults={
                "tenant_id": tenant_id,
                "provider": provider.name,
                "customer_id": customer_id,
                "digest": digest,
            },
        )
    return run


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
