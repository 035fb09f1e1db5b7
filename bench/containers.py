"""The figures of the Docker backend, with `docker run` of the same program and the same flags beside them."""

import asyncio
import tempfile
import time
from functools import partial

import isorun
from bench import peers
from bench.figures import CONTRACT, HELLO, MEMORY, Figure, complete, filled, shown, timed, vars_of
from bench.measure import Spread
from bench.pairs import Ratio, rounds
from isorun.settings import Settings

_HIT_MS, _EMPTY_MS, _TIMES = 15, 600, 50
_REST_S = 0.05
_POOL = Settings().pool_size  # as it comes: with one slot alone, the next is built while the first one runs


async def figures(count: int) -> list[Figure]:
    """None where no engine answers or it has no executor image; else three, and the peer."""
    if not peers.docker_is_there():
        return []
    hits, wholes = await _hits(count)
    empty = await _empty(max(count // 4, 5))
    beside, theirs = await _pairs(max(count // 4, 5))
    peer, times = Spread.of(theirs), Ratio.of(theirs, beside)
    return [
        timed("docker: pool hit to the program's first output, paced", hits, _HIT_MS),
        timed("docker: pool empty, to the program's first output", empty, _EMPTY_MS),
        timed("docker: whole `execute` at a hit, hello file under contract, paced", wholes, None),
        Figure(
            name="peer: hardened `docker run` of Python",
            value=f"{shown(peer)} ({times.shown('a hit in Docker')})",
            gate=f"a hit ≥ {_TIMES}× faster",
            ok=times.median >= _TIMES,
            raw={"ms": vars_of(peer), "ratio": times.raw()},
        ),
    ]


def _runtime(root: str, pool: int) -> isorun.Runtime:
    return isorun.Runtime(backend="docker", settings=Settings.load(), pool_size=pool, workspace_root=root)


async def _hits(count: int) -> tuple[Spread, Spread]:
    """To the first output, and whole runs, each from a full pool on a machine at rest."""
    first, whole = [], []
    with tempfile.TemporaryDirectory(prefix="isorun-bench-", dir=MEMORY) as root:
        async with _runtime(root, _POOL) as opened:
            for _ in range(count):
                await filled(opened, _POOL)
                await asyncio.sleep(_REST_S)
                first.append(await _to_first_output(opened))
            for _ in range(max(count // 2, 5)):
                await filled(opened, _POOL)
                await asyncio.sleep(_REST_S)
                began = time.perf_counter()
                result = await opened.execute(HELLO, contract=CONTRACT, timeout_s=10)
                whole.append(time.perf_counter() - began)
                complete(dict(result.isolation))
                if not result.ok:
                    raise SystemExit(f"a measured run failed: {result.report_text}")
    return Spread.of(first), Spread.of(whole)


async def _pairs(count: int) -> tuple[list[float], list[float]]:
    """Seconds to the first output at a hit, and of the peer, in pairs."""
    with tempfile.TemporaryDirectory(prefix="isorun-bench-", dir=MEMORY) as root:
        async with _runtime(root, _POOL) as opened:

            async def rest() -> None:
                await filled(opened, _POOL)
                await asyncio.sleep(_REST_S)

            kinds = {
                "hit": partial(_to_first_output, opened),
                "peer": partial(peers.docker_python, peers.HELLO),
            }
            found = await rounds(kinds, count, rest)
    return found["hit"], found["peer"]


async def _empty(count: int) -> Spread:
    with tempfile.TemporaryDirectory(prefix="isorun-bench-", dir=MEMORY) as root:
        async with _runtime(root, 0) as opened:
            return Spread.of([await _to_first_output(opened) for _ in range(count)])


async def _to_first_output(opened: isorun.Runtime) -> float:
    said = asyncio.get_running_loop().create_future()

    def heard(stream: str, data: bytes) -> None:
        if not said.done():
            said.set_result(time.perf_counter())

    began = time.perf_counter()
    run = await opened.start("print('hello', flush=True)", timeout_s=10, on_output=heard)
    took: float = await said - began
    await run.result()
    return took
