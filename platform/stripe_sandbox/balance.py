"""What finalization makes of a total: the customer's balance and the minimum charge.

Pure. A negative balance is credit, a positive one is owed. What is left below the currency's
minimum charge is not collected: Stripe marks the invoice paid and moves the amount to the
balance. A biller that ignores this reconciles to the wrong figure, so it happens here too.
"""

from dataclasses import dataclass

# Smallest charge in minor units, from Stripe's page on currencies; an unlisted one has no minimum
# here because we do not know it.
MINIMUM_CHARGE_MINOR = {
    "usd": 50, "aed": 200, "aud": 50, "bgn": 100, "brl": 50, "cad": 50, "chf": 50, "czk": 1500,
    "dkk": 250, "eur": 50, "gbp": 30, "hkd": 400, "huf": 17500, "inr": 50, "jpy": 50, "mxn": 1000,
    "myr": 200, "nok": 300, "nzd": 50, "pln": 200, "ron": 200, "sek": 300, "sgd": 50, "thb": 1000,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Due:
    """What to collect now, and the balance that remains; `total + start == amount + ending`."""

    amount_minor: int
    ending_balance_minor: int


def settle(total_minor: int, starting_balance_minor: int, currency: str) -> Due:
    """Apply the balance to a total."""
    due = total_minor + starting_balance_minor
    if due < MINIMUM_CHARGE_MINOR.get(currency, 1):
        return Due(0, due)
    return Due(due, 0)
