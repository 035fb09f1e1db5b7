"""Each figure of the performance page: how it is measured, and the gate it has to meet."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import isorun
from bench import neighbours
from bench import tool_calls as calls
from bench.measure import Spread, paced, saturated
from isorun.backends.namespace.backend import NamespaceBackend, Options
from isorun.core.limits import Limits
from isorun.core.request import RunRequest
from isorun.runtime.request import accept
from isorun.runtime.run import Options as RunOptions
from isorun.runtime.run import program_for

POOL = 16
#: Where run folders are written, unless a figure says disk: making some twenty files and folders costs what the
#: file system of the moment asks, on ext4 from half a millisecond to six, more so after many were deleted.
MEMORY = "/dev/shm"
AT_ONCE = 4
HELLO = "(OUT / TURN_ID / 'files' / 'hello.txt').write_text('hello')\n"
PANDAS = HELLO + (
    "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': [3, 4]}).to_csv(OUT / TURN_ID / 'files' / 'table.csv')\n"
)
FIRST = "import time; print(time.monotonic())"
_DOES = {"execute": "`execute`", "call": "tool call", "check": "`execute` with a promised JSON file"}
CONTRACT = [{"filename": "turn_1/files/hello.txt", "description": "a greeting"}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table. *ok* is None for a peer, which has no gate."""

    name: str
    value: str
    gate: str
    ok: bool | None
    raw: dict[str, Any]


def complete(isolation: dict[str, Any]) -> dict[str, Any]:
    """*isolation*, if every wall stood; a number of a weakened run is no number of ours."""
    if isolation["level"] != "full":
        raise SystemExit(f"refused: the measured runs were not sealed fully: {isolation['level']}")
    return isolation


@asynccontextmanager
async def runtime(
    preload: tuple[str, ...] = (), pool: int = POOL, on: str | None = MEMORY
) -> AsyncIterator[isorun.Runtime]:
    """A Runtime with a full pool and a workspace root of its own, in memory or (None) where temporary files go."""
    with tempfile.TemporaryDirectory(prefix="isorun-bench-", dir=on) as root:
        backend = NamespaceBackend(Options(preloads=preload))
        async with isorun.Runtime(backend=backend, pool_size=pool, workspace_root=root) as opened:
            await filled(opened, pool)
            yield opened


async def filled(opened: isorun.Runtime, pool: int) -> None:
    """Return once *pool* slots wait."""
    while opened.waiting_slots < pool:  # noqa: ASYNC110 - as in `paced`
        await asyncio.sleep(0.005)


def within(spread: Spread, p50: float, p99: float | None = None) -> bool:
    """Whether the spread meets its gates, in milliseconds."""
    return spread.p50 <= p50 and (p99 is None or spread.p99 <= p99)


def shown(spread: Spread) -> str:
    """A spread for the table."""
    return f"p50 {spread.p50:.2f} ms, p99 {spread.p99:.2f} ms"


async def first_bytecode(count: int) -> Figure:
    """From a waiting slot to the program's first bytecode: the program prints the clock we started."""
    backend = NamespaceBackend()
    limits = Limits()
    found = []
    async with backend:
        for _ in range(count):
            async with backend.launch(limits) as slot:
                complete(dict(slot.isolation))
                program = program_for(accept(RunRequest.of(FIRST), limits), RunOptions())
                await asyncio.sleep(0.02)
                began = time.monotonic()
                await slot.start(program)
                await slot.wait()
                await slot.kill()
                found.append(float(os.read(slot.stdout, 100)) - began)
    spread = Spread.of(found)
    return Figure(
        name="slot hit to first user bytecode, paced",
        value=shown(spread),
        gate="p50 ≤ 1 ms, p99 ≤ 5 ms",
        ok=within(spread, 1, 5),
        raw={"ms": vars_of(spread)},
    )


def timed(name: str, spread: Spread, most: float | None) -> Figure:
    """A line for a time; *most* is its gate, milliseconds of p50, and None that it has none."""
    gate, ok = ("", None) if most is None else (f"p50 ≤ {most:g} ms", within(spread, most))
    return Figure(name=name, value=shown(spread), gate=gate, ok=ok, raw={"ms": vars_of(spread)})


def vars_of(spread: Spread) -> dict[str, float]:
    """A spread as JSON."""
    return {name: round(getattr(spread, name), 4) for name in ("p50", "p95", "p99", "least", "count")}


async def whole_runs(count: int) -> tuple[list[Figure], dict[str, Any]]:
    """`Runtime.execute` of a hello file under contract, paced and saturated. Long because it lists its figures."""
    async with runtime() as opened:
        seen: dict[str, Any] = {}

        async def once() -> float:
            began = time.perf_counter()
            result = await opened.execute(HELLO, contract=CONTRACT)
            seconds = time.perf_counter() - began
            result.raise_for_status()
            seen.update(complete(dict(result.isolation)))
            return seconds

        calm = Spread.of(await paced(once, count, lambda: opened.waiting_slots == POOL))
        await filled(opened, POOL)
        busy, rate = await saturated(once, 2 * count, AT_ONCE)
    async with runtime(on=None) as opened:
        disk = Spread.of(await paced(once, count // 2, lambda: opened.waiting_slots == POOL))
    figures = [
        Figure(
            name="whole `execute`, hello file under contract, paced",
            value=shown(calm),
            gate="p50 ≤ 5 ms, p99 ≤ 20 ms",
            ok=within(calm, 5, 20),
            raw={"ms": vars_of(calm)},
        ),
        Figure(
            name="the same, run folders on disk",
            value=shown(disk),
            gate="p50 ≤ 5 ms, p99 ≤ 20 ms",
            ok=within(disk, 5, 20),
            raw={"ms": vars_of(disk)},
        ),
        Figure(
            name=f"the same, {AT_ONCE} callers without a pause",
            value=shown(Spread.of(busy)),
            gate="",
            ok=None,
            raw={"ms": vars_of(Spread.of(busy))},
        ),
        Figure(
            name="sustained whole runs",
            value=f"{rate:.0f} per second",
            gate="≥ 150 per second",
            ok=rate >= 150,
            raw={"per_second": round(rate, 1)},
        ),
    ]
    return figures, seen


async def with_pandas(count: int) -> tuple[list[Figure], float]:
    """The same with pandas preloaded, imported, and a CSV written; and the memory of waiting slots.

    Long because it lists its figures.
    """
    async with runtime(("pandas",)) as opened:

        async def once() -> float:
            began = time.perf_counter()
            result = await opened.execute(PANDAS, contract=CONTRACT)
            seconds = time.perf_counter() - began
            result.raise_for_status()
            complete(dict(result.isolation))
            return seconds

        calm = Spread.of(await paced(once, count, lambda: opened.waiting_slots == POOL))
        await filled(opened, POOL)
        _, rate = await saturated(once, count, AT_ONCE)
        await filled(opened, POOL)
        full = pss_of_children(os.getpid())
    async with runtime(("pandas",), pool=0):
        empty = pss_of_children(os.getpid())
    each = (full - empty) / POOL / 1e6
    return [
        Figure(
            name="whole `execute` with pandas imported and a CSV written, paced",
            value=shown(calm),
            gate="p50 ≤ 12 ms",
            ok=within(calm, 12),
            raw={"ms": vars_of(calm)},
        ),
        Figure(
            name="sustained whole runs with pandas",
            value=f"{rate:.0f} per second",
            gate="",
            ok=None,
            raw={"per_second": round(rate, 1)},
        ),
        Figure(
            name=f"memory of one more waiting slot (PSS, all its processes, pool of {POOL}, pandas preloaded)",
            value=f"{each:.1f} MB",
            gate="≤ 6 MB",
            ok=each <= 6,
            raw={"mb": round(each, 2)},
        ),
    ], each


def pss_of_children(root: int) -> int:
    """Bytes of PSS of every descendant of *root* (shared pages counted once, in parts)."""
    return sum(map(pss, descendants(root)))


def descendants(root: int) -> list[int]:
    """Every process below *root*, each behind its parent."""
    found = [root]
    for pid in found:  # it grows
        found += children(pid)
    return found[1:]


def children(pid: int) -> list[int]:
    """The processes that *pid* is the parent of."""
    return [int(child) for one in Path(f"/proc/{pid}/task").glob("*/children") for child in one.read_text().split()]


def pss(pid: int) -> int:
    """Bytes of PSS of one process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


async def tool_calls(count: int) -> list[Figure]:
    """One tool call there and back, in each way of calling; peers of the same run behind them."""
    ours = await calls.measured(count, complete)
    figures = []
    for name, seconds in {**ours, **calls.peers(count)}.items():
        spread, rate = Spread.of(seconds), len(seconds) / sum(seconds)
        gate, ok = "", None
        if name == next(iter(ours)):
            gate, ok = "p50 ≤ 120 µs, ≥ 8,000 per second", spread.p50 <= 0.120 and rate >= 8000
        elif name == calls.APART:
            most = Spread.of(ours[calls.PLAIN]).p50 + calls.APART_MS
            gate, ok = "p50 ≤ that of the plain function + 300 µs", spread.p50 <= most
        figures.append(
            Figure(
                name=name,
                value=calls.shown(seconds),
                gate=gate,
                ok=ok,
                raw={"ms": vars_of(spread), "per_second": round(rate)},
            )
        )
    return figures


async def beside_floods(count: int, wanted: Sequence[str] = ()) -> list[Figure]:
    """A neighbour beside each flood: all of them, or those whose name has one of *wanted* in it."""
    found = []
    for flood in neighbours.FLOODS:
        if wanted and not any(word in flood.name for word in wanted):
            continue
        calm, beside = await neighbours.measured(count, flood)
        found.append(
            Figure(
                name=f"neighbour's {_DOES[flood.beside]}, beside a spinning program → beside a flood: {flood.name}",
                value=neighbours.shown(calm, beside),
                gate=neighbours.gate(flood),
                ok=neighbours.within(flood, calm, beside),
                raw={"calm_ms": vars_of(calm), "beside_ms": vars_of(beside)},
            )
        )
    return found
