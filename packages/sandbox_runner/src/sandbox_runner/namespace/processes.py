"""Finds the processes of a namespace sandbox on the host, and ends them.

They are known by their command line: `enter` starts bubblewrap under a name that holds the
sandbox's, and what bubblewrap forks to be the first process inside keeps it. The end of that
one is the end of all inside. A command inside that takes such a name ends itself by it; one that takes
the name from the first process, whose memory is its own user's, is ended by that one's number.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from sandbox_runner.errors import SandboxError
from sandbox_runner.linux import ending

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


def end_processes(members: Callable[[], Iterable[int]]) -> None:
    """SIGKILL what *members* lists, until it lists nothing. Raises `SandboxError` if that does not end."""
    try:
        ending.end_processes(members, _END_S)
    except TimeoutError as error:
        raise SandboxError(error.strerror) from None


def end_first(number: int, namespace: int | None, within_s: float = _END_S) -> bool:
    """SIGKILL the first process of a sandbox's command; False if it lives after *within_s*.

    The kernel ends all others in its pid namespace before its own end is told. *namespace*: that one's number, if it is
    known. Nothing happens if *number* is somebody else's by now.
    """
    try:
        descriptor = os.pidfd_open(number)
    except ProcessLookupError:
        return True
    try:
        if not _is_first_inside(number, namespace):
            return True
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(within_s * 1000))
    except PermissionError:
        return True  # as above
    finally:
        os.close(descriptor)


def _is_first_inside(number: int, namespace: int | None) -> bool:
    """Whether a process is the first of a pid namespace, that one or any, below ours; also while it dies."""
    with suppress(OSError):
        if namespace is not None and Path(f"/proc/{number}/ns/pid").stat().st_ino != namespace:
            return False
        for line in Path(f"/proc/{number}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return line.split()[2:] == ["1"]
    return False


def _is_ours(entry: Path) -> bool:
    """Whether we may end it: anybody can call a process as they like."""
    with suppress(OSError):
        return os.geteuid() in (0, entry.stat().st_uid)
    return False


def _command_line(entry: Path) -> list[str]:
    with suppress(OSError):
        return os.fsdecode((entry / "cmdline").read_bytes()).rstrip("\0").split("\0")
    return [""]
