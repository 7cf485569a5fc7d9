"""What exports need of whoever keeps prices, above metering: the unit prices of a version.

The reader registers itself once, when Django starts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from meterplane.contracts.usage import ServiceTier
from meterplane.kernel.invariant import ensure


@dataclass(frozen=True, slots=True)
class UnitPrices:
    """Pico of the currency per unit of each meter."""

    input_token_pico: int
    output_token_pico: int
    request_pico: int


# The prices of one version by model and service tier; empty for a version nobody published.
VersionPrices = Mapping[tuple[str, ServiceTier], UnitPrices]
PriceReader = Callable[[UUID], VersionPrices]

_reader: PriceReader | None = None


def register(reader: PriceReader) -> None:
    """Called once by the pricing app."""
    global _reader
    _reader = reader


def prices_of_version(version_id: UUID) -> VersionPrices:
    """Unit prices by model and tier, as they were published."""
    ensure(_reader is not None, "the pricing app is installed and has registered its reader")
    return _reader(version_id) if _reader is not None else {}
