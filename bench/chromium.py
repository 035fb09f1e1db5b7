"""Chromium as a live peer: what a PDF of a page takes in a browser that is open already."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.async_api import Page

_NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = "not here: apt install chromium"
#: Of the browser alone: the page is ours. Root's Chromium starts with this alone.
_NO_SANDBOX = "--no-sandbox"
_START_S = 60


def program() -> str | None:
    """The Chromium on the caller's PATH; None: there is none to measure."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


async def check() -> None:
    """Print a page once, if it is here. Raises SystemExit if it cannot."""
    chromium = program()
    if chromium is None:
        return
    with tempfile.TemporaryDirectory(prefix="isorun-bench-") as folder:
        page, made = Path(folder) / "page.html", Path(folder) / "page.pdf"
        page.write_text("<p>hello")
        argv = [chromium, "--headless", _NO_SANDBOX, "--disable-gpu", f"--user-data-dir={folder}/profile"]
        process = await asyncio.create_subprocess_exec(
            *argv,
            f"--print-to-pdf={made}",
            page.as_uri(),
            env={"PATH": "/usr/bin:/bin", "HOME": folder},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, errors = await asyncio.wait_for(process.communicate(), _START_S)
        except TimeoutError:
            process.kill()
            _, errors = await process.communicate()
        if process.returncode != 0 or not made.exists():
            raise SystemExit(f"a peer failed: {chromium}: {errors.decode(errors='replace')[-500:]}")


async def pdfs(html: str, count: int) -> tuple[list[float], list[float], bytes]:
    """Seconds of *count* PDFs of *html*, each in a new page, and in one page that is used again; the last of them.

    One after the other; the first of each is not counted. Needs a `program`.
    """
    from playwright.async_api import async_playwright  # here: its objects would be in the heap of what is timed before

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program(), args=[_NO_SANDBOX])
        try:

            async def once(page: Page) -> bytes:
                await page.set_content(html)
                return await page.pdf(format="A4", print_background=True)

            async def in_a_new_page() -> bytes:
                async with await browser.new_page() as page:
                    return await once(page)

            new, _ = await _timed(in_a_new_page, count)
            page = await browser.new_page()
            again, made = await _timed(lambda: once(page), count)
        finally:
            await browser.close()
    return new, again, made


async def _timed(once: Callable[[], Awaitable[bytes]], count: int) -> tuple[list[float], bytes]:
    seconds = []
    for _ in range(count + 1):
        began = time.perf_counter()
        made = await once()
        seconds.append(time.perf_counter() - began)
    return seconds[1:], made
