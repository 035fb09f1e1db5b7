"""`sandbox-runner run`: one command in a sandbox of its own, and what it came to, in a folder of the host.

Theory of operation. The artifacts directory is opened before the sandbox can write in
it, and only once. While the command runs its output goes to files that have no name.
When the sandbox is closed, each record becomes a new file in the opened directory, so
whatever the command has put under a record's name (a link, a pipe, a folder) is neither
written to nor read. A sandbox that is kept can still write there.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
import secrets
import stat
import sys
import tempfile
import termios
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from sandbox_runner.cli.terminal import Interrupted, Terminal, described, interruptible, show_json, tell, typed_through
from sandbox_runner.cli.words import complaint
from sandbox_runner.docker.sandbox import DockerSandbox
from sandbox_runner.errors import InvalidSpec, SandboxError, SandboxGone
from sandbox_runner.execution import ExecResult, OnOutput
from sandbox_runner.instance import SandboxInstance
from sandbox_runner.linux import file_locks
from sandbox_runner.namespace.sandbox import NamespaceSandbox
from sandbox_runner.records import SCHEMA, as_json, publish
from sandbox_runner.spec import WORKSPACE, MountSpec, ResourceSpec, SandboxSpec, check
from sandbox_runner.starting import new_name
from sandbox_runner.text import plain_line

USAGE, TIMED_OUT, FAILED = 2, 124, 125  # exit codes that are ours: the last two as `timeout` and `docker run` have them
RUNS = "sandbox-runs"  # below the current folder: where one looks, on a disk that lasts, and owned by who asked
STATE = "sandbox_runner/runs"  # below XDG_STATE_HOME, for who works in the current folder itself
COMMAND, STATUS = "command.json", "exit_code"
NO_COMMAND = "put `--` and then the command at the end"
Progress = Callable[[str], None] | None


@dataclass(slots=True)
class Ending:
    """What a run came to: the command's result, or why it has none. Both, if the sandbox could not be closed."""

    result: ExecResult | None = None
    error: BaseException | None = None
    has_stood: bool = False  # the sandbox

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
    names = ("exit_code", "signal", "timed_out", "out_of_memory", "too_many_locks", "truncated")
    return {name: None if result is None else getattr(result, name) for name in names}


def run(arguments: argparse.Namespace) -> int:
    """The whole of it; gives the exit code. Raises `InvalidSpec` before anything is made, else it is a record."""
    this = _asked(arguments)
    check_typing(arguments)
    terminal = Terminal(is_shown=not arguments.json)
    with ExitStack() as stack:
        _make_folder("--workspace", this.workspace)
        _make_folder("--artifacts", this.artifacts)
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
            return executed(sandbox, this.argv, arguments, take)

        settle = stack.enter_context(interruptible())
        life_s = None if this.spec.keep_container else arguments.timeout
        this.ending = _attempt(this, begin, settle, None if arguments.json else tell, life_s)
        _publish(this, directory, files)
    _tell_end(this, arguments)
    return this.ending.code


def _attempt(
    this: Run,
    begin: Callable[[SandboxInstance], ExecResult],
    settle: Callable[[], None],
    progress: Progress,
    life_s: float | None,
) -> Ending:
    """Start the sandbox, run the command in it, close it; every way out of this gives an ending."""
    ending = Ending()
    try:
        with ExitStack() as stack:
            try:
                sandbox = stack.enter_context(_started(this, progress, life_s))
                ending.has_stood = True
                ending.result = begin(sandbox)
            finally:
                settle()
                this.ended = datetime.now(UTC)
    except (SandboxError, OSError, Interrupted) as error:
        ending.error = error
    return ending


def _started(this: Run, progress: Progress, life_s: float | None) -> SandboxInstance:
    if this.spec.backend == "namespace":
        return NamespaceSandbox(this.workspace, this.artifacts, this.spec, this.name).start()
    sandbox = DockerSandbox(
        this.workspace, this.artifacts, this.spec, this.name, progress=progress, life_seconds=life_s
    )
    return sandbox.start()


def _publish(this: Run, directory: int, files: Mapping[str, IO[bytes]]) -> None:
    for name, file in files.items():
        file.seek(0)
        publish(directory, f"{name}.log", file)
    publish(directory, COMMAND, as_json(this.described()))
    publish(directory, STATUS, f"{this.ending.code}\n".encode())


def _tell_end(this: Run, arguments: argparse.Namespace) -> None:
    error = this.ending.error
    if arguments.json:
        where = {"workspace": str(this.workspace), "artifacts": str(this.artifacts), "status": this.ending.code}
        show_json({**this.described(), **where})
    if error is not None:
        tell(complaint(error, name=this.name, artifacts=this.artifacts))
    if this.ending.result is not None:
        tell_result(this.ending.result, arguments)
    # Also when the command was interrupted, or the engine failed to run it: the sandbox is there then.
    if this.spec.keep_container and this.ending.has_stood and not isinstance(error, SandboxGone):
        tell(f"{this.name} is kept: sandbox-runner exec {this.name} -- COMMAND, sandbox-runner cleanup {this.name}")


def tell_result(result: ExecResult, arguments: argparse.Namespace) -> None:
    """What the exit code alone does not say."""
    if result.timed_out:
        tell(f"the command took longer than {arguments.timeout:g} s, and was ended")
    if result.out_of_memory:
        tell("the kernel ended a process for want of memory: --memory gives more")
    if result.too_many_locks:
        tell(f"the command held more than {file_locks.MOST} file locks, and was ended")
    if not (arguments.stdin or arguments.tty) and unread(0):
        tell("the command did not get standard input: --stdin gives it")
    if result.truncated:
        tell(
            f"the command printed more than {arguments.max_output} bytes; the rest is dropped: --max-output keeps more"
        )


def unread(descriptor: int) -> bool:
    """Whether a pipe or a file at *descriptor* holds what was not read. A terminal never does: people type there."""
    try:
        if stat.S_ISREG((found := os.fstat(descriptor)).st_mode):
            return found.st_size > os.lseek(descriptor, 0, os.SEEK_CUR)
        if not stat.S_ISFIFO(found.st_mode):
            return False
        waiting = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
    except OSError:  # it is closed, or cannot be read
        return False
    return int.from_bytes(waiting, sys.byteorder) > 0


def check_typing(arguments: argparse.Namespace) -> None:
    """Raise `InvalidSpec` for a terminal that cannot be had."""
    if arguments.tty and not os.isatty(0):
        raise InvalidSpec("--tty", "standard input is not a terminal: --stdin gives a pipe or a file to the command")
    if arguments.tty and arguments.json:
        raise InvalidSpec("--tty", "--json shows nothing of what the command prints: leave out one of them")


def executed(
    sandbox: SandboxInstance, argv: Sequence[str], arguments: argparse.Namespace, take: OnOutput
) -> ExecResult:
    """The command's result; *take* gets what it prints. With `--tty` it has a terminal of the size of ours."""
    with ExitStack() as stack:
        terminal = stack.enter_context(typed_through(0)) if arguments.tty else None
        return sandbox.exec(
            argv,
            timeout_s=arguments.timeout,
            env={"TERM": os.environ.get("TERM", "xterm")} if arguments.tty else None,
            cwd=arguments.cwd,
            stdin=_standard_input() if arguments.stdin or arguments.tty else None,
            terminal=terminal,
            on_output=take,
            max_output_bytes=arguments.max_output,
        )


def _standard_input() -> int | bytes:
    try:
        os.fstat(0)
    except OSError:  # it is closed
        return b""
    return 0


def _make_folder(option: str, path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        why = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise InvalidSpec(option, f"{path} cannot be made: {why}: name a folder that you can write") from None


def _open_directory(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        # A link there may be an earlier sandbox's.
        raise InvalidSpec("--artifacts", f"{path} must be a folder, not a link to one: {error.strerror}") from None


# From what was typed


def _asked(arguments: argparse.Namespace) -> Run:
    if not arguments.command:
        raise InvalidSpec("COMMAND", NO_COMMAND)
    spec = spec_of(arguments)
    name = arguments.name or new_name()
    check(spec, name)
    workspace, artifacts = _folders(arguments.workspace, arguments.artifacts)
    return Run(arguments.command, spec, workspace, artifacts, arguments.cwd or WORKSPACE, name)


def _folders(workspace: str | None, artifacts: str | None) -> tuple[Path, Path]:
    """The two folders of a run, as they were given, else below a new one. Raises `InvalidSpec` if they overlap."""
    for option, given in (("--workspace", workspace), ("--artifacts", artifacts)):
        if given is not None and os.path.realpath(given) == "/":
            raise InvalidSpec(option, "/ is all of this machine: name a folder")
    runs = _runs([Path(given) for given in (workspace, artifacts) if given is not None])
    new = runs / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
    work = Path(workspace).absolute() if workspace is not None else new / "workspace"
    records = Path(artifacts).absolute() if artifacts is not None else new / "artifacts"
    if _is_in(records, work) or _is_in(work, records):
        raise InvalidSpec(
            "--artifacts",
            f"{records} and the workspace {work} overlap, so that commands could change the records of earlier "
            "runs: name a folder elsewhere",
        )
    return work, records


def _runs(given: Sequence[Path]) -> Path:
    """Where new runs go: below the current folder, or with the person's state if that is in a folder that was given.

    A run below a folder that a sandbox can write would be a run whose records its commands can change.
    """
    here = Path(RUNS).absolute()
    if not any(_is_in(here, folder) for folder in given):
        return here
    # What is not absolute is not to be used, by the XDG Base Directory Specification.
    state = os.environ.get("XDG_STATE_HOME", "")
    if not state.startswith("/"):
        state = os.path.expanduser("~/.local/state")  # noqa: PTH111 - no error where there is no home
    return Path(state, STATE).absolute()


def _is_in(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


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
        lines = [line.removesuffix("\r") for line in path.read_bytes().decode().split("\n")]
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
        raise InvalidSpec("extra_mounts", f"{plain_line(text)!r} is not SOURCE:TARGET or SOURCE:TARGET:ro")
    return MountSpec(Path(source).absolute(), target, read_only=rest != text)


def _rfc3339(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
