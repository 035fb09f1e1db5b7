"""What stands before every request: a bound on its body, a check of its Host, and headers for its answer.

Plain ASGI, and not a decorator of responses: a stream passes through it as it is made.
"""

import logging
import time
from collections.abc import Mapping
from contextlib import suppress

from prometheus_client import Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isorun.service.problems import Problem, answer

MOST_BODY = 8 << 20  # bytes of a request that is no upload
#: For everything but a file that a program wrote; that has a stricter one of its own.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_access = logging.getLogger("isorun.access")
_seconds = Histogram("isorun_http_request_seconds", "Seconds until an answer began.", ["method", "status"])


class Guard:
    """*hosts*: the names that this service answers to; empty: any. *uploads*: by path, the bytes of a larger body."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], uploads: Mapping[str, int]) -> None:
        self._app, self._hosts, self._uploads = app, hosts, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse without reading the body."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if scope["type"] == "websocket":
            if refusal is not None:
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        send = _marked(scope, send)
        if refusal is not None:
            await answer(refusal)(scope, receive, send)
            return
        await self._bounded(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> Problem | None:
        host = headers.get("host", "")
        if self._hosts and _name_of(host) not in self._hosts:
            return Problem(
                421, "wrong_host", "this service does not answer to that Host", hint="use the URL it printed"
            )
        size = headers.get("content-length", "0")
        if not size.isascii() or not size.isdigit() or len(size) > 18:
            return Problem(400, "bad_length", "Content-Length is not a number")
        return _too_large(self._most(scope)) if int(size) > self._most(scope) else None

    def _most(self, scope: Scope) -> int:
        return self._uploads.get(scope["path"], MOST_BODY)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Also for a body that comes in pieces and says no length. What the routes say of such a body is not sent."""
        left = self._most(scope)

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b"")) if message["type"] == "http.request" else 0
            if left < 0:
                raise _too_large(self._most(scope))
            return message

        async def unless_too_large(message: Message) -> None:
            if left >= 0:
                await send(message)

        with suppress(Problem):
            await self._app(scope, bounded, unless_too_large)
        if left < 0:
            await answer(_too_large(self._most(scope)))(scope, receive, send)


def _too_large(most: int) -> Problem:
    return Problem(413, "body_too_large", f"the body has more than {most} bytes", hint="send less, or upload files")


def _name_of(host: str) -> str:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    return name.strip("[]").lower()


def _marked(scope: Scope, send: Send) -> Send:
    """*send*, with our headers where the answer does not say otherwise, and a line in the log."""
    began = time.perf_counter()

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            took = time.perf_counter() - began
            _seconds.labels(scope["method"], str(message["status"])).observe(took)
            _access.info("%s %s %d %.0f ms", scope["method"], _shown(scope["path"]), message["status"], took * 1000)
        await send(message)

    return marked


def _shown(path: str) -> str:
    return path[:200].encode("ascii", "backslashreplace").decode().replace("\n", "\\n").replace("\r", "\\r")
