"""Slots that are built before anybody asks, so that a run does not wait for one.

A slot is used once. The pool refills itself in the background; when it is empty, or
a run wants other limits than the pool's, or loopback, a slot is built while the caller waits,
with the same walls. Slots are taken down in the background too: `__aexit__` returns
only when the last one is gone.
"""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from isorun.backends.base import Backend, Slot
from isorun.core.errors import IsorunError
from isorun.core.guard.log import log_of
from isorun.core.limits import Limits
from isorun.core.text import one_line

_log = log_of("isorun.pool")
_RETRY_S = 0.5
_QUIET_S = 30.0  # between two warnings, while no slot can be built
_AFTER_S = 0.001  # from a run's end to the end of its slot
_BUILDERS = 3  # at once: most of a build is waiting, for the kernel and for two processes in turn


class Lease:
    """A slot and the duty to take it down."""

    def __init__(self, slot: Slot, stack: AsyncExitStack) -> None:
        self.slot = slot
        self.is_given_back = False
        self._stack = stack

    @classmethod
    async def take(cls, backend: Backend, limits: Limits, *, loopback: bool = False) -> "Lease":
        """A newly built slot."""
        async with AsyncExitStack() as stack:
            slot = await stack.enter_async_context(backend.launch(limits, **({"loopback": True} if loopback else {})))
            return cls(slot, stack.pop_all())

    async def close(self) -> None:
        """Take the slot down; nothing of it exists afterwards."""
        await self._stack.aclose()


class Pool:
    """Up to *size* waiting slots with *limits* from *backend*."""

    def __init__(self, backend: Backend, limits: Limits, size: int) -> None:
        self._backend = backend
        self._limits = limits
        self._size = size
        self._waiting: deque[Lease] = deque()
        self._wanted = asyncio.Event()
        self._running = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._quiet_until = 0.0
        self._building = 0
        self._builders: list[asyncio.Task[None]] = []
        self.failures: list[BaseException] = []

    async def __aenter__(self) -> "Pool":
        for _ in range(min(self._size, _BUILDERS)):
            self._builders.append(asyncio.create_task(self._keep_full(), name="isorun-pool"))
        return self

    async def __aexit__(self, *exc: object) -> None:
        for builder in self._builders:
            builder.cancel()
        await asyncio.gather(*self._builders, return_exceptions=True)
        while self._waiting:
            self._discard(self._waiting.popleft())
        while self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)
        if self.failures:
            raise self.failures[0]

    @property
    def waiting(self) -> int:
        """Slots that are ready now."""
        return len(self._waiting)

    def take_waiting(self, limits: Limits, *, loopback: bool = False) -> Lease | None:
        """A slot that waits; None if none does."""
        while limits == self._limits and self._waiting and not loopback:
            lease = self._waiting.popleft()
            self._wanted.set()
            if lease.slot.is_waiting:
                self._running += 1
                return lease
            self._discard(lease)  # it died with its jail; the run gets another one
        return None

    async def take(self, limits: Limits, *, loopback: bool = False) -> tuple[Lease, bool]:
        """A slot, and whether it was waiting."""
        if (waiting := self.take_waiting(limits, loopback=loopback)) is not None:
            return waiting, True
        lease = await Lease.take(self._backend, limits, loopback=loopback)
        self._running += 1
        return lease, False

    def give_back(self, lease: Lease) -> None:
        """The run has ended: take its slot down in the background, when the caller has had its result. Only once."""
        if not lease.is_given_back:
            lease.is_given_back = True
            self._in_background(self._take_down(lease))

    async def _take_down(self, lease: Lease) -> None:
        # At once, this and the building of the next slot would come before the result.
        await asyncio.sleep(_AFTER_S)
        self._running -= 1
        self._wanted.set()
        await self._close(lease)

    def renew(self) -> None:
        """Take down the slots that wait and build others: the backend makes them otherwise now."""
        while self._waiting:
            self._discard(self._waiting.popleft())
        self._wanted.set()

    def _discard(self, lease: Lease) -> None:
        self._in_background(self._close(lease))

    def _in_background(self, closing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(closing, name="isorun-close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, lease: Lease) -> None:
        try:
            await lease.close()
        except Exception as error:  # noqa: BLE001 - kept, logged, and raised when the pool is left
            self.failures.append(error)
            _log.exception("a slot could not be taken down")

    def _may_build(self) -> bool:
        """Whether to build now: while the pool is half full, runs have the processor first."""
        missing = self._size - len(self._waiting) - self._building
        return missing > 0 and (self._running == 0 or 2 * missing > self._size)

    async def _keep_full(self) -> None:
        while True:
            while self._may_build():
                await self._build_one()
            self._wanted.clear()
            await self._wanted.wait()

    async def _build_one(self) -> None:
        self._building += 1
        try:
            self._waiting.append(await Lease.take(self._backend, self._limits))
            self._quiet_until = 0.0
        except IsorunError as error:
            # The next run that finds the pool empty gets this error itself. An engine that is away says it every time.
            if time.monotonic() >= self._quiet_until:
                self._quiet_until = time.monotonic() + _QUIET_S
                _log.warning("a slot could not be built ahead: %s", one_line(str(error)))
            await asyncio.sleep(_RETRY_S)
        except Exception:  # noqa: BLE001 - our own bug must not silently end the refilling
            _log.exception("a slot could not be built ahead")
            await asyncio.sleep(_RETRY_S)
        finally:
            self._building -= 1
