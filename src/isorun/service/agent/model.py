"""A client of one model, behind any server that speaks OpenAI's chat completions protocol.

Theory of operation. A request is one `POST {url}/chat/completions` whose answer streams. The key goes into its header
and nowhere else: no text of an error, no log and no repr has it. An answer is bounded in bytes, in seconds without a
byte, and in seconds. What servers do differently, `answer` reads as one. A server that refuses a request for a field
that not all know (400, 422) is asked once more without the optional ones; if it then answers, it never gets them again.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Self, cast

import httpx2

from isorun.core.errors import InvalidRequest
from isorun.service.agent import errors
from isorun.service.agent.answer import Answer, Broken, Gathering
from isorun.service.agent.errors import ModelError
from isorun.service.agent.refusals import Refusals

OnText = Callable[[str], Awaitable[None]]
Message = Mapping[str, Any]

PATH = "/chat/completions"
_SENT = ("role", "content", "tool_calls", "tool_call_id")  # of a message; all else in it is ours
_OPTIONAL_IN_MESSAGES = ("reasoning_content",)  # some want it back with the calls it led to, some refuse it
_OPTIONAL: Mapping[str, Any] = {"stream_options": {"include_usage": True}}
_ERROR_BYTES = 64 << 10  # that are read of an answer that is an error
_UNSEEN_CHUNK = 80  # characters of what is not JSON that an error shows
_KEY = re.compile(r"[\x21-\x7e]*")
_SECRET = re.compile("key|token|secret|password|sig", re.IGNORECASE)  # names of parts of an address's query
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Ceilings of one answer. `silent_s` is the longest time without a byte, the wait for the first one included."""

    connect_s: float = 10.0
    silent_s: float = 120.0
    total_s: float = 600.0
    answer_bytes: int = 8 << 20

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not 0 < value < math.inf:
                raise InvalidRequest(f"{one.name} must be positive and finite, got {value}", code="invalid_setting")


class Model:
    """One model behind one server. Use it as `async with Model(url, name, key) as model:`; many turns may share it.

    *url* ends before `/chat/completions`, as `http://127.0.0.1:11434/v1` does. *transport* replaces the network, for a
    server in this process. Raises `InvalidRequest`, which names the setting, for a value that cannot be used.
    """

    def __init__(
        self,
        url: str,
        name: str,
        key: str = "",
        *,
        bounds: Bounds | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.name = name.strip()
        if not self.name:
            raise InvalidRequest(f"{errors.NAME} is not set: set it to a name of a model", code="invalid_setting")
        self._url = _endpoint(url)
        self._bounds = bounds or Bounds()
        key = key.strip()
        if not _KEY.fullmatch(key):
            raise InvalidRequest(
                f"{errors.KEY} has a character that no key has: set it to the key alone, without quotes or blanks",
                code="invalid_setting",
            )
        # Without the query: it may hold what is not for texts.
        place = f"{self._url.scheme}://{self._url.netloc.decode('ascii')}{self._url.path}"
        self._refusals = Refusals(place, self.name, key)
        self._takes_optional = True
        self._client = httpx2.AsyncClient(
            headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx2.Timeout(self._bounds.silent_s, connect=self._bounds.connect_s, pool=None),
            follow_redirects=False,  # another server would get the conversation
            trust_env=not _LOOPBACK.fullmatch(self._url.host),  # no proxy reaches a server of this machine
            transport=transport,
            event_hooks={"response": [self._bound]},
        )

    def __repr__(self) -> str:
        return f"Model({self.name!r} at {self._refusals.place})"

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def ask(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], on_text: OnText) -> Answer:
        """The model's answer to *messages*. *on_text* gets its text piece by piece, as it arrives.

        *tools* are definitions in OpenAI's style. Raises a `ModelError`. If the caller is cancelled, the connection is
        closed.
        """
        deadline = asyncio.timeout(self._bounds.total_s)
        try:
            async with deadline:
                return await self._asked(messages, tools, on_text)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise self._refusals.endless(self._bounds.total_s) from None

    async def _asked(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], on_text: OnText) -> Answer:
        refused: ModelError | None = None
        if self._takes_optional:
            async with self._sent(_body(self.name, messages, tools, optional=True)) as response:
                if response.status_code not in (400, 422):
                    return await self._read(response, on_text)
                refused = await self._refusal(response)
        async with self._sent(_body(self.name, messages, tools, optional=False)) as response:
            if refused is not None and not response.is_success:
                raise refused  # it was not about those fields
            self._takes_optional = False
            return await self._read(response, on_text)

    @asynccontextmanager
    async def _sent(self, body: Mapping[str, Any]) -> AsyncIterator[httpx2.Response]:
        """The response to *body*. Errors of the connection are raised as ours, without the request in them."""
        try:
            async with self._client.stream("POST", self._url, json=body) as response:
                yield response
        except httpx2.ConnectTimeout:
            raise self._refusals.unreachable(f"no connection within {self._bounds.connect_s:g} s") from None
        except httpx2.TimeoutException:
            raise self._refusals.silent(self._bounds.silent_s) from None
        except httpx2.SSEError as error:
            reason = self._refusals.shown(str(error))
            raise self._refusals.not_understood(f"sent a stream that cannot be read: {reason}") from None
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise self._refusals.unreachable(str(error)) from None

    async def _bound(self, response: httpx2.Response) -> None:
        """Let the bytes of *response* be counted as they come."""
        if response.headers.get("Content-Encoding", "").lower() not in ("", "identity"):
            raise self._refusals.not_understood("sent a packed answer, which was not asked for.")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(response.stream, self._bounds.answer_bytes, self._refusals)

    async def _read(self, response: httpx2.Response, on_text: OnText) -> Answer:
        if not response.is_success:
            raise await self._refusal(response)
        gathering = Gathering()
        try:
            if response.headers.get("Content-Type", "").lower().startswith("text/event-stream"):
                await self._read_stream(response, gathering, on_text)
            else:  # a server without streams sends the whole
                await self._take(gathering, (await response.aread()).decode("utf-8", "replace"), on_text)
        except Broken as error:
            raise self._refusals.not_understood(f"sent what cannot be read: {error}.") from None
        if not gathering.ended:
            raise self._refusals.unreachable("the answer broke off in the middle")
        return gathering.answer()

    async def _read_stream(self, response: httpx2.Response, gathering: Gathering, on_text: OnText) -> None:
        source = httpx2.EventSource(response, self._bounds.answer_bytes)
        async with aclosing(cast(AsyncGenerator[httpx2.ServerSentEvent], aiter(source))) as events:
            async for event in events:
                if event.data.strip() == "[DONE]":
                    gathering.ended = True
                    return
                if event.data.strip():
                    await self._take(gathering, event.data, on_text)

    async def _take(self, gathering: Gathering, data: str, on_text: OnText) -> None:
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            raise Broken(f"{self._refusals.shown(repr(data[:_UNSEEN_CHUNK]))} is not JSON") from None
        if isinstance(chunk, Mapping) and chunk.get("error"):
            raise self._refusals.in_stream(chunk)
        if text := gathering.add(chunk):
            await on_text(text)

    async def _refusal(self, response: httpx2.Response) -> ModelError:
        """The error that an unsuccessful *response* is."""
        read = bytearray()
        async with aclosing(response.aiter_raw()) as pieces:
            async for piece in pieces:
                read += piece
                if len(read) >= _ERROR_BYTES:
                    break
        try:
            told = json.loads(read)
        except (ValueError, RecursionError):
            told = None
        return self._refusals.answered(response.status_code, told, response.headers.get("Retry-After"))


class _Bounded(httpx2.AsyncByteStream):
    """A response's bytes, of which only so many may come."""

    def __init__(self, stream: httpx2.AsyncByteStream, most: int, refusals: Refusals) -> None:
        self._stream, self._most, self._refusals = stream, most, refusals

    async def __aiter__(self) -> AsyncIterator[bytes]:
        room = self._most
        async for piece in self._stream:
            room -= len(piece)
            if room < 0:
                raise self._refusals.too_long(self._most)
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def _body(
    name: str, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], *, optional: bool
) -> dict[str, Any]:
    keys = (*_SENT, *_OPTIONAL_IN_MESSAGES) if optional else _SENT
    sent = [{key: one[key] for key in keys if key in one} for one in messages]
    for one in sent:
        if one.get("tool_calls") and not one["content"]:
            one["content"] = None  # what OpenAI's own server says; a few refuse an empty text
    body: dict[str, Any] = {"model": name, "messages": sent, "stream": True}
    if tools:
        body["tools"] = list(tools)
    return {**body, **_OPTIONAL} if optional else body


def _endpoint(url: str) -> httpx2.URL:
    """Where requests for the server at *url* go. No error shows *url*: somebody may have put the key there."""
    try:
        found = httpx2.URL(url.strip())
    except httpx2.InvalidURL:
        raise _unusable("is not an address") from None
    if found.scheme not in ("http", "https") or not found.host:
        raise _unusable("does not begin with http:// or https:// and a host")
    if found.userinfo or any(map(_SECRET.search, found.params)):  # httpx2 writes addresses into its log
        raise _unusable(f"holds a password or a key, which belongs into {errors.KEY}")
    path = found.path.rstrip("/")
    return found.copy_with(path=path if path.endswith(PATH) else path + PATH, fragment=None)


def _unusable(reason: str) -> InvalidRequest:
    text = f"{errors.URL} {reason}: set it to an address such as http://127.0.0.1:11434/v1"
    return InvalidRequest(text, code="invalid_setting")
