"""One Chromium, loopback only, and a page that remembers every complaint of its console."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from playwright.sync_api import Browser, Page, Request, sync_playwright

Theme = Literal["light", "dark"]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = (1440, 900)
PHONE = (390, 844)


def chromium() -> str | None:
    """Where the machine's own Chromium is; Playwright's download is not used."""
    return next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A fresh headless browser with a fresh profile."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), headless=True, args=FLAGS)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def window(
    started: Browser, base_url: str, *, theme: Theme = "light", size: tuple[int, int] = DESKTOP
) -> Iterator[tuple[Page, list[str]]]:
    """A page of a new profile, and the list its console errors and failed requests go to."""
    context = started.new_context(
        base_url=base_url,
        color_scheme=theme,
        viewport={"width": size[0], "height": size[1]},
        device_scale_factor=2 if size == PHONE else 1,
        locale="en-GB",
        timezone_id="UTC",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.set_default_timeout(15_000)
    complaints: list[str] = []
    page.on(
        "console",
        lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: failed(complaints, request))
    try:
        yield page, complaints
    finally:
        context.close()


def failed(complaints: list[str], request: Request) -> None:
    """Remember it, unless the page was left before it had arrived: an icon, on a busy machine."""
    if request.failure != "net::ERR_ABORTED":
        complaints.append(f"{request.url} {request.failure}")


def sign_in(page: Page, email: str, password: str) -> None:
    """Through the sign-in page, as a person would."""
    page.goto("/accounts/login/")
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/accounts/" not in url)
    page.wait_for_load_state("load")  # deferred scripts have run: keys and buttons answer


def settled(page: Page) -> None:
    """Fonts loaded, charts drawn."""
    page.wait_for_load_state("load")
    page.evaluate("document.fonts.ready.then(() => true)")
    page.wait_for_function(
        "[...document.querySelectorAll('[data-chart] canvas')].every((c) => Chart.getChart(c))"
    )
