"""What holds memory, processes and CPU of a whole run: a cgroup, or rlimits and a watcher.

Both keep the same promise; `isolation.limits` says which one did.
"""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from isorun.core.errors import CleanupFailed, Unavailable
from isorun.core.limits import Limits
from isorun.kernel import cgroup, watcher
from isorun.kernel.readiness import wait_readable

_WATCH_S = 0.02
_DEATH_S = 0.05  # to give back what a killed process holds; the next look does not wait longer for it
_TRIES = 3  # confirmed looks in a row that kill one process; at the next one all are killed


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """What was counted over the whole run. None: nothing here counts it."""

    oom_kills: int
    process_limit_hits: int | None
    peak_memory_bytes: int | None
    cpu_s: float | None


class Group(Protocol):
    """The ceilings of one slot."""

    watcher_kills: int

    async def attach(self, pid: int) -> None:
        """Put *pid*, and what it forks from now on, under the ceilings."""

    def limits(self) -> Mapping[str, Any] | None:
        """What the cgroup says of itself; None where there is none."""

    def watch(self, pids: tuple[int, int], init: int, program: int) -> None:
        """The program starts now. *pids* are those of init and of the program; then a pidfd of each."""

    async def final(self) -> Final:
        """The counts, after the last process is dead."""

    async def stop(self) -> None:
        """Stop watching."""

    def remove(self) -> None:
        """Undo what was made, after the last process is dead. Blocks: for a thread."""


class Ceilings(Protocol):
    """A way to hold every run of one backend."""

    name: str
    is_cgroup: bool

    def data_bytes(self, limits: Limits) -> int | None:
        """RLIMIT_DATA of each process, or None if something better holds memory."""

    def next_cpu(self) -> int | None:
        """The only CPU of the next slot, or None if something better holds CPU."""

    def group(self, limits: Limits) -> Group:
        """The ceilings of one slot; the caller stops and removes them."""

    def close(self) -> None:
        """Remove what was kept; no slot is left. Blocks: for a thread."""


def choose_ceilings(parent: str | bool | None) -> Ceilings:
    """A cgroup below *parent* (None: below our own) where one can be written, else rlimits and a watcher.

    False asks for the latter. A *parent* that was named but cannot be used is `Unavailable`:
    a named wall is not replaced by another one.
    """
    if parent is False:
        return HeldByWatcher()
    named = parent if isinstance(parent, str) else None
    found = cgroup.find_own_parent(named)
    if isinstance(found, cgroup.Refusal):
        if named:
            raise Unavailable(f"ISORUN_CGROUP_PARENT={named}: {found}")
        return HeldByWatcher()
    cgroup.prepare(found)
    cgroup.remove_stale(found)
    return HeldByCgroup(found)


class HeldByCgroup:
    """Every slot has a cgroup of its own; the kernel holds and counts.

    On v1 an emptied group is kept for a later slot with the same limits: making and
    removing one in four hierarchies costs a run more than its program does. Counters
    are taken as differences, and a group that still holds memory is not kept.
    """

    is_cgroup = True
    _numbers = itertools.count(1)

    def __init__(self, parent: cgroup.Parent) -> None:
        self.name = parent.version
        self._parent = parent
        self._free: list[_CgroupOfSlot] = []

    def data_bytes(self, limits: Limits) -> int | None:
        """The cgroup holds memory."""
        return None

    def next_cpu(self) -> int | None:
        """The cgroup holds CPU."""
        return None

    def group(self, limits: Limits) -> Group:
        """See `Ceilings.group`."""
        for number, kept in enumerate(self._free):
            if kept.wanted == limits:
                return self._free.pop(number)
        made = cgroup.make(
            self._parent,
            cgroup.group_name(next(self._numbers)),
            memory_bytes=limits.memory_bytes,
            processes=limits.processes,  # init forks nothing and stays outside
            cpus=limits.cpus,
        )
        return _CgroupOfSlot(made, limits, self._free)

    def close(self) -> None:
        """Remove the kept groups; the first that stays is raised after the others are gone."""
        failed: CleanupFailed | None = None
        while self._free:
            try:
                self._free.pop().discard()
            except CleanupFailed as error:
                failed = failed or error
        if failed is not None:
            raise failed


_LEFT_BYTES = 1 << 20  # what an emptied group may still hold, mostly the kernel's own, and be used again


class _CgroupOfSlot:
    watcher_kills = 0

    def __init__(self, made: cgroup.Cgroup, wanted: Limits, free: "list[_CgroupOfSlot]") -> None:
        self.wanted = wanted
        self._made = made
        self._free = free
        self._before = made.usage()

    async def attach(self, pid: int) -> None:
        # In a thread: a memory attach can take 14 ms, and other runs must not wait for it.
        await asyncio.to_thread(self._made.attach, pid)

    def limits(self) -> Mapping[str, Any] | None:
        return self._made.limits()

    def watch(self, pids: tuple[int, int], init: int, program: int) -> None:
        """The kernel watches."""

    async def final(self) -> Final:
        usage, before = self._made.usage(), self._before
        return Final(
            oom_kills=usage.oom_kills - before.oom_kills,
            process_limit_hits=usage.pids_max_hits - before.pids_max_hits,
            peak_memory_bytes=usage.peak_memory_bytes,
            cpu_s=None if usage.cpu_s is None or before.cpu_s is None else usage.cpu_s - before.cpu_s,
        )

    async def stop(self) -> None:
        """The kernel watches."""

    def remove(self) -> None:
        """Keep the group for another slot if nothing of this one is left in it; else remove it."""
        try:
            self._made.kill()
            if self._made.held_bytes() <= _LEFT_BYTES and self._made.reset_peak():
                self._before = self._made.usage()
                self._free.append(self)
                return
        except OSError as error:
            raise CleanupFailed(f"a cgroup cannot be emptied: {error}") from error
        self.discard()

    def discard(self) -> None:
        """Remove the group."""
        try:
            self._made.kill()
            self._made.remove()
        except OSError as error:
            raise CleanupFailed(f"a cgroup stays behind: {error}") from error


class HeldByWatcher:
    """RLIMIT_NPROC per slot, RLIMIT_DATA per process, one CPU by affinity, and a watcher for the sum."""

    is_cgroup = False
    name = "rlimits+watcher"

    def __init__(self) -> None:
        self._cpus = itertools.cycle(sorted(os.sched_getaffinity(0)))

    def data_bytes(self, limits: Limits) -> int | None:
        """No process alone may have more than the run."""
        return limits.memory_bytes

    def next_cpu(self) -> int | None:
        """One core is an affinity; the filter refuses to change it."""
        return next(self._cpus)

    def group(self, limits: Limits) -> Group:
        """See `Ceilings.group`."""
        if limits.cpus < 1:
            raise Unavailable(
                f"cpus is {limits.cpus:g}: without a cgroup a run is held to one whole CPU, not to less; "
                "set ISORUN_CGROUP_PARENT to a delegated cgroup"
            )
        return _Watched(limits)

    def close(self) -> None:
        """Nothing is kept."""


class _Watched:
    """Samples the slot's processes every 20 ms and kills the largest when the sum is over the ceiling.

    A child that takes too much dies alone, as under a cgroup. All die where that cannot help, or does
    not soon: many that grow together, or memory that belongs to no process, as that of sockets.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = limits.memory_bytes
        self._task: asyncio.Task[None] | None = None
        self._pidfds: list[int] = []
        self._peak = self._breaches = self._last_victim = 0
        self._ended = False
        self.watcher_kills = 0

    async def attach(self, pid: int) -> None:
        """Nothing to attach to: rlimits are the process's own."""

    def limits(self) -> Mapping[str, Any] | None:
        return None

    def watch(self, pids: tuple[int, int], init: int, program: int) -> None:
        # Copies: the slot closes its own before it stops us, and their numbers may then be another's.
        self._pidfds += os.dup(init), os.dup(program)
        self._task = asyncio.ensure_future(self._watch(pids))

    async def _watch(self, pids: tuple[int, int]) -> None:
        try:
            await self._watch_until_end(pids)
        except Exception:
            _kill(self._pidfds[0])  # a run that nobody watches has no ceiling
            raise

    async def _watch_until_end(self, pids: tuple[int, int]) -> None:
        while not self._ended:
            started = time.monotonic()
            dying = self._look(pids)
            # A slot with very many processes must not eat a core of the host by being watched.
            pause = max(_WATCH_S, 4 * (time.monotonic() - started))
            if dying is not None:
                try:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_DEATH_S):
                            await wait_readable(dying)
                finally:
                    os.close(dying)
                pause = _WATCH_S  # the others may be growing; this is at most `_TRIES` times in a row
            await asyncio.sleep(pause)

    def _look(self, pids: tuple[int, int]) -> int | None:
        """Sample, and kill if it must be; the pidfd of the process that was to die, for the caller to close."""
        init, program = self._pidfds
        sample = watcher.sample(pids)
        sockets = watcher.socket_bytes(pids[0])
        self._peak = max(self._peak, sample.rss_bytes)
        if sample.rss_bytes + sockets <= self._most:
            self._breaches = 0
            return None
        pid = max(sample.pids, key=lambda pid: (pid != pids[0], sample.bytes_of[pid], pid != pids[1]), default=pids[0])
        victim = _open(pid, {pids[0]: init, pids[1]: program})
        # The cheap sum counts a page once for each process that maps it; this one counts it once.
        exact = watcher.sample(pids, shared_once=True)
        if exact.rss_bytes + sockets <= self._most:
            self._breaches = 0
            if victim is not None:
                os.close(victim)
            return None
        self._breaches += 1
        # Far above: too fast to be held one by one. Within: the rest is in sockets, and nothing tells whose.
        if self._breaches > _TRIES or not self._most < exact.rss_bytes <= 1.5 * self._most:
            self._ended = True
            self.watcher_kills += _kill(init)
        # Opened, then still listed: the pid was not another process's when it was opened.
        elif victim is not None and pid in exact.bytes_of and _kill(victim):
            self.watcher_kills += pid != self._last_victim  # one that is slow to die is one
            self._last_victim = pid
        return victim

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        while self._pidfds:
            os.close(self._pidfds.pop())

    def remove(self) -> None:
        """Nothing was made."""

    async def final(self) -> Final:
        await self.stop()
        return Final(
            oom_kills=self.watcher_kills, process_limit_hits=None, peak_memory_bytes=self._peak or None, cpu_s=None
        )


def _open(pid: int, known: Mapping[int, int]) -> int | None:
    """A pidfd of our own for *pid*; None if it is gone."""
    if pid in known:
        return os.dup(known[pid])
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _kill(pidfd: int) -> bool:
    # Whatever is in the way, the sum stays above the ceiling, and then init is killed.
    with suppress(OSError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return True
    return False
