"""Search: the operator's providers in their order, until one answers.

What a provider sent is checked here: a result is a row only if it has an http(s) URL, and its texts are cut and
cleaned. The URLs are not visited; `fetch` checks one when it is asked for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from isorun.core.text import is_visible, unescaped
from isorun.supervisor.tool import ToolError
from isorun.tools.web.config import WebConfig
from isorun.tools.web.extract import clean
from isorun.tools.web.providers import BY_NAME, ProviderContext, Query, Result
from isorun.tools.web.request import ProviderError
from isorun.tools.web.rows import Freshness, Safesearch, SearchRow
from isorun.tools.web.rules import MAX_URL, Rules

MAX_QUERIES = 5
MOST_RESULTS = 20
MAX_QUERY = 400  # characters; Brave's own limit, and the lowest
MAX_DOMAINS = 20
_TITLE, _TEXT = 300, 4000  # characters
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?")
_NONE = (
    "no search provider is set: the operator gives ISORUN_SEARXNG_URL, BRAVE_API_KEY, TAVILY_API_KEY "
    "or ISORUN_SEARCH_FIXTURE"
)


async def search(
    query: str | Sequence[str],
    *,
    config: WebConfig,
    n: int = 8,
    freshness: Freshness | None = None,
    country: str | None = None,
    safesearch: Safesearch = "moderate",
    include_domains: Sequence[str] = (),
    exclude_domains: Sequence[str] = (),
    objective: str = "",
    until: float | None = None,
    rules: Rules | None = None,
) -> list[SearchRow]:
    """At most *n* results for each query, in the provider's order, with `sid` counted from 1.

    *include_domains* and *exclude_domains* hold for every provider, subdomains included. *objective* is not used yet.
    Raises `ValueError` for wrong arguments, and `ToolError` naming each provider and its remedy if none answered.
    """
    texts = [query] if isinstance(query, str) else list(query)
    if not 1 <= len(texts) <= MAX_QUERIES:
        raise ValueError(f"query must be 1 to {MAX_QUERIES} texts, got {len(texts)}")
    checked = [
        _query(text, n, freshness, country, safesearch, tuple(include_domains), tuple(exclude_domains))
        for text in texts
    ]
    if not config.providers:
        raise ToolError(_NONE)
    latest = time.monotonic() + 60 if until is None else until - 0.5
    context = ProviderContext(config=config, rules=rules or Rules(proxy=config.proxy), until=latest)
    failures: dict[str, str] = {}
    rows: list[SearchRow] = []
    for one in checked:
        rows += await _answered(one, context, failures)
    return [{**row, "sid": number} for number, row in enumerate(rows, 1)]


async def _answered(query: Query, context: ProviderContext, failures: dict[str, str]) -> list[SearchRow]:
    """The rows of the first provider that answers. A provider in *failures* is not asked again."""
    for name in context.config.providers:
        if name in failures:
            continue
        try:
            found = await BY_NAME[name](query, context)
        except ProviderError as error:
            failures[name] = str(error)
        else:
            return rows_of(found, query, name)
    raise ToolError("; ".join(f"{name}: {why}" for name, why in failures.items()))


def _query(
    text: str,
    n: int,
    freshness: Freshness | None,
    country: str | None,
    safesearch: Safesearch,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
) -> Query:
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_QUERY:
        raise ValueError(f"a query must have 1 to {MAX_QUERY} characters")
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MOST_RESULTS:
        raise ValueError(f"n must be a whole number from 1 to {MOST_RESULTS}, got {n!r}")
    if freshness not in (None, "day", "week", "month", "year"):
        raise ValueError(f"freshness must be day, week, month or year, got {freshness!r}")
    if safesearch not in ("off", "moderate", "strict"):
        raise ValueError(f"safesearch must be off, moderate or strict, got {safesearch!r}")
    if country is not None and not re.fullmatch(r"[A-Za-z]{2}", country):
        raise ValueError(f"country must be two letters such as DE, got {country!r}")
    return Query(
        text=" ".join(clean(text).split()),
        n=n,
        freshness=freshness,
        country=country and country.upper(),
        safesearch=safesearch,
        include=_domains("include_domains", include),
        exclude=_domains("exclude_domains", exclude),
    )


def _domains(name: str, given: tuple[str, ...]) -> tuple[str, ...]:
    domains = tuple(str(domain).strip().lower().rstrip(".") for domain in given)
    if len(domains) > MAX_DOMAINS:
        raise ValueError(f"{name} may hold {MAX_DOMAINS} domains, got {len(domains)}")
    for domain in domains:
        if not _DOMAIN.fullmatch(domain):
            raise ValueError(f"{name} must hold domains such as example.org, without scheme and path, got {domain!r}")
    return domains


def rows_of(found: Sequence[Result], query: Query, provider: str) -> list[SearchRow]:
    """The usable ones of *found* as rows, at most `query.n`; `sid` is 0."""
    rows: list[SearchRow] = []
    for result in found:
        url = result.get("url")
        if len(rows) < query.n and isinstance(url, str) and _fits(url, query):
            rows.append(
                SearchRow(
                    sid=0,
                    url=url,
                    title=_plain(result.get("title"), _TITLE),
                    text=_plain(result.get("text"), _TEXT),
                    published=_plain(result.get("published"), 40) or None,
                    provider=provider,
                    query=query.text,
                )
            )
    return rows


def _fits(url: str, query: Query) -> bool:
    """Whether `fetch` could be asked for *url*, and its domain is wanted."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not host or len(url) > MAX_URL or not is_visible(url):
        return False

    def of(domains: Sequence[str]) -> bool:
        return any(host == domain or host.endswith(f".{domain}") for domain in domains)

    return (not query.include or of(query.include)) and not of(query.exclude)


def _plain(value: Any, most: int) -> str:  # noqa: ANN401 - JSON
    """*value* as text without tags and entities, at most *most* characters; "" for anything but text."""
    if not isinstance(value, str):
        return ""
    text = unescaped(re.sub(r"<[^<>]{0,200}>", "", value[: 4 * most]))
    return " ".join(clean(text).split())[:most]
