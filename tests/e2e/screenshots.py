"""Pictures of a running stack's portal, for the README and for looking at.

`python -m tests.e2e.screenshots --stack var/stack.json --out DIR`
"""

import argparse
import json
from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.e2e.browser import DESKTOP, PHONE, Theme, browser, settled, sign_in, window

LOOKS: dict[str, tuple[Theme, tuple[int, int]]] = {
    "light": ("light", DESKTOP),
    "dark": ("dark", DESKTOP),
    "phone": ("light", PHONE),
}
PAGES = {
    "overview": "/",
    "usage": "/usage/?period=30d&metric=requests",
    "keys": "/keys/",
    "limits": "/limits/",
    "billing": "/billing/",
}


def take(page: Page, out: Path, name: str) -> None:
    """Two pictures, once the page has settled: what a window shows at first, and all of it."""
    settled(page)
    page.screenshot(path=out / f"{name}-top.png")
    size = page.viewport_size or {"width": DESKTOP[0], "height": DESKTOP[1]}
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": max(size["height"], height)})
    settled(page)
    page.screenshot(path=out / f"{name}.png")
    page.set_viewport_size(size)


def portal(started: Browser, url: str, login: dict[str, str], out: Path) -> list[str]:
    """Every page in every look; what their consoles complained about."""
    complaints: list[str] = []
    for look, (theme, size) in LOOKS.items():
        with window(started, url, theme=theme, size=size) as (page, heard):
            page.goto("/accounts/login/")
            take(page, out, f"sign-in-{look}")
            sign_in(page, login["email"], login["password"])
            for name, path in PAGES.items():
                page.goto(path)
                take(page, out, f"{name}-{look}")
            page.goto("/usage/")
            page.locator("#recent tbody a").first.click()
            take(page, out, f"request-{look}")
            page.goto("/billing/")
            invoices = page.locator("td a[href*='/billing/']")
            if invoices.count():
                invoices.first.click()
                take(page, out, f"invoice-{look}")
            complaints += heard
    return complaints


def console(started: Browser, url: str, login: dict[str, str], out: Path) -> None:
    """The operator's dashboard."""
    for theme in ("light", "dark"):
        with window(started, url, theme="dark" if theme == "dark" else "light") as (page, _):
            page.goto("/console/")
            page.get_by_label("Email").fill(login["email"])
            page.get_by_label("Password").fill(login["password"])
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url("**/console/**")
            page.wait_for_load_state("networkidle")
            page.screenshot(path=out / f"console-{theme}.png", full_page=True)


def main() -> int:
    """Exit status 1 when a page's console complained."""
    parser = argparse.ArgumentParser(prog="tests.e2e.screenshots", description=__doc__)
    parser.add_argument("--stack", type=Path, default=Path("var/stack.json"))
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    stack = json.loads(asked.stack.read_text())
    asked.out.mkdir(parents=True, exist_ok=True)
    with browser() as started:
        complaints = portal(started, stack["web"], stack["logins"]["owner"], asked.out)
        console(started, stack["web"], stack["logins"]["operator"], asked.out)
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    raise SystemExit(main())
