"""What grows with use: runs that are kept, lines that are printed, floods at once."""

import asyncio
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import isorun
from bench.figures import HELLO, MEMORY, Figure, complete, filled, runtime, vars_of
from bench.measure import Spread
from isorun.core.ids import new_exec_id
from isorun.store.folder import PREFIX

KEPT = 10_000
PRINTS = 100_000
FLOODS = 16
_START_S = 0.05  # more than with an empty root
_PRINT_CPU_S = 0.1
_FLOOD_MB = 7.0
_FLOOD = "for _ in range(20):\n    sys.stdout.write(('x' * 99 + '\\n') * 10_000)\n"  # 20 MB


async def figures(count: int) -> list[Figure]:
    """One for each."""
    rounds = max(count // 20, 5)
    return [await kept_runs(rounds), await prints(rounds), await floods()]


async def kept_runs(rounds: int, kept: int = KEPT) -> Figure:
    """Starts with *kept* runs in the root and with none, in turns."""
    async with runtime(pool=0) as some, runtime(pool=0) as none:
        stored = (await some.execute(HELLO)).out_dir.parent
        for _ in range(kept - 1):
            shutil.copytree(stored, some.root / f"{PREFIX}{new_exec_id()}")
        found: dict[Path, list[float]] = {some.root: [], none.root: []}
        for _ in range(rounds):
            for root in random.sample(list(found), 2):
                found[root].append(await _start(root))
    more_s = statistics.median(full - empty for full, empty in zip(*found.values(), strict=True))
    spreads = {
        name: vars_of(Spread.of(seconds)) for name, seconds in zip(("kept", "none"), found.values(), strict=True)
    }
    return Figure(
        name=f"Runtime start with {kept:,} kept runs, more than with none",
        value=f"{1000 * more_s:+.0f} ms",
        gate=f"≤ {1000 * _START_S:.0f} ms",
        ok=more_s <= _START_S,
        raw={"more_ms": round(1000 * more_s, 1), "ms": spreads},
    )


async def _start(root: Path) -> float:
    began = time.perf_counter()
    async with isorun.Runtime(backend="namespace", pool_size=0, workspace_root=root):
        return time.perf_counter() - began


async def prints(rounds: int, count: int = PRINTS) -> Figure:
    """A program that prints line by line: how long it takes, and what of it is the host's work."""
    wall, host = [], []
    async with runtime(pool=1) as opened:
        for _ in range(rounds):
            began, used = time.perf_counter(), time.process_time()
            result = await opened.execute(f"for i in range({count}):\n    print('line', i)")
            wall.append(time.perf_counter() - began)
            host.append(time.process_time() - used)
            result.raise_for_status()
            complete(dict(result.isolation))
    host_s = statistics.median(host)
    return Figure(
        name=f"{count:,} prints, one line each",
        value=f"{Spread.of(wall).p50:.0f} ms, of it {1000 * host_s:.0f} ms of the host's processor",
        gate=f"host ≤ {1000 * _PRINT_CPU_S:.0f} ms",
        ok=host_s <= _PRINT_CPU_S,
        raw={"ms": vars_of(Spread.of(wall)), "host_cpu_ms": round(1000 * host_s, 1)},
    )


async def floods() -> Figure:
    """The memory of the host for programs that print 20 MB each, at once, in a process of its own."""
    command = [sys.executable, "-m", "bench.growth"]
    done = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True)
    each = json.loads(done.stdout)["peak_mb"] / FLOODS
    return Figure(
        name=f"memory of the host for each of {FLOODS} runs at once that print 20 MB, at most",
        value=f"{each:.1f} MB",
        gate=f"≤ {_FLOOD_MB:g} MB",
        ok=each <= _FLOOD_MB,
        raw={"mb": round(each, 2)},
    )


async def _peak_mb() -> float:
    """What this process grew by at most while they ran, their results held."""
    with tempfile.TemporaryDirectory(prefix="isorun-bench-", dir=MEMORY) as root:
        async with isorun.Runtime(backend="namespace", pool_size=FLOODS, workspace_root=root) as opened:
            await opened.execute(HELLO)
            await filled(opened, FLOODS)
            before = _begin_anew()
            results = await asyncio.gather(*(opened.execute(_FLOOD) for _ in range(FLOODS)))
            peak = _status("VmHWM")
    for result in results:
        result.raise_for_status()
        complete(dict(result.isolation))
    return (peak - before) / 1e6


def _begin_anew() -> int:
    """The bytes of this process now, from which on its peak counts."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024


if __name__ == "__main__":
    print(json.dumps({"peak_mb": asyncio.run(_peak_mb())}))
