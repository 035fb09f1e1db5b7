"""Fetching a page and taking its text, from a server of this process that listens on loopback.

The guard refuses loopback, and stays as it is. A program's call gets there because an operator's proxy may be
anywhere, and this one answers itself. The guard is in the other figure: it judges a public address, and behind
it is a network in which every address leads to the server. So neither figure has the Internet in it.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import isorun
from bench.figures import MEMORY, Figure, complete, timed
from bench.measure import Spread

GATE_MS = 80
PAGE_BYTES = 100_000
_PUBLIC = "http://93.184.215.14/"
TOOL = "generic_tools.web_fetch"
#: Run inside; the first call is not counted.
_PROGRAM = """
import sys, time
seconds = []
for _ in range(int(sys.argv[1]) + 1):
    began = time.perf_counter()
    (row,) = await generic_tools.web_fetch(urls="http://page.example/")
    seconds.append(time.perf_counter() - began)
print(json.dumps({"seconds": seconds[1:], "row": row}))
"""
_AROUND = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Counting birds</title>'
    '<meta property="og:title" content="Counting birds">'
    '<meta property="article:published_time" content="2026-05-01T10:00:00Z"></head><body><nav><ul>{links}</ul></nav>'
    "<article><h1>Counting birds</h1>{weeks}</article><footer>Imprint</footer></body></html>"
)
_WEEK = (
    '<h2>Week #</h2><p>{text}<a href="/week/#">More</a></p><ul>{nests}</ul>'
    "<table><tr><th>bird</th><th>kg</th></tr>{birds}</table>"
)
_SENTENCE = "In week # the rangers of island {0} counted {1} birds, and wrote down what each of them weighed. "


def page() -> str:
    """An article of `PAGE_BYTES`, about, with 30 tags in each kB: title, date, links, headings, lists and tables."""
    links = "".join(f'<li><a href="/topic/{number}">Topic {number}</a></li>' for number in range(60))
    week = _WEEK.format(
        text="".join(_SENTENCE.format(one, 40 + 7 * one) for one in range(16)),
        nests="".join(f"<li>nest {one}: <em>{one + 2} eggs</em></li>" for one in range(4)),
        birds="".join(f"<tr><td>{one}</td><td>{3.1 + one / 10:.1f}</td></tr>" for one in range(4)),
    )
    weeks = "".join(week.replace("#", str(number)) for number in range(1, PAGE_BYTES // len(week) + 1))
    return _AROUND.format(links=links, weeks=weeks)


@asynccontextmanager
async def serving(body: str) -> AsyncIterator[int]:
    """The port of a server on 127.0.0.1 that answers every request with *body*."""
    data = body.encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head.encode() + data)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def figures(count: int) -> list[Figure]:
    """By a program's call, and with the guard."""
    async with serving(page()) as port:
        called, guarded = await _called(port, count), await _guarded(port, count)
    size = f"a page of {PAGE_BYTES // 1000} kB from loopback"
    return [
        timed(f"`web_fetch` of {size}, called by a program, one after the other", Spread.of(called), GATE_MS),
        timed(f"`fetch` of {size}, through the guard, one after the other", Spread.of(guarded), GATE_MS),
    ]


async def _called(port: int, count: int) -> list[float]:
    settings = isorun.Settings(web_proxy=f"http://127.0.0.1:{port}")
    with tempfile.TemporaryDirectory(prefix="isorun-bench-", dir=MEMORY) as root:
        async with isorun.Runtime(settings=settings, pool_size=1, workspace_root=root) as runtime:
            result = await runtime.execute(_PROGRAM, argv=[str(count)], tools=[TOOL], timeout_s=120)
            result.raise_for_status()
            complete(dict(result.isolation))
            found = json.loads(result.stdout)
    return _whole(found["row"], found["seconds"])


async def _guarded(port: int, count: int) -> list[float]:
    import httpcore2  # here: its objects would be in the heap of what is timed before

    from isorun.tools.web.fetch import fetch
    from isorun.tools.web.rules import Rules

    class Led(httpcore2.AnyIOBackend):
        async def connect_tcp(self, host: str, _: int, *rest: object, **more: object) -> httpcore2.AsyncNetworkStream:
            assert host in _PUBLIC, "the guard lets nothing else through"
            return await super().connect_tcp("127.0.0.1", port, *rest, **more)

    seconds = []
    for _ in range(count + 1):
        began = time.perf_counter()
        (row,) = await fetch(_PUBLIC, rules=Rules(network=Led))
        seconds.append(time.perf_counter() - began)
    return _whole(dict(row), seconds[1:])


def _whole(row: dict[str, object], seconds: list[float]) -> list[float]:
    """*seconds*, if the page was taken as it should be."""
    if row["status"] != "success" or not str(row["text"]).startswith("# Counting birds"):
        raise SystemExit(f"refused: what was fetched is not the page: {row['status']} {row['detail']}")
    return seconds
