"""A server of the chat completions protocol whose model is a script: `scripted-demo` plays the demo conversation.

Where no ISORUN_MODEL_URL is set it is the model, in this process, asked by the same client as any other. Tests and
other clients may serve `scripted()` on a port. Each quirk that real servers have can be switched on. It holds no state
and no key, and runs nothing: a client that has a tool for programs does.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from enum import StrEnum
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from isorun.core.errors import InvalidRequest
from isorun.service.agent import errors
from isorun.service.agent.model import PATH, Model
from isorun.service.agent.script.plays import NAME, Line, next_line

_FIELDS = ("model", "messages", "tools", "stream")
_MESSAGE_FIELDS = ("role", "content", "tool_calls", "tool_call_id")
_ARGUMENT_CHARS = 200  # of one piece of a call's arguments


class Quirk(StrEnum):
    """What a server does differently from OpenAI's."""

    ARGUMENTS_AS_OBJECT = "arguments of a call are an object, not its text"
    NO_INDEX = "pieces of a call have no index"
    STOP_WITH_CALLS = "finish_reason is stop although tools are called"
    USAGE_WITHOUT_CHOICES = "chunks with usage have no choices at all"
    COMMENTS = "comments stand between the events"
    REASONING = "reasoning_content comes before the text"
    STRICT = "a field that it does not know is an error"
    WHOLE = "the answer comes whole, although a stream was asked for"
    NO_DONE = "the stream ends without [DONE]"


def open_model(url: str | None = None, name: str | None = None, key: str | None = None) -> Model:
    """The model that the settings name; the scripted one where no address is set. Use it as an async `with` block.

    Raises `InvalidRequest`, which names the setting, for an address without a model, and for the other two without an
    address.
    """
    if url and url.strip():
        return Model(url, name or "", key or "")
    for setting, value in ((errors.NAME, name), (errors.KEY, key)):
        if value and value.strip() not in ("", NAME):
            text = f"{setting} is set and {errors.URL} is not: set both, or neither for the scripted model"
            raise InvalidRequest(text, code="invalid_setting")
    return Model("http://scripted/v1", NAME, transport=httpx2.ASGITransport(scripted()))


def scripted(quirks: Collection[Quirk] = ()) -> Starlette:
    """The server, as an ASGI application: `/v1/models` and `/v1/chat/completions`."""

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": NAME, "object": "model", "owned_by": "isorun"}]})

    async def completions(request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            line = next_line(body["messages"], can_run=_tool_in(body) is not None)
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            return _refused("the request is not one of chat completions")
        if Quirk.STRICT in quirks and (unknown := _unknown(body)):
            return _refused(f"Unrecognized request argument supplied: {', '.join(unknown)}")
        answer = _Answer(line, _tool_in(body) or {}, quirks)
        if not body.get("stream") or Quirk.WHOLE in quirks:
            return JSONResponse(answer.whole())
        wants_usage = (body.get("stream_options") or {}).get("include_usage", False)
        return StreamingResponse(
            _events(answer.chunks(wants_usage=wants_usage), quirks), media_type="text/event-stream"
        )

    return Starlette(
        routes=[Route("/v1/models", models), Route(f"/v1{PATH}", completions, methods=["POST"])],
    )


class _Answer:
    """One answer, in the shapes of the protocol."""

    def __init__(self, line: Line, tool: Mapping[str, Any], quirks: Collection[Quirk]) -> None:
        self._line, self._quirks = line, quirks
        self._tool = tool.get("name", "")
        taken = tool.get("parameters", {}).get("properties", {})
        self._arguments = {key: value for key, value in (line.call or {}).items() if key in taken}
        self._head = {"id": f"chatcmpl-{secrets.token_hex(8)}", "created": int(time.time()), "model": NAME}
        self._call_id = f"call_{secrets.token_hex(6)}"

    def whole(self) -> dict[str, Any]:
        """The answer at once."""
        message: dict[str, Any] = {"role": "assistant", "content": self._line.text}
        if self._line.call is not None:
            function = {"name": self._tool, "arguments": self._told()}
            message["tool_calls"] = [{"id": self._call_id, "type": "function", "function": function}]
        choice = {"index": 0, "message": message, "finish_reason": self._finish()}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": self._usage()}

    def chunks(self, *, wants_usage: bool) -> Iterator[dict[str, Any]]:
        """The answer piece by piece."""
        yield self._chunk({"role": "assistant", "content": ""})
        if Quirk.REASONING in self._quirks:
            yield self._chunk({"reasoning_content": "The script says what comes next."})
        for word in re.findall(r"\s*\S+\s*", self._line.text):
            yield self._chunk({"content": word})
        if Quirk.USAGE_WITHOUT_CHOICES in self._quirks:
            yield {**self._head, "usage": self._usage()}
        if self._line.call is not None:
            yield from map(self._chunk, self._call())
        yield self._chunk({}, self._finish())
        if wants_usage:
            yield {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self._usage()}

    def _call(self) -> Iterator[dict[str, Any]]:
        told = self._told()
        first = told if isinstance(told, dict) else ""
        yield self._piece({"id": self._call_id, "type": "function"}, {"name": self._tool, "arguments": first})
        if isinstance(told, str):
            for at in range(0, len(told), _ARGUMENT_CHARS):
                yield self._piece({}, {"arguments": told[at : at + _ARGUMENT_CHARS]})

    def _piece(self, call: dict[str, Any], function: dict[str, Any]) -> dict[str, Any]:
        index = {} if Quirk.NO_INDEX in self._quirks else {"index": 0}
        return {"tool_calls": [{**index, **call, "function": function}]}

    def _told(self) -> str | dict[str, Any]:
        return self._arguments if Quirk.ARGUMENTS_AS_OBJECT in self._quirks else json.dumps(self._arguments)

    def _finish(self) -> str:
        return "tool_calls" if self._line.call is not None and Quirk.STOP_WITH_CALLS not in self._quirks else "stop"

    def _usage(self) -> dict[str, int]:
        written = len(self._line.text.split())  # words: a script has no tokens
        return {"prompt_tokens": 0, "completion_tokens": written, "total_tokens": written}

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}


async def _events(chunks: Iterator[Mapping[str, Any]], quirks: Collection[Quirk]) -> AsyncIterator[str]:
    for chunk in chunks:
        if Quirk.COMMENTS in quirks:
            yield ": processing\n\n"
        yield f"data: {json.dumps(chunk)}\n\n"
    if Quirk.NO_DONE not in quirks:
        yield "data: [DONE]\n\n"


def _tool_in(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The tool of a request that runs programs, the one with contracts first."""
    offered = [tool["function"] for tool in body.get("tools") or () if tool.get("type") == "function"]
    able = [tool for tool in offered if "code" in tool.get("parameters", {}).get("properties", {})]
    able.sort(key=lambda tool: "contract" not in tool["parameters"]["properties"])
    return able[0] if able else None


def _unknown(body: Mapping[str, Any]) -> list[str]:
    of_messages = {key for message in body["messages"] for key in message if key not in _MESSAGE_FIELDS}
    return sorted({key for key in body if key not in _FIELDS} | of_messages)


def _refused(reason: str) -> Response:
    error = {"message": reason, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status_code=400)
