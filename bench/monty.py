"""A tool call beside an external call of pydantic-monty, in pairs: that interpreter runs a part of Python."""

import asyncio
import json
import statistics
import tempfile
import time
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise

import isorun
from bench import tool_calls
from bench.figures import MEMORY, Figure, complete, vars_of
from bench.measure import Spread
from bench.pairs import Ratio, rounds

NAME = "peer: call of a function of the host by pydantic-monty, one after the other"
MISSING = "not here: pip install pydantic-monty"
_CALLS = 500  # a round: monty allows a thousand a session
_REST_S = 0.02
_PROGRAM = f"for number in range({_CALLS} + 1):\n    echo('hello')\n"


async def figures(count: int) -> list[Figure]:
    """The peer's line, of *count* rounds of calls; one that says so where the package is not installed."""
    if find_spec("pydantic_monty") is None:
        return [Figure(name=NAME, value=MISSING, gate="", ok=None, raw={})]
    limits = isorun.Limits(tool_calls=10 * _CALLS)
    with tempfile.TemporaryDirectory(prefix="isorun-bench-", dir=MEMORY) as root:
        async with isorun.Runtime(bundle=tool_calls.BUNDLE, limits=limits, workspace_root=root) as opened:
            kinds = {"ours": partial(_ours, opened), "peer": partial(asyncio.to_thread, _theirs)}
            found = await rounds(kinds, count, partial(asyncio.sleep, _REST_S))
    theirs, ratio = Spread.of(found["peer"]), Ratio.of(found["peer"], found["ours"])
    value = f"p50 {1e3 * theirs.p50:.0f} µs ({ratio.shown('`tool_call_sync`')})"
    return [Figure(name=NAME, value=value, gate="", ok=None, raw={"ms": vars_of(theirs), "ratio": ratio.raw()})]


async def _ours(opened: isorun.Runtime) -> float:
    argv = ["echo.waiting", "sync", str(_CALLS), "0", tool_calls.PARAMS]
    result = await opened.execute(tool_calls.PROGRAM, argv=argv)
    result.raise_for_status()
    complete(dict(result.isolation))
    return statistics.median(json.loads(result.stdout))


def _theirs() -> float:
    at: list[float] = []

    def echo(text: str) -> str:
        at.append(time.perf_counter())
        return text

    with import_module("pydantic_monty").Monty() as pool, pool.checkout() as session:
        session.feed_run(_PROGRAM, external_lookup={"echo": echo})
    return statistics.median(later - earlier for earlier, later in pairwise(at))
