"""The command from nothing: to its first byte of output, and by stage."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.cold_stages import STAGES
from bench.figures import Figure, vars_of
from bench.measure import Spread

_ROOT = Path(__file__).parents[1]
_GATE_MS = 190


def figures(count: int) -> list[Figure]:
    """`isorun run hello.py` to its first byte, which has a gate, and when each stage was over, which has none."""
    with tempfile.TemporaryDirectory() as folder:
        program, trace = Path(folder) / "hello.py", Path(folder) / "trace"
        program.write_text("print('hello')\n")
        command = [str(Path(sys.executable).with_name("isorun")), "run", str(program)]
        traced = [sys.executable, "-m", "bench.cold_stages", str(trace), "run", str(program)]
        _started(traced, folder)  # leaves the bytecode of what traces
        first = [_started(command, folder)["first byte"] for _ in range(count)]
        return [_first_byte(first), _by_stage([_traced(traced, trace, folder) for _ in range(count)])]


def _started(argv: list[str], folder: str) -> dict[str, float]:
    """Seconds until the first byte and until the end, and the moment from which both count."""
    environment = {**os.environ, "ISORUN_WORKSPACE_ROOT": folder}
    began = time.monotonic()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=_ROOT) as process:
        if process.stdout is None or process.stdout.read(1) != b"h":
            raise SystemExit("isorun run printed something else")
        first = time.monotonic() - began
        process.communicate()
    return {"first byte": first, "exit": time.monotonic() - began, "began": began}


def _traced(argv: list[str], trace: Path, folder: str) -> dict[str, float]:
    """Seconds until each of `STAGES` was over."""
    found = _started(argv, folder)
    began = found.pop("began")
    for line in trace.read_text().splitlines():
        moment, _, stage = line.partition(" ")
        found[stage] = float(moment) - began
    return found


def _first_byte(seconds: list[float]) -> Figure:
    spread = Spread.of(seconds)
    return Figure(
        name="`isorun run hello.py`, cold, no preloads, to first output",
        value=f"p50 {spread.p50:.0f} ms",
        gate=f"≤ {_GATE_MS} ms",
        ok=spread.p50 <= _GATE_MS,
        raw={"ms": vars_of(spread)},
    )


def _by_stage(found: list[dict[str, float]]) -> Figure:
    at = {stage: 1e3 * median(one[stage] for one in found) for stage in STAGES if stage in found[0]}
    return Figure(
        name="the same by stage, traced: when each was over, p50 (the host's imports go on beside the jail's start)",
        value=", ".join(f"{stage} {ms:.0f}" for stage, ms in at.items()) + " ms",
        gate="",
        ok=None,
        raw={"ms": {stage: round(ms, 1) for stage, ms in at.items()}},
    )
