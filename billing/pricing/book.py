"""A price-book version as a value: what crosses to rating and to policies. No I/O.

Unit prices are integers in pico (1e-12) of the book's currency per unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

Meter = Literal["input_tokens", "output_tokens", "requests"]


@dataclass(frozen=True, slots=True)
class ModelPrices:
    """What one model costs. All three are always stated: a price that is missing is not zero."""

    input_token_pico: int
    output_token_pico: int
    request_pico: int

    def of(self, meter: Meter) -> int:
        """The unit price of one meter."""
        match meter:
            case "input_tokens":
                return self.input_token_pico
            case "output_tokens":
                return self.output_token_pico
            case "requests":
                return self.request_pico


@dataclass(frozen=True, slots=True)
class PublishedBook:
    """One published version: its id, its currency, its prices by model name."""

    version_id: UUID
    currency: str
    prices: Mapping[str, ModelPrices]
