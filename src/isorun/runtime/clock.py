"""A run's own time, and how a run is frozen.

The clock starts with the program's first instruction. While the run is frozen the clock is stopped: neither the run's
deadline nor that of an open tool call comes nearer. The clock knows no processes; `Freezing` has the slot freeze them.

Must not: freeze a run while a tool works for it, nor keep a run that is to end from ending.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from isorun.backends.base import Slot
from isorun.runtime.events import Event, Feed
from isorun.runtime.toolstream import Tools


class Clock:
    """The time of one run, *timeout_s* of it."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._began = self._stopped_s = 0.0
        self._stopped_since: float | None = None
        self._moved: asyncio.Future[None] | None = None

    def begin(self) -> None:
        """Start the clock: the program's first instruction is next."""
        self._began = time.monotonic()

    @property
    def has_begun(self) -> bool:
        """Whether the program's first instruction was reached."""
        return self._began > 0

    @property
    def is_stopped(self) -> bool:
        """Whether the run is frozen now."""
        return self._stopped_since is not None

    @property
    def frozen_s(self) -> float:
        """Seconds that the run has been frozen."""
        return self._stopped_s + (time.monotonic() - self._stopped_since if self._stopped_since is not None else 0.0)

    @property
    def run_s(self) -> float:
        """Seconds of the run's own time since the program's first instruction; 0 before it."""
        return time.monotonic() - self._began - self.frozen_s if self._began else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until the deadline; None while the clock is stopped."""
        return None if self.is_stopped else self._timeout_s - self.run_s

    @property
    def moved(self) -> "asyncio.Future[None]":
        """Done once the deadline has changed."""
        if self._moved is None or self._moved.done():
            self._moved = asyncio.get_running_loop().create_future()
        return self._moved

    def _move(self) -> None:
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    def stop(self) -> None:
        """Stop the clock."""
        self._stopped_since = time.monotonic()
        self._move()

    def go_on(self) -> float:
        """Let the clock go on; the seconds that it was stopped."""
        stopped_s = 0.0 if self._stopped_since is None else time.monotonic() - self._stopped_since
        self._stopped_s, self._stopped_since = self._stopped_s + stopped_s, None
        self._move()
        return stopped_s

    def extend(self, seconds: float) -> None:
        """Put the deadline off by *seconds*."""
        self._timeout_s += seconds
        self._move()


class Freezing:
    """Freezes and thaws one run, from its start to `end`. A cancelled caller interrupts neither freeze nor thaw."""

    def __init__(self, slot: Slot, clock: Clock, feed: Feed) -> None:
        self._slot, self._clock, self._feed = slot, clock, feed
        self._tools: Tools | None = None
        self._begun = asyncio.Event()
        self._extended_s = 0.0  # before the program begins
        self._lock = asyncio.Lock()
        self._given_up = asyncio.Event()  # set: a freeze that waits for tools is given up
        self._is_over = False

    def begin(self, tools: Tools) -> None:
        """The program runs, and *tools* answers its calls."""
        self._tools = tools
        if self._extended_s:
            self._slot.extend(self._extended_s)
        self._begun.set()

    async def freeze(self) -> None:
        """Return once the program uses no processor time; without effect if the run has ended."""
        self._given_up.clear()
        await _shielded(self._freeze())

    async def _freeze(self) -> None:
        await self._begun.wait()
        async with self._lock:
            tools = self._tools
            if self._is_over or self._clock.is_stopped or tools is None:
                return
            try:
                if not await self._quiet(tools):
                    tools.go_on(0.0)
                    return
                await self._slot.freeze()
            except BaseException:
                tools.go_on(0.0)
                raise
            self._clock.stop()
            self._publish("frozen")

    async def _quiet(self, tools: Tools) -> bool:
        """Wait until no tool works for the run; False if the freeze was given up first."""
        quiet, given_up = (asyncio.ensure_future(one) for one in (tools.quiet(), self._given_up.wait()))
        try:
            await asyncio.wait({quiet, given_up}, return_when=asyncio.FIRST_COMPLETED)
            return quiet.done() and not given_up.done() and bool(quiet.result())
        finally:
            quiet.cancel()
            given_up.cancel()
            await asyncio.wait({quiet, given_up})

    async def thaw(self) -> None:
        """Let the program run on; without effect if it is not frozen. A freeze that waits for tools is given up."""
        self._given_up.set()
        await _shielded(self._thaw())

    async def _thaw(self) -> None:
        async with self._lock:
            if not self._clock.is_stopped:
                return
            stopped_s = self._clock.go_on()
            if self._tools is not None:
                self._tools.go_on(stopped_s)
            self._publish("thawed", frozen_s=round(stopped_s, 6))
            await self._slot.thaw()

    def extend(self, seconds: float) -> None:
        """Put the deadline off by *seconds*, without effect if the run has ended."""
        if not self._is_over:
            self._clock.extend(seconds)
            if self._tools is not None:
                self._slot.extend(seconds)
            else:
                self._extended_s += seconds

    async def end(self, terminate: Callable[[], None] | None = None) -> None:
        """End the run: call *terminate*, then thaw the run if it is frozen or about to be."""
        self.over()
        if terminate is not None:
            terminate()
        if self._clock.is_stopped or self._lock.locked():
            await self.thaw()

    def over(self) -> None:
        """From now on nothing freezes the run."""
        self._is_over = True
        self._begun.set()
        self._given_up.set()

    def _publish(self, kind: str, **data: object) -> None:
        self._feed.publish(Event(kind=kind, at_s=round(self._clock.run_s, 6), data=data))


async def _shielded(act: Coroutine[Any, Any, None]) -> None:
    """Wait for *act*, which runs to its end even if this is cancelled; it is bounded, or can be given up."""
    await asyncio.shield(asyncio.ensure_future(act))
