"""Finds the processes of a namespace sandbox on the host, and ends them.

They are known by their command line: `enter` starts bubblewrap under a name that holds the
sandbox's, and what bubblewrap forks to be the first process inside keeps it. The end of that
one is the end of all inside. A command inside that takes such a name ends itself by it.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from sandbox_runner.errors import SandboxError

INTERPRETER = ("-I", "-S")  # options of the Python that runs `enter`: nothing of the caller's is imported
ENTER = str(Path(__file__).with_name("enter.py"))
_END_S = 5.0


def title(name: str, token: str = "") -> str:
    """What bubblewrap is called for a command of the sandbox *name*; *token* tells its commands apart."""
    return f"sandbox-runner:{name}:{token}"


def called(*names: str) -> set[int]:
    """The processes of ours, in this pid namespace, that have one of *names* as the beginning of their title.

    Also those that are still `enter`, started with one of *names* as an argument of its own.
    """
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _is_ours(entry):
            words = _command_line(entry)
            is_enter = words[1:4] == [*INTERPRETER, ENTER] and bool(set(words[4:6]) & set(names))
            if is_enter or words[0].startswith(names):
                found.add(int(entry.name))
    return found


def end_processes(members: Callable[[], Iterable[int]], within_s: float = _END_S) -> None:
    """SIGKILL what *members* lists, until it lists nothing. Raises `SandboxError` after *within_s*."""
    until = time.monotonic() + within_s
    while numbers := set(members()):
        if time.monotonic() > until:
            raise SandboxError(f"{len(numbers)} processes outlive SIGKILL, for example {min(numbers)}")
        descriptors = {}
        for number in numbers:
            with suppress(ProcessLookupError):
                descriptors[number] = os.pidfd_open(number)
        try:
            # Only what is still listed: a number may have become a stranger's before it was opened.
            for number in set(members()) & descriptors.keys():
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptors[number], signal.SIGKILL)
            _wait_ended(descriptors.values(), until)
        finally:
            for descriptor in descriptors.values():
                os.close(descriptor)


def _is_ours(entry: Path) -> bool:
    """Whether we may end it: anybody can call a process as they like."""
    with suppress(OSError):
        return os.geteuid() in (0, entry.stat().st_uid)
    return False


def _command_line(entry: Path) -> list[str]:
    with suppress(OSError):
        return os.fsdecode((entry / "cmdline").read_bytes()).rstrip("\0").split("\0")
    return [""]


def _wait_ended(descriptors: Iterable[int], until: float) -> None:
    waiting = set(descriptors)
    poll = select.poll()  # not select: there may be more than 1024
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    while waiting and (left := until - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            poll.unregister(descriptor)
            waiting.discard(descriptor)
