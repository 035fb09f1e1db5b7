"""The built-in writers: a page by each of them, the first of a new supervisor, and Chromium's PDF of the same page."""

import io
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import isorun
from bench import chromium
from bench.figures import MEMORY, Figure, children, complete, descendants, filled, pss, shown, timed, vars_of
from bench.measure import Spread

GATES_MS = {"pdf": 25, "docx": 80, "pptx": 50, "html": None, "xlsx": None}
FIRST_S, WORKER_MB, TIMES = 1.5, 120, 20
_SPAWNER = b"from isorun.supervisor.worker."
TEXT = """# Storage in numbers

Storage grew by **41 %** in a year, mostly next to *solar* plants[^scope]. The price of a pack fell below `100 $/kWh`
for the first time, and it falls in [every region](https://example.org/regions).

1. Cells became cheaper:
   - lithium iron phosphate is the usual choice
   - sodium cells are sold for small systems
2. Permits take half the time.

| region | GWh | growth | note |
|:-------|----:|:------:|------|
| Asia | 182.4 | +44 % | mostly China |
| Europe | 61.0 | +38 % | large systems beside substations |
| America | 74.9 | +35 % | Texas and California |

> A forecast is a statement about the present.

```python
def growth(series: list[float]) -> float:
    return 100 * (series[-1] / series[-2] - 1)
```

[^scope]: Systems above 1 MWh. **Home batteries** are not counted.
"""
ROWS = [[f"region {number}", number, number / 7, number % 2 == 0] for number in range(200)]
#: Run inside; of each writer the first call is not counted.
_PROGRAM = """
import sys, time
found = {}
for kind, params, count in json.loads(Path("jobs.json").read_text()):
    tool, seconds = f"generic_tools.write_{kind}", []
    params["path"] = f"page.{kind}"
    for _ in range(count + 1):
        began = time.perf_counter()
        made = await agent_io_tools.tool_call(tool_id=tool, params=params)
        seconds.append(time.perf_counter() - began)
    found[kind] = {"seconds": seconds[1:], "first": seconds[0], "made": made}
print(json.dumps(found))
"""


async def figures(count: int) -> list[Figure]:
    """A page by each writer, warm; the first call; the memory of a worker; and the peer."""
    async with _opened() as runtime:
        found, result = await _written(runtime, count)
        html, pdf = result["page.html"].read_text(), result["page.pdf"].read_bytes()
    if _pages(pdf) != 1:
        raise SystemExit(f"refused: the page to be measured has {_pages(pdf)} pages")
    spreads = {kind: Spread.of(one["seconds"]) for kind, one in found.items()}
    rows = [
        timed(f"`write_{kind}`, {'200 rows' if kind == 'xlsx' else 'one page'}, warm", spread, GATES_MS[kind])
        for kind, spread in spreads.items()
    ]
    peer = await peer_figures(html, spreads["pdf"], max(count // 5, 2))
    return [*rows, *peer, await first_call(max(count // 5, 3)), await worker_memory()]


async def peer_figures(html: str, ours: Spread, count: int) -> list[Figure]:
    """Chromium's PDF of *html*, beside *ours*; where no Chromium is, a row that says so and is not judged."""
    name, gate = "peer: Chromium's PDF of the same page, browser open, in a new page", f"ours ≥ {TIMES}× faster"
    if chromium.program() is None:
        return [Figure(name=name, value=chromium.MISSING, gate=gate, ok=None, raw={})]
    new, again, made = await chromium.pdfs(html, count)
    if _pages(made) != 1:
        raise SystemExit(f"refused: Chromium makes {_pages(made)} pages of the one that is measured")
    return [
        _beside(name, Spread.of(new), ours, gate, TIMES),
        _beside("peer: the same in a page that is used again", Spread.of(again), ours, "", None),
    ]


def _beside(name: str, peer: Spread, ours: Spread, gate: str, wanted: float | None) -> Figure:
    times = peer.p50 / ours.p50
    return Figure(
        name=name,
        value=f"{shown(peer)} ({times:.0f}× ours)",
        gate=gate,
        ok=None if wanted is None else times >= wanted,
        raw={"ms": vars_of(peer), "times_ours": round(times, 2)},
    )


def _pages(pdf: bytes) -> int:
    from pypdf import PdfReader  # here: its objects would be in the heap of what is timed before

    return len(PdfReader(io.BytesIO(pdf)).pages)


@asynccontextmanager
async def _opened() -> AsyncIterator[isorun.Runtime]:
    with tempfile.TemporaryDirectory(prefix="isorun-bench-", dir=MEMORY) as root:
        async with isorun.Runtime(pool_size=1, workspace_root=root) as runtime:
            await filled(runtime, 1)
            yield runtime


async def _written(runtime: isorun.Runtime, count: int) -> tuple[dict[str, Any], isorun.RunResult]:
    """What the program found of each writer, called *count* times."""
    page = {"content": TEXT}
    table = {"columns": ["region", "number", "share", "is even"], "rows": ROWS}
    jobs = [(kind, table if kind == "xlsx" else page, count) for kind in GATES_MS]
    result = await runtime.execute(
        _PROGRAM,
        inputs={"jobs.json": json.dumps(jobs)},
        tools=[f"generic_tools.write_{kind}" for kind in GATES_MS],
        limits=isorun.Limits(tool_calls=len(jobs) * (count + 1)),
        timeout_s=300,
    )
    result.raise_for_status()
    complete(dict(result.isolation))
    return json.loads(result.stdout), result


async def first_call(count: int) -> Figure:
    """`write_pdf` as the first call of a Runtime: its supervisor and the worker are started for it."""
    calls, wholes = [], []
    for _ in range(count):
        async with _opened() as runtime:
            began = time.perf_counter()
            result = await runtime.execute(
                "began = time.perf_counter()\n"
                f"await generic_tools.write_pdf(path='page.pdf', content={TEXT!r})\n"
                "print(time.perf_counter() - began)\n",
                tools=["generic_tools.write_pdf"],
            )
            wholes.append(time.perf_counter() - began)
        result.raise_for_status()
        complete(dict(result.isolation))
        calls.append(float(result.stdout))
    call, whole = Spread.of(calls), Spread.of(wholes)
    return Figure(
        name="the first run of a Runtime with a tool: its supervisor starts, and `write_pdf` is called once",
        value=f"p50 {whole.p50 / 1e3:.2f} s, of which the call takes {call.p50 / 1e3:.2f} s",
        gate=f"≤ {FIRST_S} s",
        ok=whole.p50 <= 1e3 * FIRST_S,
        raw={"ms": vars_of(whole), "call_ms": vars_of(call)},
    )


async def worker_memory() -> Figure:
    """What a tool worker takes that has written each kind of document."""
    async with _opened() as runtime:
        await _written(runtime, 3)
        await filled(runtime, 1)  # or a slot that is made meanwhile is looked at
        (worker,) = worker_bytes()
    return Figure(
        name="memory of one tool worker (PSS, all its processes, each kind of document written)",
        value=f"{worker / 1e6:.0f} MB",
        gate=f"≤ {WORKER_MB} MB",
        ok=worker / 1e6 <= WORKER_MB,
        raw={"mb": round(worker / 1e6, 2)},
    )


def worker_bytes() -> list[int]:
    """PSS of each tool worker of ours: its keeper and all below it."""
    below = descendants(os.getpid())
    spawner = next(pid for pid in below if _SPAWNER in Path(f"/proc/{pid}/cmdline").read_bytes())  # then what it forked
    return [sum(map(pss, (keeper, *descendants(keeper)))) for keeper in children(spawner)]
