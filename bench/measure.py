"""Timing many runs of something, paced and saturated."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Milliseconds of many measurements of one thing."""

    p50: float
    p95: float
    p99: float
    least: float
    count: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Spread":
        """The spread of *seconds*; at least one measurement."""
        ordered = sorted(1e3 * s for s in seconds)

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]

        return cls(p50=at(0.50), p95=at(0.95), p99=at(0.99), least=ordered[0], count=len(ordered))


async def paced(
    once: Callable[[], Awaitable[float]], count: int, ready: Callable[[], bool], pause_s: float = 0.02
) -> list[float]:
    """*count* measurements, each begun when *ready* holds and the machine has had *pause_s* of rest."""
    found = []
    for _ in range(count):
        while not ready():  # noqa: ASYNC110 - a pool has no event for being full, and needs none but here
            await asyncio.sleep(0.002)
        await asyncio.sleep(pause_s)
        found.append(await once())
    return found


async def saturated(once: Callable[[], Awaitable[float]], count: int, at_once: int) -> tuple[list[float], float]:
    """*count* measurements by *at_once* callers without a pause; also how many were done per second."""
    found: list[float] = []

    async def caller() -> None:
        while len(found) + busy[0] < count:
            busy[0] += 1
            try:
                seconds = await once()
            finally:
                busy[0] -= 1
            found.append(seconds)

    busy = [0]
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(caller())
    return found, len(found) / (time.perf_counter() - began)
