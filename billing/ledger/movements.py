"""Which accounts each act debits and credits: the one place where that is decided.

Pure. Amounts are minor units and positive unless said otherwise; what is zero makes no leg, and an
act that moves nothing has no legs at all: there is nothing to post of it.

    act                            debit                        credit
    invoice finalised              receivable                   revenue:<meter>, tax:<name>
    interim invoice finalised      receivable                   deferred_revenue, tax:<name>
    ... taken back by its period's receivable, deferred_revenue revenue:<meter>, tax:<name>
    invoice paid                   payments                     receivable
    ... more than was due          payments                     receivable, customer_balance
    payment by hand, or a part     payments                     receivable, customer_balance
    ... and it was none            receivable, customer_balance payments
    ... and less is due now        receivable                   customer_balance
    invoice voided                 revenue:<meter>, tax:<name>  receivable
    invoice written off            bad_debt                     receivable
    written off, paid after all    payments                     bad_debt
    written off, then voided       revenue:<meter>, tax:<name>  bad_debt
    credit bought and paid         payments                     credits:purchased
    credit given                   promotions                   credits:promotional
    credit drawn by an invoice     credits:*                    receivable
    drawn credit given back        receivable                   credits:*
    bought credit expired          credits:purchased            breakage
    given credit expired           credits:promotional          promotions
    unused bought credit refunded  credits:purchased            refunds
    credit note                    revenue:<meter>, tax:<name>  receivable | refunds | credits:*
    money paid back                refunds | customer_balance   payments
    ... that nothing stands for    goodwill                     payments
    paying it back failed          payments                     what it was taken from
    payment taken by a dispute     disputed                     payments
    ... given back                 payments                     disputed
    ... its fee                    dispute_fees                 payments
    unspent credit of it taken     credits:purchased            disputed
    ... given back                 disputed                     credits:purchased
    dispute lost                   dispute_losses | refunds |   disputed
                                   customer_balance

A draw is an entry of its own beside the finalised one, so revenue is what was used, whoever paid
for it, and what is left in `receivable` is what the customer has to pay.
"""

from collections.abc import Mapping

from billing.ledger import accounts
from billing.ledger.entry import Leg, legs, reversed_legs
from meterplane.kernel.invariant import ensure

Legs = tuple[Leg, ...]


def invoice_finalised(total_minor: int, earned: Mapping[str, int]) -> Legs:
    """`earned`: what the invoice is made of, per account (`revenue:*`, `tax:*`, and what is an
    advance or takes one back, `deferred_revenue`).

    Any of them and the total may be negative: corrections of older periods are lines too.
    """
    ensure(total_minor == sum(earned.values()), "an invoice's parts add up to its total")
    parts = [(account, -amount) for account, amount in sorted(earned.items())]
    return legs((accounts.RECEIVABLE, total_minor), *parts)


def invoice_paid(due_minor: int, *, over_minor: int = 0, was_written_off: bool = False) -> Legs:
    """The money is at the provider: what was due, and what was paid beyond it, which we owe."""
    owed_in = accounts.BAD_DEBT if was_written_off else accounts.RECEIVABLE
    return legs(
        (accounts.PAYMENTS, due_minor + over_minor),
        (owed_in, -due_minor),
        (accounts.CUSTOMER_BALANCE, -over_minor),
    )


def payment_recorded(amount_minor: int, *, balance_minor: int, is_recovery: bool) -> Legs:
    """A part of what an invoice asks for arrived, `balance_minor` of it beyond what is due. Below
    zero, it is taken back; with no amount, what had arrived is more than is due by now."""
    owed_minor = amount_minor - balance_minor
    return invoice_paid(owed_minor, over_minor=balance_minor, was_written_off=is_recovery)


def invoice_written_off(total_minor: int) -> Legs:
    """Nobody expects the money any more."""
    return legs((accounts.BAD_DEBT, total_minor), (accounts.RECEIVABLE, -total_minor))


def invoice_voided(finalised: Legs, *, was_written_off: bool = False, drawn_minor: int = 0) -> Legs:
    """As if it had not been finalised, nor written off.

    What was written off is what credit had not paid: `drawn_minor` stays in `receivable`, where
    giving it back meets it.
    """
    undone = reversed_legs(finalised)
    if not was_written_off:
        return undone
    parts = [(leg.account, leg.amount_minor) for leg in undone]
    owed = sum(amount for account, amount in parts if account == accounts.RECEIVABLE)
    return legs(
        (accounts.BAD_DEBT, owed + drawn_minor),
        (accounts.RECEIVABLE, -drawn_minor),
        *(part for part in parts if part[0] != accounts.RECEIVABLE),
    )


def credit_purchased(amount_minor: int) -> Legs:
    """Paid in advance: we owe use for it."""
    return legs((accounts.PAYMENTS, amount_minor), (accounts.CREDITS_PURCHASED, -amount_minor))


def credit_given(amount_minor: int) -> Legs:
    """A promotion: it costs us what may be drawn."""
    return legs((accounts.PROMOTIONS, amount_minor), (accounts.CREDITS_PROMOTIONAL, -amount_minor))


def credit_drawn(*, purchased_minor: int = 0, promotional_minor: int = 0) -> Legs:
    """Credit pays a part of an invoice."""
    return legs(
        (accounts.CREDITS_PURCHASED, purchased_minor),
        (accounts.CREDITS_PROMOTIONAL, promotional_minor),
        (accounts.RECEIVABLE, -purchased_minor - promotional_minor),
    )


def credit_restored(*, purchased_minor: int = 0, promotional_minor: int = 0) -> Legs:
    """A correction gives back what was drawn."""
    return reversed_legs(
        credit_drawn(purchased_minor=purchased_minor, promotional_minor=promotional_minor)
    )


def credit_expired(*, purchased_minor: int = 0, promotional_minor: int = 0) -> Legs:
    """What was bought is earned without use; what was given was not needed."""
    return legs(
        (accounts.CREDITS_PURCHASED, purchased_minor),
        (accounts.BREAKAGE, -purchased_minor),
        (accounts.CREDITS_PROMOTIONAL, promotional_minor),
        (accounts.PROMOTIONS, -promotional_minor),
    )


def credit_refunded(amount_minor: int) -> Legs:
    """Unused bought credit is to be paid back; `refund_paid` follows."""
    return legs((accounts.CREDITS_PURCHASED, amount_minor), (accounts.REFUNDS, -amount_minor))


def credit_disputed(amount_minor: int) -> Legs:
    """The payment of credit is disputed: what is unspent of it is taken back, and is no loss. If
    the dispute is won, `reversed_legs` of it follows."""
    return legs((accounts.CREDITS_PURCHASED, amount_minor), (accounts.DISPUTED, -amount_minor))


def credit_note(
    corrected: Mapping[str, int], *, refunded_minor: int = 0, credited_minor: int = 0
) -> Legs:
    """`corrected`: what an invoice is less by, per account (`revenue:*`, `tax:*`).

    Of that, `refunded_minor` is to be paid back, `credited_minor` becomes credit, and the rest is
    not owed any more.
    """
    owed_less = sum(corrected.values()) - refunded_minor - credited_minor
    return legs(
        *sorted(corrected.items()),
        (accounts.REFUNDS, -refunded_minor),
        (accounts.CREDITS_PURCHASED, -credited_minor),
        (accounts.RECEIVABLE, -owed_less),
    )


def refund_paid(owed_minor: int, *, balance_minor: int = 0, goodwill_minor: int = 0) -> Legs:
    """The provider paid money back: what we had said we would, what a customer had paid too much,
    and what nothing stands for. If that fails, `reversed_legs` of it follows."""
    return legs(
        (accounts.REFUNDS, owed_minor),
        (accounts.CUSTOMER_BALANCE, balance_minor),
        (accounts.GOODWILL, goodwill_minor),
        (accounts.PAYMENTS, -owed_minor - balance_minor - goodwill_minor),
    )


def dispute_withdrawn(amount_minor: int) -> Legs:
    """The provider took a disputed payment out of what it has of ours. When it gives it back,
    `reversed_legs` of it follows."""
    return legs((accounts.DISPUTED, amount_minor), (accounts.PAYMENTS, -amount_minor))


def dispute_fee(amount_minor: int) -> Legs:
    """What the provider asks for a dispute, whoever wins it; `reversed_legs` where it is waived."""
    return legs((accounts.DISPUTE_FEES, amount_minor), (accounts.PAYMENTS, -amount_minor))


def dispute_lost(loss_minor: int, *, owed_minor: int = 0, balance_minor: int = 0) -> Legs:
    """The money is gone. What we had said we would pay back, and what had been paid too much, the
    customer has by that; the rest is our loss. `reversed_legs` where it comes back after all."""
    return legs(
        (accounts.DISPUTE_LOSSES, loss_minor),
        (accounts.REFUNDS, owed_minor),
        (accounts.CUSTOMER_BALANCE, balance_minor),
        (accounts.DISPUTED, -loss_minor - owed_minor - balance_minor),
    )
