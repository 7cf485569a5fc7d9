"""Drawing on grants. The order is told in `calculator/test_operations.py`, row by row."""

from datetime import UTC, datetime

import pytest

from billing.credits.draw import Grant, Part, draw, order, restore
from meterplane.kernel.errors import CallerError

AT = datetime(2026, 8, 1, tzinfo=UTC)
SOON, LATER = AT.replace(month=9), AT.replace(month=10)


def test_the_order_is_total_and_what_is_not_said_comes_last():
    expected = [
        Grant("p", 1, 0, None, "purchased", None),
        Grant("e", 1, 1, SOON, "purchased", None),
        Grant("k", 1, 1, LATER, "promotional", None),
        Grant("o", 1, 1, LATER, "purchased", SOON),
        Grant("a", 1, 1, LATER, "purchased", None),
        Grant("b", 1, 1, LATER, "purchased", None),
        Grant("c", 1, 1, None, "promotional", SOON),
    ]
    assert order(reversed(expected)) == expected
    assert order(expected) == expected


def test_a_grant_may_be_drawn_until_it_expires_which_is_outside():
    grant = Grant("a", 10, expires_at=SOON)
    assert draw([grant], 4, AT).remaining == (Part("a", 6),)
    assert draw([grant], 4, SOON).expired == (Part("a", 10),)
    assert draw([grant], 4, SOON).due == 4


def test_what_would_make_or_lose_credit_is_refused():
    for grants, amount, code in (
        ([Grant("a", 1), Grant("a", 1)], 1, "grant_repeated"),
        ([Grant("a", -1)], 1, "amount_negative"),
        ([], -1, "amount_negative"),
    ):
        with pytest.raises(CallerError) as refused:
            draw(grants, amount, AT)
        assert refused.value.code == code
    for consumed, amount, code in (
        ([Part("a", 1)], 2, "restore_too_large"),
        ([Part("a", -1)], 0, "amount_negative"),
        ([Part("a", 1)], -1, "amount_negative"),
    ):
        with pytest.raises(CallerError) as refused:
            restore(consumed, amount)
        assert refused.value.code == code


def test_what_went_last_comes_back_first_also_to_a_grant_drawn_twice():
    consumed = [Part("a", 5), Part("b", 6), Part("a", 1)]
    assert restore(consumed, 9) == (Part("a", 1), Part("b", 6), Part("a", 2))
