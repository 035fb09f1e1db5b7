"""Stopping all processes of a slot where they are: by its control group, or without one by SIGSTOP.

Theory of operation. What a control group stops, no signal wakes, but on v1 SIGKILL neither: it waits until the group is
thawed. So a slot is killed first and thawed then, and the watcher's process, which outlives a host that is killed, does
the same for it. SIGSTOP goes from parents to children, and again to all that still run, until two looks find the same
processes and none that runs: what has gone since it was listed may have left a child that was not. A program can
have a timer send it SIGCONT; so its processes are looked at for as long as they should stand still, and a run that
keeps waking is ended. A process that the program had stopped itself is not woken with the others. What waits in the
kernel and hears no signal there, as a vfork does for its child, stops on its way out: it is told, and counts as still.

Must not: signal a process by a number that was not looked at again once its pidfd was held.
"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from isorun.backends.watch.sampling import children_of
from isorun.core.errors import SetupFailed
from sandbox_runner.linux.cgroup import Group as KernelGroup

_WITHIN_S = 2.0  # for every process to stand still
_PAUSE_S, _LONGEST_PAUSE_S = 0.000_1, 0.005  # between two looks at those that were sent SIGSTOP
_GUARD_S, _LONGEST_GUARD_S = 0.02, 0.1  # between two looks at those that stand still
_MOST_WAKES = 3  # that are undone; by then the program has run some 60 ms, and it was no accident
_STILL = frozenset("TtZXx")  # stopped, traced, dead
_WAITS = frozenset("D")  # in the kernel; a program can stay there by a vfork whose child opens a FIFO
_THREADS, _BEGAN = 17, 19  # of the fields of stat from the third on
WOKE = "it kept waking itself while it was frozen"


class _Seen(NamedTuple):
    """A process at one look: which one, and the states of its threads; none if it has gone since it was listed."""

    pid: int
    began: int = 0
    states: frozenset[str] = frozenset()

    @property
    def runs(self) -> bool:
        """Whether a thread of it runs, or can without a signal."""
        return not self.states <= _STILL

    @property
    def acts(self) -> bool:
        """Whether it may run code of the program, although it was told to stop."""
        return not self.states <= _STILL | _WAITS


class Freezer(Protocol):
    """Who stops one slot's processes."""

    @property
    def violation(self) -> str:
        """What the program did against it, for which the run was ended; mostly nothing."""

    @property
    def thawed_by(self) -> tuple[str, str] | None:
        """What has to be written where, behind SIGKILL, so that frozen processes can die; None if nothing has to."""

    async def freeze(self) -> None:
        """See `Slot.freeze`."""

    async def thaw(self) -> None:
        """See `Slot.thaw`."""

    def let_die(self) -> None:
        """They have been sent SIGKILL: see to it that they can obey. Without effect if they are not frozen."""


class ByGroup:
    """The kernel stops what is in the group, and no signal wakes it."""

    violation = ""

    def __init__(self, group: KernelGroup) -> None:
        self._group = group
        self._is_frozen = False
        self.thawed_by = group.thawed_by

    async def freeze(self) -> None:
        """See `Freezer.freeze`."""
        if self._is_frozen:
            return
        self._is_frozen = True
        try:
            await asyncio.to_thread(self._group.freeze, _WITHIN_S)
        except OSError as error:
            with suppress(OSError):
                self.let_die()
            raise SetupFailed("freeze", f"the control group cannot be frozen: {error}") from error

    async def thaw(self) -> None:
        """See `Freezer.thaw`."""
        try:
            self.let_die()
        except OSError as error:
            raise SetupFailed("thaw", f"the control group stays frozen: {error}") from error

    def let_die(self) -> None:
        """See `Freezer.let_die`."""
        if self._is_frozen:
            self._group.thaw()
            self._is_frozen = False


class BySignal:
    """SIGSTOP to every process of a pid namespace, whose first one is *init*, a pidfd; *program* is not its child."""

    thawed_by = None

    def __init__(self, init: int, init_pid: int, program: int) -> None:
        self._init, self._init_pid, self._program = init, init_pid, program
        self._namespace = _namespace_of(init_pid)
        self._lock = threading.Lock()  # a look must not stop what a thaw has just woken
        self._is_frozen = False
        self._stopped: set[int] = set()  # by us
        self._guard: asyncio.Task[None] | None = None
        self.violation = ""

    async def freeze(self) -> None:
        """See `Freezer.freeze`."""
        if self._is_frozen:
            return
        self._is_frozen = True
        try:
            await asyncio.to_thread(self._stop_all)
        except BaseException:
            await asyncio.to_thread(self._wake)
            raise
        self._guard = asyncio.create_task(self._keep_still(), name="isorun-frozen")

    def _stop_all(self) -> None:
        until, pause = time.monotonic() + _WITHIN_S, _PAUSE_S
        before: list[_Seen] | None = None
        while (seen := self._stop_running()) != before or any(found.acts for found in seen):
            if time.monotonic() > until:
                raise SetupFailed("freeze", f"of {len(seen)} processes not all stand still")
            if before is not None:  # the second look is at once: mostly everything stands still by then
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
            before = seen

    def _stop_running(self) -> list[_Seen]:
        """Send SIGSTOP to what runs, a parent before we look for its children; each process as it was before."""
        with self._lock:
            return [self._stop(pid) for pid in self._family()] if self._is_frozen else []

    def _family(self) -> Iterable[int]:
        """Each process of the slot, which may be acted on before its children are listed."""
        children, seen = children_of(), set[int]()
        todo = [self._program, *children(self._init_pid)]
        while todo:
            pid = todo.pop()
            if pid not in seen:
                seen.add(pid)
                yield pid
                todo += children(pid)

    def _stop(self, pid: int) -> _Seen:
        """*pid* as it is found; if it runs it is told to stop."""
        found = _look_at(pid)
        if found.runs and self._signal(pid, signal.SIGSTOP):
            self._stopped.add(pid)
        return found

    def _signal(self, pid: int, number: int) -> bool:
        """Signal *pid* if it is one of the slot."""
        with suppress(OSError):
            pidfd = os.pidfd_open(pid)
            try:
                if _namespace_of(pid) == self._namespace:
                    signal.pidfd_send_signal(pidfd, number)
                    return True
            finally:
                os.close(pidfd)
        return False

    async def _keep_still(self) -> None:
        wakes, pause = 0, _GUARD_S
        while wakes < _MOST_WAKES:
            await asyncio.sleep(pause)
            if any(found.acts for found in await asyncio.to_thread(self._stop_running)):
                wakes, pause = wakes + 1, _GUARD_S
            else:
                pause = min(pause * 1.2, _LONGEST_GUARD_S)
        self.violation = WOKE
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._init, signal.SIGKILL)

    async def thaw(self) -> None:
        """See `Freezer.thaw`."""
        self.let_die()
        if self._is_frozen:
            await asyncio.to_thread(self._wake)

    def _wake(self) -> None:
        with self._lock:
            self._is_frozen = False
            for pid in list(self._family()):  # first all of them: one that runs may end, and its children move away
                if pid in self._stopped:
                    self._signal(pid, signal.SIGCONT)
            self._stopped.clear()

    def let_die(self) -> None:
        """See `Freezer.let_die`. What SIGSTOP has stopped can die."""
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None


def _namespace_of(pid: int) -> int:
    """The number of its pid namespace; 0 if it is gone."""
    with suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/pid").st_ino  # noqa: PTH116 - at every look; a Path takes longer
    return 0


def _look_at(pid: int) -> _Seen:
    """What *pid* is doing. Its first thread may have ended before the others."""
    process = Path(f"/proc/{pid}")
    fields = stat_of(process)
    if not fields:
        return _Seen(pid)
    states = [fields[0]]
    if int(fields[_THREADS]) > 1:
        with suppress(OSError):
            states = [of_thread[0] for thread in (process / "task").iterdir() if (of_thread := stat_of(thread))]
    return _Seen(pid, int(fields[_BEGAN]), frozenset(states))


def stat_of(task: Path) -> list[str]:
    """The fields of the `stat` below *task* from the third, the state, on; [] once it is gone."""
    try:
        # The command in parentheses is the program's choice, and may look like anything.
        return (task / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
