"""The one place that starts the Docker CLI, but for `diagnostics`. Every command has a deadline.

No value of a secret is on a command line.

The CLI and not the API, so that contexts, remote daemons, rootless Docker and podman's
`docker` work as they do in a terminal. `SANDBOX_RUNNER_DOCKER` names another program.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from sandbox_runner.errors import DockerUnavailable, SandboxError, SandboxTimeout
from sandbox_runner.execution import follow, run_command

PROGRAM_VARIABLE = "SANDBOX_RUNNER_DOCKER"
_ANSWER_BYTES = 8 << 20  # of an answer that are kept: a container can print in its place without end
_SAID_CHARS = 2000  # of what the engine said, in an error's text
_NO_DAEMON = (
    "cannot connect to the docker daemon",
    "error during connect",
    "permission denied while trying to connect",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command of the CLI came to."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def said(self) -> str:
        """Its complaint, for an error's text."""
        text = (self.stderr.strip() or self.stdout.strip()).decode("utf-8", "replace")
        return text[-_SAID_CHARS:]


class DockerCli:
    """The Docker CLI of this machine. *timeout_s* bounds one command. Raises `DockerUnavailable` without a CLI."""

    def __init__(self, timeout_s: float = 120.0) -> None:
        self.program = docker_program()
        self.is_default = not os.environ.get(PROGRAM_VARIABLE)
        self.timeout_s = timeout_s

    def run(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout_s: float | None = None,
    ) -> Answer:
        """Run `docker arguments…` to its end; every exit code is returned. *env* is added to our own environment.

        Raises `SandboxTimeout`, and `DockerUnavailable` if no daemon answers. The CLI dies with us.
        """
        limit = timeout_s or self.timeout_s
        try:
            done = run_command(
                [self.program, *arguments],
                env={**own_environment(), **(env or {})},
                stdin=stdin or None,
                timeout_s=limit,
                max_output_bytes=_ANSWER_BYTES,
                end=lambda: None,
            )
        except SandboxError as error:
            raise DockerUnavailable(str(error)) from None
        if done.timed_out:
            raise SandboxTimeout(f"`docker {arguments[0]}` took longer than {limit:g} s")
        answer = Answer(done.returncode, done.stdout, done.stderr)
        if answer.code and any(words in answer.said.lower() for words in _NO_DAEMON):
            raise DockerUnavailable(f"the Docker engine does not answer: {answer.said}")
        return answer

    def run_logged(
        self,
        *arguments: str,
        on_output: Callable[[bytes], None],
        timeout_s: float,
        stdin: IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Run `docker arguments…` to its end and give its exit code; *on_output* gets what it prints, as it comes.

        *stdin* is a real file. For long commands that print much. Raises as `run` does; on every way out, the CLI
        and what it started (buildx is a program of its own) are gone then.
        """
        try:
            code = follow(
                [self.program, *arguments],
                env={**own_environment(), **(env or {})},
                stdin=stdin,
                timeout_s=timeout_s,
                on_output=on_output,
            )
        except SandboxError as error:
            raise DockerUnavailable(str(error)) from None
        if code is None:
            raise SandboxTimeout(f"`docker {arguments[0]}` took longer than {timeout_s:g} s")
        return code

    def inspect(self, kind: str, name: str) -> dict[str, Any] | None:
        """What the engine knows of the `container` or `image` *name*; None if it has no such thing."""
        answer = self.run("inspect", "--type", kind, name)
        if answer.code:
            return None
        found: list[dict[str, Any]] = json.loads(answer.stdout)
        return found[0]


def own_environment() -> dict[str, str]:
    """A copy of this process's environment, also while another thread changes it."""
    while True:
        try:
            return dict(os.environ)
        except (KeyError, RuntimeError):  # a name went away, or came, between two of the copy's steps
            continue


def docker_program() -> str:
    """The CLI's path. Raises `DockerUnavailable`."""
    asked = os.environ.get(PROGRAM_VARIABLE) or "docker"
    program = shutil.which(asked)
    if program is None:
        raise DockerUnavailable(f"there is no {asked} on PATH: install a Docker CLI, or name one in {PROGRAM_VARIABLE}")
    return program
