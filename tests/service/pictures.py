"""`python -m tests.service.pictures FOLDER`: the pictures of the page for the documents, taken from a real one."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.service.browsing import CHROMIUM, OPTIONS, Looking
from tests.service.conftest import Served, end_service, start_service

WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 360, "height": 740}
PROGRAM = '''"""Counts words, and forgets half of what it promised."""
words = "the quick brown fox jumps over the lazy dog the end".split()
print(len(words), "words")
(OUT / "words.csv").write_text("word,count\\n" + "".join(f"{w},{words.count(w)}\\n" for w in sorted(set(words))))
'''


def first(look: Looking) -> None:
    """What a newcomer sees."""
    look.go()


def chart(look: Looking) -> None:
    """A card that ended well, and its picture beside it."""
    look.go()
    look.page.click('[data-start="chart"]')
    card = look.card("ok")
    look.page.locator(f"{card} a.file", has_text="chart.png").click()
    look.page.wait_for_selector("#files .view img")


def report(look: Looking) -> None:
    """Tool calls, and a PDF."""
    look.go()
    look.page.click('[data-start="report"]')
    card = look.card("ok")
    look.page.locator(f"{card} a.file", has_text="report.png").click()
    look.page.wait_for_selector("#files .view img")


def promise(look: Looking) -> None:
    """A promise that was broken, with what to do."""
    look.go()
    look.page.click('.starters [data-say="4"]')
    look.card("contract_failed")


def network(look: Looking) -> None:
    """A program that tries to get out."""
    look.go()
    look.page.click('.starters [data-say="13"]')
    look.card("failed")


def live(look: Looking) -> None:
    """A program that runs."""
    look.go()
    look.page.fill("#text", "8")
    look.page.keyboard.press("Enter")
    look.page.wait_for_selector(".live:not(:empty)")


def code(look: Looking) -> None:
    """The editor, with a promise and the tools."""
    look.go()
    look.page.click("#tab-code")
    look.page.fill("#code", PROGRAM)
    look.page.click("#promises summary")
    look.page.click("[data-act=promise]")
    look.page.fill("#promises [name=filename]", "words.csv")
    look.page.fill("#promises [name=description]", "each word and its count")


def ask(look: Looking) -> None:
    """The conversation with the script: a table, a chart, a report."""
    table = {"name": "cities.csv", "mimeType": "text/csv", "buffer": b"city;people\nOslo;1410\nBergen;565\n"}
    look.go()
    look.page.set_input_files("#upload", files=[table])
    look.page.wait_for_selector("#given li")
    look.page.fill("#text", "Analyse the table, draw a chart and write report.pdf")
    look.page.keyboard.press("Enter")
    look.page.wait_for_selector("body.busy")
    look.page.wait_for_selector("body:not(.busy)")
    look.page.evaluate("document.querySelector('#scroll').scrollTop = 0")
    chart = look.page.locator("a.file", has_text="chart.png")
    chart.click()
    look.page.wait_for_selector("#files .view img")


def runs(look: Looking) -> None:
    """What ran, how it ended, what it cost."""
    look.go("/runs")


def walls(look: Looking) -> None:
    """The walls as they were read back."""
    look.go("/runs")
    look.page.click("#walls-open")


#: What is taken: the window, its colours, how many points of the picture are one of the window, and the views.
TAKEN = (
    (WIDE, "light", 1, "wide", (first, chart, report, promise, live, code, ask, runs)),
    (NARROW, "dark", 2, "narrow", (network, walls)),
)


def take(served: Served, folder: Path) -> None:
    """Every picture of `TAKEN`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        with browser.new_context() as context:
            context.new_page().goto(served.link)
            cookie = context.storage_state()
        for size, scheme, scale, about, views in TAKEN:
            window = {"viewport": size, "color_scheme": scheme, "device_scale_factor": scale}
            for view in views:
                with browser.new_context(storage_state=cookie, **window) as context:
                    look = Looking(context.new_page(), served.url)
                    view(look)
                    shoot(look.page, folder / f"page-{view.__name__}-{about}.png")
        browser.close()


def shoot(page: Page, path: Path) -> None:
    """The window, once its pictures are there."""
    page.wait_for_load_state("networkidle") if "/c/" not in page.url else page.wait_for_timeout(500)
    page.screenshot(path=path, animations="disabled")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as data:
        started = start_service(Path(data))
        try:
            Path(sys.argv[1]).mkdir(exist_ok=True)
            take(started, Path(sys.argv[1]))
        finally:
            end_service(started)
