"""What search and fetch return: one dict per result, in JSON's types."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

Status = Literal[
    "success",
    "not_public",  # refused before anything was sent: the address, the port or the URL itself
    "timeout",
    "too_large",
    "too_many_redirects",
    "unsupported_type",  # nothing that text can be taken from
    "http_error",  # the server's answer, or that there was none
    "blocked",  # the server does not let programs in: 401, 403, 407, 429, 451 or a challenge
]
Freshness = Literal["day", "week", "month", "year"]
Safesearch = Literal["off", "moderate", "strict"]
Format = Literal["markdown", "text"]


class SearchRow(TypedDict):
    """One result. `sid` is its number in the sources pool: cite it as `[[S:sid]]`."""

    sid: int
    url: str
    title: str
    text: str
    published: str | None
    provider: str
    query: str


class PageRow(TypedDict):
    """One URL that was asked for. `detail` is a sentence, empty if there is nothing to say; `path` is below out/.

    `bytes` is the size after decompression; `truncated` says that `text` is not all of the page's.
    """

    sid: int | None
    url: str
    final_url: str
    status: Status
    http_status: int | None
    title: str
    text: str
    published: str | None
    mime: str
    bytes: int
    truncated: bool
    path: str | None
    detail: str
