"""What is wrong with a version before it is published. Pure; every finding says what to do.

Some findings can be confirmed by whoever publishes: `gap` (something that was priced or is on
offer is not sold any more) and `below_cost` (a price is below what serving is measured to cost).
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from billing.pricing.book import METERS, PublishedBook
from billing.pricing.cost_port import measured_cost_pico
from billing.pricing.derive import Offer
from billing.pricing.entry import Entry, EntryIndex, ambiguous, match_in_words
from meterplane.contracts.usage import ServiceTier
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import pico_to_text

Confirmation = Literal["gap", "below_cost"]
CONFIRMATIONS: tuple[Confirmation, ...] = get_args(Confirmation)
_TIERS: tuple[ServiceTier, ...] = get_args(ServiceTier)


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason not to publish; None in `confirmed_by` cannot be confirmed away."""

    code: str
    message: str
    confirmed_by: Confirmation | None = None


def findings(
    entries: Sequence[Entry],
    offer: Offer,
    *,
    currency: str,
    before: PublishedBook | None,
    on_offer: Iterable[str],
) -> list[Finding]:
    """Everything that is wrong, what cannot be confirmed first."""
    return [
        *_ambiguities(entries),
        *_incomplete(offer),
        *_partly_priced(entries),
        *_gaps(entries, offer, before, on_offer),
        *_below_cost(offer, currency),
    ]


def refuse_unconfirmed(found: Iterable[Finding], confirmed: Collection[str]) -> None:
    """Raises `CallerError` for the first finding nobody confirmed."""
    for name in confirmed:
        if name not in CONFIRMATIONS:
            raise CallerError(
                "confirmation_unknown",
                f"{name[:40]!r} confirms nothing; there are {', '.join(CONFIRMATIONS)}.",
                status=422,
                field="confirm",
            )
    for each in found:
        if each.confirmed_by in confirmed:
            continue
        hint = f" Confirm {each.confirmed_by!r} if it is meant." if each.confirmed_by else ""
        raise CallerError(each.code, each.message + hint, status=422, field="entries")


def _ambiguities(entries: Sequence[Entry]) -> Iterable[Finding]:
    for one, other, overlap in ambiguous(entries):
        yield Finding(
            "entries_ambiguous",
            f"{one.display_name!r} ({one}) and {other.display_name!r} ({other}) are equally"
            f" specific for {one.meter} of {match_in_words(overlap)}: make one more specific, or"
            " add an entry for what they share.",
        )


def _incomplete(offer: Offer) -> Iterable[Finding]:
    for (model, tier), missing in offer.missing.items():
        yield Finding(
            "prices_incomplete",
            f"{model} has {tier} prices, but none for {', '.join(missing)}: a price that is missing"
            " is not zero. Add an entry, of unit_amount 0 for what is free.",
        )


def _partly_priced(entries: Sequence[Entry]) -> Iterable[Finding]:
    """Of a declared meter anything may be sent; usage without a price would stop a close."""
    everything = {entry.meter for entry in entries if not entry.match}
    for meter in sorted({entry.meter for entry in entries} - everything - {*METERS}):
        yield Finding(
            "prices_incomplete",
            f"{meter} is priced for some usage only: add an entry of it without a match, of"
            " unit_amount 0 for what is free.",
        )


def _gaps(
    entries: Sequence[Entry],
    offer: Offer,
    before: PublishedBook | None,
    on_offer: Iterable[str],
) -> Iterable[Finding]:
    incomplete = {model for model, _ in offer.missing}
    known = before.prices if before is not None else {}
    for model in sorted({*known, *on_offer} - {*offer.prices} - incomplete):
        was = "was priced" if model in known else "is on offer"
        yield Finding("price_gap", f"{model} {was} and has no price here.", "gap")
    for model, prices in sorted(known.items()):
        new = offer.prices.get(model)
        if (
            new is None
            or prices.of("requests", "batch") is None
            or (model, "batch") in offer.missing
        ):
            continue
        if new.of("requests", "batch") is None:
            yield Finding("price_gap", f"{model} had batch prices and has none here.", "gap")
    index = EntryIndex(entries)
    for old in before.entries if before is not None else ():
        if old.meter not in METERS and index.find(old.meter, old.match) is None:
            yield Finding("price_gap", f"{old} was priced and has no price here.", "gap")


def _below_cost(offer: Offer, currency: str) -> Iterable[Finding]:
    for model, prices in offer.prices.items():
        for tier in _TIERS:
            for meter in METERS:
                price = prices.of(meter, tier)
                cost = measured_cost_pico(model, meter, tier, currency)
                if price is not None and cost is not None and price < cost:
                    yield Finding(
                        "price_below_cost",
                        f"{model}: {tier} {meter} at {pico_to_text(price)} is below the measured"
                        f" {pico_to_text(cost)} that serving one costs.",
                        "below_cost",
                    )
