"""Give a request that names no bound of its output a smaller one, so that it fits what is left.

The problem: such a request is bounded by its model's default, many times what answers need. With
the whole of it reserved, a budget for a hundred requests serves a dozen: the rest of it is held,
never spent. The options: reserve an estimate and let the engine run on (overspends), or refuse. The
choice: what is left decides the bound, and the engine is told that bound, so that it stops there
with `length`. Its limit: an answer near the end of a budget may be cut.

Pure: no clock, nothing reached. A bound that the caller named is never touched.
"""

import msgspec

from meterplane.contracts.policy import Limit
from meterplane.gateway import errors
from meterplane.gateway.surface import Bounds, Offer
from meterplane.kernel.money import PICO_PER_NANO

FIT_TOKENS_MIN = 16  # of one answer: below it is no answer worth its input


def tokens_each(bounds: Bounds) -> int:
    """The bound of each answer, where it is ours."""
    return bounds.tokens_out_max // bounds.open_sequences


def sole_stop(bounds: Bounds) -> int:
    """Where the engine stops the one answer of a request that named no bound; 0 for any other."""
    return bounds.tokens_out_max if bounds.open_sequences == 1 else 0


def within_room(
    offers: list[Offer], bounds: list[Bounds], room_nano: int
) -> tuple[list[Offer], list[Bounds]] | None:
    """The model asked for within `room_nano`, and the fallbacks that then are so too; else None."""
    first = _first_within(offers[0], bounds[0], room_nano)
    if first is None:
        return None
    kept_offers, kept_bounds = [first[0]], [first[1]]
    for offer, bound in zip(offers[1:], bounds[1:], strict=True):
        if bound.open_sequences:
            # Whichever serves, the answer has at most what its caller was told.
            tokens = min(tokens_each(first[1]), tokens_each(bound))
            offer, bound = _bounded(offer, bound, tokens)
        if offer.cost_nano_max(bound) <= room_nano:
            kept_offers.append(offer)
            kept_bounds.append(bound)
    return kept_offers, kept_bounds


def within_tokens(offer: Offer, bounds: Bounds, tokens_max: int) -> tuple[Offer, Bounds]:
    """One request's input and output within `tokens_max` together.

    Raises `CallerError` 400 where the input alone is above it, or the output the caller named.
    """
    left = tokens_max - bounds.tokens_in_max
    if left >= bounds.tokens_out_max:
        return offer, bounds
    if left < max(1, bounds.open_sequences):
        raise errors.request_too_large(bounds.tokens_in_max, tokens_max)
    if not bounds.open_sequences:
        raise errors.request_bound_too_large(
            bounds.tokens_in_max, bounds.tokens_out_max, tokens_max
        )
    return _bounded(offer, bounds, left // bounds.open_sequences)


def within_limits(
    offer: Offer, bounds: Bounds, limits: list[Limit], model: str, at_ms: int
) -> tuple[Offer, Bounds]:
    """Answers nobody bounded within what the limits on tokens ever let through at once.

    Above that, such a request would pass at no time. One whose input alone is above it is left as
    it is: it is for admission to refuse.
    """
    if not bounds.open_sequences:
        return offer, bounds
    tokens_out_max = bounds.tokens_out_max
    for limit in limits:
        if limit.mode != "enforce" or (limit.level == "key_model" and limit.model != model):
            continue
        at_once = limit.amount_at(at_ms) if limit.burst is None else limit.burst
        if limit.kind == "output_tokens":
            tokens_out_max = min(tokens_out_max, at_once)
        elif limit.kind == "total_tokens":
            tokens_out_max = min(tokens_out_max, at_once - bounds.tokens_in_max)
    if not bounds.open_sequences <= tokens_out_max < bounds.tokens_out_max:
        return offer, bounds
    return _bounded(offer, bounds, tokens_out_max // bounds.open_sequences)


def _first_within(offer: Offer, bounds: Bounds, room_nano: int) -> tuple[Offer, Bounds] | None:
    if offer.cost_nano_max(bounds) <= room_nano:
        return offer, bounds  # only a fallback was too dear
    per_token_pico = bounds.open_sequences * offer.held_prices.output_token_pico
    if per_token_pico == 0:
        return None
    without_output = msgspec.structs.replace(bounds, tokens_out_max=0)
    left_pico = (room_nano - offer.cost_nano_max(without_output)) * PICO_PER_NANO
    tokens = left_pico // per_token_pico
    if tokens < min(FIT_TOKENS_MIN, tokens_each(bounds)):
        return None
    return _bounded(offer, bounds, tokens)


def _bounded(offer: Offer, bounds: Bounds, tokens: int) -> tuple[Offer, Bounds]:
    """As they are with another bound of each answer: both, so that what is told is what is held."""
    return (
        msgspec.structs.replace(offer, output_tokens_fitted=tokens),
        msgspec.structs.replace(bounds, tokens_out_max=tokens * bounds.open_sequences),
    )
