"""How long a spinning program takes to stand still, and to go on: with a control group, without, in a container."""

import asyncio
import tempfile
import time

import isorun
from bench import peers
from bench.figures import MEMORY, Figure, timed
from bench.measure import Spread
from isorun.backends.base import Backend
from isorun.backends.namespace.backend import NamespaceBackend, Options
from isorun.settings import Settings

SPIN = "print('begun', flush=True)\nwhile True: pass"
GATE_MS = 5.0
_REST_S = 0.02


async def figures(count: int) -> list[Figure]:
    """Of each backend that is here. Those with the embedded one's control group have gates."""
    group = await _measured(NamespaceBackend(), count)
    signals = await _measured(NamespaceBackend(Options(use_cgroup=False)), count)
    found = [*_rows("a control group", *group, has_gate=True), *_rows("SIGSTOP", *signals, has_gate=False)]
    if peers.docker_is_there():
        found += _rows("`docker pause`", *await _measured("docker", max(count // 10, 5)), has_gate=False)
    return found


async def _measured(backend: Backend | str, count: int) -> tuple[list[float], list[float]]:
    """Seconds of *count* freezes and thaws of one run, with a rest before each."""
    frozen, thawed = [], []
    with tempfile.TemporaryDirectory(prefix="isorun-bench-", dir=MEMORY) as root:
        async with isorun.Runtime(
            backend=backend, settings=Settings.load(), pool_size=0, workspace_root=root
        ) as runtime:
            run = await runtime.start(SPIN, timeout_s=600)
            async for event in run.events():
                if event.kind == "output":
                    break
            for _ in range(count):
                for act, seconds in ((run.freeze, frozen), (run.thaw, thawed)):
                    await asyncio.sleep(_REST_S)
                    began = time.perf_counter()
                    await act()
                    seconds.append(time.perf_counter() - began)
            await run.cancel()
    return frozen, thawed


def _rows(by: str, frozen: list[float], thawed: list[float], *, has_gate: bool) -> list[Figure]:
    most = GATE_MS if has_gate else None
    return [
        timed(f"{what} a run that spins, by {by}", Spread.of(seconds), most)
        for what, seconds in (("freeze", frozen), ("thaw", thawed))
    ]
