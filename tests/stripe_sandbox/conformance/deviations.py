"""Where the sandbox is not as Stripe, on purpose.

Each entry is tried by the suite: what Stripe does is asserted against Stripe, and against the
sandbox it must fail in the words given here. One that does not fail there any more fails the
suite, so that this list never claims a difference that is gone.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deviation:
    """A named difference. `here` is found in what the sandbox says, or in what a test finds."""

    at_stripe: str
    here: str
    why: str


DEVIATIONS = {
    "any_test_key": Deviation(
        at_stripe="a key that was never issued is answered 401",
        here="DID NOT RAISE",
        why="nobody issues keys here; one may be fixed with --key, as `make up` does",
    ),
    "raw_card_numbers": Deviation(
        at_stripe="card numbers are refused from an account that has not shown it may hold them",
        here="DID NOT RAISE",
        why="only the published test numbers are taken, and tests of cards need their numbers",
    ),
    "events_leave_this_machine": Deviation(
        at_stripe="an endpoint is a public https address",
        here="Invalid URL: the sandbox delivers over plain http to this machine only",
        why="a sandbox must not be a way to send requests elsewhere",
    ),
    "events_come_to_this_machine": Deviation(
        at_stripe="an address of this machine cannot be an endpoint",
        here="DID NOT RAISE",
        why="it is where the product under test listens",
    ),
    "event_names_are_checked": Deviation(
        at_stripe="a name that no event bears cannot be subscribed to",
        here="DID NOT RAISE",
        why="a list of 250 names that grows with every release; a wrong one is told nothing",
    ),
    "prices_times_quantities": Deviation(
        at_stripe="a line may be a decimal price and quantity, and Stripe multiplies and rounds",
        here="Received unknown parameter: lines[0][quantity_decimal]",
        why="how Stripe rounds the product is not documented: simulating it would teach a guess",
    ),
    "items_wait_for_an_invoice": Deviation(
        at_stripe="an item without an invoice waits for the customer's next one",
        here="Missing required param: invoice",
        why="items are always attached here: a leftover would be swept into a later invoice",
    ),
    "other_ways_to_pay": Deviation(
        at_stripe="a direct debit is a payment method",
        here="Invalid type: must be one of card",
        why="cards have every outcome that collecting must meet",
    ),
    "older_versions": Deviation(
        at_stripe="requests of an older API version are answered in its shapes",
        here="speaks 2026-10-28.endive only",
        why="an answer in another version than the installed SDK's would be misread in silence",
    ),
    "every_parameter_of_a_call": Deviation(
        at_stripe="a customer may be created with tax ids",
        here="Received unknown parameter: tax_id_data",
        why="what is not simulated is refused aloud and logged, and never taken and ignored",
    ),
    "every_call": Deviation(
        at_stripe="coupons are listed",
        here="Unrecognized request URL",
        why="what is not simulated is answered 404 and logged, and never half answered",
    ),
}
