"""Stripe's published test cards: what each is called and how it behaves.

Data, not logic. A card attaches and pays, attaches and then fails to pay, or already fails to
attach; some ask for their holder, each time or until they were set up, and one is disputed. No
other number is a card here: this server must never be given a real one.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an issuer says no, in Stripe's words."""

    code: str
    decline_code: str
    message: str


_GENERIC = Refusal("card_declined", "generic_decline", "Your card was declined.")
_FUNDS = Refusal("card_declined", "insufficient_funds", "Your card has insufficient funds.")
_LOST = Refusal("card_declined", "lost_card", "Your card was declined.")
_EXPIRED = Refusal("expired_card", "expired_card", "Your card has expired.")
AUTHENTICATION_REQUIRED = Refusal(
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
)
AUTHENTICATION_FAILED = Refusal(
    "payment_intent_authentication_failure",
    "authentication_required",
    "We are unable to authenticate your payment method. Please choose a different payment method "
    "and try again.",
)
_CVC = Refusal("incorrect_cvc", "incorrect_cvc", "Your card's security code is incorrect.")
_PROCESSING = Refusal(
    "processing_error",
    "processing_error",
    "An error occurred while processing your card. Try again in a little bit.",
)


@dataclass(frozen=True, slots=True)
class TestCard:
    """One published test number. `refusal` applies at charge, and at attach if `unattachable`."""

    __test__ = False

    number: str
    brand: str
    magic_ids: tuple[str, ...]
    refusal: Refusal | None = None
    unattachable: bool = False
    authenticates: bool = False
    authenticates_once: bool = False
    disputes: bool = False


TEST_CARDS = (
    TestCard("4242424242424242", "visa", ("pm_card_visa",)),
    TestCard("4000056655665556", "visa", ("pm_card_visa_debit",)),
    TestCard("5555555555554444", "mastercard", ("pm_card_mastercard",)),
    TestCard("378282246310005", "amex", ("pm_card_amex",)),
    TestCard("4000000000000341", "visa", ("pm_card_chargeCustomerFail",), _GENERIC),
    TestCard("4000002760003184", "visa", ("pm_card_authenticationRequired",), authenticates=True),
    TestCard(
        "4000002500003155",
        "visa",
        ("pm_card_authenticationRequiredOnSetup",),
        authenticates=True,
        authenticates_once=True,
    ),
    TestCard("4000000000000259", "visa", ("pm_card_createDispute",), disputes=True),
    TestCard(
        "4000000000000002",
        "visa",
        ("pm_card_chargeDeclined", "pm_card_visa_chargeDeclined"),
        _GENERIC,
        unattachable=True,
    ),
    TestCard(
        "4000000000009995",
        "visa",
        ("pm_card_chargeDeclinedInsufficientFunds", "pm_card_visa_chargeDeclinedInsufficientFunds"),
        _FUNDS,
        unattachable=True,
    ),
    TestCard(
        "4000000000009987",
        "visa",
        ("pm_card_visa_chargeDeclinedLostCard",),
        _LOST,
        unattachable=True,
    ),
    TestCard("4000000000000069", "visa", ("pm_card_chargeDeclinedExpiredCard",), _EXPIRED, True),
    TestCard("4000000000000127", "visa", ("pm_card_chargeDeclinedIncorrectCvc",), _CVC, True),
    TestCard(
        "4000000000000119", "visa", ("pm_card_chargeDeclinedProcessingError",), _PROCESSING, True
    ),
)

BY_NUMBER = {card.number: card for card in TEST_CARDS}
BY_MAGIC_ID = {magic: card for card in TEST_CARDS for magic in card.magic_ids}
