"""When a host looks after the stored runs: the lost ones before its first run, all the others after it.

Ten thousand kept runs must not make the first run wait. A start looks at the leases, which are few: they tell whether
a host died. Then its runs are ended at once: no caller meets a run that neither runs nor has ended. What is
too old is removed once the first run has ended, unless the disk has no room for that run.

It must not decide which run is lost, nor how one is removed: that is `recovery`'s.
"""

import asyncio
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from isorun.core.errors import IsorunError
from isorun.core.guard.log import log_of
from isorun.store.recovery import host_died, recover, sweep
from isorun.store.sessions import sweep_sessions

_log = log_of("isorun")
_IDLE_S = 1.0  # a host without runs does it then
_CLOSE_S = 1.0  # what a host that closes gives to the removal; the next one goes on with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a run may write below the root; with less of it free, what is too old goes first."""

    bytes: int
    files: int


class Upkeep:
    """The upkeep of one host's root; entering it does what cannot wait. Left, it ends what was begun."""

    def __init__(self, root: Path, *, older_than_s: float, sessions_older_than_s: float, room: Room) -> None:
        self._root, self._older_than_s, self._room = root, older_than_s, room
        self._sessions_older_than_s = sessions_older_than_s
        self._now = time.time()  # of the start: what ends later, as its own runs do, is not too old for this host
        self._is_due, self._leaving, self._closing = asyncio.Event(), threading.Event(), threading.Event()
        self._task: asyncio.Task[None] | None = None
        self._are_lost_ended = False

    async def __aenter__(self) -> Self:
        self._is_all_done = await asyncio.to_thread(self._first)
        return self

    def begin(self) -> None:
        """The host is open: the rest is done after its first run, or soon without a run."""
        if not self._is_all_done:
            self._task = asyncio.create_task(self._later(), name="isorun-upkeep")

    async def __aexit__(self, *exc: object) -> None:
        if self._task is None:
            return
        self._leaving.set()
        self._is_due.set()
        await asyncio.wait({self._task}, timeout=_CLOSE_S)
        self._closing.set()
        await asyncio.wait({self._task})

    def due(self) -> None:
        """A run has ended: the rest may be done."""
        self._is_due.set()

    def _first(self) -> bool:
        """Whether all was done at once, since the disk is full."""
        if not self._has_room():
            self._all()
            return True
        if host_died(self._root):
            self._end_lost()
        return False

    def _has_room(self) -> bool:
        try:
            disk = os.statvfs(self._root)
        except OSError:
            return False
        has_files = not disk.f_files or disk.f_favail > self._room.files  # some file systems count none
        return has_files and disk.f_bavail * disk.f_frsize > self._room.bytes

    async def _later(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_due.wait(), _IDLE_S)
        try:
            await asyncio.to_thread(self._all)
        except (IsorunError, OSError) as error:
            _log.warning("the stored runs in %s are not looked after: %s", self._root, error)
        except Exception:  # noqa: BLE001 - our own bug, told with its place: the runs go on, the next host tries again
            _log.exception("the stored runs in %s are not looked after", self._root)

    def _all(self) -> None:
        # First what makes room: ending a lost run writes.
        sweep(self._root, older_than_s=self._older_than_s, now=self._now, by_id=True, goes_on=self._goes_on)
        sweep_sessions(self._root, older_than_s=self._sessions_older_than_s, now=self._now)
        # Where no lease says so, a run is lost that somebody brought here, or whose lease a power failure took.
        if not (self._leaving.is_set() or self._are_lost_ended):
            self._end_lost()

    def _end_lost(self) -> None:
        self._are_lost_ended = True
        for exec_id in recover(self._root, goes_on=lambda: not self._leaving.is_set()):
            _log.warning("run %s was lost: its host died", exec_id)

    def _goes_on(self) -> bool:
        return not self._closing.is_set()
