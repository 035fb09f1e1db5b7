"""The search services: how each is asked, and where its answer has the results.

A provider gets a `Query` and returns results as dicts with `url`, `title`, `text` and `published`, unchecked;
`search` checks and cuts them. Must not: decide which provider is asked, or trust what it answered.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from isorun.tools.web.config import WebConfig
from isorun.tools.web.request import ProviderError, ProviderRequest, send
from isorun.tools.web.rows import Freshness, Safesearch
from isorun.tools.web.rules import Rules

_MAX_FIXTURE = 16 << 20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One search, checked."""

    text: str
    n: int
    freshness: Freshness | None
    country: str | None  # two letters, upper case
    safesearch: Safesearch
    include: tuple[str, ...]
    exclude: tuple[str, ...]

    def with_sites(self) -> str:
        """The text, with the domains as the operators that most services know."""
        wanted = " OR ".join(f"site:{domain}" for domain in self.include)
        parts = (self.text, f"({wanted})" if len(self.include) > 1 else wanted)
        return " ".join(filter(None, (*parts, *(f"-site:{domain}" for domain in self.exclude))))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderContext:
    """What a provider is given beside the query."""

    config: WebConfig
    rules: Rules
    until: float  # monotonic


Result = dict[str, Any]
Provider = Callable[[Query, ProviderContext], Awaitable[list[Result]]]


async def searxng(query: Query, context: ProviderContext) -> list[Result]:
    """SearXNG's JSON interface, which is off by default. It has no parameter for country or number of results."""
    params: dict[str, str | int] = {
        "q": query.with_sites(),
        "format": "json",
        "pageno": 1,
        "safesearch": {"off": 0, "moderate": 1, "strict": 2}[query.safesearch],
    }
    if query.freshness:
        params["time_range"] = query.freshness
    request = ProviderRequest(
        url=f"{context.config.searxng_url}/search",
        params=params,
        remedies={
            403: "let it answer in JSON: add json to search.formats in its settings.yml",
            429: "switch its limiter off for this client, or try again later",
        },
    )
    answer = await send(request, until=context.until, rules=context.rules)
    return [
        _result(row, text="content", published="publishedDate") for row in _rows(answer, "results")
    ]  # as many as its engines gave; `search` cuts them


async def brave(query: Query, context: ProviderContext) -> list[Result]:
    """Brave's web search."""
    params: dict[str, str | int] = {
        "q": query.with_sites(),
        "count": query.n,
        "safesearch": query.safesearch,
        "text_decorations": "false",
    }
    if query.freshness:
        params["freshness"] = f"p{query.freshness[0]}"
    if query.country:
        params["country"] = query.country
    request = ProviderRequest(
        url=context.config.brave_url,
        params=params,
        headers={"X-Subscription-Token": context.config.brave_key},
        remedies=dict.fromkeys((401, 403, 422), "check BRAVE_API_KEY and the plan that it belongs to"),
        proxy=context.config.proxy,
    )
    answer = await send(request, until=context.until, rules=context.rules)
    if isinstance(answer, dict) and "web" not in answer:
        return []  # the answer to a query without results has no "web"
    web = answer.get("web") if isinstance(answer, dict) else None
    return [_result(row, text="description", published="page_age", or_else="age") for row in _rows(web, "results")]


async def tavily(query: Query, context: ProviderContext) -> list[Result]:
    """Tavily's search. It has no parameter for country or safesearch here."""
    body: dict[str, Any] = {"query": query.text, "max_results": query.n}
    if query.freshness:
        body["time_range"] = query.freshness
    if query.include:
        body["include_domains"] = list(query.include)
    if query.exclude:
        body["exclude_domains"] = list(query.exclude)
    request = ProviderRequest(
        url=context.config.tavily_url,
        headers={"Authorization": f"Bearer {context.config.tavily_key}"},
        body=body,
        remedies={
            **dict.fromkeys((401, 403), "check TAVILY_API_KEY"),
            **dict.fromkeys((432, 433), "the plan of TAVILY_API_KEY is used up"),
        },
        proxy=context.config.proxy,
    )
    answer = await send(request, until=context.until, rules=context.rules)
    return [_result(row, text="content", published="published_date") for row in _rows(answer, "results")]


async def ddgs(query: Query, context: ProviderContext) -> list[Result]:
    """DuckDuckGo through the package ddgs, which opens its own connections: no setting but the proxy reaches them."""
    import asyncio

    try:
        # Not a dependency: it is the extra [ddgs].
        from importlib import import_module

        client = import_module("ddgs").DDGS
    except ImportError:
        raise ProviderError("its package is missing: pip install 'isorun[ddgs]'") from None

    def found() -> list[Result]:
        made = client(proxy=context.config.proxy, timeout=max(1, int(min(10.0, context.until - time.monotonic()))))
        rows: list[Result] = made.text(
            query.with_sites(),
            region=f"{(query.country or 'us').lower()}-en",
            safesearch="on" if query.safesearch == "strict" else query.safesearch,
            timelimit=query.freshness[0] if query.freshness else None,
            max_results=query.n,
        )
        return [{"url": row.get("href"), "title": row.get("title"), "text": row.get("body")} for row in rows]

    try:
        return await asyncio.to_thread(found)
    except Exception as error:  # noqa: BLE001 - a package that this one does not depend on may raise anything
        raise ProviderError(f"it failed: {type(error).__name__}; try again later, or name another provider") from None


async def fixture(query: Query, context: ProviderContext) -> list[Result]:
    """Results from a file: `{"searches": [{"query": "...", "results": [{"url", "title", "text", "published"}]}]}`.

    A query matches if its words are equal, in any case of letters; the query `*` matches every other one.
    """
    import asyncio

    whole = await asyncio.to_thread(_fixture_file, context.config.fixture)
    searches = list(_rows(whole, "searches"))
    for wanted in (_words(query.text), "*"):
        for search in searches:
            if _words(str(search.get("query"))) == wanted:
                return [_result(row, text="text", published="published") for row in _rows(search, "results")]
    return []


def _fixture_file(name: str) -> Any:  # noqa: ANN401 - JSON
    """What *name* holds; None for anything but JSON, and for too much of it. Raises `ProviderError`."""
    from pathlib import Path

    try:
        with Path(name).open("rb") as file:
            data = file.read(_MAX_FIXTURE + 1)
    except OSError as error:
        raise ProviderError(f"its file cannot be read: {error.strerror}; check ISORUN_SEARCH_FIXTURE") from None
    try:
        return json.loads(data) if len(data) <= _MAX_FIXTURE else None
    except (ValueError, RecursionError):
        return None


def _words(text: str) -> str:
    return " ".join(text.casefold().split())


def _rows(answer: Any, key: str) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - JSON
    """The dicts in the list *key* of *answer*. Raises `ProviderError` for any other form."""
    rows = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise ProviderError(f"its answer has no list {key!r}; check that its URL is that of its search interface")
    return (row for row in rows if isinstance(row, dict))


def _result(row: dict[str, Any], *, text: str, published: str, or_else: str = "") -> Result:
    return {
        "url": row.get("url"),
        "title": row.get("title"),
        "text": row.get(text),
        "published": row.get(published) or row.get(or_else),
    }


BY_NAME: dict[str, Provider] = {
    "fixture": fixture,
    "searxng": searxng,
    "brave": brave,
    "tavily": tavily,
    "ddgs": ddgs,
}
