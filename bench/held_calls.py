"""What a call costs that a function of the host answers: out of the sandbox, into this process, and back."""

import json
import tempfile

import isorun
from bench.figures import MEMORY, Figure, complete, vars_of
from bench.measure import Spread
from bench.tool_calls import PROGRAM, shown

GATE_MS = 0.5


async def _waiting(a: int, b: int) -> int:
    return a + b


def _blocking(a: int, b: int) -> int:
    return a + b


KINDS = {
    "held call, `tools={'calc.add': …}` is a coroutine function, one after the other": _waiting,
    "held call, `tools={'calc.add': …}` is a plain function, one after the other": _blocking,
}


async def figures(count: int) -> list[Figure]:
    """One for each kind of function."""
    found = []
    limits = isorun.Limits(tool_calls=10 * count)
    with tempfile.TemporaryDirectory(prefix="isorun-bench-", dir=MEMORY) as root:
        async with isorun.Runtime(limits=limits, pool_size=1, workspace_root=root) as runtime:
            for name, function in KINDS.items():
                argv = ["calc.add", "async", str(count), "0", json.dumps({"a": 1, "b": 2})]
                result = await runtime.execute(PROGRAM, argv=argv, tools={"calc.add": function}, timeout_s=120)
                result.raise_for_status()
                complete(dict(result.isolation))
                found.append(_figure(name, json.loads(result.stdout)))
    return found


def _figure(name: str, seconds: list[float]) -> Figure:
    spread = Spread.of(seconds)
    return Figure(
        name=name,
        value=shown(seconds),
        gate=f"p50 ≤ {1e3 * GATE_MS:.0f} µs",
        ok=spread.p50 <= GATE_MS,
        raw={"ms": vars_of(spread), "per_second": round(len(seconds) / sum(seconds))},
    )
