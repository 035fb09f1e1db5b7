"""One list of a turn's sources: what its web tools found, each with the number that it is cited by.

`merge_sources` is pure: a row of a page that is known gets the known number, any other row keeps its own
number if that is free. A number that was given is never given to another page. The file that holds the list
is `sources_pool`'s. Must not: open anything, or trust a row more than its checks say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

_DEFAULT_PORTS = {"http": 80, "https": 443}
_TRACKING = re.compile(r"utm_[^=]*(=|\Z)", re.IGNORECASE)
MAX_SID = 1_000_000  # a merge gives no larger one to rows that have none larger
MAX_TITLE, MAX_TEXT, MAX_URL = 300, 4000, 2048  # characters that the pool keeps of a source


class Source(TypedDict):
    """One source of the pool. `published` is a date as the page gives it."""

    sid: int
    url: str
    title: str
    text: str
    published: str | None


def source_key(url: str) -> str:
    """What two URLs of one page have in common: no fragment, default port, `utm_` parameters or slash at the end.

    Scheme and host are lower case. A text that cannot be read as a URL is its own key. Never raises.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return url.strip()
    if not parts.scheme or not host:
        return url.strip()
    if ":" in host:
        host = f"[{host}]"
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    at = "" if port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{port}"
    query = "&".join(part for part in parts.query.split("&") if part and not _TRACKING.match(part))
    return urlunsplit((parts.scheme, f"{user}{host}{at}", parts.path.rstrip("/"), query, ""))


def merge_sources(
    pool: Sequence[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]]
) -> tuple[list[Source], dict[int, int]]:
    """*pool* with *rows* in it, and the number of each row's source by the number that the row had.

    The sources of *pool* keep number, URL and place. A row of the same page (`source_key`) makes title and text
    longer, never shorter. Any other row comes last, under its own number if that is free, else under the highest
    number + 1. Rows that share a number: the mapping tells the first one's. A row without a URL of
    at most `MAX_URL` characters is left out.
    """
    merged = [_source(source, source["sid"]) for source in pool]
    places = {source_key(source["url"]): place for place, source in reversed([*enumerate(merged)])}
    taken = {source["sid"] for source in merged}
    highest = max(taken, default=0)
    numbers: dict[int, int] = {}
    for row in rows:
        url, old = row.get("url"), number_of(row.get("sid"))
        if not isinstance(url, str) or not url.strip() or len(url) > MAX_URL:
            continue
        key = source_key(url)
        if key in places:
            place = places[key]
            merged[place] = _together(merged[place], _source(row, merged[place]["sid"]))
        else:
            sid = highest + 1 if old is None or old in taken else old
            place = places[key] = len(merged)
            merged.append(_source(row, sid))
            taken.add(sid)
            highest = max(highest, sid)
        if old is not None:
            numbers.setdefault(old, merged[place]["sid"])
    return merged, numbers


def number_of(value: object) -> int | None:
    """*value* as the number of a source, None if it can be none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_SID else None


def _source(row: Mapping[str, Any], sid: int) -> Source:
    published = row.get("published")
    return Source(
        sid=sid,
        url=row["url"],
        title=_text(row.get("title"), MAX_TITLE),
        text=_text(row.get("text"), MAX_TEXT),
        published=published[:40] if isinstance(published, str) and published else None,
    )


def _text(value: object, most: int) -> str:
    return value[:most] if isinstance(value, str) else ""


def _together(one: Source, other: Source) -> Source:
    """*one* with the longer title and text of both; of equally long ones the greater, whichever came first."""
    return Source(
        sid=one["sid"],
        url=one["url"],
        title=max(one["title"], other["title"], key=_rank),
        text=max(one["text"], other["text"], key=_rank),
        published=max(one["published"] or "", other["published"] or "", key=_rank) or None,
    )


def _rank(text: str) -> tuple[int, str]:
    return len(text), text


def checked_pool(value: object) -> list[Source] | None:
    """*value* as a pool, if it is one: a list of dicts, with numbers and URLs, no number twice; else None."""
    if not isinstance(value, list):
        return None
    found: list[Source] = []
    for row in value:
        if not isinstance(row, dict):
            return None
        sid, url = number_of(row.get("sid")), row.get("url")
        if sid is None or not isinstance(url, str) or not 0 < len(url) <= MAX_URL:
            return None
        if any(isinstance(text, str) and not text.isascii() and _is_torn(text) for text in row.values()):
            return None
        found.append(_source(row, sid))
    return found if len({source["sid"] for source in found}) == len(found) else None


def _is_torn(text: str) -> bool:
    """Whether *text* holds half of a character, which cannot be written as UTF-8."""
    return any("\ud800" <= character <= "\udfff" for character in text)
