"""The portal in a real browser: no complaint from its console, light or dark, desk or phone."""

import re

from playwright.sync_api import Page, expect

from meterplane.kernel import clock
from meterplane.metering.ingest import ingest_segment
from tenants.keys import issue_key
from tenants.leaks import report_leak
from tenants.models import ApiKey
from tenants.scoping import tenant_scope
from tests.conftest import wait_until
from tests.e2e.browser import PHONE, settled, sign_in, window
from tests.e2e.screenshots import LOOKS
from tests.metering.segments import message, settle
from tests.portal.history import unit_prices

PATHS = [
    "/",
    "/usage/?period=30d",
    "/usage/?period=today&group=key",
    "/keys/",
    "/limits/",
    "/billing/",
]


def fits(page: Page) -> bool:
    """Nothing sticks out of the window sideways."""
    return bool(
        page.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        )
    )


def amounts_are_in_sight(page: Page) -> bool:
    """Each amount of each row, totals included, stands whole within the window and its card."""
    return bool(
        page.evaluate(
            """() => {
                const amounts = [...document.querySelectorAll(".table.cards td.amount")];
                return amounts.length > 0 && amounts.every((each) => {
                    const box = each.getBoundingClientRect();
                    const card = each.closest(".table-container");
                    return box.width > 0 && box.right <= card.getBoundingClientRect().right
                        && card.scrollWidth <= card.clientWidth && card.scrollLeft === 0;
                });
            }"""
        )
    )


def test_every_page_is_clean_in_every_look(lived, live_server, chromium):
    for theme, size in LOOKS.values():
        with window(chromium, live_server.url, theme=theme, size=size) as (page, complaints):
            sign_in(page, lived.owner.email, lived.owner_password)
            for path in PATHS:
                page.goto(path)
                settled(page)
                assert fits(page), (path, size)
                assert page.evaluate("document.documentElement.matches('.dark')") == (
                    theme == "dark"
                )
            page.goto("/usage/")
            page.locator("#recent tbody a").first.click()
            expect(page.get_by_text("How the cost came about")).to_be_visible()
            assert fits(page)
            page.goto("/billing/")
            assert amounts_are_in_sight(page)
            page.locator("td a[href*='/billing/']").first.click()
            expect(page.get_by_role("heading", name="ACME-000001")).to_be_visible()
            assert fits(page)
            assert amounts_are_in_sight(page)
            assert complaints == [], (theme, size)


def test_a_key_is_made_seen_once_and_revoked(acme, live_server, chromium):
    with window(chromium, live_server.url) as (page, complaints):
        sign_in(page, acme.owner.email, acme.owner_password)
        page.goto("/keys/")
        page.get_by_role("link", name="Create API key").click()
        dialog = page.locator("#modal")
        dialog.get_by_label("Name").fill("my laptop")
        dialog.get_by_role("button", name="Create key").click()
        secret = dialog.locator("#secret").text_content()
        assert secret is not None
        assert re.fullmatch(r"mp_live_[0-9A-Za-z]{49}", secret)
        page.keyboard.press("Escape")
        expect(page.get_by_role("cell", name=f"mp_live_…{secret[-4:]}")).to_be_visible()
        assert secret not in page.content()
        page.get_by_role("link", name="Revoke my laptop").click()
        page.get_by_role("button", name="Revoke key").click()
        expect(page.locator(".toast")).to_contain_text("my laptop is revoked")
        assert complaints == []
    with tenant_scope(acme.id):
        assert ApiKey.objects.get(name="my laptop").status == "revoked"


def test_a_key_is_rotated_and_a_leaked_one_told_of_until_it_is_dismissed(
    acme, live_server, chromium
):
    report_leak(acme.secret, f"https://paste.example/{'long' * 40}")
    with tenant_scope(acme.id):
        issue_key(tenant_id=acme.id, project_id=acme.project_id, name="production backend")
    for theme, size in LOOKS.values():
        with window(chromium, live_server.url, theme=theme, size=size) as (page, complaints):
            sign_in(page, acme.owner.email, acme.owner_password)
            page.goto("/keys/")
            expect(
                page.get_by_role("heading", name="first key was found in the open")
            ).to_be_visible()
            page.get_by_role("link", name="Rotate production backend").click()
            dialog = page.locator("#modal")
            dialog.get_by_label("The old key works on").select_option("For 7 days")
            dialog.get_by_role("button", name="Rotate key").click()
            secret = dialog.locator("#secret").text_content()
            assert secret is not None
            assert re.fullmatch(r"mp_live_[0-9A-Za-z]{49}", secret)
            expect(dialog.get_by_text("works until")).to_be_visible()
            assert fits(page)
            page.keyboard.press("Escape")
            expect(page.get_by_text(f"Replaced by …{secret[-4:]}")).to_be_visible()
            assert fits(page)
            assert complaints == [], (theme, size)
    with window(chromium, live_server.url) as (page, _):
        sign_in(page, acme.owner.email, acme.owner_password)
        page.goto("/keys/")
        page.get_by_role("button", name="Dismiss").click()
        expect(page.get_by_text("found in the open")).to_have_count(0)


def test_usage_is_narrowed_and_a_request_found_by_hand(acme, live_server, chromium):
    """Zone, group, filter and search, each as a person uses it; what is typed is not wiped away
    when the page asks again by itself."""
    frames = [settle(acme, tags={"team": team}) for team in ("ads", "ads", "search")]
    ingest_segment(message(frames))
    with window(chromium, live_server.url, size=PHONE) as (page, complaints):
        sign_in(page, acme.owner.email, acme.owner_password)
        page.goto("/usage/?period=30d")
        expect(page.locator("#tz option:checked")).to_have_text("UTC (this browser)")
        page.locator("#tz").select_option("Asia/Tokyo")
        page.wait_for_url("**tz=Asia**")
        page.locator("#group").select_option("By team")
        page.locator("#breakdown").get_by_role("link", name="ads").click()
        expect(page.locator(".chip")).to_have_text(re.compile(r"team\s+ads"))
        expect(page.locator("#recent-rows tbody tr")).to_have_count(2)
        expect(page.get_by_text("Asia/Tokyo").first).to_be_visible()
        assert fits(page)
        page.get_by_role("link", name="Without the filter team ads").click()
        expect(page.locator("#recent-rows tbody tr")).to_have_count(3)
        page.get_by_role("button", name="Filter", exact=True).click()
        page.get_by_label("Status").select_option("error")
        page.get_by_role("button", name="Apply").click()
        expect(page.get_by_text("Nothing matches these filters")).to_be_visible()
        page.goto("/usage/?period=today&tz=UTC")
        page.get_by_label("Request id").fill("typed")
        with page.expect_response(lambda answer: "period=today" in answer.url):
            pass
        expect(page.get_by_label("Request id")).to_have_value("typed")
        page.keyboard.press("Control+k")
        page.locator("#palette-input").fill(str(frames[0].request_id))
        page.keyboard.press("Enter")
        expect(page.get_by_text("How the cost came about")).to_be_visible()
        assert fits(page)
        assert complaints == []


def test_a_new_request_appears_by_itself(acme, live_server, chromium):
    with window(chromium, live_server.url) as (page, complaints):
        sign_in(page, acme.owner.email, acme.owner_password)
        page.goto("/usage/?period=today")
        settled(page)
        bars = page.evaluate("document.querySelector('#chart-data').textContent")
        prices = unit_prices()["tiny-lm"]
        fresh = settle(
            acme,
            at_ms=clock.now_ms(),
            tokens_out=1_000,
            cost_nano=1_000_000,
            reserved_nano=1_000_000,
            price_version_id=prices.version_id,
        )
        ingest_segment(message([fresh]))
        row = page.locator(f"#recent a[href='/requests/{fresh.request_id}/']")
        expect(row).to_be_visible(timeout=10_000)
        # The same answer redraws the chart, a moment after the row: seen to lag on a busy machine.
        wait_until(
            lambda: page.evaluate("document.querySelector('#chart-data').textContent") != bars,
            "the chart redrawn",
            10,
        )
        assert complaints == []


def test_the_palette_answers_to_the_keyboard(acme, live_server, chromium):
    with window(chromium, live_server.url) as (page, complaints):
        sign_in(page, acme.owner.email, acme.owner_password)
        page.keyboard.press("Control+k")
        expect(page.locator("#palette-input")).to_be_focused()
        page.keyboard.type("invoice")
        page.keyboard.press("Enter")
        page.wait_for_url("**/billing/")
        assert complaints == []


def test_the_theme_is_remembered_and_never_flashes(acme, live_server, chromium):
    with window(chromium, live_server.url, theme="light") as (page, complaints):
        sign_in(page, acme.owner.email, acme.owner_password)
        page.get_by_role("button", name="Light or dark").click()
        assert page.evaluate("document.documentElement.matches('.dark')")
        page.add_init_script(
            "addEventListener('DOMContentLoaded',"
            " () => { window.darkAtFirst = document.documentElement.matches('.dark') })"
        )
        page.goto("/usage/")
        assert page.evaluate("window.darkAtFirst")
        assert complaints == []


def test_on_a_phone_the_sidebar_is_a_drawer(acme, live_server, chromium):
    with window(chromium, live_server.url, size=PHONE) as (page, complaints):
        sign_in(page, acme.owner.email, acme.owner_password)
        billing = page.locator("#sidebar").get_by_role("link", name="Billing")
        expect(billing).not_to_be_in_viewport()
        page.get_by_role("button", name="Menu").click()
        billing.click()
        page.wait_for_url("**/billing/")
        expect(billing).not_to_be_in_viewport()
        assert complaints == []


def test_the_organisation_is_switched_from_the_sidebar(acme, live_server, chromium):
    with window(chromium, live_server.url) as (page, complaints):
        sign_in(page, acme.owner.email, acme.owner_password)
        page.locator("#organisations-trigger").click()
        page.get_by_role("menuitem", name="Beta").click()
        expect(page.get_by_text("Beta · all times")).to_be_visible()
        expect(page.get_by_text("No usage yet")).to_be_visible()
        assert complaints == []


def test_the_operator_signs_in_and_finds_the_console_in_order(acme, live_server, chromium):
    with window(chromium, live_server.url) as (page, complaints):
        page.goto("/console/")
        page.get_by_label("Email").fill("op@example.com")
        page.get_by_label("Password").fill("an operator's words")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("Requests per day, by model")).to_be_visible()
        page.get_by_role("link", name="Organisations").first.click()
        expect(page.get_by_role("link", name="Acme").first).to_be_visible()
        assert complaints == []
