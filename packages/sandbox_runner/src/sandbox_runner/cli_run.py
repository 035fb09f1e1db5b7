"""`sandbox-runner run`: one command in a sandbox of its own, and what it came to, in a folder of the host.

Theory of operation. The artifacts directory is opened before the sandbox can write in
it, and only once. While the command runs its output goes to files that have no name.
When the sandbox is closed, each record becomes a new file in the opened directory, so
whatever the command has put under a record's name (a link, a pipe, a folder) is neither
written to nor read. A sandbox that is kept can still write there.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from sandbox_runner.cli_terminal import Interrupted, Terminal, described, interruptible, plain, show_json, tell
from sandbox_runner.docker import DockerSandbox
from sandbox_runner.errors import BackendUnavailable, InvalidSpec, SandboxError
from sandbox_runner.execution import ExecResult
from sandbox_runner.instance import SandboxInstance
from sandbox_runner.namespace import NamespaceSandbox
from sandbox_runner.records import SCHEMA, publish
from sandbox_runner.spec import WORKSPACE, MountSpec, ResourceSpec, SandboxSpec, check

USAGE, TIMED_OUT, FAILED = 2, 124, 125  # exit codes that are ours: the last two as `timeout` and `docker run` have them
RUNS = "sandbox-runs"  # below the current folder: where one looks, on a disk that lasts, and owned by who asked
COMMAND, STATUS = "command.json", "exit_code"
MAX_STDIN = 64 << 20
Progress = Callable[[str], None] | None
#: What the person typed, for the name that an `InvalidSpec` has of it.
OPTIONS = {
    "backend": "--exec-backend", "image_ref": "--image", "image_context_path": "--context",
    "dockerfile": "--dockerfile",
    "base_image": "--base-image", "network_mode": "--network", "cache_dir": "--cache", "env_allowlist": "--env",
    "env_overrides": "--env-file", "extra_mounts": "--mount", "mounts": "--mount", "resources.memory": "--memory",
    "resources.cpus": "--cpus", "resources.pids_limit": "--pids", "loosen": "--loosen", "runtime": "--runtime",
    "ttl_seconds": "--ttl", "container_name": "--name", "image_pull_policy": "--pull",
}  # fmt: skip


@dataclass(slots=True)
class Ending:
    """What a run came to: the command's result, or why there is none. Both, if the sandbox could not be closed."""

    result: ExecResult | None = None
    error: BaseException | None = None

    @property
    def code(self) -> int:
        """What to exit with."""
        if self.error is not None or self.result is None:
            return exit_code_of(self.error)
        return exit_code(self.result)


@dataclass(slots=True)
class Run:
    """One run, from what was typed to its records."""

    argv: list[str]
    spec: SandboxSpec
    workspace: Path
    artifacts: Path
    cwd: str
    name: str
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: datetime | None = None
    ending: Ending = field(default_factory=Ending)

    def described(self) -> dict[str, Any]:
        """`command.json`: no value of any variable is in it."""
        result, error = self.ending.result, self.ending.error
        ended = self.ended or datetime.now(UTC)
        return {
            "schema": SCHEMA,
            "argv": self.argv,
            "cwd": self.cwd,
            "environment": {"allowed": list(self.spec.env_allowlist), "overridden": sorted(self.spec.env_overrides)},
            "backend": self.spec.backend,
            "container_name": self.name,
            "started": _rfc3339(self.began),
            "ended": _rfc3339(ended),
            "duration_s": round((ended - self.began).total_seconds() if result is None else result.duration_s, 3),
            **endings(result),
            "error": None if error is None else described(error),
        }


def exit_code(result: ExecResult) -> int:
    """As a shell has it, and `timeout`."""
    if result.timed_out:
        return TIMED_OUT
    return 128 + result.signal if result.signal is not None else result.exit_code or 0


def exit_code_of(error: BaseException | None) -> int:
    """What to exit with when it was not the command that failed."""
    if isinstance(error, Interrupted):
        return 128 + error.number
    return USAGE if isinstance(error, InvalidSpec) else FAILED


def endings(result: ExecResult | None) -> dict[str, Any]:
    """*result* without what was printed."""
    names = ("exit_code", "signal", "timed_out", "out_of_memory", "truncated")
    return {name: None if result is None else getattr(result, name) for name in names}


def complaint(error: BaseException) -> str:
    """*error* in the words of the command line."""
    if isinstance(error, BackendUnavailable):
        return f"{error} (sandbox-runner doctor shows what works here)"
    if not isinstance(error, InvalidSpec):
        return str(error)
    option = OPTIONS.get(error.field, error.field)
    return f"{option}: {str(error).removeprefix(f'{error.field}: ')}"


def run(arguments: argparse.Namespace) -> int:
    """The whole of it; gives the exit code. Raises `InvalidSpec` before anything is made, else it is a record."""
    this = _asked(arguments)
    stdin = read_stdin() if arguments.stdin else None
    terminal = Terminal(is_shown=not arguments.json)
    with ExitStack() as stack:
        this.workspace.mkdir(parents=True, exist_ok=True)
        directory = _open_directory(this.artifacts)
        stack.callback(os.close, directory)
        files = {name: stack.enter_context(tempfile.TemporaryFile()) for name in ("stdout", "stderr")}
        if not arguments.json:
            tell(f"workspace {this.workspace}")
            tell(f"artifacts {this.artifacts}")

        def take(stream: str, data: bytes) -> None:
            files[stream].write(data)
            terminal.take(stream, data)

        def begin(sandbox: SandboxInstance) -> ExecResult:
            this.began = datetime.now(UTC)
            terminal.limit(arguments.timeout)
            return sandbox.exec(
                this.argv, timeout_s=arguments.timeout, cwd=arguments.cwd, stdin=stdin, on_output=take,
                max_output_bytes=arguments.max_output,
            )  # fmt: skip

        settle = stack.enter_context(interruptible())
        this.ending = _attempt(this, begin, settle, None if arguments.json else tell)
        _publish(this, directory, files)
    _tell_end(this, arguments)
    return this.ending.code


def _attempt(
    this: Run, begin: Callable[[SandboxInstance], ExecResult], settle: Callable[[], None], progress: Progress
) -> Ending:
    """Start the sandbox, run the command in it, close it; whatever happens, that is the ending."""
    ending = Ending()
    try:
        with ExitStack() as stack:
            try:
                sandbox = stack.enter_context(_started(this, progress))
                ending.result = begin(sandbox)
            finally:
                settle()
                this.ended = datetime.now(UTC)
    except (SandboxError, OSError, Interrupted) as error:
        ending.error = error
    return ending


def _started(this: Run, progress: Progress) -> SandboxInstance:
    if this.spec.backend == "namespace":
        return NamespaceSandbox(this.workspace, this.artifacts, this.spec, this.name).start()
    return DockerSandbox(this.workspace, this.artifacts, this.spec, this.name, progress=progress).start()


def _publish(this: Run, directory: int, files: Mapping[str, IO[bytes]]) -> None:
    for name, file in files.items():
        file.seek(0)
        publish(directory, f"{name}.log", file)
    publish(directory, COMMAND, json.dumps(this.described(), indent=1, ensure_ascii=False).encode() + b"\n")
    publish(directory, STATUS, f"{this.ending.code}\n".encode())


def _tell_end(this: Run, arguments: argparse.Namespace) -> None:
    error = this.ending.error
    if arguments.json:
        where = {"workspace": str(this.workspace), "artifacts": str(this.artifacts), "status": this.ending.code}
        show_json({**this.described(), **where})
    if error is not None:
        tell(complaint(error))
    if this.ending.result is not None:
        tell_result(this.ending.result, arguments)
    if this.spec.keep_container and this.ending.result is not None:
        tell(f"{this.name} is kept: sandbox-runner exec {this.name} -- COMMAND, sandbox-runner cleanup {this.name}")


def tell_result(result: ExecResult, arguments: argparse.Namespace) -> None:
    """What the exit code alone does not say."""
    if result.timed_out:
        tell(f"the command took longer than {arguments.timeout:g} s, and was ended")
    if result.out_of_memory:
        tell("the kernel ended a process for want of memory: --memory gives more")
    if result.truncated:
        tell(
            f"the command printed more than {arguments.max_output} bytes; the rest is dropped: --max-output keeps more"
        )


def read_stdin() -> bytes:
    """All of standard input. Raises `InvalidSpec` if that is too much to hold."""
    data = sys.stdin.buffer.read(MAX_STDIN + 1)
    if len(data) > MAX_STDIN:
        raise InvalidSpec("--stdin", f"more than {MAX_STDIN >> 20} MiB: put it into a file of the workspace")
    return data


def _open_directory(path: Path) -> int:
    path.mkdir(parents=True, exist_ok=True)
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        # A link there may be an earlier sandbox's.
        raise InvalidSpec("--artifacts", f"{path} must be a folder, and no link to one: {error.strerror}") from None


# From what was typed


def _asked(arguments: argparse.Namespace) -> Run:
    if not arguments.command:
        raise InvalidSpec("COMMAND", "put `--` and then the command at the end")
    spec = spec_of(arguments)
    name = arguments.name or f"sandbox-{os.getpid()}-{secrets.token_hex(4)}"
    check(spec, name)
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    workspace, artifacts = (
        Path(given or f"{RUNS}/{stamp}/{kind}").absolute()
        for given, kind in ((arguments.workspace, "workspace"), (arguments.artifacts, "artifacts"))
    )
    inner, outer = os.path.realpath(artifacts), os.path.realpath(workspace)
    if f"{inner}/".startswith(f"{outer}/") or f"{outer}/".startswith(f"{inner}/"):
        raise InvalidSpec(
            "--artifacts",
            f"{artifacts} and the workspace {workspace} overlap, so that commands could change the records of earlier "
            "runs: name a folder elsewhere",
        )
    return Run(arguments.command, spec, workspace, artifacts, arguments.cwd or WORKSPACE, name)


def spec_of(arguments: argparse.Namespace) -> SandboxSpec:
    """The spec that was typed. Raises `InvalidSpec`."""
    return SandboxSpec(
        backend=arguments.exec_backend,
        image_ref=arguments.image,
        image_context_path=arguments.context,
        dockerfile=arguments.dockerfile,
        base_image=arguments.base_image,
        image_pull_policy=arguments.pull,
        rebuild_image=arguments.rebuild,
        network_mode=arguments.network,
        cache_mode="cold" if arguments.cache is None else "warm",
        cache_dir=arguments.cache,
        env_allowlist=tuple(arguments.env),
        env_overrides={} if arguments.env_file is None else _env_of(Path(arguments.env_file)),
        extra_mounts=tuple(_mount_of(text) for text in arguments.mount),
        resources=ResourceSpec(cpus=arguments.cpus, memory=arguments.memory, pids_limit=arguments.pids),
        loosen=tuple(arguments.loosen),
        runtime=arguments.runtime,
        keep_container=arguments.keep,
        ttl_seconds=arguments.ttl,
    )


def _env_of(path: Path) -> dict[str, str]:
    """Lines NAME=VALUE, as `docker run --env-file` takes them. An error shows no value."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise InvalidSpec("env_overrides", f"{path}: {why}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, sign, value = line.partition("=")
        if not sign:
            raise InvalidSpec("env_overrides", f"{path}, line {number}: not NAME=VALUE")
        found[name] = value
    return found


def _mount_of(text: str) -> MountSpec:
    rest = text.removesuffix(":ro")
    source, _, target = rest.rpartition(":")
    if not source or not target:
        raise InvalidSpec("extra_mounts", f"{plain(text)!r} is not SOURCE:TARGET or SOURCE:TARGET:ro")
    return MountSpec(Path(source).absolute(), target, read_only=rest != text)


def _rfc3339(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
