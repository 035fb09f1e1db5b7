"""A sandbox that stands: what both backends give."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from sandbox_runner.errors import InvalidSpec
from sandbox_runner.execution import MAX_OUTPUT, ExecResult, OnOutput
from sandbox_runner.spec import ARTIFACTS, CACHE, WORKSPACE, check_env

_USER = re.compile(r"[0-9]{1,10}(:[0-9]{1,10})?")


def check_command(
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    cwd: str | None,
    user: str | None,
    timeout_s: float | None,
    stdin: bytes | None,
    max_output_bytes: int,
) -> None:
    """Raise `InvalidSpec` for the first argument of `exec` that cannot be used."""
    if isinstance(argv, (str, bytes)) or not argv or not all(isinstance(part, str) for part in argv):
        raise InvalidSpec("argv", 'must be a list of texts, for example ["ls", "-l"]')
    if any("\0" in part for part in argv):
        raise InvalidSpec("argv", "an argument holds a NUL")
    if cwd is not None and (not isinstance(cwd, str) or not cwd.startswith("/") or "\0" in cwd):
        raise InvalidSpec("cwd", f"{cwd!r} must be an absolute path inside")
    if user is not None and not (isinstance(user, str) and _USER.fullmatch(user)):
        raise InvalidSpec("user", f"{user!r} must be uid or uid:gid")
    if timeout_s is not None and not (isinstance(timeout_s, (int, float)) and timeout_s > 0):
        raise InvalidSpec("timeout_s", f"{timeout_s!r} must be a number above 0")
    if stdin is not None and not isinstance(stdin, (bytes, bytearray, memoryview)):
        raise InvalidSpec("stdin", "must be bytes")
    if not isinstance(max_output_bytes, int) or max_output_bytes < 0:
        raise InvalidSpec("max_output_bytes", f"{max_output_bytes!r} must be a whole number, 0 or above")
    check_env("env", env or {})


class SandboxInstance(ABC):
    """A sandbox that was proved to stand. Leaving its `with` closes it.

    `command_prefix`: what to put before a command so that `subprocess` runs it inside. `container_name` is the
    sandbox's name; `image_tag` and `image_hash` are None where there is no image, or it was not built here.
    """

    backend: str
    command_prefix: list[str]
    container_name: str
    image_tag: str | None = None
    image_hash: str | None = None
    workspace_mount = WORKSPACE
    artifacts_mount = ARTIFACTS
    cache_mount = CACHE

    @abstractmethod
    def exec(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        stdin: bytes | None = None,
        on_output: OnOutput | None = None,
        max_output_bytes: int = MAX_OUTPUT,
    ) -> ExecResult:
        """Run *argv* inside to its end; when this returns or raises, nothing it started is left.

        *env* is added to the sandbox's own; *cwd* is absolute (None: /workspace); *user* is `uid` or `uid:gid` (None:
        the sandbox's); *on_output* gets `"stdout"` or `"stderr"` and the bytes as they come, as many as are kept.
        Raises `InvalidSpec` for an argument that cannot be used, and `SandboxGone`, `SandboxTimeout` or
        `DockerUnavailable` when it was not the command that failed.
        """

    @abstractmethod
    def close(self) -> None:
        """End and remove the sandbox, and publish its records. A second call does nothing.

        Raises `SandboxError` if something is left; `cleanup` finds it.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
