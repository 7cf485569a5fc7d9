"""What became of a top-up, as it is read at the provider. Pure.

Paid is what is complete and paid there, for our subject, of our customer, in our currency and of
our amount. Anything of it that differs parks: the difference is a text for a person.
"""

from dataclasses import dataclass

from billing.payments.charge_port import ProviderCharge
from billing.payments.checkout_port import ProviderCheckout
from billing.payments.models import TopUp

State = TopUp.State


@dataclass(frozen=True, slots=True)
class Found:
    """`state`: what a top-up is now; None while it is not known yet."""

    state: str | None
    payment_id: str = ""
    note: str = ""


def of_checkout(top_up: TopUp, customer_id: str, theirs: ProviderCheckout) -> Found:
    """Complete and unpaid is not known yet: cards never are, other methods may be for days."""
    if theirs.status == "complete" and theirs.is_paid:
        amount = theirs.amount_minor if theirs.amount_minor is not None else 0
        said = (theirs.subject_id, theirs.customer_id, theirs.currency, amount)
        return _paid(top_up, customer_id, theirs.checkout_id, said)
    if theirs.status == "expired":
        return Found(State.EXPIRED, theirs.checkout_id, "Nothing was paid in time.")
    return Found(None, theirs.checkout_id)


def of_charge(top_up: TopUp, customer_id: str, theirs: ProviderCharge) -> Found:
    """Nobody is there to try another card: what was declined is over."""
    if theirs.status == "succeeded":
        said = (theirs.subject_id, theirs.customer_id, theirs.currency, theirs.amount_minor)
        return _paid(top_up, customer_id, theirs.charge_id, said)
    if theirs.status == "failed":
        note = f"The charge was declined: {theirs.failure or 'the provider gives no reason.'}"
        return Found(State.FAILED, theirs.charge_id, note)
    return Found(None, theirs.charge_id)


def _paid(
    top_up: TopUp, customer_id: str, payment_id: str, said: tuple[str, str, str, int]
) -> Found:
    ours = (str(top_up.id), customer_id, top_up.currency, top_up.amount_minor)
    names = ("top-up", "customer", "currency", "amount")
    differing = [
        f"{name}: ours {mine}, theirs {other}"
        for name, mine, other in zip(names, ours, said, strict=True)
        if mine != other
    ]
    if differing:
        note = "Paid, but not as it was asked for; nothing is granted.\n" + "\n".join(differing)
        return Found(State.PARKED, payment_id, note)
    return Found(State.PAID, payment_id)
