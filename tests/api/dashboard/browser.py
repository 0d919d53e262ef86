"""Debian's Chromium, driven by Playwright, on the dashboard."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.waiting import TIMEOUT_S

# It runs as root in CI, where its sandbox does not start; the network is none but this machine's.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # small in containers
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
# Its own 5 s are short where other tests run beside.
expect.set_options(timeout=1000 * TIMEOUT_S)
_AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Screen:
    """A tab on the dashboard of a server.

    Attributes:
        faults: what the browser reported: errors of scripts, and what the page's policy stopped.
    """

    def __init__(self, browser: Browser, url: str, width: int = 1280, theme: Any = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(1000 * TIMEOUT_S)
        self.url = url
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda said: self._note(said.type, said.text))

    def _note(self, kind: str, text: str) -> None:
        # The browser also reports each answer of status 4xx, which the page shows.
        if kind == "error" and not text.startswith("Failed to load resource"):
            self.faults.append(text)

    def log_in(self, token: str, where: str = "") -> None:
        """Open the link that logs in, then a page."""
        self.page.goto(f"{self.url}/dashboard/#token={token}")
        self.page.get_by_role("button", name="Log out").wait_for()
        self.go(where)

    def go(self, where: str, title: str = "") -> None:
        """Go to a page, e.g. ``models/m``, and wait until it shows its values."""
        self.page.evaluate("where => { location.hash = '#/' + where }", where)
        self.page.locator("h1", has_text=title or None).wait_for()
        self.page.locator("main:not(:has-text('Loading …'))").wait_for()

    @property
    def text(self) -> str:
        return self.page.locator("main").inner_text()

    def violations(self) -> list[str]:
        """Problems that axe finds for people who use a keyboard or a screen reader, or need contrast."""
        self.page.evaluate(_AXE)
        # A table's rows are alike, and axe takes 50 ms for one.
        found = self.page.evaluate("axe.run({exclude: ['tbody tr:nth-child(n+5)']}).then(result => result.violations)")
        return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found]

    @property
    def is_too_wide(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))
