"""Search and fetch as tools: programs may call them, as `generic_tools` re-exports them.

    web_search = tool(timeout_s=60)(adopted(tools.web_search, __name__))

Each function reads its settings from `ToolContext.env`, keeps what it found in the turn's sources pool, and ends
before the call's deadline. It must run in a process that is killed at that deadline: see `extract`. This module
is light; the libraries are imported by the first call.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from pydantic import Field

from isorun.supervisor.tool import ToolContext, ToolError
from isorun.tools.web.rows import Format, Freshness, PageRow, Safesearch, SearchRow

if TYPE_CHECKING:
    from isorun.tools.web.config import WebConfig

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Text = Annotated[str, Field(min_length=1, max_length=400)]
_Url = Annotated[str, Field(min_length=1, max_length=2048)]
_Query = _Text | Annotated[list[_Text], Field(min_length=1, max_length=5)]
_Results = Annotated[int, Field(ge=1, le=20)]
_Country = Annotated[str, Field(pattern="^[A-Za-z]{2}$")]
_Domains = Annotated[list[str], Field(max_length=20)]


async def web_search(
    context: ToolContext,
    query: _Query,
    n: _Results = 8,
    freshness: Freshness | None = None,
    country: _Country | None = None,
    safesearch: Safesearch = "moderate",
    include_domains: _Domains | None = None,
    exclude_domains: _Domains | None = None,
    objective: str = "",
) -> list[SearchRow]:
    """Search the web. Returns rows with sid, url, title, text, published, provider and query.

    Cite a row as [[S:sid]]. A text is what the search service shows of the page; fetch the page for more.

    Args:
        query: What to search for; of a list each text is searched by itself.
        n: How many results for each query, at most.
        freshness: Only pages of the last day, week, month or year.
        country: Two letters such as DE: prefer results for that country, where the service can.
        safesearch: How much of what is for adults is left out.
        include_domains: Only pages of these domains and their subdomains.
        exclude_domains: No pages of these domains and their subdomains.
        objective: What the results are for, in a sentence.
    """
    return await _searched(
        context,
        query,
        n=n,
        freshness=freshness,
        country=country,
        safesearch=safesearch,
        include_domains=include_domains or (),
        exclude_domains=exclude_domains or (),
        objective=objective,
    )


async def fetch_url_contents(
    context: ToolContext,
    urls: _Url | Annotated[list[_Url], Field(min_length=1, max_length=10)],
    max_chars: Annotated[int, Field(ge=1, le=200_000)] = 20_000,
    format: Format = "markdown",
    save: bool = False,
    objective: str = "",
) -> list[PageRow]:
    """Fetch web pages, PDFs and texts as text. Returns a row for each URL, in their order.

    A row has sid, url, final_url, status, http_status, title, text, published, mime, bytes, truncated, path and detail.
    Look at status first: only "success" has a text. The others are not_public, timeout, too_large, too_many_redirects,
    unsupported_type, http_error and blocked, and detail says why. Cite a row as [[S:sid]].

    Args:
        urls: One URL or up to ten, http or https.
        max_chars: How much text of each page, at most; truncated says that there is more.
        format: Whether a page keeps headings, lists and links as Markdown.
        save: Whether the bytes are kept as well; path is then their file below the output directory.
        objective: What the pages are for, in a sentence.
    """
    with _reported():
        from isorun.tools.web.fetch import fetch
        from isorun.tools.web.rules import Rules

        rows = await fetch(
            urls,
            max_chars=max_chars,
            format=format,
            objective=objective,
            save=context.open_output if save else None,
            until=context.deadline,
            rules=Rules(proxy=_config(context).proxy),
        )
    return await _cited(context, rows)


async def _searched(
    context: ToolContext,
    query: str | list[str],
    **options: Any,  # noqa: ANN401 - those of `search`, which checks them
) -> list[SearchRow]:
    with _reported():
        from isorun.tools.web.search import search

        rows = await search(query, config=_config(context), until=context.deadline, **options)
    numbers = await _numbered(context, rows)
    return [{**row, "sid": numbers[row["sid"]]} for row in rows]


def _config(context: ToolContext) -> WebConfig:
    from isorun.tools.web.config import WebConfig

    return WebConfig.read(context.env)


@contextmanager
def _reported() -> Iterator[None]:
    """Report a wrong argument or setting, or a missing library, to the program."""
    try:
        yield
    except ValueError as error:
        raise ToolError(str(error)) from None
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name == "isorun":
            raise
        text = f"this tool needs the package {name}, which is not installed: pip install 'isorun[tools]'"
        raise ToolError(text) from None


async def _cited(context: ToolContext, rows: list[PageRow]) -> list[PageRow]:
    """*rows* with the pool's number for each page that was fetched, and None for the others."""
    found = [
        {**row, "sid": number}  # by the URL that was asked for, because that is the one a search found
        for number, row in enumerate(rows, 1)
        if row["status"] == "success"
    ]
    numbers = await _numbered(context, found)
    return [
        {**row, "sid": numbers.get(number) if row["status"] == "success" else None}
        for number, row in enumerate(rows, 1)
    ]


async def _numbered(context: ToolContext, rows: Sequence[Any]) -> dict[int, int]:
    """The pool's number for each number of *rows*."""
    from isorun.tools.sources_pool import add_sources

    if not rows:
        return {}
    # In a thread, because the pool waits for a file lock.
    _, numbers = await asyncio.to_thread(add_sources, context, rows)
    return numbers


def adopted(function: _Function, module: str, name: str = "") -> _Function:
    """A copy of *function* that belongs to *module*, as a tool has to; *name* gives it another name there.

    The copy shares code, hints and docstring with the original, and has its place in the list of tools.
    """
    copy = types.FunctionType(
        function.__code__, function.__globals__, name or function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = dict(function.__annotations__)
    copy.__doc__, copy.__module__ = function.__doc__, module
    copy.__qualname__ = copy.__name__
    return cast(_Function, copy)
