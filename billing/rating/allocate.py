"""One amount in parts by weight, to the last minor unit: largest remainder, ties by key.

Guarantees: the parts add up to the total; each is its exact share, rounded up or down; the parts
of the negative are the negative parts; a weight of zero gets nothing. The order in which weights
are handed in cannot matter.
"""

from collections.abc import Mapping
from decimal import Decimal

from meterplane.kernel.decimals import EXACT
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import split_by_largest_remainder


def allocate(total_minor: int, weights: Mapping[str, Decimal]) -> dict[str, int]:
    """The part of each key, in the order of the keys.

    Raises `CallerError` `weights_invalid` for a negative weight, and where none is above zero.
    """
    if any(weight < 0 for weight in weights.values()):
        raise _invalid("No weight may be negative.")
    if not any(weights.values()):
        raise _invalid("At least one weight must be above 0: nobody is there to take the total.")
    keys = sorted(weights)
    finest = min(int(weights[key].as_tuple().exponent) for key in keys)
    whole = [int(EXACT.scaleb(weights[key], max(-finest, 0))) for key in keys]
    parts = split_by_largest_remainder(abs(total_minor), whole)
    return dict(zip(keys, parts if total_minor >= 0 else [-part for part in parts], strict=True))


def _invalid(message: str) -> CallerError:
    return CallerError("weights_invalid", message, status=422, field="weights")
