"""A browser for the tests: Debian's Chromium, driven by Playwright, that forgives nothing.

Whatever a page writes to the console, every script that fails, every request that is refused by the page's own
Content-Security-Policy and every answer that is a fault of the server ends the test that looked at it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, ViewportSize, sync_playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
DESKTOP: Final[ViewportSize] = {"width": 1280, "height": 860}
PHONE: Final[ViewportSize] = {"width": 390, "height": 844}
SERIOUS: Final = frozenset({"serious", "critical"})


def find_chromium() -> str | None:
    """Where the browser is, if there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without windows. Without one the test is left out, unless it is required (.ci/run)."""
    found = find_chromium()
    if found is None:
        assert os.environ.get("TENUTO_TEST_BROWSER") != "required", "there is no Chromium on this machine"
        pytest.skip("no Chromium here: on Debian, apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


class Window:
    """A page in a browser at one service, and all that went wrong in it."""

    def __init__(self, browser: Browser, address: tuple[str, int], size: ViewportSize | None = None) -> None:
        self.url = f"http://{address[0]}:{address[1]}"
        self._context = browser.new_context(viewport=size or DESKTOP, locale="en-US", timezone_id="Europe/Berlin")
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(10_000)
        self.troubles: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("response", self._answered)

    def _said(self, message: ConsoleMessage) -> None:
        # Chromium tells of every answer above 399 in its own words; which of them are wrong is judged below.
        if message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource"):
            self.troubles.append(f"{message.type}: {message.text}")

    def _answered(self, response: Response) -> None:
        if response.status >= 500 or (response.status == 404 and "/static/" in response.url):
            self.troubles.append(f"{response.status} {response.url}")
        if response.url.endswith("/control/csp"):
            self.troubles.append("the page broke its own Content-Security-Policy")

    def close(self) -> None:
        """Leave, and say what went wrong."""
        troubles = list(self.troubles)
        self._context.close()
        assert not troubles, troubles

    def look(self, path: str) -> Page:
        """Go to a page of the service."""
        self.page.goto(self.url + path)
        return self.page

    def sign_in(self, email: str, password: str) -> Page:
        """Sign in by the form."""
        page = self.look("/control/sign-in")
        page.get_by_label("E-mail address").fill(email)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{self.url}/")
        return page

    def barriers(self) -> list[str]:
        """What axe-core finds on the page that keeps somebody out, seriously or worse."""
        found: list[dict[str, Any]] = Axe().run(self.page).response["violations"]
        return [
            f"{one['id']} ({one['impact']}): {one['help']}: {node['html'][:200]}"
            for one in found
            if one["impact"] in SERIOUS
            for node in one["nodes"][:3]
        ]

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        wider: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return wider

    def picture(self, path: Path) -> None:
        """Keep a picture of the whole page."""
        self.page.screenshot(path=path, full_page=True)
