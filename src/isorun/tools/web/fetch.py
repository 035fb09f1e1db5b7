"""Fetches pages by URL: each becomes a row, also if it fails.

At most ten URLs, five at once. Bytes, redirects and time of each are bounded; an address that is not
public is refused before anything is sent (`rules`, `transport`). Text is extracted from one page after the other, in a
thread, because the parsers hold the interpreter. Such a thread cannot be ended: see `extract`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from isorun.tools.web.body import ACCEPTED, BadAnswer, TooLarge, read_body
from isorun.tools.web.extract import NoText, Page, has_text, media_type, page_of, sniffed
from isorun.tools.web.rows import Format, PageRow, Status
from isorun.tools.web.rules import MAX_REDIRECTS, MAX_URL, Refused, Rules, checked_url

if TYPE_CHECKING:
    import httpx2

MAX_URLS = 10
AT_ONCE = 5
MAX_BYTES = 10 << 20  # of one answer, raw and after decompression
URL_S = 20.0  # for one URL: name, connection, redirects and body together
MOST_CHARS = 200_000  # of one page's text; ten of them are still a small answer
_BLOCKED = frozenset({401, 403, 407, 429, 451})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; isorun)",
    "Accept": "text/html,application/pdf,text/markdown,text/plain,application/json;q=0.9,*/*;q=0.5",
    "Accept-Language": "en,*;q=0.5",
    "Accept-Encoding": ACCEPTED,
}
_EXTENSIONS = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "application/pdf": ".pdf",
    "application/json": ".json",
    "text/markdown": ".md",
    "text/plain": ".txt",
    "text/csv": ".csv",
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "application/zip": ".zip",
}

#: Opens a path below out/ for writing bytes; `ToolContext.open_output` does.
Save = Callable[[str], IO[bytes]]


@dataclass(frozen=True, slots=True)
class _Answer:
    """The answer after all redirects. Without `body` nothing of it was read."""

    url: str
    status: int
    mime: str = ""
    charset: str | None = None
    body: bytes | None = None
    is_challenge: bool = False


class _Failed(Exception):
    """A URL has failed: status and detail of its row."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Options:
    rules: Rules
    form: Format
    max_chars: int
    save: Save | None
    until: float  # monotonic


async def fetch(
    urls: str | Sequence[str],
    *,
    max_chars: int = 20_000,
    format: Format = "markdown",
    objective: str = "",
    save: Save | None = None,
    until: float | None = None,
    rules: Rules | None = None,
) -> list[PageRow]:
    """One row for each of *urls*, in their order, its `sid` None.

    A URL that fails is a row with another status than `success` and a sentence in `detail`. *save* opens a file
    for the bytes. *until* is a value of `time.monotonic()`: URLs that are still loading then are `timeout`.
    *objective* says what the caller looks for; it is not used yet. Raises `ValueError` for wrong arguments.
    """
    wanted_urls = _checked(urls, max_chars, format)
    # Some of the time is left to extract the text of pages that did arrive.
    latest = time.monotonic() + 3 * URL_S if until is None else until - min(2.0, max(0.0, until - time.monotonic()) / 4)
    options = _Options(rules or Rules(), format, max_chars, save, latest)
    slots, parser = asyncio.Semaphore(AT_ONCE), asyncio.Lock()

    async def one(url: str) -> PageRow:
        async with slots:
            return await _row(url, options, parser)

    return list(await asyncio.gather(*map(one, wanted_urls)))


def _checked(urls: str | Sequence[str], max_chars: int, form: str) -> list[str]:
    found = [urls] if isinstance(urls, str) else list(urls)
    if not 1 <= len(found) <= MAX_URLS:
        raise ValueError(f"urls must hold 1 to {MAX_URLS} URLs, got {len(found)}: call again with the others")
    if not all(isinstance(url, str) and url.strip() for url in found):
        raise ValueError("urls must be texts that are not blank")
    if isinstance(max_chars, bool) or not isinstance(max_chars, int) or not 1 <= max_chars <= MOST_CHARS:
        raise ValueError(f"max_chars must be a whole number from 1 to {MOST_CHARS}, got {max_chars!r}")
    if form not in ("markdown", "text"):
        raise ValueError(f"format must be 'markdown' or 'text', got {form!r}")
    return [url.strip() for url in found]


async def _row(url: str, options: _Options, parser: asyncio.Lock) -> PageRow:
    row = _empty(url)
    try:
        answer = await _answer(url, options, row)
        _judge(answer)
        async with parser:
            if time.monotonic() > options.until:  # go on, and the process is killed and every row is lost
                raise _Failed("timeout", "it was loaded, and no time was left to take its text")
            await asyncio.to_thread(_fill, row, answer, options)
    except _Failed as failed:
        row["status"], row["detail"] = failed.status, str(failed)
    return row


def _empty(url: str) -> PageRow:
    return PageRow(
        sid=None,
        url=url[:MAX_URL],
        final_url=url[:MAX_URL],
        status="success",
        http_status=None,
        title="",
        text="",
        published=None,
        mime="",
        bytes=0,
        truncated=False,
        path=None,
        detail="",
    )


async def _answer(url: str, options: _Options, row: PageRow) -> _Answer:
    """The answer after all redirects. Raises `_Failed`; *row* gets what is known so far."""
    import httpx2

    seconds = min(URL_S, options.until - time.monotonic())
    try:
        async with asyncio.timeout(seconds):
            return await _followed(url, options, row)
    except (TimeoutError, httpx2.TimeoutException):
        raise _Failed("timeout", f"no complete answer within {max(seconds, 0):.0f} s") from None
    except Refused as refused:
        raise _Failed("not_public", str(refused)) from None
    except TooLarge:
        raise _Failed("too_large", f"the answer has more than {MAX_BYTES} bytes") from None
    except BadAnswer as bad:
        raise _Failed("http_error", str(bad)) from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        # The text comes from the library and the system: no secret is in it.
        raise _Failed("http_error", f"{type(error).__name__}: {str(error)[:300]}") from None


async def _followed(url: str, options: _Options, row: PageRow) -> _Answer:
    from isorun.tools.web.transport import guarded_client

    target = checked_url(url, options.rules)
    async with guarded_client(options.rules) as client:
        for _ in range(MAX_REDIRECTS + 1):
            row["final_url"] = str(target)
            async with client.stream("GET", target, headers=_HEADERS) as response:
                row["http_status"] = response.status_code
                place = response.headers.get("location")
                if response.status_code not in _REDIRECTS or place is None:
                    return await _read(response, options)
            target = checked_url(place, options.rules, base=target)
    raise _Failed("too_many_redirects", f"more than {MAX_REDIRECTS} redirects")


async def _read(response: httpx2.Response, options: _Options) -> _Answer:
    mime, charset = media_type(response.headers.get("content-type", ""))
    url, status = str(response.url), response.status_code
    is_wanted = status < 300 and (has_text(mime) or options.save is not None)
    body = await read_body(response, MAX_BYTES) if is_wanted else None
    challenge = response.headers.get("cf-mitigated", "") == "challenge"
    return _Answer(url, status, sniffed(body, mime) if body else mime, charset, body, challenge)


def _judge(answer: _Answer) -> None:
    """Raise `_Failed` for an answer without a page."""
    if answer.status in _BLOCKED or answer.is_challenge:
        raise _Failed("blocked", f"the server answered {answer.status}: it does not let this request in")
    if not 200 <= answer.status < 300:
        raise _Failed("http_error", f"the server answered {answer.status}")
    if answer.body is None:
        raise _Failed(
            "unsupported_type", f"{answer.mime[:80]} is not a type that text can be taken from; save=True keeps it"
        )


def _fill(row: PageRow, answer: _Answer, options: _Options) -> None:
    """Put text and file of *answer* into *row*. Runs in a thread."""
    body = answer.body or b""
    row["mime"], row["bytes"] = answer.mime[:80], len(body)
    details = []
    if options.save is not None:
        details.append(_saved(row, answer, options.save))
    try:
        page = page_of(
            body, answer.mime, answer.charset, url=answer.url, form=options.form, max_chars=options.max_chars
        )
    except NoText as none:
        row["status"], page = "unsupported_type", Page(detail=str(none))
    row["title"], row["text"], row["published"] = page.title, page.text, page.published
    row["truncated"] = page.cut
    row["detail"] = "; ".join(filter(None, (page.detail, *details)))


def _saved(row: PageRow, answer: _Answer, save: Save) -> str:
    """Save the bytes, and return what went wrong: a page that cannot be saved still has its text."""
    from isorun.supervisor.tool import ToolError

    path = saved_name(answer.url, answer.mime)
    try:
        with save(path) as file:
            file.write(answer.body or b"")
    except (OSError, ToolError) as error:
        return f"not saved: {error}"
    row["path"] = path
    return ""


def saved_name(url: str, mime: str) -> str:
    """The path below out/ for the bytes of *url*: the same for the same URL, and never outside `web/`."""
    host = re.sub(r"[^a-z0-9.-]", "-", url.partition("://")[2].partition("/")[0].lower()).strip(".-")[:80]
    digest = hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:10]
    return f"web/{host or 'page'}-{digest}{_EXTENSIONS.get(mime, '.txt' if mime.startswith('text/') else '.bin')}"
