"""What the tests of the agent share: a model that says what it is told to, a listener, runs that were recorded."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from isorun.core.request import RunRequest
from isorun.service.agent.loop import Agent, Budget
from isorun.service.agent.model import Bounds, Model
from isorun.settings import Settings
from isorun.tools.exec_tools import advertised

KEY = "sk-quite-secret-0123456789"
ABOUT = "You can run Python programs with the tool run_python. generic_tools.write_pdf is there.\n"
EXEC = "execute_code_python"
#: Views of runs that really were; `python -m tests.service.demo` writes them.
VIEWS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "recorded.json").read_text(encoding="utf-8"))
BROKEN, KEPT = VIEWS["analysis, first draft"], VIEWS["analysis"]

Server = Callable[[Any, Any, Any], Awaitable[None]]  # an ASGI application
Events = list[tuple[str, Any]]


class Listener:
    """Keeps everything that a turn says, in order."""

    def __init__(self) -> None:
        self.events: Events = []

    async def delta(self, text: str) -> None:
        self.events.append(("delta", text))

    async def message(self, message: dict[str, Any]) -> None:
        json.dumps(message, allow_nan=False)
        self.events.append(("message", message))

    async def run_started(self, call_id: str, request: RunRequest) -> None:
        self.events.append(("started", request))

    async def run_ended(self, call_id: str, view: Mapping[str, Any] | None) -> None:
        self.events.append(("ended", view))

    def of(self, kind: str) -> list[Any]:
        return [value for one, value in self.events if one == kind]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.of("message")

    @property
    def answers(self) -> list[str]:
        """What the model was told of its calls."""
        return [message["content"] for message in self.messages if message["role"] == "tool"]


async def recorded(request: RunRequest) -> Mapping[str, Any]:
    """The view of the run of that name."""
    return VIEWS[str(request.prog_name)]


def always(view: Mapping[str, Any]) -> Callable[[RunRequest], Awaitable[Mapping[str, Any]]]:
    async def run(request: RunRequest) -> Mapping[str, Any]:
        return view

    return run


def says(text: str = "", *calls: tuple[str, Any]) -> dict[str, Any]:
    """A whole answer: *text*, and calls as name and arguments, which are text or an object."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": f"c{at}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for at, (name, arguments) in enumerate(calls)
        ]
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


PROMISE = [{"filename": "a.txt", "description": "a"}]


def program(code: str = "print(1)", **more: object) -> tuple[str, dict[str, Any]]:
    """A call of the tool that runs programs."""
    return EXEC, {"code": code, "contract": PROMISE, **more}


@dataclass
class Reply:
    """What a server sends; *body* is JSON, or the bytes themselves."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def stream(cls, *chunks: object, end: str = "data: [DONE]\n\n") -> "Reply":
        text = "".join(f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in chunks)
        return cls((text + end).encode(), headers={"Content-Type": "text/event-stream"})


class Canned:
    """An ASGI server that gives its answers in order, the last one again and again, and keeps what it was asked."""

    def __init__(self, *answers: Reply | dict[str, Any]) -> None:
        self._answers = [one if isinstance(one, Reply) else Reply(one) for one in answers]
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []

    async def __call__(self, scope, receive, send) -> None:
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part["body"], part["more_body"]
        self.asked.append(json.loads(body))
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self.paths.append(scope["path"])
        answer = self._answers[min(len(self.asked), len(self._answers)) - 1]
        whole = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        headers = {"Content-Type": "application/json", **answer.headers}
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
        await send({"type": "http.response.body", "body": whole})


def model(server: Server, *, key: str = KEY, bounds: Bounds | None = None) -> Model:
    """A client of the ASGI application *server*."""
    return Model("http://models.test/v1", "m", key, bounds=bounds, transport=httpx2.ASGITransport(server))


def agent(server: Server, **budget: float) -> Agent:
    return Agent(model(server), ABOUT, advertised(Settings()), Budget(**budget))


@asynccontextmanager
async def loopback(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """The address of a server on this machine that lets *handle* do what it wants with a connection."""
    busy: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy.add(task)
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            busy.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for task in busy:
            task.cancel()
        if busy:
            await asyncio.wait(busy)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


async def request_head(reader: asyncio.StreamReader) -> bytes:
    """The head of a request, its body left where it is."""
    return await reader.readuntil(b"\r\n\r\n")


def texts(values: Iterable[Any]) -> str:
    """All of *values* as one text, to be searched."""
    return "\n".join(repr(value) for value in values)
