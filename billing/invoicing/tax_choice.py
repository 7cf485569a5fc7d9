"""Who says what tax an organisation's invoices carry: rates of the operator's, or Stripe.

One or the other, from the next invoice on; an exemption stands above both (`taxation`). Needs the
tenant's door.
"""

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction

from billing.invoicing.close import one_closer_at_a_time, open_period
from billing.invoicing.models import AssignedTax, Invoice, InvoiceTax, StripeTax, TaxedBy
from billing.invoicing.parties import details
from billing.invoicing.taxation import assign_rates
from meterplane.kernel.errors import CallerError
from tenants.scoping import current_tenant_id


def choose_taxes(rate_ids: Sequence[UUID], computed_by: str) -> None:
    """These rates and no others, or with none of them Stripe.

    Raises `CallerError`: as `assign_rates` does; `tax_rates_invalid` for rates beside Stripe;
    `tax_country_missing` without a country in the billing details; `taxed_in_advance` where interim
    invoices of the running month bear taxes at rates, which Stripe could not take back.
    """
    if computed_by not in TaxedBy.values:
        raise _refused("tax_choice_invalid", "Taxes are computed by rates or by stripe.", 400)
    if computed_by == TaxedBy.RATES:
        assign_rates(rate_ids)
        return
    if rate_ids:
        raise CallerError(
            "tax_rates_invalid", "Stripe computes the taxes: name no rates.", field="rates"
        )
    if not details().country:
        raise _refused(
            "tax_country_missing",
            "Stripe computes taxes by where the customer is: give the country in the billing"
            " details first.",
        )
    with transaction.atomic():
        one_closer_at_a_time(current_tenant_id())
        if _has_interims_at_rates():
            raise _refused(
                "taxed_in_advance",
                "Interim invoices of the running month are taxed at rates: choose Stripe once the"
                " month is closed.",
            )
        AssignedTax.objects.all().delete()
        StripeTax.objects.get_or_create(tenant_id=current_tenant_id())


def _has_interims_at_rates() -> bool:
    taxes = InvoiceTax.objects.filter(invoice__kind=Invoice.Kind.INTERIM, rate__isnull=False)
    return bool(taxes.filter(invoice__period_start=open_period().starts_at).exists())


def _refused(code: str, message: str, status: int = 409) -> CallerError:
    return CallerError(code, message, status=status, field="computed_by")
