"""Figures of whole runs that other rows leave out: promised files that are opened, and many runs at once."""

import asyncio
import time

import isorun
from bench.figures import HELLO, POOL, Figure, complete, runtime, timed
from bench.measure import Spread, paced

_FILES = {
    "csv": "(OUT / TURN_ID / 'files' / 'table.csv').write_text('a,b\\n1,2\\n')\n",
    "json": "(OUT / TURN_ID / 'files' / 'table.json').write_text('[1, 2]')\n",
}
_MOST_MS = 10
_AT_ONCE, _POOL, _MOST_S = 128, 4, 2.0


async def checked(count: int) -> list[Figure]:
    """`Runtime.execute` with a promised file that an inspector opens, paced."""
    async with runtime() as opened:
        return [await _checked(opened, kind, code, count) for kind, code in _FILES.items()]


async def _checked(opened: isorun.Runtime, kind: str, code: str, count: int) -> Figure:
    contract = [{"filename": f"turn_1/files/table.{kind}", "description": "a table"}]

    async def once() -> float:
        began = time.perf_counter()
        result = await opened.execute(code, contract=contract)
        seconds = time.perf_counter() - began
        result.raise_for_status()
        complete(dict(result.isolation))
        return seconds

    await once()  # from the first one on an inspector waits
    full = paced(once, count, lambda: opened.waiting_slots == POOL and opened.waiting_inspectors > 0)
    name = f"whole `execute`, {kind} file under contract, which an inspector opens, paced"
    return timed(name, Spread.of(await full), _MOST_MS)


async def burst(count: int) -> Figure:
    """Many runs that are started at the same moment beside a small pool; the slowest of *count* bursts decides."""
    seconds = []
    async with runtime(pool=_POOL) as opened:
        for _ in range(count):
            began = time.perf_counter()
            results = await asyncio.gather(*(opened.execute(HELLO) for _ in range(_AT_ONCE)))
            seconds.append(time.perf_counter() - began)
            for result in results:
                result.raise_for_status()
                complete(dict(result.isolation))
    worst = max(seconds)
    return Figure(
        name=f"{_AT_ONCE} runs at once, pool of {_POOL}: until the last one has ended well",
        value=f"{worst:.2f} s, the slowest of {count}",
        gate=f"≤ {_MOST_S:g} s",
        ok=worst <= _MOST_S,
        raw={"s": [round(one, 3) for one in seconds]},
    )
