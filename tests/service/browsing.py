"""A browser that looks at the page of a service."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import Require

CHROMIUM = shutil.which("chromium")
OPTIONS = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own needs another user than root
PATIENCE_MS = 60_000  # for a sign on the page, on a machine that is busy


@contextmanager
def browser(require: Require) -> Iterator[Browser]:
    """Debian's Chromium."""
    if CHROMIUM is None:
        require("chromium", "there is no chromium; apt-get install chromium")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield made
        made.close()


@dataclass
class Looking:
    """A page, all that it asked of the network, and what it complained of."""

    page: Page
    base: str
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def go(self, path: str = "/") -> None:
        """Open a page of the service, and wait until its scripts have begun."""
        self.page.goto(f"{self.base}{path}")
        self.page.wait_for_selector("html.scripted")

    def run(self, code: str) -> None:
        """Start a program on the Code tab of the conversation that is open."""
        self.page.click("#tab-code")
        self.page.fill("#code", code)
        self.page.click("#program .send")

    def card(self, status: str = "") -> str:
        """The address within the page of the last card, once its program has begun, or has ended as *status*."""
        this = ".card[data-run]:last-of-type"
        # The service renders an ended card; before that, the live part is there.
        end = f'[data-status="{status}"]:not(:has(.live))' if status else ""
        self.page.wait_for_selector(f"{this}{end}")
        return this

    def output(self, card: str) -> str:
        """What the card shows as printed."""
        return "".join(self.page.locator(f"{card} .out").all_text_contents())
