"""`/v1/models` and `/v1/chat/completions`: the agent as a model, for all that speaks OpenAI's API.

The agent has its own prompt, tools and budget, so of a request the messages count, and whether to stream.
"""

import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from isorun.core.errors import IsorunError
from isorun.service.api.runs import Open
from isorun.service.clients.agent_turn import AgentTurn
from isorun.service.clients.speech import KeyUser, said, speaking
from isorun.service.context import Service
from isorun.service.problems import Problem, problem_of
from isorun.service.runs.quotas import too_many
from isorun.service.store.accounts import User

MODEL = "isorun-agent"
_MOST_MESSAGES, _MOST_TEXT = 1000, 1 << 20
_MOST_OF_USER = 8
_KEEP_ALIVE_S = 15.0  # a line that says nothing, so that no proxy takes a program at work for a broken connection
_LOOK_S = 1.0  # after so long without a word it is asked whether the client is still there
_KINDS = {401: "authentication_error", 429: "rate_limit_error"}


def _shape(problem: Problem) -> Response:
    return JSONResponse(_error(problem), problem.status, problem.headers)


def _error(problem: Problem) -> dict[str, Any]:
    kind = _KINDS.get(problem.status, "server_error" if problem.status >= 500 else "invalid_request_error")
    return {"error": {"message": said(problem), "type": kind, "param": None, "code": problem.code}}


router = APIRouter(prefix="/v1", tags=["clients"], route_class=speaking(_shape), include_in_schema=False)


class Part(BaseModel):
    """A part of a message."""

    type: Annotated[str, Field(max_length=40)]
    text: Annotated[str, Field(max_length=_MOST_TEXT)] = ""


class Message(BaseModel):
    """A message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[str, Field(max_length=_MOST_TEXT)] | Annotated[list[Part], Field(max_length=100)] | None = None


class CompletionBody(BaseModel):
    """A conversation that ends with what the user says. Other fields of OpenAI's are taken and mean nothing here."""

    model: Annotated[str, Field(max_length=200)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=_MOST_MESSAGES)]
    stream: bool | None = False
    n: int | None = 1


class TurnsAtOnce:
    """How many turns of each user go on in this process."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}

    @contextmanager
    def one_more(self, user: User) -> Iterator[None]:
        """Inside the block, one of *user* more goes on. Raises `Problem` 429."""
        now = self._turns.get(user.id, 0)
        if now >= _MOST_OF_USER:
            raise too_many("too_many_turns", f"{now} answers for you are being written", "wait for one of them")
        self._turns[user.id] = now + 1
        try:
            yield
        finally:
            self._turns[user.id] -= 1
            if not self._turns[user.id]:
                del self._turns[user.id]


@router.get("/models")
async def models(_: KeyUser) -> dict[str, Any]:
    """The one model."""
    return {"object": "list", "data": [_model()]}


@router.get("/models/{name}")
async def model(name: str, _: KeyUser) -> dict[str, Any]:
    """What is known of it."""
    _check_model(name)
    return _model()


def _model() -> dict[str, Any]:
    return {"id": MODEL, "object": "model", "created": 0, "owned_by": "isorun"}


def _check_model(name: str) -> None:
    if name != MODEL:
        raise Problem(404, "model_not_found", f"the model here is {MODEL}")


@router.post("/chat/completions", response_class=JSONResponse)
async def completions(body: CompletionBody, request: Request, user: KeyUser, service: Open) -> Response:
    """Let the agent answer. What its programs wrote is named at the end, with links that need a key or the page."""
    _check_model(body.model)
    if body.n not in (None, 1):
        raise Problem(400, "unsupported", "one answer is given", hint="leave out `n`")
    history, text = conversation(body.messages)
    if service.agent is None:
        raise Problem(503, "no_agent", "this service has no agent", hint="ask who runs it")
    turn = AgentTurn(service, service.agent, user, str(request.base_url))
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": MODEL}
    at_once: TurnsAtOnce = request.app.state.turns_at_once
    if body.stream:
        with at_once.one_more(user):  # refused before the stream begins; it counts again inside
            pass
        return StreamingResponse(_events(turn, at_once, user, history, text, head), media_type="text/event-stream")
    with at_once.one_more(user):
        return JSONResponse(await _whole(turn, request, service, history, text, head))


def conversation(messages: list[Message]) -> tuple[list[dict[str, Any]], str]:
    """The history as the agent keeps it, and what it is asked. Raises `Problem` 400.

    A client's instructions to its model stand before what its user says first: the agent has a prompt of its own.
    """
    instructions: list[str] = []
    spoken: list[dict[str, Any]] = []
    for one in messages:
        text = _text(one)
        if one.role in ("system", "developer"):
            instructions.append(text)
        elif one.role in ("user", "assistant") and text:
            spoken.append({"role": one.role, "content": text})
    if not spoken or spoken[-1]["role"] != "user":
        raise Problem(400, "no_question", "the last message must be the user's, and have a text")
    if instructions:
        first = next(one for one in spoken if one["role"] == "user")
        first["content"] = "\n\n".join([*instructions, first["content"]])
    return spoken[:-1], spoken[-1]["content"]


def _text(message: Message) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    if message.role == "user" and any(one.type != "text" for one in message.content):
        raise Problem(400, "unsupported", "the agent reads text alone", hint="leave out pictures and other parts")
    return "".join(one.text for one in message.content)


async def _whole(
    turn: AgentTurn, request: Request, service: Service, history: list[dict[str, Any]], text: str, head: dict[str, Any]
) -> dict[str, Any]:
    pieces: list[str] = []
    async with turn.begun(history, text):
        async for piece in turn.said(_LOOK_S):
            pieces.append(piece)
            if not piece and (service.closing.is_set() or await request.is_disconnected()):
                raise Problem(499, "client_left", "the client has left")
    message = {"role": "assistant", "content": "".join(pieces), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(turn)}
    return {**head, "object": "chat.completion", "choices": [choice]}


async def _events(
    turn: AgentTurn,
    at_once: TurnsAtOnce,
    user: User,
    history: list[dict[str, Any]],
    text: str,
    head: dict[str, Any],
) -> AsyncIterator[str]:
    """Server-sent events; a failure behind the first of them is one of them."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event({**head, "object": "chat.completion.chunk", "choices": [choice]})

    yield chunk({"role": "assistant", "content": ""})
    try:
        with at_once.one_more(user):
            async with turn.begun(history, text):
                async for piece in turn.said(_KEEP_ALIVE_S):
                    yield chunk({"content": piece}) if piece else ": at work\n\n"
        yield chunk({}, _finish(turn))
    except (Problem, IsorunError) as error:
        yield _event(_error(problem_of(error)))
    yield "data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def _finish(turn: AgentTurn) -> str:
    ending = turn.ending
    return "stop" if ending is None or ending.why in ("answered", "empty", "model") else "length"
