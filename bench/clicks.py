"""From a click in Chromium to the first that a program printed, on the page of a service; and where that time goes.

The browser and the service have one clock, so each part is a difference of two of its times. A program's own time is
known to the millisecond, as events have it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.chromium import program
from bench.figures import Figure, shown, vars_of
from bench.measure import Spread

if TYPE_CHECKING:
    from playwright.async_api import Page

MOST_MS = 100
_ON_ONE_PAGE = 20  # cards; then a new conversation begins
_MOST = 100  # clicks
_NO_SANDBOX = "--no-sandbox"  # of the browser alone: the page is ours. Root's Chromium starts with this alone.
_CODE = "print('seen', flush=True)\nimport time\ntime.sleep(0.3)\n"
_ENDED = '.card[data-run]:last-of-type[data-status="ok"]:not(:has(.live))'
_SEEN = "html[data-seen]"
#: When each thing happened, in milliseconds since 1970. The page does not know that it is watched.
_WATCH = """
const now = () => performance.timeOrigin + performance.now();
addEventListener("click", (event) => {
  performance.clearResourceTimings();
  delete document.documentElement.dataset.seen;
  globalThis.seen = { click: performance.timeOrigin + event.timeStamp };
}, true);
globalThis.EventSource = class extends EventSource {
  constructor(...given) {
    super(...given);
    this.addEventListener("output", (event) => {
      seen.told ??= now();
      seen.printed ??= Date.parse(JSON.parse(event.data).at);
    });
  }
};
new MutationObserver(() => {
  if (!globalThis.seen || seen.shown || ![...document.querySelectorAll(".live")].some((out) => out.textContent)) return;
  seen.shown = now();
  const post = performance.getEntriesByType("resource").find((one) => /\\/runs$/.test(one.name));
  seen.sent = performance.timeOrigin + post.requestStart;
  seen.accepted = performance.timeOrigin + post.responseEnd;
  requestAnimationFrame(() => setTimeout(() => {
    seen.painted = now();
    document.documentElement.dataset.seen = "yes";
  }));
}).observe(document, { childList: true, subtree: true, characterData: true });
"""
#: The parts, in the order in which they happen. The answer comes while the program starts already.
_PARTS = {
    "the request is sent": ("click", "sent"),
    "the program has printed": ("sent", "printed"),
    "the event is stored, and told to the page": ("printed", "told"),
    "the text is in the page": ("told", "shown"),
    "it is painted": ("shown", "painted"),
    "beside them: the request is answered": ("sent", "accepted"),
}


async def figure(name: str, count: int, port: int, key: str) -> Figure | None:
    """Of clicks on Run in an open conversation of the service at *port*; None where there is no Chromium."""
    if program() is None:
        return None
    from playwright.async_api import async_playwright  # here: its objects would be in the heap of what is timed before

    url, times = f"http://127.0.0.1:{port}", list[dict[str, float]]()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program(), args=[_NO_SANDBOX])
        try:
            context = await browser.new_context(viewport={"width": 1280, "height": 860})
            await context.add_init_script(_WATCH)
            page = await context.new_page()
            signed_in = await page.request.post(f"{url}/login", form={"key": key}, headers={"Origin": url})
            if not signed_in.ok:
                raise SystemExit(f"the page lets nobody in: {signed_in.status}")
            for number in range(min(count, _MOST)):
                if number % _ON_ONE_PAGE == 0:
                    await _opened(page, url)
                times.append(await _clicked(page))
        finally:
            await browser.close()
    return _told(name, times)


async def _opened(page: Page, url: str) -> None:
    """A conversation with one run, so that its stream is open and every module is loaded."""
    await page.goto(url)
    await page.click("#tab-code")
    await page.fill("#code", _CODE)
    await _clicked(page)


async def _clicked(page: Page) -> dict[str, float]:
    await page.click("#program .send")
    await page.wait_for_selector(_SEEN)
    seen: dict[str, Any] = await page.evaluate("seen")
    await page.wait_for_selector(_ENDED)
    return {moment: float(time) for moment, time in seen.items()}


def _told(name: str, times: list[dict[str, float]]) -> Figure:
    def spread(begin: str, end: str) -> Spread:
        return Spread.of([(one[end] - one[begin]) / 1e3 for one in times])

    whole = spread("click", "shown")
    parts = {part: spread(*ends) for part, ends in _PARTS.items()}
    return Figure(
        name=f"a click on Run in Chromium until the page has what the program printed, {name}",
        value=f"{shown(whole)}; {'; '.join(f'{part} {one.p50:+.0f} ms' for part, one in parts.items())}",
        gate=f"p50 ≤ {MOST_MS} ms",
        ok=whole.p50 <= MOST_MS,
        raw={"ms": vars_of(whole), **{part: vars_of(one) for part, one in parts.items()}},
    )
