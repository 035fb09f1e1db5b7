"""What holds memory, processes and CPU of a whole run: a cgroup, or rlimits and a watcher.

Both keep the same promise; `isolation.limits` says which one did.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from isorun.backends.namespace import cgroup
from isorun.core.errors import CleanupFailed, Unavailable
from isorun.core.guard.log import log_of
from isorun.core.limits import Limits
from sandbox_runner.linux.cgroup import Group as KernelGroup
from sandbox_runner.linux.cgroup import prepare
from sandbox_runner.linux.cgroup_parent import Parent

_log = log_of("isorun")


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """What was counted over the whole run. None: nothing here counts it."""

    oom_kills: int
    process_limit_hits: int | None
    peak_memory_bytes: int | None
    cpu_s: float | None


class Group(Protocol):
    """The ceilings of one slot."""

    async def attach(self, pid: int) -> None:
        """Put *pid*, and what it forks from now on, under the ceilings."""

    def limits(self) -> Mapping[str, Any] | None:
        """What the cgroup says of itself; None without a cgroup."""

    def is_empty(self) -> bool:
        """Whether the kernel counts no process of the run, not even a dead one; False where nothing counts them."""

    def is_kept_empty(self) -> bool:
        """Whether `remove` need not wait for the kernel: the group is empty, and most likely kept for a later slot."""

    async def final(self) -> Final:
        """The counts, after the last process is dead."""

    @property
    def freezer(self) -> KernelGroup | None:
        """The group that stops its processes; None if none here can."""

    def remove(self) -> None:
        """Undo what was made, after the last process is dead. Blocks: for a thread."""


class Ceilings(Protocol):
    """A way to hold every run of one backend."""

    name: str
    is_cgroup: bool

    def next_cpu(self) -> int | None:
        """The only CPU of the next slot, or None if something better holds CPU."""

    def group(self, limits: Limits) -> Group:
        """The ceilings of one slot; the caller stops and removes them."""

    def expect(self) -> None:
        """A slot is being built, and is soon to be attached. Returns at once."""

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
    return held_beneath(found)


def held_beneath(parent: Parent) -> "HeldByCgroup":
    """Ceilings of cgroups beneath *parent*, once what dead hosts left there is removed.

    What stays is not ours to fail for: a killed process may take long to die on a busy machine. The next start tries
    again, and `isorun cleanup` says what it is.
    """
    prepare(parent)
    try:
        cgroup.remove_stale(parent)
    except OSError as error:
        _log.warning("a cgroup of a dead host stays behind for now: %s", error)
    return HeldByCgroup(parent)


class HeldByCgroup:
    """Every slot has a cgroup of its own; the kernel holds and counts.

    On v1 an emptied group is kept for a later slot with the same limits: making and
    removing one in four hierarchies costs a run more than its program does. Counters
    are taken as differences, and a group that still holds memory is not kept.
    """

    is_cgroup = True
    _numbers = itertools.count(1)

    def __init__(self, parent: Parent) -> None:
        self.name = f"cgroup-v{parent.version}"
        self._parent = parent
        self._free: list[_CgroupOfSlot] = []
        self._expected = -_QUIET_S

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
        return _CgroupOfSlot(made, limits, self._free, self._parent.version)

    def expect(self) -> None:
        """Have the kernel wait now, beside the slot's first steps, for what its attach would wait for.

        After a pause a process changes its group only once every processor was seen idle or switching, some 12 ms; for
        some ms more the next ones need not wait. To be put where it is already moves no process, and waits as well.
        """
        now = time.monotonic()
        if now - self._expected > _QUIET_S and self._own is not None:
            asyncio.get_running_loop().run_in_executor(None, _stay, self._own)
        self._expected = now

    @cached_property
    def _own(self) -> Path | None:
        """The list of processes that we are in; None if it is not one of ours to write."""
        base = self._parent.paths[0]
        for place in (base, base / cgroup.HOST_LEAF):
            with suppress(OSError):
                if str(os.getpid()) in (place / "cgroup.procs").read_text().split():
                    return place / "cgroup.procs"
        return None

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


def _stay(own: Path) -> None:
    with suppress(OSError):  # the attach itself tells what is wrong
        if str(os.getpid()) in own.read_text().split():  # else somebody moved us since, and we would move back
            own.write_text(str(os.getpid()))


_QUIET_S = 0.015  # between attaches, after which the kernel may wait again
_LEFT_BYTES = 1 << 20  # what an emptied group may still hold, mostly the kernel's own, and be used again


class _CgroupOfSlot:
    def __init__(self, made: KernelGroup, wanted: Limits, free: "list[_CgroupOfSlot]", version: int) -> None:
        self.wanted = wanted
        self._made = made
        self._free = free
        self._can_keep = version == 1
        self._before = made.usage()

    async def attach(self, pid: int) -> None:
        # In a thread: a memory attach can take 14 ms, and other runs must not wait for it.
        await asyncio.to_thread(self._made.attach, pid)

    @property
    def freezer(self) -> KernelGroup | None:
        return self._made if self._made.can_freeze else None

    def limits(self) -> Mapping[str, Any] | None:
        return self._made.limits()

    def is_empty(self) -> bool:
        return self._made.count() == 0

    def is_kept_empty(self) -> bool:
        return self._can_keep and self.is_empty() and self._made.held_bytes() <= _LEFT_BYTES

    async def final(self) -> Final:
        usage, before = self._made.usage(), self._before
        return Final(
            oom_kills=usage.oom_kills - before.oom_kills,
            process_limit_hits=usage.pids_max_hits - before.pids_max_hits,
            peak_memory_bytes=usage.peak_memory_bytes,
            cpu_s=None if usage.cpu_s is None or before.cpu_s is None else usage.cpu_s - before.cpu_s,
        )

    def remove(self) -> None:
        """Keep the group for another slot if nothing of this one is left in it; else remove it."""
        try:
            if not self.is_empty():
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
        return _Unheld()

    def expect(self) -> None:
        """Nothing is attached."""

    def close(self) -> None:
        """Nothing is kept."""


class _Unheld:
    """No group: rlimits are each process's own, and `watching` sees to the sum."""

    async def attach(self, pid: int) -> None:
        """Nothing to attach to."""

    @property
    def freezer(self) -> None:
        return None

    def limits(self) -> Mapping[str, Any] | None:
        return None

    def is_empty(self) -> bool:
        return False

    def is_kept_empty(self) -> bool:
        return False

    def remove(self) -> None:
        """Nothing was made."""

    async def final(self) -> Final:
        return Final(oom_kills=0, process_limit_hits=None, peak_memory_bytes=None, cpu_s=None)
