"""From which unbilled spend on an organisation is invoiced before its month is over.

An organisation has its own threshold, or none for it ("off"), or the installation's default of its
currency (`INTERIM_THRESHOLDS`), which is none as a rule. There is no conversion: a default holds
for organisations of its currency alone.

Needs the tenant's door.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from django.conf import settings

from billing.invoicing.models import InterimThreshold
from meterplane.kernel import clock
from meterplane.kernel.decimals import EXACT, NotExact, text_to_decimal
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_digits
from tenants.queries import organisation
from tenants.scoping import current_tenant_id

WHOLE_UNITS_MIN, WHOLE_UNITS_MAX = 1, 1_000_000_000


@dataclass(frozen=True, slots=True)
class Threshold:
    """What holds now; `amount_minor` is None where no interim invoices are made."""

    amount_minor: int | None
    currency: str
    origin: Literal["organisation", "default"]


def threshold() -> Threshold:
    """The open door's organisation's."""
    currency = organisation().currency
    own = InterimThreshold.objects.first()
    if own is not None:
        return Threshold(own.amount_minor, currency, "organisation")
    return Threshold(default_minor(currency), currency, "default")


def default_minor(currency: str) -> int | None:
    """The installation's threshold of a currency, if it has one."""
    text = settings.INTERIM_THRESHOLDS.get(currency)
    return None if text is None else amount_minor(text, currency)


def set_threshold(amount: str | None, *, by: str) -> Threshold:
    """From this amount on, in the organisation's currency; None: never.

    Raises `CallerError` `interim_threshold_invalid`.
    """
    currency = organisation().currency
    minor = None if amount is None else amount_minor(amount, currency)
    InterimThreshold.objects.update_or_create(
        tenant_id=current_tenant_id(),
        defaults={"amount_minor": minor, "changed_by": by[:120], "changed_at": clock.now()},
    )
    return threshold()


def use_default() -> Threshold:
    """The installation's from now on."""
    InterimThreshold.objects.all().delete()
    return threshold()


def amount_minor(text: str, currency: str) -> int:
    """A threshold as it is written. Raises `CallerError` `interim_threshold_invalid`."""
    digits = minor_digits(currency)
    try:
        amount = text_to_decimal(text)
    except NotExact:
        raise _invalid("A threshold is a decimal text, such as 500 or 499.50.") from None
    if not Decimal(WHOLE_UNITS_MIN) <= amount <= Decimal(WHOLE_UNITS_MAX):
        raise _invalid(f"A threshold is {WHOLE_UNITS_MIN} to {WHOLE_UNITS_MAX:,} {currency}.")
    scaled = EXACT.scaleb(amount, digits)
    if scaled != scaled.to_integral_value():
        raise _invalid(f"{currency} has {digits} decimals.")
    return int(scaled)


def _invalid(message: str) -> CallerError:
    return CallerError("interim_threshold_invalid", message, field="amount")
