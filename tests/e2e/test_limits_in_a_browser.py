"""Limits are set, changed and removed in a real browser: by keyboard, on a phone, in the dark."""

import re

from playwright.sync_api import Locator, Page, expect

from billing.pricing.book import ModelPrices
from meterplane.metering.ingest import ingest_segment
from tenants.limits import set_restriction
from tenants.models import Limit, SetBy
from tenants.scoping import tenant_scope
from tests.billing.world import publish_prices
from tests.e2e.browser import PHONE, settled, sign_in, window
from tests.e2e.screenshots import LOOKS
from tests.e2e.test_portal_in_a_browser import fits
from tests.metering.segments import message, settle


def nothing_scrolls_sideways(page: Page) -> bool:
    """Neither the page nor a table of it."""
    tables = page.evaluate(
        "[...document.querySelectorAll('.table-container')].every("
        "(each) => each.scrollWidth <= each.clientWidth)"
    )
    return fits(page) and bool(tables)


def reach(page: Page, control: Locator) -> None:
    """By the tabulator alone."""
    for _ in range(60):
        if control.evaluate("(element) => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError("the keyboard does not get there")


def test_a_limit_is_set_by_keyboard_and_its_fault_told_at_the_field(acme, live_server, chromium):
    with window(chromium, live_server.url) as (page, complaints):
        sign_in(page, acme.owner.email, acme.owner_password)
        page.goto(f"/keys/{acme.key_id}/limits/")
        reach(page, page.get_by_role("link", name="Set a limit"))
        page.keyboard.press("Enter")
        dialog = page.locator("#modal")
        amount = dialog.get_by_label("Amount")
        expect(amount).to_be_visible()
        reach(page, amount)
        page.keyboard.type("ten")
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("alert")).to_have_text("Enter a number.")
        expect(amount).to_have_value("ten")
        expect(amount).to_have_accessible_description(re.compile("Enter a number"))
        amount.fill("10.25")
        page.keyboard.press("Enter")
        expect(page.locator(".toast")).to_contain_text("$10.25. In force since")
        expect(page.get_by_role("cell", name="$10.25").first).to_be_visible()
        page.get_by_role("link", name="Remove Spend per month").click()
        page.get_by_role("button", name="Remove limit").click()
        expect(page.locator(".toast")).to_contain_text("Spend per month is removed")
        assert complaints == []
    with tenant_scope(acme.id):
        assert not Limit.objects.filter(set_by="organisation").exists()


def test_nothing_of_limits_and_costs_scrolls_sideways(acme, live_server, chromium):
    set_restriction(
        tenant_id=acme.id, level="key", scope_id=acme.key_id, by=SetBy.ORGANISATION,
        models=["tiny-lm", "all-minilm-l6-v2"], surfaces=["openai.chat", "openai.embeddings"],
        ip_ranges=["203.0.113.0/24", "2001:db8:1234:5678:9abc:def0:1234:5678"],
    )  # fmt: skip
    prices = {"tiny-lm": ModelPrices(123_456_789, 987_654_321, 5_000_001, None, None, None)}
    dear = settle(
        acme,
        price_version_id=publish_prices(prices),
        tokens_in=123_456,
        tokens_out=6_543,
        cost_nano=21_703_703_500,
        reserved_nano=10**11,
    )
    ingest_segment(message([dear]))
    paths = ["/limits/", f"/keys/{acme.key_id}/limits/", "/keys/", "/limits/restrict/",
             f"/requests/{dear.request_id}/"]  # fmt: skip
    for theme, size in LOOKS.values():
        with window(chromium, live_server.url, theme=theme, size=size) as (page, complaints):
            sign_in(page, acme.owner.email, acme.owner_password)
            for path in paths:
                page.goto(path)
                settled(page)
                assert nothing_scrolls_sideways(page), (path, size)
            if size == PHONE:  # every column is told, each by its name
                product = page.locator("td[data-label=Product]").first
                assert "Product" in product.evaluate("e => getComputedStyle(e, '::before').content")
            page.goto("/limits/")
            page.get_by_role("link", name="Restrict keys").click()
            restrict = page.get_by_role("button", name="Restrict", exact=True)
            restrict.scroll_into_view_if_needed()
            expect(restrict).to_be_in_viewport(ratio=1)
            assert complaints == [], (theme, size)
