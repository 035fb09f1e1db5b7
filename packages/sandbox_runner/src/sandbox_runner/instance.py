"""A sandbox that stands: what both backends give, and what of it is the same in both.

How a command is begun and ended, and a sandbox taken down, is in `container` and `namespace_instance`.
"""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import NoneType, TracebackType
from typing import Self

from sandbox_runner.errors import InvalidSpec, SandboxError, SandboxGone
from sandbox_runner.execution import MAX_OUTPUT, ExecResult, OnOutput
from sandbox_runner.pseudo_terminal import PseudoTerminal
from sandbox_runner.records import Records
from sandbox_runner.spec import ARTIFACTS, CACHE, WORKSPACE, check_env, check_positive
from sandbox_runner.state import StateFolder

_USER = re.compile(r"[0-9]{1,10}(:[0-9]{1,10})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One call of `SandboxInstance.exec`, which says what each field means."""

    argv: Sequence[str]
    timeout_s: float | None
    env: Mapping[str, str]
    cwd: str | None
    user: str | None
    stdin: bytes | int | None
    terminal: PseudoTerminal | None
    on_output: OnOutput | None
    max_output_bytes: int

    def check(self) -> None:
        """Raise `InvalidSpec` for the first argument that cannot be used."""
        argv, cwd, user, timeout_s = self.argv, self.cwd, self.user, self.timeout_s
        if isinstance(argv, (str, bytes)) or not argv or not all(isinstance(part, str) for part in argv):
            raise InvalidSpec("argv", 'must be a list of texts, for example ["ls", "-l"]')
        if any("\0" in part for part in argv):
            raise InvalidSpec("argv", "an argument holds a NUL")
        if cwd is not None and (not isinstance(cwd, str) or not cwd.startswith("/") or "\0" in cwd):
            raise InvalidSpec("cwd", f"{cwd!r} must be an absolute path inside")
        if user is not None and not (isinstance(user, str) and _USER.fullmatch(user)):
            raise InvalidSpec("user", f"{user!r} must be uid or uid:gid")
        if timeout_s is not None:
            check_positive("timeout_s", timeout_s)
        if isinstance(self.stdin, bool) or not isinstance(self.stdin, (bytes, bytearray, memoryview, int, NoneType)):
            raise InvalidSpec("stdin", "must be bytes, or a descriptor to read from")
        if self.terminal is not None and self.terminal.theirs < 0:
            raise InvalidSpec("terminal", "a command had it already: make another one")
        most = self.max_output_bytes
        if isinstance(most, bool) or not isinstance(most, int) or most < 0:
            raise InvalidSpec("max_output_bytes", f"{most!r} must be a whole number, 0 or above")
        check_env("env", self.env)


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What must be known of a sandbox of either backend to go on with it; in its state folder, without any secret."""

    name: str
    artifacts: str
    kept: bool  # `close` leaves it as it is

    def write(self, state: StateFolder, file: str) -> None:
        """Note it in *state*, for `found`."""
        state.write(file, json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, name: str, data: bytes) -> Self:
        """What the state folder *name* says. Raises `SandboxError` if another version of this package wrote it."""
        try:
            return cls(**json.loads(data))
        except (TypeError, ValueError):
            raise SandboxError(
                f"{name} was made by another version of sandbox_runner: use that version to end it"
            ) from None

    def taken(self, state: StateFolder, *, adopt: bool) -> Self:
        """As it is for this process, which becomes the owner with *adopt*; else it is left as it is by `close`."""
        if not adopt:
            return replace(self, kept=True)
        state.adopt(os.getpid())
        return self


def found(name: str, file: str) -> tuple[StateFolder, bytes]:
    """The state folder of the sandbox *name*, and what *file* in it says. Raises `SandboxGone` without one."""
    state = StateFolder.find(name)
    data = None if state is None else state.read(file)
    if state is None or data is None:
        raise SandboxGone(f"there is no sandbox named {name}: `sandbox-runner ps` lists them")
    return state, data


class SandboxInstance(ABC):
    """A sandbox that was proved to stand. Leaving its `with` closes it.

    `command_prefix`: what to put before a command so that `subprocess` runs it inside. `container_name` is the
    sandbox's name; `image_tag` and `image_hash` are None without an image, or if we did not build it.
    """

    backend: str
    command_prefix: list[str]
    container_name: str
    image_tag: str | None = None
    image_hash: str | None = None
    workspace_mount = WORKSPACE
    artifacts_mount = ARTIFACTS
    cache_mount = CACHE

    def __init__(self, about: Common, state: StateFolder, records: Records) -> None:
        self._about, self._state, self._records = about, state, records
        self._closed = False
        self.container_name = about.name

    def exec(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str | None = None,
        stdin: bytes | int | None = None,
        terminal: PseudoTerminal | None = None,
        on_output: OnOutput | None = None,
        max_output_bytes: int = MAX_OUTPUT,
    ) -> ExecResult:
        """Run *argv* inside to its end; when this returns or raises, nothing it started is left.

        *env* is added to the sandbox's own; *cwd* is absolute (None: /workspace); *user* is `uid` or `uid:gid` (None:
        the sandbox's). *stdin* is bytes (None: empty), or an open descriptor, which is read as the command takes what
        comes, and not closed. With a *terminal* the command has it for all three streams: what it prints is stdout, and
        the end of *stdin* is an end-of-file typed there. *on_output* gets `"stdout"` or `"stderr"` and the bytes as
        they come, as many as are kept. Raises `InvalidSpec` for an argument that cannot be used, and `SandboxGone`,
        `SandboxTimeout` or `DockerUnavailable` when it was not the command that failed.
        """
        if self._closed:
            raise SandboxGone(f"{self.container_name} is closed")
        command = Command(
            argv=argv,
            timeout_s=timeout_s,
            env=env or {},
            cwd=os.fspath(cwd) if isinstance(cwd, os.PathLike) else cwd,
            user=user,
            stdin=stdin,
            terminal=terminal,
            on_output=on_output,
            max_output_bytes=max_output_bytes,
        )
        command.check()
        return self._run(command)

    def close(self) -> None:
        """End and remove the sandbox, and publish its records. A second call does nothing.

        Raises `SandboxError` if something is left; `cleanup` finds it.
        """
        if self._closed:
            return
        if not self._about.kept:
            self._take_down()
        self._closed = True
        try:
            self._records.publish_all(is_closed=not self._about.kept)
        except OSError as error:
            raise SandboxError(f"the records of {self.container_name} cannot be written: {error.strerror}") from None
        finally:
            if not self._about.kept:
                self._state.remove()
            self._records.close()

    @abstractmethod
    def _run(self, command: Command) -> ExecResult:
        """As `exec`; the sandbox is open, and *command* checked."""

    @abstractmethod
    def _take_down(self) -> None:
        """End and remove all that there is of the sandbox but its state folder. Raises `SandboxError` if it stays."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
