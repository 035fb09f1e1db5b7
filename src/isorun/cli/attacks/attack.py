"""What one attack is: a program, and how to tell that it got what it wanted.

An attack says nothing about a wall unless the same program succeeds where the wall is not. So each names its control,
or why there can be none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isorun.core.result import RunResult

WON = "the attack got through"
LOST = "the attack was refused"

#: Before every program: system calls by name, and files of /proc.
PRELUDE = """
import ctypes, errno, fcntl, json, mmap, os, resource, signal, socket, struct, subprocess, sys, time
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
NR = {numbers}
def call(name, *arguments):
    "What the kernel answers, or minus the errno."
    ctypes.set_errno(0)
    words = [ctypes.c_ulong(a & (2**64 - 1)) if isinstance(a, int) else a for a in arguments]
    answer = _libc.syscall(ctypes.c_long(NR[name]), *words) if name in NR else -1
    return answer if answer != -1 else -(ctypes.get_errno() or errno.ENOSYS)
def can(action):
    "Whether it works."
    try:
        action()
    except (OSError, ValueError, MemoryError):
        return False
    return True
def status(field):
    return next(line.split(None, 1)[1].strip() for line in open("/proc/self/status") if line.startswith(field + ":"))
won = False
"""
EPILOGUE = f"\nprint({WON!r} if won else {LOST!r})\n"


def said_so(result: RunResult) -> bool:
    """The program itself says that it got through, in its last line."""
    return result.stdout.rstrip().endswith(WON)


def ended_well(result: RunResult) -> bool:
    """The run is told as a success, with all that it promised."""
    return result.ok


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack and its control.

    `code` sets `won`, where `judge` asks for that; `{port}`, `{canary}` and the like are the host's, see `matrix.Host`.
    The control is the first of these that is given: the walls `off` left out; `roomy`, the ceilings far away;
    `on_host`, a plain process; `honest`, a program in the same place that must be let through. `no_control` is why
    none is possible.
    """

    kind: str
    name: str
    code: str
    _: KW_ONLY
    judge: Callable[[RunResult], bool] = said_so
    off: tuple[str, ...] = ()
    roomy: bool = False
    on_host: bool = False
    honest: str = ""
    no_control: str = ""
    timeout_s: float = 10.0
    contract: tuple[Mapping[str, object], ...] = ()
    tools: tuple[str, ...] | None = None  # not None: with the bundle of `tool_calls`
    before: str = ""  # a run before this one
    embedded: str = ""  # why there is nothing to attack in a container
    host_kernel: str = ""  # why there is nothing to attack under a kernel of its own
    checks: tuple[str, ...] = field(default=())  # of `matrix.Host.CHECKS`: what the host must look like afterwards

    def __post_init__(self) -> None:
        if not (self.off or self.roomy or self.on_host or self.honest or self.no_control):
            raise ValueError(f"{self.name}: an attack names its control, or why it has none")
