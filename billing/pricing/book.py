"""A price-book version as a value: what crosses to rating and to policies. No I/O.

Unit prices are integers in pico (1e-12) of the book's currency per unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args, overload
from uuid import UUID

from billing.pricing.entry import Entry, EntryIndex
from meterplane.contracts.usage import SERVED, Priority, Served, ServiceTier

Meter = Literal["input_tokens", "output_tokens", "requests"]
METERS: tuple[Meter, ...] = get_args(Meter)
# What a version of before there were entries prices by.
LISTED = ("model", "service_tier")
# What usage of these meters is told apart by, and so the dimensions an entry of theirs can match.
DIMENSIONS = (*LISTED, *SERVED)
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
SERVICE_TIERS: tuple[ServiceTier, ...] = get_args(ServiceTier)


@dataclass(frozen=True, slots=True)
class ModelPrices:
    """What one model costs. All three are always stated: a price that is missing is not zero.

    The batch prices apply to service tier `batch`; all three or none. None: not offered there.
    """

    input_token_pico: int
    output_token_pico: int
    request_pico: int
    batch_input_token_pico: int | None = None
    batch_output_token_pico: int | None = None
    batch_request_pico: int | None = None

    @property
    def batch_is_whole(self) -> bool:
        """True if the batch tier is priced for every meter, or not offered at all."""
        return len({self.of(meter, "batch") is None for meter in get_args(Meter)}) == 1

    @overload
    def of(self, meter: Meter) -> int: ...
    @overload
    def of(self, meter: Meter, tier: ServiceTier) -> int | None: ...
    def of(self, meter: Meter, tier: ServiceTier = "standard") -> int | None:
        """The unit price of one meter in a service tier; None where the tier is not offered."""
        batch = tier == "batch"
        match meter:
            case "input_tokens":
                return self.batch_input_token_pico if batch else self.input_token_pico
            case "output_tokens":
                return self.batch_output_token_pico if batch else self.output_token_pico
            case "requests":
                return self.batch_request_pico if batch else self.request_pico


@dataclass(frozen=True, slots=True)
class PublishedBook:
    """One published version: its id, its currency, its prices by model name.

    `entries` are what usage is rated by; `prices` what a request is held and shown at. A version
    of before there were entries has none, and is rated by its prices. One `is_plain` where it has
    unit prices of the product's own meters and nothing else.
    """

    version_id: UUID
    currency: str
    prices: Mapping[str, ModelPrices]
    entries: tuple[Entry, ...] = ()
    book: str = ""
    index: EntryIndex = field(init=False, compare=False, repr=False)
    is_plain: bool = field(init=False, compare=False, repr=False)

    @property
    def served(self) -> frozenset[Served]:
        """What of how a request was served the entries of the product's own meters match by."""
        return served_by(self.index)

    def __post_init__(self) -> None:
        """What was looked up in a version once need not be for the next tenant."""
        index = EntryIndex(self.entries)
        is_plain = all(
            each.meter in METERS and index.unit_price_pico(each) is not None
            for each in self.entries
        )
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "is_plain", is_plain)


def served_by(index: EntryIndex) -> frozenset[Served]:
    """What of how a request was served any of these entries matches by."""
    named = {name for meter in METERS for name in index.names_of(meter)}
    return frozenset(name for name in SERVED if name in named)
