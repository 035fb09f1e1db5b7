"""Whole runs beside what people would use instead, in pairs; see `pairs`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from bench import peers
from bench.figures import CONTRACT, HELLO, POOL, Figure, complete, filled, runtime, shown, vars_of
from bench.fork_server import fork_server
from bench.measure import Spread
from bench.pairs import Once, Ratio, rounds

_REST_S = 0.02
_OURS = "ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """It has to take *least* times as long as ours, or ours may take *most* times as long as it; None: no gate."""

    name: str
    least: float | None = None
    most: float | None = None


_FORK = Peer(name="peer: warm fork server, no walls", most=1.4)
_PLAIN = Peer(name="peer: plain subprocess `python -I -c`, no walls")
_BWRAP = Peer(name="peer: cold Python in bubblewrap", least=3)
_SANDLOCK = Peer(name="peer: cold Python in sandlock")
_DOCKER = Peer(name="peer: hardened `docker run` of Python, beside whole runs of the embedded backend")


async def figures(count: int) -> list[Figure]:
    """One for each peer that is here: its time, and its time by ours in the same round."""
    async with runtime() as opened, fork_server(peers.HELLO) as forked:

        async def ours() -> float:
            began = time.perf_counter()
            result = await opened.execute(HELLO, contract=CONTRACT)
            seconds = time.perf_counter() - began
            result.raise_for_status()
            complete(dict(result.isolation))
            return seconds

        async def rest() -> None:
            await filled(opened, POOL)
            await asyncio.sleep(_REST_S)

        kinds: dict[Peer, Once] = {_FORK: forked, **{peer: partial(once, peers.HELLO) for peer, once in _here()}}
        named = {peer.name: once for peer, once in kinds.items()}
        found = await rounds({_OURS: ours, **named}, count, rest)
    lines = [figure(peer, found[peer.name], found[_OURS]) for peer in kinds]
    return lines if peers.sandlock_is_there() else [*lines, _missing(_SANDLOCK, "sandlock")]


def _here() -> list[tuple[Peer, Callable[[str], Awaitable[float]]]]:
    found = [(_PLAIN, peers.plain_python), (_BWRAP, peers.bubblewrapped_python)]
    found += [(_SANDLOCK, peers.sandlocked_python)] if peers.sandlock_is_there() else []
    return found + ([(_DOCKER, peers.docker_python)] if peers.docker_is_there() else [])


def figure(peer: Peer, theirs: list[float], ours: list[float]) -> Figure:
    """The line of *peer*, of which each measurement has one of ours beside it."""
    spread = Spread.of(theirs)
    if peer.most is not None:
        ratio = Ratio.of(ours, theirs)
        text, gate, ok = f"ours takes {ratio.shown('as long')}", f"ours ≤ {peer.most:g}×", ratio.median <= peer.most
    else:
        ratio = Ratio.of(theirs, ours)
        text, gate = ratio.shown("ours"), f"ours ≥ {peer.least:g}× faster" if peer.least else ""
        ok = ratio.median >= peer.least if peer.least else None
    raw = {"ms": vars_of(spread), "ours_ms": vars_of(Spread.of(ours)), "ratio": ratio.raw()}
    return Figure(name=peer.name, value=f"{shown(spread)} ({text})", gate=gate, ok=ok, raw=raw)


def _missing(peer: Peer, package: str) -> Figure:
    return Figure(name=peer.name, value=f"not here: pip install {package}", gate="", ok=None, raw={})
