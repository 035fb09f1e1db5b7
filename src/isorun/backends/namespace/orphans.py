"""Jails that outlived their host.

A jail dies with the process that started it, but for some milliseconds: until bubblewrap has asked the kernel for
that. A host that is killed then leaves one that waits for ever. So a jail's command line says whose it is, and whoever
comes later ends those of the dead. Of an owner in another pid namespace nothing is known here, and its jails are left
alone.
"""

import itertools
import os
import re
import signal
from contextlib import suppress
from pathlib import Path

from isorun.kernel.processes.owner import Owner

#: An argument of its own, behind the option that it belongs to: who only speaks of it, as a grep does, is no jail.
_MARK = re.compile(rb"[^\0]*bwrap[^\0]*\0--unsetenv\0isorun-owner:([0-9-]+)(?::[0-9]+)?\0")
_NUMBERS = itertools.count()


def new_mark() -> str:
    """Which jail of this process it is, for its command line; no two have the same."""
    return f"isorun-owner:{Owner.of_this_process()}:{next(_NUMBERS)}"


def owner_in(command_line: bytes) -> Owner | None:
    """Whose jail a process with that command line belongs to; None if to no jail."""
    found = _MARK.match(command_line)
    return Owner.parse(found[1].decode()) if found else None


def end_orphans(proc: Path = Path("/proc")) -> list[int]:
    """Kill the jails of dead hosts, as far as they are ours to kill; their first processes."""
    ended = []
    for entry in proc.glob("[0-9]*"):
        with suppress(OSError):
            handle = os.pidfd_open(int(entry.name))
            try:
                # Read once the handle is held: it is then this process's, or the signal goes nowhere.
                owner = owner_in((entry / "cmdline").read_bytes())
                if owner is not None and not owner.is_alive:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    ended.append(int(entry.name))
            finally:
                os.close(handle)
    return sorted(ended)
