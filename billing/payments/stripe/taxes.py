"""Stripe Tax: where a customer is, and what an invoice's taxes come to there."""

from decimal import Decimal
from typing import Any

from billing.invoicing.parties import Place
from billing.invoicing.provider_tax import ToldTax
from billing.payments.stripe.client import Client, translated
from billing.payments.tax_port import ToldTaxes


class Taxes(Client):
    """The port's acts on taxes."""

    def place_customer(self, customer_id: str, place: Place) -> None:
        """An empty text unsets what an earlier place said."""
        address: Any = {
            "line1": place.lines[0] if place.lines else "",
            "line2": ", ".join(place.lines[1:]),
            "country": place.country,
            "state": place.state,
            "postal_code": place.postal_code,
        }
        with translated():
            self._client.v1.customers.update(customer_id, {"address": address})

    def tax_again(self, provider_invoice_id: str) -> None:
        with translated():
            self._client.v1.invoices.update(
                provider_invoice_id, {"automatic_tax": {"enabled": True}}
            )

    def taxes(self, provider_invoice_id: str) -> ToldTaxes:
        """Of each rate one, whatever reasons Stripe gives for its parts; those of nothing left out.

        A line's amount is final once it is attached, so this can be read while it is a draft.
        """
        with translated():
            found = self._client.v1.invoices.retrieve(provider_invoice_id).to_dict(for_json=True)
            parts: dict[str, list[dict[str, Any]]] = {}
            for part in found.get("total_taxes") or ():
                if part["tax_behavior"] == "exclusive" and part["amount"]:
                    rate_id = str((part.get("tax_rate_details") or {}).get("tax_rate") or "none")
                    parts.setdefault(rate_id, []).append(part)
            taxes = tuple(self._told(rate_id, of) for rate_id, of in sorted(parts.items()))
        included = [
            part["amount"]
            for part in found.get("total_taxes") or ()
            if part["tax_behavior"] != "exclusive"
        ]
        status = (found.get("automatic_tax") or {}).get("status")
        return ToldTaxes(status == "complete", taxes, sum(included))

    def _told(self, rate_id: str, parts: list[dict[str, Any]]) -> ToldTax:
        rate: dict[str, Any] = {}
        if rate_id != "none":
            rate = self._client.v1.tax_rates.retrieve(rate_id).to_dict(for_json=True)
        return ToldTax(
            rate_id=rate_id,
            name=str(rate.get("display_name") or "Tax"),
            percentage=Decimal(
                str(rate.get("effective_percentage") or rate.get("percentage") or 0)
            ),
            jurisdiction=str(rate.get("jurisdiction") or ""),
            country=str(rate.get("country") or ""),
            taxable_minor=sum(int(part["taxable_amount"] or 0) for part in parts),
            amount_minor=sum(int(part["amount"]) for part in parts),
        )
