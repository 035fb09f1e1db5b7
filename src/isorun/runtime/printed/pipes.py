"""A run's pipes, read without a thread, in the order in which their bytes arrived.

Theory of operation. A program that prints line by line makes one write a line, and a host that wakes for each of
them pays ten times what the bytes cost. So a pipe that brings many small pieces is left alone for a few milliseconds,
and what has gathered is read at once. The first piece is always read when it comes. Before something is told that
came later (bytes of the other pipe, an event of another kind), the gathered bytes are: see `Order`.

It must not keep what it reads: that is its taker's.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from isorun.core.share import Account, charged

READ = 1 << 16
_OFTEN, _OFTEN_S = 16, 0.016  # pieces, and the time in which so many are a flood
_GATHER_S = 0.004  # at most: a line is to be seen within 50 ms, also on a busy machine
_LEAST_S = 0.001  # what a loop can wait
_FULL_S = 0.1  # so long nothing gathers after a full pipe, which stops its writer: large pieces cost little
_LONGEST_S = 0.25  # of leaving a pipe alone: a callback of the caller's that took seconds is no program's debt
_DRAIN_S = 5.0


class Gathering:
    """For how long bytes should gather in a pipe that holds *room*. Pure: it is told the time, in monotonic seconds."""

    def __init__(self, room: int) -> None:
        # Half: a piece that does not fit into the rest of a page begins a new one, so a pipe may be full with that.
        self._full, self._wanted = room // 2, room * 3 // 8
        self._since, self._pieces, self._bytes = 0.0, 0, 0

    def pause_s(self, now: float, count: int, waited_s: float) -> float:
        """How long to wait now that *count* bytes came, which had *waited_s* to gather; 0 to read what comes next."""
        if count > self._full:
            self._since, self._pieces, self._bytes = now + _FULL_S, 0, 0
            return 0.0
        if waited_s:
            return self._fitting(count, waited_s)
        if now - self._since > _OFTEN_S:
            self._since, self._pieces, self._bytes = now, 0, 0
        if now >= self._since:
            self._pieces += 1
            self._bytes += count
        return self._fitting(self._bytes, now - self._since) if self._pieces >= _OFTEN else 0.0

    def _fitting(self, count: int, seconds: float) -> float:
        """The time in which the wanted bytes come, if *count* come in *seconds*; 0 if a loop cannot wait so short."""
        pause_s = min(_GATHER_S, self._wanted * seconds / count)
        return pause_s if pause_s >= _LEAST_S else 0.0


class Order:
    """The pipes of one run that are left alone while bytes gather in them."""

    def __init__(self) -> None:
        self.gathering: dict[PipeReader, None] = {}

    def catch_up(self) -> None:
        """Take what has gathered: it came before what is told next."""
        for reader in tuple(self.gathering):
            reader.take_gathered()


class PipeReader:
    """Reads one pipe until its end; *account* is charged with what *take* takes. Without *order* nothing gathers."""

    def __init__(
        self,
        descriptor: int,
        take: Callable[[bytes], None],
        account: Account | None = None,
        order: Order | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._take = take
        self._account = account
        self._order = order
        self._gathering = Gathering(_room(descriptor))
        self._rest: asyncio.TimerHandle | None = None  # while the loop does not look at the pipe
        self._left_at = 0.0
        self._loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()
        self._loop.add_reader(descriptor, self._read)

    def _read(self) -> None:
        if self._order is not None:
            self._order.catch_up()
        self._read_after(0.0)

    def take_gathered(self) -> None:
        """Read what has gathered so far."""
        self._read_after(time.monotonic() - self._left_at)

    def _read_after(self, waited_s: float) -> None:
        began = time.monotonic()
        try:
            data = os.read(self._descriptor, READ)
        except BlockingIOError:
            self._go_on()
            return
        except OSError:
            data = b""
        if not data:
            self.stop()
            return
        self._take(data)
        now = time.monotonic()
        if owed_s := self._owed_s(now, now - began, len(data)):
            self._leave_alone(owed_s, self._go_on)
        elif self._order is not None and (pause_s := self._gathering.pause_s(now, len(data), waited_s)):
            self._leave_alone(pause_s, self._order.catch_up)
            self._left_at = now
            self._order.gathering[self] = None
        else:
            self._go_on()

    def _owed_s(self, now: float, taken_s: float, count: int) -> float:
        if self._account is None:
            return 0.0
        cost = charged(taken_s, 1, is_behind=count == READ)
        return min(self._account.spend(now, cost), _LONGEST_S)

    def _leave_alone(self, pause_s: float, then: Callable[[], None]) -> None:
        if self._rest is None:
            self._loop.remove_reader(self._descriptor)
        self._end_rest()
        self._rest = self._loop.call_later(pause_s, then)

    def _go_on(self) -> None:
        if self._rest is not None:
            self._end_rest()
            self._loop.add_reader(self._descriptor, self._read)

    def _end_rest(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if self._order is not None:
            self._order.gathering.pop(self, None)

    def hurry(self) -> None:
        """No process is left that could write: read what is left without a pause."""
        self._go_on()
        self._account = self._order = None

    def stop(self) -> None:
        """Stop reading; what is still in the pipe stays there."""
        self._end_rest()
        if not self.ended.is_set():
            with suppress(OSError, ValueError):
                asyncio.get_running_loop().remove_reader(self._descriptor)
            self.ended.set()


def _room(descriptor: int) -> int:
    """The bytes that the pipe holds; 0, so that nothing gathers, for what is not a pipe."""
    import fcntl  # not at the top: `import isorun` works where there is none

    try:
        return fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)
    except OSError:
        return 0


async def drain(readers: Sequence[PipeReader]) -> None:
    """Every process that could write is dead, so each pipe has an end; the bound is for a kernel that disagrees."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            for reader in readers:
                reader.hurry()
            for reader in readers:
                await reader.ended.wait()
