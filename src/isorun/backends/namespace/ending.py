"""Ending processes so that nothing of them is left: those of a slot, and those of a jail.

Theory of operation. SIGKILL to a slot's init makes the kernel kill all of its pid namespace, and
init's own end says that the last of it is gone. A process whose parent lies outside of the namespace
and does not reap it keeps init from ending: it is dead, and it is listed. So a slot that is late is
looked through by the number of its namespace. What lives is killed once more; if the dead alone are left,
the run has ended, and they go with the jail, whose end gives them a parent that reaps.

Must not: believe a pid that it has not looked at again once it holds its pidfd.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isorun.backends.namespace.ceilings import Group
from isorun.backends.namespace.freezing import Freezer, stat_of
from isorun.core.errors import CleanupFailed
from isorun.core.guard.log import log_of
from isorun.kernel.readiness import wait_readable

if TYPE_CHECKING:
    from isorun.backends.namespace.spawn import Process

_log = log_of("isorun")

END_S = 10.0  # of a slot's processes and, for itself, of a jail's
_LATE_S = 0.5  # of init: the largest slots are undone in a tenth of it
_LITTLE_BYTES, _FEW = 1 << 20, 100  # that a file system holds
_LOOK_S = 0.1
_LOOKS = 8  # a zygote that is only slow to reap, on a busy machine, does not cost its jail
_DEAD = ("Z", "X")
_THREADS, _MEMORY = 17, 20  # of the fields from the third on


async def uninterrupted(end: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Await *end*, which is bounded, to its end, also if the waiting task is cancelled."""
    task = asyncio.ensure_future(end())
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


class Remains:
    """What is left of a jail's slots that only the end of the jail undoes. A jail that has any is not used again."""

    def __init__(self) -> None:
        self._inits: list[int] = []
        self._groups: list[Group] = []

    def __bool__(self) -> bool:
        return bool(self._inits)

    def add(self, init: int, why: str) -> None:
        """The slot of *init*, a pidfd, is not wholly gone."""
        _log.error("a jail is not used again: %s", why)
        self._inits.append(os.dup(init))

    def add_group(self, group: Group) -> None:
        """The ceilings of such a slot."""
        self._groups.append(group)

    async def bury(self) -> None:
        """Once the jail has ended: wait for the last of it. Raises `CleanupFailed` if something lives."""
        inits, self._inits = self._inits, []
        with ExitStack() as stack:
            for init in inits:
                stack.callback(os.close, init)
            gone = [await _ended(init, END_S) for init in inits]
            if not all(gone):
                raise CleanupFailed(f"processes of a run outlive SIGKILL and their jail by {END_S:.0f} s")
        while self._groups:
            await asyncio.to_thread(self._groups.pop().remove)


class SlotEnd:
    """The end of one slot. It comes once; asked again, it says what it said."""

    def __init__(self, group: Group, inside: list[int], remains: Remains) -> None:
        self._group, self._inside, self._remains = group, inside, remains
        self._left = False
        self._living: CleanupFailed | None = None
        self._killed = False
        self._init, self._namespace = -1, 0
        self.mounts = -1  # the mount namespace: held, it outlives init, whose death then need not wait for its end
        self.freezer: Freezer | None = None  # of what may be frozen when it is to end

    def born(self, init: int, pid: int) -> None:
        """There is an *init*, a pidfd that stays its owner's, to be killed; it is that of *pid*."""
        self._init = init
        with suppress(OSError):  # of the dying, some kernels tell an ordinary user nothing
            self._namespace = os.stat(f"/proc/{pid}/ns/pid").st_ino  # noqa: PTH116 - once a slot; a Path takes longer

    def let_go(self) -> None:
        """The run is over, and init's death is not waited for: the mounts may end with it, and not in a thread."""
        if self.mounts >= 0:
            os.close(self.mounts)
            self.mounts = -1

    async def kill(self) -> None:
        """Return once no process of the slot runs any more. Raises `CleanupFailed` if one outlives SIGKILL."""
        if self._living is not None:
            raise self._living
        if self._killed:
            return
        try:
            _kill(self._init)
            if self.freezer is not None:  # only then, so that no instruction of the program comes in between
                self.freezer.let_die()
            self._left = not await _end_namespace(self._init, self._namespace)
        except CleanupFailed as error:
            self._living, self._left = error, True
            self._remains.add(self._init, str(error))
            raise
        self._killed = True
        if self._left:
            self._remains.add(self._init, "a run left dead processes that their parent does not reap")

    async def leave(self) -> None:
        """As `kill`; what lives is then the jail's to end, and to tell of."""
        with suppress(CleanupFailed):
            await uninterrupted(self.kill)

    async def bury(self) -> None:
        """The last of a dead slot. In a thread, unless it holds little: undoing it waits for the kernel."""
        await uninterrupted(self._bury)

    async def _bury(self) -> None:
        def bury() -> None:
            self.let_go()
            for descriptor in self._inside:
                os.close(descriptor)
            if not self._left:
                self._group.remove()

        if self._left:
            self._remains.add_group(self._group)
        elif self.mounts < 0 and self._group.is_kept_empty() and all(map(_holds_little, self._inside)):
            bury()
            return
        await asyncio.to_thread(bury)


def _holds_little(directory: int) -> bool:
    """Whether the file system of *directory*, a tmpfs that ends with it, is freed in a part of a millisecond."""
    held = os.fstatvfs(directory)
    return (held.f_blocks - held.f_bfree) * held.f_frsize <= _LITTLE_BYTES and held.f_files - held.f_ffree <= _FEW


async def _end_namespace(init: int, namespace: int) -> bool:
    """Kill the pid namespace, of that inode number, of *init*, a killed pidfd; return once nothing in it runs any more.

    False: dead processes are left that their parent does not reap. Raises `CleanupFailed` if one lives.
    """
    if await _ended(init, _LATE_S):
        return True
    deadline = asyncio.get_running_loop().time() + END_S - _LATE_S
    looks = 0  # in a row that saw the dead alone: a process may pass a single look by
    while not await _ended(init, _LOOK_S):
        living = await asyncio.to_thread(_kill_living, init, namespace)
        looks = looks + 1 if living == [] else 0
        if looks == _LOOKS:
            return False
        if asyncio.get_running_loop().time() > deadline:
            names = ", ".join(map(str, living)) if living else "their ids are not known"
            raise CleanupFailed(f"processes of the run outlive SIGKILL by {END_S:.0f} s: {names}")
    return True


async def end_group(process: "Process", mark: str) -> None:
    """End *process*, the leader of a process group, with the group; return once the kernel has undone all of it.

    Killing bubblewrap alone takes its pid namespace, and every slot in it, along, but only once its child has asked
    for that: a start that is given up before would leave a child that waits for a dead parent. At first that child is
    in the group; later it leads a session of its own, and is known as a child, or, if its parent died before it asked,
    by *mark* in its command line. Raises `CleanupFailed` if one lives on.
    """
    await uninterrupted(lambda: _end_group(process, mark))


async def _end_group(process: "Process", mark: str) -> None:
    with ExitStack() as stack:
        leader = os.pidfd_open(process.pid)  # nobody has reaped it: until we do, its number is its group's
        stack.callback(os.close, leader)
        try:
            async with asyncio.timeout(END_S):
                members = await asyncio.to_thread(_family, process.pid, mark)
                os.killpg(process.pid, signal.SIGKILL)
                await wait_readable(leader)  # from here on nothing new comes into the group
                members += await asyncio.to_thread(_family, process.pid, mark)
                for _, member in members:
                    stack.callback(os.close, member)
                    _kill(member)
                for _, member in members:
                    await wait_readable(member)
        except TimeoutError as error:
            raise CleanupFailed(f"the processes of the outer jail outlive SIGKILL by {END_S:.0f} s") from error
        finally:
            process.poll()


def _family(leader: int, mark: str) -> list[tuple[int, int]]:
    """The children of *leader*, its group, and who carries *mark*, each with a pidfd for the caller to close."""
    return _opened(lambda pid: pid != leader and (str(leader) in _stat(pid)[1:3] or _carries(pid, mark.encode())))


def _carries(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:  # gone, or not ours to ask
        return False


async def wait_ended(pid: int) -> None:
    """Return once *pid*, which we alone reap, has ended."""
    pidfd = os.pidfd_open(pid)
    try:
        await wait_readable(pidfd)
    finally:
        os.close(pidfd)


async def _ended(pidfd: int, within_s: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await wait_readable(pidfd)
            return True
    return False


def _kill(pidfd: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _kill_living(init: int, namespace: int) -> list[int] | None:
    """Kill what lives in *namespace*, whose first process is *init*; the pids. None: it cannot be looked into."""
    _kill(init)
    if not namespace:
        return None
    found = []
    for pid, pidfd in _opened(lambda pid: _is_inside(pid, namespace)):
        try:
            if not _is_dead(pid):
                found.append(pid)
                _kill(pidfd)
        finally:
            os.close(pidfd)
    return found


def pid_of(pidfd: int) -> int:
    """The process behind *pidfd*, as our pid namespace numbers it; 0 or less if it is gone."""
    descriptor = os.open(f"/proc/self/fdinfo/{pidfd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(descriptor, 4096).splitlines()
    finally:
        os.close(descriptor)
    return next(int(line.split()[1]) for line in lines if line.startswith(b"Pid:"))


def _opened(wanted: Callable[[int], bool]) -> list[tuple[int, int]]:
    """The processes that are *wanted*, each with a pidfd for the caller to close."""
    found = []
    for pid in _pids():
        if wanted(pid):
            with suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                if wanted(pid):
                    found.append((pid, pidfd))
                else:  # the number went to another process between the look and the open
                    os.close(pidfd)
    return found


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit())


def _is_inside(pid: int, namespace: int) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/pid").stat().st_ino == namespace
    except OSError:  # gone, or not ours to ask
        return False


def _is_dead(pid: int) -> bool:
    """Whether it runs no instruction of its own any more: a zombie, or without memory in the midst of its end.

    So sleeps an init, in the kernel, until the others are reaped. Threads may outlive the one that names the process.
    """
    fields = _stat(pid)
    return not fields or (int(fields[_THREADS]) <= 1 and (fields[0] in _DEAD or fields[_MEMORY] == "0"))


def _stat(pid: int) -> list[str]:
    return stat_of(Path(f"/proc/{pid}"))
