"""One request to a search service, and its answer as JSON.

Every failure becomes `ProviderError`, which says what went wrong and what the operator can do. A service that is
busy (429) is asked once more. The service's own address is the operator's choice, so the address guard does not apply.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isorun.tools.web.body import ACCEPTED, BadAnswer, TooLarge, read_body
from isorun.tools.web.rules import Rules

PROVIDER_S = 10.0  # for one answer
MOST_WAIT_S = 5.0  # before a busy service is asked again
_MAX_BYTES = 4 << 20  # of one answer: twenty results are some 50 kB


class ProviderError(Exception):
    """A provider gave no results. The text says why and what to do, and holds no key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRequest:
    """One request to a provider. *remedies*: by HTTP status, a sentence that says what the operator can do."""

    url: str
    params: Mapping[str, str | int] | None = None
    headers: Mapping[str, str] | None = None
    body: Mapping[str, Any] | None = None  # sent as JSON with POST
    remedies: Mapping[int, str] | None = None
    proxy: str | None = None


async def send(request: ProviderRequest, *, until: float, rules: Rules) -> Any:  # noqa: ANN401 - JSON
    """The answer's JSON. Raises `ProviderError`. *until* is a value of `time.monotonic()`."""
    status, retry_after, data = await _sent(request, until, rules)
    if status == 429:
        wait = _seconds(retry_after)
        if wait > min(MOST_WAIT_S, until - time.monotonic()):
            raise ProviderError(f"it is busy (429) and asks to wait {retry_after[:20]} s; try again later")
        await asyncio.sleep(wait)
        status, retry_after, data = await _sent(request, until, rules)
    if status != 200:
        remedy = (request.remedies or {}).get(status) or _remedy(status)
        raise ProviderError(f"it answered {status}; {remedy}")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise ProviderError("its answer is not JSON; check that its URL is that of its search interface") from None


async def _sent(request: ProviderRequest, until: float, rules: Rules) -> tuple[int, str, bytes]:
    """Status, Retry-After and body of the answer."""
    import httpx2

    from isorun.tools.web.transport import plain_client

    seconds = min(PROVIDER_S, until - time.monotonic())
    headers = {"Accept": "application/json", "Accept-Encoding": ACCEPTED, **(request.headers or {})}
    method, body = ("GET", None) if request.body is None else ("POST", dict(request.body))
    params = dict(request.params) if request.params else None
    try:
        async with (
            asyncio.timeout(seconds),
            plain_client(rules, request.proxy) as client,
            client.stream(method, request.url, params=params, headers=headers, json=body) as response,
        ):
            data = await read_body(response, _MAX_BYTES) if response.status_code == 200 else b""
            return response.status_code, response.headers.get("retry-after", ""), data
    except (TimeoutError, httpx2.TimeoutException):
        raise ProviderError(f"it gave no answer within {max(seconds, 0):.0f} s; is it up?") from None
    except TooLarge:
        raise ProviderError(f"its answer has more than {_MAX_BYTES} bytes") from None
    except BadAnswer as bad:
        raise ProviderError(str(bad)) from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ProviderError(f"it cannot be reached: {type(error).__name__}; check its URL") from None


def _seconds(retry_after: str) -> float:
    """The seconds that a Retry-After header asks for; 1 without the header, infinite for a date."""
    if not retry_after:
        return 1.0
    return float(retry_after[:9]) if retry_after.isascii() and retry_after.isdigit() else float("inf")


def _remedy(status: int) -> str:
    if status in (401, 403):
        return "check its key"
    if 300 <= status < 400:
        return "give the URL that it redirects to"
    return "try again later" if status == 429 or status >= 500 else "check its URL"
