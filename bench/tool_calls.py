"""What one tool call costs a program, and what a bare round trip between two processes costs here."""

import json
import multiprocessing
import socket
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import isorun
from bench.measure import Spread

BUNDLE = Path(__file__).parent / "echo_bundle"
PARAMS = '{"text": "hello"}'
#: Run inside: one kind of call over and over; the first tenth is not counted.
PROGRAM = """
import sys, time
tool, style, count, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
params, seconds = json.loads(sys.argv[5]), []
for _ in range(count + count // 10):
    if pause:
        time.sleep(pause)
    began = time.perf_counter()
    if style == "sync":
        agent_io_tools.tool_call_sync(tool_id=tool, params=params)
    else:
        await agent_io_tools.tool_call(tool_id=tool, params=params)
    seconds.append(time.perf_counter() - began)
print(json.dumps(seconds[count // 10:]))
"""
PLAIN = "`tool_call_sync`, tool that is a plain function, one after the other"
APART = "the same tool in a worker (mode `local`), one after the other"
APART_MS = 0.3  # that a worker may add to the call of a plain function
KINDS = {
    "`tool_call_sync`, coroutine tool, one after the other": ("echo.waiting", "sync", 0.0),
    "`await tool_call`, coroutine tool, one after the other": ("echo.waiting", "async", 0.0),
    "`tool_call_sync`, coroutine tool, 5 ms between calls": ("echo.waiting", "sync", 0.005),
    PLAIN: ("echo.blocking", "sync", 0.0),
    APART: ("echo.apart", "sync", 0.0),
}


async def measured(count: int, check: Callable[[dict[str, Any]], object]) -> dict[str, list[float]]:
    """Seconds of each call, by kind; *check* is given the isolation of every measured run."""
    found = {}
    limits = isorun.Limits(tool_calls=10 * count)
    with tempfile.TemporaryDirectory(prefix="isorun-bench-", dir="/dev/shm") as root:
        async with isorun.Runtime(bundle=BUNDLE, limits=limits, pool_size=1, workspace_root=root) as runtime:
            for name, (tool, style, pause) in KINDS.items():
                most = count // 20 if pause else count
                result = await runtime.execute(PROGRAM, argv=[tool, style, str(most), str(pause), PARAMS])
                result.raise_for_status()
                check(dict(result.isolation))
                found[name] = json.loads(result.stdout)
    return found


def peers(count: int) -> dict[str, list[float]]:
    """Seconds of a round trip with nothing checked, sealed or recorded: bytes, and pickled objects."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        raw = _against(_echo_bytes, theirs, lambda: (ours.send(b"x" * 100), ours.recv(4096)), count)
        ours.shutdown(socket.SHUT_RDWR)
    near, far = multiprocessing.Pipe()
    with near, far:
        objects = _against(_echo_objects, far, lambda: (near.send({"text": "hello"}), near.recv()), count)
        near.send(None)
    return {
        "peer: 100 bytes there and back, socketpair, one after the other": raw,
        "peer: the same call by `multiprocessing.Pipe`, one after the other": objects,
    }


def _against(echo: Callable[[Any], None], end: object, once: Callable[[], object], count: int) -> list[float]:
    process = multiprocessing.get_context("fork").Process(target=echo, args=(end,), daemon=True)
    process.start()
    found = []
    for _ in range(count):
        began = time.perf_counter()
        once()
        found.append(time.perf_counter() - began)
    return found


def _echo_bytes(end: socket.socket) -> None:
    while data := end.recv(4096):
        end.send(data)


def _echo_objects(end: Connection) -> None:
    while (value := end.recv()) is not None:
        end.send(value)


def shown(seconds: list[float]) -> str:
    """A spread of microseconds, and the rate of calls made one after the other."""
    spread = Spread.of(seconds)
    return (
        f"p50 {1e3 * spread.p50:.0f} µs, p99 {1e3 * spread.p99:.0f} µs, {len(seconds) / sum(seconds):,.0f} per second"
    )
