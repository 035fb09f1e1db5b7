"""A listening server of real sockets whose answers a test writes byte by byte, and rules that lead to it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpcore2

from isorun.tools.web.addresses import why_refused
from isorun.tools.web.rules import Rules

#: Writes an answer as it likes: slowly, without end, or not at all.
Acting = Callable[[asyncio.StreamWriter], Awaitable[None]]
Answer = bytes | Acting


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Served:
    """What a server saw. `url("/x")` leads to it by its address, `url("/x", "name.test")` by a name."""

    port: int = 0
    scheme: str = "http"
    connections: int = 0
    asked: list[Asked] = field(default_factory=list)
    sni: list[str | None] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"


def http(
    body: bytes | str = b"", kind: str = "text/html", status: int = 200, headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole answer."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}", "Connection: close"]
    lines += [f"Content-Type: {kind}"] if kind else []
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def answer_json(value: object, status: int = 200, **headers: str) -> bytes:
    """A whole answer in JSON."""
    return http(json.dumps(value), "application/json", status, headers)


def moved(place: str, status: int = 302) -> bytes:
    """A redirect."""
    return http(b"", "", status, {"Location": place})


@asynccontextmanager
async def serving(
    answers: Mapping[str, Answer | list[Answer]],
    *,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Served]:
    """A server on 127.0.0.1 while the block runs. A list of answers is given one by one, its last one from then on."""
    seen = Served(scheme="https" if tls else "http")
    given = {path: list(one) if isinstance(one, list) else [one] for path, one in answers.items()}
    if tls is not None:
        tls.sni_callback = lambda _socket, name, _context: seen.sni.append(name)

    serves: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        serves.append(asyncio.current_task())
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await _serve_one(reader, writer)
        finally:
            writer.close()

    async def _serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await _request(reader)
        seen.asked.append(asked)
        found = given.get(asked.target.partition("?")[0], [http("no such page", status=404)])
        answer = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
        else:
            await answer(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for task in serves:
            if task is not None:
                task.cancel()
        await asyncio.gather(*filter(None, serves), return_exceptions=True)


async def _request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    return Asked(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))


class Led(httpcore2.AnyIOBackend):
    """A network in which every address leads to one listening server: what gets past the guard arrives there."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.went: list[tuple[str, int]] = []

    async def connect_tcp(self, host: str, port: int, *rest: object, **more: object) -> httpcore2.AsyncNetworkStream:
        self.went.append((host, port))
        return await super().connect_tcp("127.0.0.1", self.served.port, *rest, **more)  # type: ignore[arg-type]  # passed on


def anywhere(served: Served | None = None, **more: object) -> Rules:
    """Rules without the wall of addresses and of ports; with *served*, every address leads to it."""
    network = {"network": lambda: Led(served)} if served else {}
    return Rules(**{"refuses": lambda _: None, "ports": None, **network, **more})  # type: ignore[arg-type]  # a test's own


def guarded(served: Served, **more: object) -> Rules:
    """The real judge of addresses in a network where every address leads to *served*."""
    return anywhere(served, refuses=why_refused, **more)


def names(found: Mapping[str, list[str]]) -> Callable[[str, int], Awaitable[list[str]]]:
    """A resolver that knows these names alone."""

    async def resolve(host: str, port: int) -> list[str]:
        if host not in found:
            raise OSError("no such name")
        return found[host]

    return resolve
