"""One request's page explains its cost to the nano."""

import re

from tests.portal import history
from tests.portal.test_usage import tables


def dollars_pico(text: str) -> int:
    whole, _, fraction = text.removeprefix("$").replace(",", "").partition(".")
    return int(whole) * 10**12 + int(fraction.ljust(12, "0"))


def test_the_products_of_a_request_add_up_to_its_cost(owner, organisation):
    history.offer()
    settles = history.live_through(organisation, days=1)
    chat = next(each for each in settles if each.tokens_out and each.status == "ok")
    page = owner.get(f"/requests/{chat.request_id}/")
    cost_table = next(rows for rows in tables(page) if rows[0][:2] == ["Meter", "Quantity"])
    products = [dollars_pico(cells[3]) for cells in cost_table[1:-1]]
    assert sum(products) == chat.cost_nano * 1000
    for _meter, quantity, price, product in cost_table[1:-1]:
        assert int(quantity.replace(",", "")) * dollars_pico(price) == dollars_pico(product)
    assert str(chat.request_id) in page.text
    assert "Assistant, production" in page.text or "Notebooks" in page.text


def test_the_time_to_the_first_byte_and_the_rest_fill_the_timeline(owner, organisation):
    history.offer()
    settles = history.live_through(organisation, days=1)
    chat = next(each for each in settles if each.tokens_out and each.status == "ok")
    page = owner.get(f"/requests/{chat.request_id}/").text
    widths = [int(width) for width in re.findall(r'<rect[^>]* width="(\d+)"', page) if width]
    wait, work = widths[-2:]
    assert wait + work == 1000
    assert wait == chat.first_byte_ms * 1000 // chat.total_ms
