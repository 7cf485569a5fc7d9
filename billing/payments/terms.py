"""How an organisation pays, and how each of its invoices is to be paid.

An organisation that nobody said anything of is charged automatically. Guarantees: an invoice keeps
the terms that it had when its collection began; what is said later holds from the next one on, and
for one that waited to be collected with the next (`carry`).

Needs the tenant's door.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Exists, OuterRef, Q

from billing.invoicing.models import Invoice
from billing.invoicing.provider_tax import is_computed_by_stripe
from billing.payments.carry import uncarry
from billing.payments.models import CollectionTerms, InvoiceTerms, Method
from billing.payments.terms_models import DAYS_UNTIL_DUE_DEFAULT, DAYS_UNTIL_DUE_MAX
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import current_tenant_id

# Collection that began before terms were kept, and what is collected with another invoice.
_BEGUN = Q(payment_run__isnull=False) | Q(carried__run__isnull=False)
PAYS_BY_HAND = (
    "This organisation pays its invoices by bank transfer, so nothing is bought or charged online."
    " Change how it pays first, or have an operator grant the credit."
)


@dataclass(frozen=True, slots=True)
class Terms:
    """Who moves the money, and when an invoice is due that is not charged."""

    method: str = Method.CHARGE.value
    days_until_due: int = DAYS_UNTIL_DUE_DEFAULT


def terms() -> Terms:
    """What the organisation's next invoices are issued under."""
    own = CollectionTerms.objects.first()
    return Terms() if own is None else Terms(own.method, own.days_until_due)


def set_terms(method: str, days_until_due: int, *, by: str) -> Terms:
    """From the next invoice on. Raises `CallerError` `collection_terms_invalid`, or 409
    `taxed_by_provider`."""
    if method not in Method.values:
        raise _invalid(f"A method is one of {', '.join(Method.values)}.", "method")
    if type(days_until_due) is not int or not 0 <= days_until_due <= DAYS_UNTIL_DUE_MAX:
        raise _invalid(f"Days until due are 0 to {DAYS_UNTIL_DUE_MAX}.", "days_until_due")
    if method == Method.MANUAL:
        if is_computed_by_stripe():
            raise CallerError(
                "taxed_by_provider",
                "Stripe computes this organisation's taxes, and never hears of an invoice that is"
                " paid by bank transfer: tax it at rates of your own first, or send invoices"
                " online (send_invoice).",
                status=409,
                field="method",
            )
        uncarry()
    CollectionTerms.objects.update_or_create(
        tenant_id=current_tenant_id(),
        defaults={
            "method": method,
            "days_until_due": days_until_due,
            "changed_by": by[:120],
            "changed_at": clock.now(),
        },
    )
    return terms()


def fix_terms(invoice_id: UUID) -> Terms:
    """Those of an invoice; the organisation's, from now on, where it had none."""
    now = terms_of(invoice_id)
    fixed, _ = InvoiceTerms.objects.get_or_create(
        invoice_id=invoice_id,
        defaults={
            "tenant_id": current_tenant_id(),
            "method": now.method,
            "days_until_due": now.days_until_due,
        },
    )
    return Terms(fixed.method, fixed.days_until_due)


def terms_of(invoice_id: UUID) -> Terms:
    """Those of an invoice, or what they would be if its collection began now. One whose collection
    began before terms were kept is charged."""
    fixed = InvoiceTerms.objects.filter(invoice_id=invoice_id).first()
    if fixed is not None:
        return Terms(fixed.method, fixed.days_until_due)
    if Invoice.objects.filter(_BEGUN, id=invoice_id).exists():
        return Terms()
    return terms()


def by_hand() -> Q:
    """Of invoices: those that the provider never hears of. Needs a door."""
    own = CollectionTerms.objects.filter(tenant_id=OuterRef("tenant_id"), method=Method.MANUAL)
    return Q(terms__method=Method.MANUAL) | Q(~_BEGUN, Exists(own), terms__isnull=True)


def ensure_pays_online() -> None:
    """Nothing is charged or bought through the provider by an organisation that pays by bank
    transfer. Raises `CallerError` 409 `pays_by_hand`."""
    if terms().method == Method.MANUAL:
        raise CallerError("pays_by_hand", PAYS_BY_HAND, status=409)


def due_at(invoice: Invoice) -> datetime | None:
    """When an invoice that is not charged is overdue; None while it is not issued. It counts from
    when its collection began, if it was issued before."""
    if invoice.finalised_at is None:
        return None
    fixed = InvoiceTerms.objects.filter(invoice_id=invoice.id).first()
    since = invoice.finalised_at if fixed is None else max(invoice.finalised_at, fixed.created_at)
    return since + timedelta(days=terms_of(invoice.id).days_until_due)


def _invalid(message: str, field: str) -> CallerError:
    return CallerError("collection_terms_invalid", message, field=field)
