"""What is sent of an invoice that has more lines than the provider takes."""

import random
from dataclasses import replace

import pytest

from billing.payments.orders import Told, netted, summed
from billing.payments.provider import LineOrder
from meterplane.kernel.limits import INVOICE_LINES_MAX
from tests.billing.world import utc


def told(number: int, *, kind="usage", month=10, meter="input_tokens", model="m", amount=7):
    order = LineOrder(f"{number:04d}", f"line {number}", amount, utc(month, 1), utc(month + 1, 1))
    return Told(order, kind, f"2026-{month:02d}", meter, model)


def test_few_enough_lines_are_sent_as_they_are():
    lines = [told(n) for n in range(INVOICE_LINES_MAX)]
    assert summed(lines, INVOICE_LINES_MAX) == [line.order for line in lines]


@pytest.mark.parametrize(
    ("models", "meters", "months", "sent", "described"),
    [
        # of each: the finest key that leaves few enough
        (8, 3, 2, 48, "usage, 2026-09, m0, model-0: sum of 10 lines"),
        (40, 3, 3, 9, "usage, 2026-08, m0: sum of 400 lines"),
        (4, 100, 4, 4, "usage, 2026-07: sum of 4000 lines"),
        (1, 1, 1, 1, "usage, 2026-10, m0, model-0: sum of 10 lines"),
    ],
)
def test_more_are_summed_by_the_finest_key_that_suffices(models, meters, months, sent, described):
    lines = [
        told(n, month=10 - month, meter=f"m{meter}", model=f"model-{model}")
        for month in range(months)
        for meter in range(meters)
        for model in range(models)
        for n in range(10)
    ]
    orders = summed(lines, min(100, len(lines) - 1))
    assert (len(orders), orders[0].description) == (sent, described)
    assert sum(order.amount_minor for order in orders) == 7 * len(lines)
    assert orders[0].starts_at == utc(10 - months + 1, 1)


def test_a_sum_is_the_same_whatever_the_order_of_its_lines_and_another_for_other_lines():
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    lines = [told(n, amount=n - 150) for n in range(300)]
    shuffled = random.Random(seed).sample(lines, len(lines))
    once = summed(lines, INVOICE_LINES_MAX)
    assert summed(shuffled, INVOICE_LINES_MAX) == once
    other = [line._replace(order=replace(line.order, uid=f"x{line.order.uid}")) for line in lines]
    assert summed(other, INVOICE_LINES_MAX)[0].uid != once[0].uid


def test_a_line_that_is_alone_under_its_key_keeps_its_own_text():
    lines = [*(told(n) for n in range(300)), told(999, kind="credit", meter="", amount=-50)]
    orders = summed(lines, INVOICE_LINES_MAX)
    assert [order.description for order in orders] == [
        "line 999",
        "usage, 2026-10, input_tokens, m: sum of 300 lines",
    ]


def test_what_is_below_zero_is_taken_off_the_rest_to_the_cent_and_said():
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(200):
        above = [told(n, amount=chance.choice([0, 1, 7, 10**9])) for n in range(9)]
        left = sum(line.order.amount_minor for line in above)
        below = []
        for n in range(chance.randrange(6)):
            off = chance.choice([left, left // 3, 1]) if left else 0
            below += [told(100 + n, kind="credit", amount=-off)] if off else []
            left -= off
        orders = [line.order for line in chance.sample(above + below, len(above + below))]
        sent = netted(orders, "USD")
        was = {order.uid: order for order in orders}
        assert sum(each.amount_minor for each in sent) == left
        assert [each.uid for each in sent] == [o.uid for o in orders if o.amount_minor >= 0]
        for each in sent:
            assert 0 <= each.amount_minor <= was[each.uid].amount_minor
            assert (each == was[each.uid]) == (each.amount_minor == was[each.uid].amount_minor)


def test_a_line_says_what_was_taken_off_and_stays_within_what_is_taken():
    long = replace(told(1, amount=1_000).order, description="x" * 500)
    below = [told(n, amount=-n).order for n in range(10, 15)]
    [sent] = netted([long, *below], "USD")
    assert (len(sent.description), sent.amount_minor) == (500, 940)
    assert sent.description.endswith(
        "x... (10.00 USD less 0.60 of: line 10; line 11; line 12; 2 more)"
    )
