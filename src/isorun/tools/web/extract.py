"""Text out of what a server sent: HTML, PDF, JSON, Markdown and other text.

Theory of operation. The parsers are C and Python code that hostile input holds for minutes: 1 MB of `<div>`,
2 MB of attributes, a table of 40,000 rows. So a parser gets at most `MAX_PARSED` bytes of HTML with at most `MAX_TAGS`
tags, none of them longer than `MAX_TAG`; beyond that the text is taken by splitting at the tags, in one pass. Even so
bounded a page may take seconds, and a thread cannot be ended: the caller must be a process that is killed at its
deadline. Must not: open anything, or raise for what a page holds.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from isorun.core.text import unescaped
from isorun.tools.web.charset import decoded
from isorun.tools.web.rows import Format

MAX_PARSED = 2 << 20  # bytes of HTML that are looked at; the rest of a longer page is left out
MAX_HEAD = 32 << 10  # characters in which a page says its title and date
MAX_TAGS = 30_000  # what the parser gets; a page of 1 MB has about as many
MAX_TAG = 4096  # characters of one tag; longer ones hold an image, or attributes by the hundred
MAX_PAGES = 300  # of a PDF

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
PDF_TYPE = "application/pdf"
_TEXT_TYPES = frozenset(
    {
        *("application/json", "application/xml", "application/javascript", "application/ecmascript"),
        *("application/x-ndjson", "application/yaml", "application/x-yaml", "application/toml", "application/sql"),
        *("application/x-sh", "application/rtf", "application/graphql"),
    }
)
#: Types that say nothing about the bytes: `sniffed` looks at those.
UNKNOWN_TYPES = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-unknown"})
_LONG_TAG = re.compile(rf"<[^<>]{{{MAX_TAG},}}>?")
_TAG = re.compile(r"(<[^<>]*>?)")
_TITLE = re.compile(r"<title[^<>]{0,200}>([^<]{0,500})", re.IGNORECASE)
_BLOCK = re.compile(r"</?(p|div|br|li|tr|h[1-6]|table|ul|ol|section|article|pre|blockquote)\b", re.IGNORECASE)
_HIDDEN = re.compile(r"<(script|style|template|noscript|svg)\b", re.IGNORECASE)


class NoText(Exception):
    """No text can be taken from this. The text of the exception is for the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What was taken. `cut` says that some of the text is missing, `detail` why; both also if `text` is empty."""

    title: str = ""
    text: str = ""
    published: str | None = None
    cut: bool = False
    detail: str = ""


def media_type(header: str) -> tuple[str, str | None]:
    """Type and charset that a Content-Type header names: `("text/html", "utf-8")`; `("", None)` without one."""
    mime, *parameters = header[:500].split(";")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return mime.strip().lower(), value.strip()
    return mime.strip().lower(), None


def has_text(mime: str) -> bool:
    """Whether text may be taken from this type; also of a type that says nothing."""
    return (
        mime in HTML_TYPES
        or mime in UNKNOWN_TYPES
        or mime == PDF_TYPE
        or mime in _TEXT_TYPES
        or mime.startswith("text/")
        or mime.endswith(("+json", "+xml", "+yaml"))
    ) and mime != "image/svg+xml"


def sniffed(data: bytes, mime: str) -> str:
    """The type of *data*: *mime*, unless the bytes show that it cannot be."""
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"%pdf-" in data[:1024].lower():
        return PDF_TYPE
    if mime not in UNKNOWN_TYPES:
        return mime
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "text/html"
    return "application/octet-stream" if b"\0" in data[:4096] else "text/plain"


def page_of(data: bytes, mime: str, charset: str | None, *, url: str, form: Format, max_chars: int) -> Page:
    """The text of *data*, at most *max_chars* of it. Raises `NoText`."""
    if mime == PDF_TYPE:
        page = _pdf(data, max_chars)
    elif mime in HTML_TYPES:
        page = _html(decoded(data[:MAX_PARSED], charset, is_html=True), url, form, cut=len(data) > MAX_PARSED)
    elif has_text(mime) and mime not in UNKNOWN_TYPES:
        page = Page(text=decoded(data, charset))
    else:
        raise NoText(f"{mime or 'this'} is not a type that text can be taken from")
    text = clean(page.text).strip()
    return Page(
        title=" ".join(clean(page.title).split())[:300],
        text=text[:max_chars],
        published=page.published and clean(page.published)[:40],
        cut=page.cut or len(text) > max_chars,
        detail=page.detail or ("" if text else "no text was found"),
    )


def clean(text: str) -> str:
    """*text* without lone surrogates and control characters, which no JSON, file or terminal should get."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]", " ", text)


def _html(text: str, url: str, form: Format, *, cut: bool) -> Page:
    text = _LONG_TAG.sub(" ", text)
    detail = f"only the first {MAX_PARSED} bytes of the page were read" if cut else ""
    if text.count("<") > MAX_TAGS:
        return Page(
            title=_title(text),
            text=split_text(text),
            cut=cut,
            detail=detail or f"the page has more than {MAX_TAGS} tags: its text is given without structure",
        )
    taken = _taken(text, url, form)
    title, published = _about(text[:MAX_HEAD], url)
    return Page(
        title=title or _title(text), text=taken or split_text(text), published=published, cut=cut, detail=detail
    )


def _taken(text: str, url: str, form: Format) -> str:
    """The article of the page; "" if none is found."""
    import trafilatura

    quiet("trafilatura", "htmldate")
    as_markdown = form == "markdown"
    try:
        found = trafilatura.bare_extraction(
            text,
            url=url,
            include_comments=False,
            include_formatting=as_markdown,
            include_links=as_markdown,
            include_tables=True,
        )
    except Exception:  # noqa: BLE001 - a parser may fail in any way on what a stranger wrote; the tags are split instead
        return ""
    return str(getattr(found, "text", None) or "").strip()


def _about(text: str, url: str) -> tuple[str, str | None]:
    """Title and date that the beginning of a page gives; looking for a date in all of it takes as long as the text."""
    import trafilatura

    try:
        found = trafilatura.extract_metadata(text, default_url=url)
    except Exception:  # noqa: BLE001 - as above
        return "", None
    return str(found.title or ""), str(found.date) if found.date else None


def _title(text: str) -> str:
    found = _TITLE.search(text[: 1 << 16])
    return unescaped(found[1]) if found else ""


def split_text(text: str) -> str:
    """The text between the tags of *text*, in time proportional to its length. Scripts and styles are left out."""
    parts: list[str] = []
    hidden = ""
    for part in _TAG.split(text):
        if not part.startswith("<"):
            if not hidden:
                parts.append(part)
        elif hidden:
            hidden = "" if part.lower().startswith(f"</{hidden}") else hidden
        elif found := _HIDDEN.match(part):
            hidden = found[1].lower()
        elif _BLOCK.match(part):
            parts.append("\n")
    lines = (" ".join(line.split()) for line in unescaped("".join(parts)).splitlines())
    return "\n".join(line for line in lines if line)


def _pdf(data: bytes, max_chars: int) -> Page:
    import io

    import pypdf

    quiet("pypdf")
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise NoText("the PDF is encrypted")
        pages = len(reader.pages)
        texts: list[str] = []
        for page in reader.pages[: min(pages, MAX_PAGES)]:
            texts.append(page.extract_text())
            if sum(map(len, texts)) > max_chars:
                break
        about = reader.metadata
        title, made = (about.title, about.creation_date) if about else (None, None)
    except NoText:
        raise
    except Exception as error:  # noqa: BLE001 - the parser may fail in any way on what a stranger wrote
        raise NoText(f"the PDF cannot be read: {type(error).__name__}") from None
    return Page(
        title=str(title or ""),
        text="\n\n".join(texts),
        published=made.date().isoformat() if made else None,
        cut=len(texts) < pages,
        detail=f"{len(texts)} of {pages} pages were read" if len(texts) < pages else "",
    )


def quiet(*libraries: str) -> None:
    """Give the libraries' loggers a handler: without one their warnings are printed to standard error."""
    for name in libraries:
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
