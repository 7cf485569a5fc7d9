"""How an organisation pays, and how each of its invoices is to be paid.

An organisation that nobody said anything of is charged automatically. Guarantees: an invoice keeps
the terms that it had when its collection began; what is said later holds from the next one on.

Needs the tenant's door.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from billing.invoicing.models import Invoice
from billing.payments.models import CollectionTerms, InvoiceTerms, Method
from billing.payments.terms_models import DAYS_UNTIL_DUE_DEFAULT, DAYS_UNTIL_DUE_MAX
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import current_tenant_id


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
    """From the next invoice on. Raises `CallerError` `collection_terms_invalid`."""
    if method not in Method.values:
        raise _invalid(f"A method is one of {', '.join(Method.values)}.", "method")
    if type(days_until_due) is not int or not 0 <= days_until_due <= DAYS_UNTIL_DUE_MAX:
        raise _invalid(f"Days until due are 0 to {DAYS_UNTIL_DUE_MAX}.", "days_until_due")
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
    if Invoice.objects.filter(id=invoice_id, payment_run__isnull=False).exists():
        return Terms()
    return terms()


def due_at(invoice: Invoice) -> datetime | None:
    """When an invoice that is not charged is overdue; None while it is not issued."""
    if invoice.finalised_at is None:
        return None
    return invoice.finalised_at + timedelta(days=terms_of(invoice.id).days_until_due)


def _invalid(message: str, field: str) -> CallerError:
    return CallerError("collection_terms_invalid", message, field=field)
