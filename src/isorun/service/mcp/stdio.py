"""`isorun mcp`: the server on stdin and stdout, over one Runtime that is opened once.

Theory of operation. The client starts this process, writes a line of JSON for each message and reads lines back.
Nothing else may come on that stdout, so the two descriptors are put aside first: what starts later finds /dev/null and
stderr in their place. The end of stdin, or a signal, ends the server; leaving the Runtime ends its runs. A thread reads
stdin, a daemon one: a read cannot be given up, and our end must not wait for it.
"""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from io import TextIOWrapper
from queue import SimpleQueue
from typing import Any, BinaryIO, cast

import anyio
from mcp.server.stdio import stdio_server

from isorun.core.guard.signals import INTERRUPTED, cancel_on_signals
from isorun.runtime.runtime import Runtime
from isorun.service.mcp.local import LocalBackend
from isorun.service.mcp.server import make_server

MAX_LINE = 64 << 20  # bytes of one message
_log = logging.getLogger(__name__)


def serve(runtime: Runtime) -> int:
    """Serve one client until it leaves; the exit code. Raises as entering *runtime* does."""
    with _put_aside() as (stdin, stdout), asyncio.Runner() as runner:
        try:
            runner.run(_serve(runtime, stdin, stdout))
        except asyncio.CancelledError:
            return INTERRUPTED
    return 0


async def _serve(runtime: Runtime, stdin: BinaryIO, stdout: TextIOWrapper) -> None:
    cancel_on_signals()
    async with runtime, aclosing(_lines(stdin)) as lines:
        server = make_server(lambda _: LocalBackend(runtime), instructions=runtime.prompt())
        wire_in = cast("anyio.AsyncFile[str]", lines)  # lines are all that is asked of it
        try:
            async with stdio_server(wire_in, anyio.wrap_file(stdout)) as (incoming, outgoing):
                await server.run(incoming, outgoing, server.create_initialization_options())
        except* BrokenPipeError:
            _log.warning("the client went away")


@contextmanager
def _put_aside() -> Iterator[tuple[BinaryIO, TextIOWrapper]]:
    """The two ends of the client, on descriptors that no child has; 0 and 1 are /dev/null and stderr meanwhile."""
    wire_in, wire_out, null = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    # Not closed: a thread may still read the one, and the interpreter's end closes both.
    stdin = open(wire_in, "rb", closefd=False)  # noqa: SIM115 - as above
    stdout = open(wire_out, "w", encoding="utf-8", newline="\n", closefd=False)  # noqa: SIM115 - as above
    try:
        yield stdin, stdout
    finally:
        os.dup2(wire_in, 0)
        os.dup2(wire_out, 1)


async def _lines(stream: BinaryIO) -> AsyncGenerator[str]:
    """The lines of *stream* until it ends. A line that is too long ends the connection."""
    loop = asyncio.get_running_loop()
    asked: SimpleQueue[asyncio.Future[bytes] | None] = SimpleQueue()
    threading.Thread(target=_read, args=(stream, asked, loop), name="isorun-mcp-stdin", daemon=True).start()
    try:
        while True:
            answer: asyncio.Future[bytes] = loop.create_future()
            asked.put(answer)
            line = await answer
            if len(line) > MAX_LINE:
                _log.error("a message has more than %d bytes: the connection is closed", MAX_LINE)
                return
            if not line:
                return
            yield line.decode("utf-8", "replace")
    finally:
        asked.put(None)


def _read(stream: BinaryIO, asked: "SimpleQueue[Any]", loop: asyncio.AbstractEventLoop) -> None:
    while (answer := asked.get()) is not None:
        try:
            line = stream.readline(MAX_LINE + 1)
        except (OSError, ValueError):
            line = b""  # the client is gone
        try:
            loop.call_soon_threadsafe(_give, answer, line)
        except RuntimeError:  # the loop is closed
            return


def _give(answer: "asyncio.Future[bytes]", line: bytes) -> None:
    if not answer.done():
        answer.set_result(line)
