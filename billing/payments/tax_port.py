"""What we need of a provider that computes taxes, in its own values. No I/O here.

Neither of its acts needs a frozen step: each sets what it names, and again makes no difference.
"""

from dataclasses import dataclass
from typing import Protocol

from billing.invoicing.parties import Place
from billing.invoicing.provider_tax import ToldTax


@dataclass(frozen=True, slots=True)
class ToldTaxes:
    """The taxes of an invoice there; without `is_complete` the customer's place says too little.

    `included_minor` is of taxes inside the lines: with what we send there are none.
    """

    is_complete: bool
    taxes: tuple[ToldTax, ...]
    included_minor: int = 0


class TaxProvider(Protocol):
    """The part of `PaymentProvider` that computes taxes."""

    def place_customer(self, customer_id: str, place: Place) -> None:
        """Say where the customer is, for invoices that are not final there."""
        ...

    def tax_again(self, provider_invoice_id: str) -> None:
        """Have a draft's taxes computed anew."""
        ...

    def taxes(self, provider_invoice_id: str) -> ToldTaxes: ...
