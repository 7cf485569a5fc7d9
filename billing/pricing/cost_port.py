"""What publishing needs of whoever measures costs, above billing: what a unit costs to serve.

Nobody has to register: until somebody measures, no price is below a cost that is known, and the
check has nothing to say.
"""

from collections.abc import Callable

from meterplane.contracts.usage import ServiceTier

# By model, meter and tier: pico of the currency per unit; None where it was not measured.
CostReader = Callable[[str, str, ServiceTier, str], int | None]

_reader: CostReader | None = None


def register(reader: CostReader | None) -> None:
    """Called once by the app that measures."""
    global _reader
    _reader = reader


def measured_cost_pico(model: str, meter: str, tier: ServiceTier, currency: str) -> int | None:
    """What one unit costs to serve, if somebody measured it."""
    return _reader(model, meter, tier, currency) if _reader is not None else None
