"""A process and all that it starts, killed together.

Theory of operation. The caller, a process of one thread, makes a PID namespace whose first process only waits, then
forks the process that is wanted into it. A process cannot leave its PID namespace, by `setsid`, a second fork or
anything else, and the kernel kills all in it with its first process. That first process ends when the caller does, also
by SIGKILL: it reads a pipe whose other end only the caller has. Where no PID namespace can be made (a container without
rights), orphans become the caller's children (PR_SET_CHILD_SUBREAPER), and it stops and kills them until it has none.
"""

import os
import select
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress

from isorun.kernel import fds, namespaces
from isorun.kernel.libc import prctl

_PDEATHSIG, _SUBREAPER = 1, 36
_REAP_MS = 1000  # how often orphans are reaped, where they become our children


class ProcessTree:
    """The process that `start` forks, and all that it starts. All are killed when the process that made this ends."""

    def __init__(self, *, network: bool) -> None:
        """Make the namespaces. Without *network* one is an empty network; `OSError` if that cannot be made."""
        parent = os.getppid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if SIGCHLD is ignored, no child can be waited for
        flags = namespaces.NEWPID | (0 if network else namespaces.NEWNET)
        uid, gid = os.geteuid(), os.getegid()
        self.has_pid_namespace = True
        try:
            namespaces.unshare(flags if uid == 0 else flags | namespaces.NEWUSER)
            if uid != 0:
                namespaces.map_identity(uid, gid)
        except OSError:
            if not network:
                raise
            self.has_pid_namespace = False
        self.has_user_namespace = self.has_pid_namespace and uid != 0
        signal.signal(signal.SIGTERM, _stop)
        prctl(_PDEATHSIG, signal.SIGTERM)  # last, because the kernel clears it when credentials change
        if os.getppid() != parent:
            os._exit(1)
        if not self.has_pid_namespace:
            prctl(_SUBREAPER, 1)
        self._first = self._fork_first() if self.has_pid_namespace else 0
        self._pid = 0

    def start(self, work: Callable[[], int]) -> int:
        """Fork the process, which calls *work* and exits with the code that it returns; its pid."""
        parent = os.getpid()
        self._pid = os.fork()
        if not self._pid:
            code = 70
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                if self.has_pid_namespace:
                    os.close(self._lifeline)
                else:
                    prctl(_PDEATHSIG, signal.SIGKILL)
                    if os.getppid() != parent:
                        os._exit(code)
                code = work()
            except BaseException:  # noqa: BLE001 - it is shown, and the process ends
                traceback.print_exc()
            finally:
                os._exit(code)
        return self._pid

    def wait(self, until: int) -> str:
        """Wait until the process ends, *until* is readable or SIGTERM comes; then kill what is left of the tree.

        How the process ended: `exit code 3`, say, or `signal 11`.
        """
        status = None
        with suppress(_Stopped):
            poll = select.poll()
            ended = os.pidfd_open(self._pid)
            poll.register(ended, select.POLLIN)
            poll.register(until, select.POLLIN)
            while not poll.poll(None if self.has_pid_namespace else _REAP_MS):
                status = self._reap(status)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        status = self._kill(self._reap(status))
        code = os.waitstatus_to_exitcode(status) if status is not None else -signal.SIGKILL
        return f"exit code {code}" if code >= 0 else f"signal {-code}"

    def _reap(self, status: int | None, options: int = os.WNOHANG) -> int | None:
        """Reap children that have ended; the status of the process, once it is among them."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, options))[0]:
                if ended[0] == self._pid:
                    status = ended[1]
        return status

    def _kill(self, status: int | None) -> int | None:
        if self.has_pid_namespace:
            os.kill(self._first, signal.SIGKILL)
            return self._reap(status, 0)
        while _has_children():  # asked of the kernel: a list of processes can miss one
            for pid in [*_children(), *_below(os.getpid())]:  # stopped, so that none forks while others are killed
                _signal(pid, signal.SIGSTOP)
            for pid in _below(os.getpid()):
                _signal(pid, signal.SIGKILL)
            status = self._reap(status)
        return status

    def _fork_first(self) -> int:
        reads, self._lifeline = os.pipe()
        first = os.fork()
        if not first:
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                fds.keep_only({0: reads})
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans are reaped by the kernel
                os.read(0, 1)
            finally:
                os._exit(0)
        os.close(reads)
        return first


class _Stopped(Exception):
    """SIGTERM."""


def _stop(number: int, frame: object) -> None:
    raise _Stopped


def _has_children() -> bool:
    with suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    return False


def _children() -> list[int]:
    """Our children, as quickly as they can be listed; [] where the kernel has no such list."""
    with suppress(OSError), open("/proc/thread-self/children", "rb") as file:
        return [int(pid) for pid in file.read().split()]
    return []


def _below(pid: int) -> list[int]:
    """All descendants of *pid* that are not dead."""
    parents: dict[int, int] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            state, parent, *_ = file.read().rpartition(b")")[2].split()
            if state != b"Z":
                parents[int(name)] = int(parent)
    found, before = {pid}, 0
    while len(found) != before:
        before = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return sorted(found - {pid})


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
