"""Where an operator finds an object of Stripe's."""

import pytest

from billing.payments.stripe.dashboard import page_of


@pytest.mark.parametrize(
    ("key", "base", "their_id", "page"),
    [
        ("sk_test_1", "", "in_1a", "https://dashboard.stripe.com/test/invoices/in_1a"),
        ("sk_live_1", "", "in_1a", "https://dashboard.stripe.com/invoices/in_1a"),
        ("rk_live_1", "", "pi_1a", "https://dashboard.stripe.com/payments/pi_1a"),
        ("sk_test_1", "", "re_1a", "https://dashboard.stripe.com/test/search?query=re_1a"),
        ("sk_test_1", "http://127.0.0.1:9/", "re_1a", "http://127.0.0.1:9/objects/re_1a"),
        ("sk_test_1", "", "in_<b>", ""),
        ("sk_test_1", "", "", ""),
        ("", "", "in_1a", ""),
    ],
)
def test_the_page_of_an_object(settings, key, base, their_id, page):
    settings.STRIPE_API_KEY, settings.STRIPE_API_BASE = key, base
    assert page_of(their_id) == page
