"""How the cost of one request came about: quantities times the unit prices pinned at admission.

Products are exact in pico; their sum is rounded once, to the request's cost in nano.
"""

from dataclasses import dataclass
from uuid import UUID

from billing.pricing.book import Meter
from billing.pricing.queries import prices_of
from meterplane.contracts.usage import ServiceTier


@dataclass(frozen=True, slots=True)
class CostLine:
    """One meter of a request that has a price."""

    meter: Meter
    quantity: int
    unit_price_pico: int

    @property
    def product_pico(self) -> int:
        return self.quantity * self.unit_price_pico


def cost_lines(
    version_id: UUID,
    model: str,
    service_tier: ServiceTier,
    *,
    tokens_in: int,
    tokens_out: int,
    requests: int,
) -> list[CostLine]:
    """The lines above zero; none when that version, or the model in it, is unknown."""
    book = prices_of(version_id)
    prices = book.prices.get(model) if book else None
    if prices is None:
        return []
    meters: tuple[tuple[Meter, int], ...] = (
        ("input_tokens", tokens_in),
        ("output_tokens", tokens_out),
        ("requests", requests),
    )
    return [
        CostLine(meter, quantity, unit_price_pico)
        for meter, quantity in meters
        if (unit_price_pico := prices.of(meter, service_tier))
    ]
