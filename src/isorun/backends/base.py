"""The one interface between the runtime and the backend that seals a program.

A backend enforces the whole of the limits and walls or raises `Unavailable` before it
starts anything. What a program does is never an exception here; what the sandbox
fails to do always is (`SetupFailed`, `CleanupFailed`).
"""

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from isorun.backends.environment import Environment
from isorun.core.limits import Limits
from isorun.core.outcome import Exit
from isorun.core.process import StartProcess
from isorun.core.sent.context import RunContext
from isorun.settings import Settings


@dataclass(frozen=True, slots=True)
class FileId:
    """Which file of the host it was, and how large, when it was checked."""

    device: int
    inode: int
    size: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileId":
        """That of *status*."""
        return cls(status.st_dev, status.st_ino, status.st_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file to put into the workspace before the program starts.

    `path` is relative to the workspace and begins with `work/` or `out/`. Exactly one
    of `data` and `source` (a host file, read while it is sent) is set. A source that is another file by
    then than `checked`, is larger, or does not hold what `sha256` says, is refused. `mode` is of `data`; a source
    keeps whether it may be executed.
    """

    path: str
    data: bytes | None = None
    source: Path | None = None
    mode: int = 0o644
    sha256: str | None = None
    checked: FileId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a slot is told to run: files, arguments, additions to its environment, and the loader's context."""

    files: Sequence[File]
    argv: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    context: RunContext
    digests: dict[str, str] = field(default_factory=dict)  # sha256 of each file by its path; set when it is sent
    timeout_s: float = 600.0  # after which the runtime ends it; a sandbox that hears of nobody then ends by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the run used; of its program alone where nothing on this host counts the whole run."""

    cpu_s: float
    max_rss_bytes: int  # the peak of the run where a cgroup counts, else of its largest process


class Slot(Protocol):
    """One sandbox with one program process that waits for its program."""

    @property
    def isolation(self) -> Mapping[str, Any]:
        """Which walls stand, as read back from the kernel."""

    def origin(self, folder: Path) -> Sequence[str]:
        """Where *folder* is, a run's, for who reads its log and sees another host's paths; usually nothing."""

    @property
    def stdout(self) -> int:
        """Read end of the program's stdout; non-blocking."""

    @property
    def stderr(self) -> int:
        """Read end of the program's stderr; non-blocking."""

    @property
    def tools(self) -> socket.socket:
        """Our end of the tool stream; non-blocking. Every byte from it is hostile."""

    @property
    def work(self) -> int:
        """The directory /workspace/work. Read it only after `kill`."""

    @property
    def out(self) -> int:
        """The directory /workspace/out. Read it only after `kill`."""

    @property
    def is_waiting(self) -> bool:
        """Before `start`: whether its process is still there; False if the sandbox died under it."""

    async def store(self, program: Program) -> None:
        """Before `start`, which must follow: send files of *program* early, if that is worth it; nothing of it runs.

        What is wrong with them `start` raises.
        """

    async def start(self, program: Program) -> None:
        """Send *program*; returns when its first instruction is next.

        Raises `InvalidRequest` if the files do not fit the workspace, `SetupFailed` if the slot is dead.
        """

    async def new_stream(self) -> tuple[socket.socket, socket.socket]:
        """A new tool stream, our end and the program's: like the first, a socket of the program's own network.

        Raises `SetupFailed` if the sandbox cannot make one.
        """

    async def wait(self) -> None:
        """Return once the program's process has ended, or the sandbox with it."""

    def terminate(self) -> None:
        """SIGTERM to the program, if it is still there."""

    def extend(self, seconds: float) -> None:
        """The program has *seconds* more than its `Program.timeout_s`; what it was frozen does not count anyhow."""

    async def freeze(self) -> None:
        """Stop every process of the program; once this returns, none runs until `thaw`, by any signal.

        After `start`. Without effect if it is frozen already, or has ended. Raises `SetupFailed` if one does not stand
        still; then all of them run.
        """

    async def thaw(self) -> None:
        """Let what was frozen run on; without effect if nothing is. A program that was sent SIGTERM gets it now."""

    async def kill(self) -> tuple[Exit, Usage]:
        """End every process of the slot, frozen or not; once this returns, nothing can write any more."""


def preload_notices(failed: Mapping[str, str]) -> tuple[str, ...]:
    """What `Backend.notices` says of its *failed* preloads."""
    return tuple(f"preload {name} failed: {' '.join(why.split())}" for name, why in failed.items())


class Backend(Protocol):
    """A source of slots. Entered before use; leaving it removes all that it made."""

    @property
    def name(self) -> str:
        """`namespace`, `docker` or `fake`."""

    @property
    def environment(self) -> Environment:
        """The Python and packages that programs see; known once the backend is entered."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What every run should tell its caller about this backend, such as a preload that failed."""

    @property
    def failed_preloads(self) -> Mapping[str, str]:
        """The preloads that could not be imported, by name, and why; known once there is a slot."""

    def supervisor(self, settings: Settings, bundle: Path) -> StartProcess | None:
        """How a supervisor of *bundle* is started where this backend's tools run; None: as a child of this process.

        May be asked before the backend is entered.
        """

    def launch(self, limits: Limits, *, loopback: bool = False) -> AbstractAsyncContextManager[Slot]:
        """A slot that is ready for its program.

        When the block is left, by return, error or cancellation, nothing of the slot
        exists: no process, mount or file, and no cgroup but an empty one kept for a later
        slot. With *loopback* its program has a loopback of its own, and may have sockets that reach that alone.
        Raises `Unavailable` if it cannot enforce all of *limits*, and `SetupFailed`,
        naming the step, if building failed.
        """

    def infra_log(self) -> bytes:
        """What the launcher itself has printed since the backend was entered (bounded)."""

    async def __aenter__(self) -> "Backend": ...

    async def __aexit__(self, *exc: object) -> None: ...
