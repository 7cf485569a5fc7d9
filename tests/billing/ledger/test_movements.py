"""Which accounts each act debits and credits, as text: the act, then its legs."""

from textwrap import dedent

import pytest

from billing.ledger import movements
from billing.ledger.entry import Entry
from meterplane.kernel import clock
from meterplane.kernel.invariant import InvariantBroken
from tests.billing.ledger.rig import legs

ACTS = dedent("""
    invoice_finalised(205, {"revenue:requests": 5, "revenue:input_tokens": 200})
        receivable             205
        revenue:input_tokens  -200
        revenue:requests        -5

    # A correction of an older period is larger than what was used of another meter.
    invoice_finalised(-30, {"revenue:input_tokens": -100, "revenue:requests": 70})
        receivable             -30
        revenue:input_tokens   100
        revenue:requests       -70

    # They cancel out: nothing is due, and revenue has moved.
    invoice_finalised(0, {"revenue:input_tokens": -7, "revenue:requests": 7})
        revenue:input_tokens     7
        revenue:requests        -7

    invoice_finalised(0, {"revenue:input_tokens": 0})

    invoice_finalised(119, {"revenue:requests": 100, "tax:vat": 19})
        receivable             119
        revenue:requests      -100
        tax:vat                -19

    invoice_paid(205)
        payments               205
        receivable            -205

    invoice_paid(205, was_written_off=True)
        payments               205
        bad_debt              -205

    invoice_paid(0)

    payment_recorded(250, balance_minor=45, is_recovery=False)
        payments               250
        receivable            -205
        customer_balance       -45

    payment_recorded(-250, balance_minor=-45, is_recovery=True)
        payments              -250
        bad_debt               205
        customer_balance        45

    payment_recorded(0, balance_minor=5, is_recovery=False)
        receivable               5
        customer_balance        -5

    invoice_written_off(205)
        bad_debt               205
        receivable            -205

    invoice_voided(invoice_finalised(119, {"revenue:requests": 100, "tax:vat": 19}))
        receivable            -119
        revenue:requests       100
        tax:vat                 19

    invoice_voided(invoice_finalised(5, {"revenue:requests": 5}), was_written_off=True)
        bad_debt                -5
        revenue:requests         5

    credit_purchased(5000)
        payments              5000
        credits:purchased    -5000

    credit_given(1000)
        promotions            1000
        credits:promotional  -1000

    credit_drawn(purchased_minor=30, promotional_minor=12)
        credits:purchased       30
        credits:promotional     12
        receivable             -42

    credit_drawn(promotional_minor=12)
        credits:promotional     12
        receivable             -12

    credit_restored(purchased_minor=30)
        credits:purchased      -30
        receivable              30

    credit_expired(purchased_minor=40, promotional_minor=9)
        credits:purchased       40
        breakage               -40
        credits:promotional      9
        promotions              -9

    credit_refunded(2500)
        credits:purchased     2500
        refunds              -2500

    refund_paid(2500)
        refunds               2500
        payments             -2500

    dispute_withdrawn(301)
        disputed               301
        payments              -301

    dispute_fee(1500)
        dispute_fees          1500
        payments             -1500

    # What was unspent of it is no loss.
    credit_disputed(200)
        credits:purchased      200
        disputed              -200

    dispute_lost(101)
        dispute_losses         101
        disputed              -101

    # We had said that we would pay 100 back, and 50 had been paid too much.
    dispute_lost(151, owed_minor=100, balance_minor=50)
        dispute_losses         151
        refunds                100
        customer_balance        50
        disputed              -301

    # Not paid yet: it is owed less.
    credit_note({"revenue:requests": 50, "tax:vat": 10})
        revenue:requests        50
        tax:vat                 10
        receivable             -60

    # Paid: a part is paid back, the rest is credit.
    credit_note({"revenue:requests": 50, "tax:vat": 10}, refunded_minor=20, credited_minor=40)
        revenue:requests        50
        tax:vat                 10
        refunds                -20
        credits:purchased      -40

    # An interim invoice, and the one of its period, which takes it back.
    invoice_finalised(1190, {"deferred_revenue": 1000, "tax:vat": 190})
        receivable            1190
        deferred_revenue     -1000
        tax:vat               -190

    invoice_finalised(476, {"deferred_revenue": -1000, "revenue:requests": 1400, "tax:vat": 76})
        receivable             476
        deferred_revenue      1000
        revenue:requests     -1400
        tax:vat                -76
""")


def blocks() -> list[tuple[str, str]]:
    """(the act, its legs) of each paragraph; lines that begin with # are for the reader."""
    found = []
    for block in ACTS.strip().split("\n\n"):
        act, *moved = [line for line in block.splitlines() if not line.startswith("#")]
        found.append((act, "\n".join(moved)))
    return found


@pytest.mark.parametrize(("act", "expected"), blocks())
def test_an_act_moves(act, expected):
    moved = eval(act, vars(movements).copy())
    assert moved == legs(expected)
    if moved:  # and is an entry that can be posted
        Entry("test.act", "1", "USD", moved, clock.now())


def test_every_act_is_in_the_table():
    acts = {
        name
        for name, value in vars(movements).items()
        if getattr(value, "__module__", "") == movements.__name__
    }
    assert acts == {act.partition("(")[0] for act, _ in blocks()}


def test_parts_that_do_not_add_up_to_the_total_are_refused():
    with pytest.raises(InvariantBroken, match="add up"):
        movements.invoice_finalised(206, {"revenue:requests": 205})
