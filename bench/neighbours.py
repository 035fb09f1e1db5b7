"""A neighbour beside a program that floods: what one run's flood costs another run, channel by channel.

The denominator is the same neighbour beside as many programs that spin and send nothing. So the
ratio is the host's work for the flood, and not the processor that the flood's own program takes.
A flood that is ended is started again, as a caller with many such programs would.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import isorun
from bench.measure import Spread, paced
from bench.tool_calls import BUNDLE
from isorun.runtime.inspection.inspection import SLICE_S

_AGAIN_S = 0.25  # between two runs of a flood that was ended
GATE = 2.0
_BOTH = f"p50 and p99 ≤ {GATE:g}×"
SPIN = "while True:\n    pass\n"
_STREAM = """
import json, os, socket, struct, threading
stream = socket.socket(fileno=os.dup(3))
def frame(body):
    return struct.pack("!II", len(body), len(body)) + body
def message(**fields):
    return frame(json.dumps({"v": 1, "blobs": [], **fields}).encode())
def call(number, params="{}", tool="a.b"):
    return frame(b'{"v":1,"t":"Call","tool":"%s","reason":"","timeout_s":null,"blobs":[],"params":%s,"id":%d}'
                 % (tool.encode(), params.encode(), number))
def drop():
    while stream.recv(1 << 16):
        pass
threading.Thread(target=drop, daemon=True).start()
"""
_SEND = "number = 0\nwhile True:\n    number += 1\n    stream.sendall(%s)\n"
_WRITE = "data = %s\nwhile True:\n    os.write(1, data)\n"
_FILES = (
    "folder = OUT / TURN_ID / 'files'\nfolder.mkdir(parents=True, exist_ok=True)\n"
    "for number in range(5000):\n    (folder / ('%s' + str(number))).write_bytes(b'x')\n"
)
_HANG = (
    "folder = OUT / TURN_ID / 'files'\nfolder.mkdir(parents=True, exist_ok=True)\n"
    "for name in 'ab':\n    (folder / (name + '.json')).write_text(json.dumps('a' * 60 + '!'))\n"
)
_SOCKETS = """
import socket
while True:
    ends = [end for _ in range(200) for end in socket.socketpair()]
    for left, right in zip(ends[::2], ends[1::2]):
        socket.send_fds(left, [b'x'], [left.fileno(), right.fileno()])
    for end in ends:
        end.close()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """One way for a program to make the host work. *beside*: what the neighbour does that is measured."""

    name: str
    code: str
    beside: str = "execute"  # or `call`: a tool, in the same supervisor; or `check`: a promised file looked into
    contract: Any = None
    timeout_s: float = 20.0
    runs: int = 1  # at once, of the flood and of the spinning program alike
    may_wait_ms: float = 0.0  # beyond twice as long, in the worst case: one turn of somebody else's


def _promise(*names: str, **checks: object) -> list[dict[str, object]]:
    return [{"filename": f"turn_1/files/{name}", "description": "promised", **checks} for name in names]


def _calls(value: str, tool: str = "a.b") -> str:
    return f"{_STREAM}params = '{{\"a\":' + {value} + '}}'\n" + _SEND % f"call(number, params, {tool!r})"


_SMALL = _STREAM + "block = b''.join(call(n) for n in range(1, 600))\n" + _SEND % "block"
_LOGS = _STREAM + "block = message(t='Log', level='INFO', name='x', text='y') * 1000\n" + _SEND % "block"
_DRIP = _STREAM + "data = call(1)\nwhile True:\n    for byte in data:\n        stream.sendall(bytes([byte]))\n"
_ENDLESS = {"json_schema": {"type": "string", "pattern": "^(a+)+$"}}
FLOODS = (
    Flood(name="frames of 499,000 values", code=_calls("'[' + ','.join(['{}'] * 499000) + ']'")),
    Flood(name="frames of 1,000 values", code=_calls("'[' + ','.join(['{}'] * 490) + ']'")),
    Flood(name="frames of escaped text", code=_calls("'\"' + r'\u0041' * 10000 + '\"'")),
    Flood(name="small calls", code=_SMALL),
    Flood(name="log records", code=_LOGS),
    Flood(name="frames byte by byte", code=_DRIP),
    Flood(name="stdout by single bytes", code="import os\n" + _WRITE % "b'x'"),
    Flood(name="stdout by newlines", code="import os\n" + _WRITE % "b'\\n' * 4096"),
    Flood(name="stdout that is not text", code="import os\n" + _WRITE % "b'\\xff' * 65536"),
    Flood(name="5,000 files collected", code=_FILES % "f"),
    Flood(name="5,000 files beside a contract", code=_FILES % ("\u0390" * 60), contract=_promise("x", "y")),
    Flood(name="stdout that fills result.json", code="import os\nos.write(1, b'\\x01' * (8 << 20))\n"),
    Flood(name="sockets in flight", code=_SOCKETS),
    Flood(
        name="promised files that hang, three runs",
        code=_HANG,
        beside="check",
        contract=_promise("a.json", "b.json", **_ENDLESS),
        runs=3,
        may_wait_ms=1000 * SLICE_S,
    ),
    Flood(
        name="supervisor: frames of 60,000 values",
        beside="call",
        code=_calls("'[' + ','.join(['{}'] * 30000) + ']'", "echo.waiting"),
    ),
    Flood(name="supervisor: small calls", beside="call", code=_SMALL),
    Flood(name="supervisor: log records", beside="call", code=_LOGS),
)
_CALLER = """
import time
seconds = []
for _ in range(int(sys.argv[1])):
    time.sleep(0.01)
    began = time.perf_counter()
    agent_io_tools.tool_call_sync(tool_id="echo.waiting", params={"text": "hello"})
    seconds.append(time.perf_counter() - began)
print(json.dumps(seconds))
"""


_CHECK = "(OUT / TURN_ID / 'files' / 'a.json').write_text('[1]')\n"


@asynccontextmanager
async def _flooded(runtime: isorun.Runtime, flood: Flood) -> AsyncIterator[None]:
    async def again() -> None:
        while True:
            with suppress(isorun.IsorunError):
                await runtime.execute(flood.code, contract=flood.contract, turn_id=1, timeout_s=flood.timeout_s)
            await asyncio.sleep(_AGAIN_S)

    tasks = [asyncio.create_task(again()) for _ in range(flood.runs)]
    try:
        await asyncio.sleep(0.5)  # until it floods
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _neighbour(runtime: isorun.Runtime, beside: str, count: int) -> list[float]:
    if beside == "call":
        result = await runtime.execute(_CALLER, argv=[str(4 * count)], timeout_s=120)
        result.raise_for_status()
        found: list[float] = json.loads(result.stdout)
        return found
    program, contract = (_CHECK, _promise("a.json")) if beside == "check" else ("pass", None)

    async def once() -> float:
        began = time.perf_counter()
        (await runtime.execute(program, contract=contract, turn_id=1)).raise_for_status()
        return time.perf_counter() - began

    return await paced(once, count, lambda: runtime.waiting_slots >= 2)


async def measured(count: int, flood: Flood) -> tuple[Spread, Spread]:
    """The neighbour's times beside spinning programs, and beside the flood."""
    bundle = BUNDLE if flood.beside == "call" else None
    spin = replace(flood, code=SPIN, contract=None, timeout_s=300)
    with tempfile.TemporaryDirectory(prefix="isorun-bench-", dir="/dev/shm") as root:
        async with isorun.Runtime(bundle=bundle, pool_size=3, workspace_root=root) as runtime:
            async with _flooded(runtime, spin):
                calm = Spread.of(await _neighbour(runtime, flood.beside, count))
            async with _flooded(runtime, flood):
                beside = Spread.of(await _neighbour(runtime, flood.beside, count))
    return calm, beside


def ratio(calm: Spread, beside: Spread) -> tuple[float, float]:
    """How many times as long p50 and p99 took beside the flood."""
    return beside.p50 / calm.p50, beside.p99 / calm.p99


def within(flood: Flood, calm: Spread, beside: Spread) -> bool:
    """Whether both meet the gate."""
    return beside.p50 <= GATE * calm.p50 and beside.p99 <= GATE * calm.p99 + flood.may_wait_ms


def gate(flood: Flood) -> str:
    """The gate, for the table."""
    return f"p50 ≤ {GATE:g}×, p99 ≤ {GATE:g}× + {flood.may_wait_ms / 1000:g} s" if flood.may_wait_ms else _BOTH


def shown(calm: Spread, beside: Spread) -> str:
    """Both spreads for the table."""
    p50, p99 = ratio(calm, beside)
    median = f"p50 {calm.p50:.2f} → {beside.p50:.2f} ms ({p50:.1f}×)"
    return f"{median}, p99 {calm.p99:.2f} → {beside.p99:.2f} ms ({p99:.1f}×)"
