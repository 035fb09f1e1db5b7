"""A child that this process forks, and that becomes another program.

A fork copies this process, locks that other threads hold included: so it is for a process with one thread. Until the
child executes, it has the memory of this process: it must not run anything but what it is given to become.
"""

from __future__ import annotations

import os
import signal

from isorun.kernel import fds

TYPE_CHECKING = False  # typing costs milliseconds of a cold start
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: What Python ignores for itself; a program that it starts has the system's own answer, as with `subprocess`.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
_FAILED = 126


class Forked:
    """Such a child, which we alone reap."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, or the negative number of the signal that ended it; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code


def has_one_thread() -> bool:
    """Whether this process may fork: threads that Python did not start count, too."""
    return len(os.listdir("/proc/self/task")) == 1


def start(become: Callable[[], None], *, output: int, kept: Sequence[int]) -> Forked:
    """A child, the leader of a session of its own, that calls *become*, which is to execute a program.

    The program gets no input, *output* as stdout and stderr, and of our descriptors those in *kept*. If *become*
    returns or raises, the child ends with exit code 126 and the error is in *output*.
    """
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number in _IGNORED:
                signal.signal(number, signal.SIG_DFL)
            _keep(output, kept)
            become()
        except BaseException as error:  # noqa: BLE001 - a forked child must never return into its parent's code
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(_FAILED)
    return Forked(pid)


def _keep(output: int, kept: Sequence[int]) -> None:
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    fds.keep_only({0: null, 1: output, 2: output, **{number: number for number in kept}})
    for number in kept:
        os.set_inheritable(number, True)
