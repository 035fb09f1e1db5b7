"""A container that stands, as a `SandboxInstance`: commands in it, and its end."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sandbox_runner import inside
from sandbox_runner.docker_cli import DockerCli
from sandbox_runner.docker_run import NONCE
from sandbox_runner.errors import DockerUnavailable, InvalidSpec, SandboxError, SandboxGone, SandboxTimeout
from sandbox_runner.execution import MAX_OUTPUT, ExecResult, Finished, OnOutput, run_command, status
from sandbox_runner.instance import SandboxInstance, check_command
from sandbox_runner.records import CONTAINER_INSPECT, CONTAINER_LOGS, Records
from sandbox_runner.spec import WORKSPACE
from sandbox_runner.state import StateFolder

ABOUT = "container.json"  # in the state folder: `About`
ENVIRONMENT = "env"  # in the state folder: the overrides, as --env-file takes them
_LOG_LINES = "10000"
_END_S = 15.0
_SETTLE_S = 2.0
_LAST_USER = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What must be known of a container to go on with it; kept in its state folder, without any secret."""

    name: str
    nonce: str
    image_tag: str
    image_hash: str | None
    keep: int  # number of the process that waits, inside
    own_init: bool  # whether each command gets a reaper of its own
    user: str | None
    env_allowlist: tuple[str, ...]
    overridden: tuple[str, ...]
    kept: bool
    timeout_s: float
    artifacts: str

    @classmethod
    def read(cls, name: str, data: bytes) -> About:
        """What the state folder *name* says. Raises `SandboxError` if another version of this package wrote it."""
        try:
            return cls(**json.loads(data))
        except TypeError:
            raise SandboxError(f"{name} was made by another version of sandbox_runner: end it with that one") from None


class DockerInstance(SandboxInstance):
    """See `SandboxInstance`. Threads may run commands at the same time."""

    backend = "docker"

    def __init__(self, about: About, cli: DockerCli, state: StateFolder, records: Records) -> None:
        self._about, self._cli, self._state, self._records = about, cli, state, records
        self._closed = False
        self._was_out_of_memory = False  # the engine goes on to say so for the container's whole life
        self.container_name = about.name
        self.image_tag, self.image_hash = about.image_tag, about.image_hash
        self.command_prefix = [
            "docker" if cli.is_default else cli.program,
            "exec",
            "-i",
            *self._passed(about.overridden),
            *(["--env-file", str(state.path / ENVIRONMENT)] if about.overridden else []),
            about.name,
        ]

    def _passed(self, overridden: Sequence[str]) -> list[str]:
        """The allowed names, whose values the CLI takes from its own environment; an override comes from a file."""
        return [part for name in self._about.env_allowlist if name not in overridden for part in ("--env", name)]

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
        """See `SandboxInstance.exec`."""
        if self._closed:
            raise SandboxGone(f"{self.container_name} is closed")
        check_command(argv, env, cwd, user, timeout_s, stdin, max_output_bytes)
        _check_for_engine(argv, user)
        token = inside.new_token()
        marks = inside.Marks(token.encode())
        with self._environment(env or {}) as options:
            finished = run_command(
                [
                    self._cli.program,
                    "exec",
                    *(["--interactive"] if stdin is not None else []),
                    *(["--user", user] if user else []),
                    *options,
                    self.container_name,
                    *inside.command(
                        token, self._about.keep, cwd or WORKSPACE, list(argv), own_init=self._about.own_init
                    ),
                ],
                stdin=stdin,
                timeout_s=timeout_s,
                on_output=on_output,
                max_output_bytes=max_output_bytes,
                end=lambda: self._end(marks, user),
                is_alive=self._is_running,  # gVisor's client waits for ever once its sandbox is gone
                stderr_filter=marks,
            )
        if marks.has_no_place:
            raise InvalidSpec("cwd", f"there is no folder {cwd} inside")
        return self._result(finished, marks, user)

    def close(self) -> None:
        """See `SandboxInstance.close`."""
        if self._closed:
            return
        if not self._about.kept:
            keep_logs(self._cli, self.container_name, self._records)
            try:
                remove(self._cli, self.container_name, self._about.nonce)
            except SandboxError:
                self._state.abandon()
                raise
        self._closed = True
        try:
            self._records.publish_all(is_closed=not self._about.kept)
        except OSError as error:
            raise SandboxError(f"the records of {self.container_name} cannot be written: {error.strerror}") from None
        finally:
            if not self._about.kept:
                self._state.remove()
            self._records.close()

    # One command

    @contextmanager
    def _environment(self, env: Mapping[str, str]) -> Iterator[list[str]]:
        """The options that give a command its variables; no value is among them."""
        options = self._passed((*self._about.overridden, *env))
        if self._about.overridden:
            options += ["--env-file", str(self._state.path / ENVIRONMENT)]
        if not env:
            yield options
            return
        # Behind the sandbox's own: of two values of one name, the engine takes the later.
        path = self._state.write(f"{ENVIRONMENT}-{secrets.token_hex(8)}", env_file(env))
        try:
            yield [*options, "--env-file", str(path)]
        finally:
            path.unlink(missing_ok=True)

    def _end(self, marks: inside.Marks, user: str | None, *, may_restart: bool = True) -> None:
        """End the command that *marks* tells of, with everything it started; the sandbox goes on."""
        if not self._is_running():
            return
        script = inside.end(marks, self._about.keep)
        who = ["--user", user] if user else []
        with suppress(SandboxTimeout):
            if self._cli.run("exec", *who, self.container_name, *script, timeout_s=_END_S).code == 0:
                return
        if not may_restart or not self._is_running():
            return
        # It left no process for us to begin, or makes new ones faster than they can be ended.
        self._cli.run("restart", "--time", "0", self.container_name)
        keep = probe(self._cli, self.container_name, has_init=self._about.keep != 1).keep
        self._about = replace(self._about, keep=keep)
        self._state.write(ABOUT, json.dumps(asdict(self._about)).encode())

    def _result(self, finished: Finished, marks: inside.Marks, user: str | None) -> ExecResult:
        code, killed = marks.ended or (finished.returncode, 0)
        if marks.ended is None and not finished.timed_out:
            # Somebody ended our shell, so nobody has ended what the command left. If it did not even begin, it was the
            # engine that failed: that is no reason to end the commands of others by a restart.
            self._end(marks, user, may_restart=marks.began is not None)
            self._find_out(finished, marks)
        if marks.has_left:
            self._end(marks, user)
        exit_code, signal = (None, 9) if finished.timed_out and marks.ended is None else status(code)
        self._was_out_of_memory |= killed > 0
        return ExecResult(
            exit_code=exit_code,
            signal=signal,
            stdout=finished.stdout,
            stderr=finished.stderr,
            timed_out=finished.timed_out,
            out_of_memory=killed > 0,
            truncated=finished.truncated,
            duration_s=finished.duration_s,
        )

    def _is_running(self) -> bool:
        found = self._cli.inspect("container", self.container_name)
        return found is not None and bool(found["State"]["Running"])

    def _find_out(self, finished: Finished, marks: inside.Marks) -> None:
        """Why the end of a command was not told. Raises, unless the command itself ended our shell."""
        said = (
            (marks.engine_said + (finished.stderr if marks.began is None else b"")).decode("utf-8", "replace").strip()
        )
        found = self._cli.inspect("container", self.container_name)
        if found is None or not found["State"]["Running"]:
            killed = found is not None and found["State"].get("OOMKilled") and not self._was_out_of_memory
            why = "its memory was full" if killed else "something ended all of its processes, or the container"
            raise SandboxGone(f"{self.container_name} ended while a command ran in it: {why}")
        if marks.began is None or finished.returncode <= 128:
            raise SandboxError(f"the engine did not run the command to its end: {said[-1000:] or 'it did not say why'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What `inside.PROBE` found."""

    keep: int
    shown: Mapping[str, str]  # lines of /proc/self/status


def probe(cli: DockerCli, name: str, *, has_init: bool = True) -> Probed:
    """Wait until commands can run in the container. Raises `SandboxGone` if it is not running, `SandboxTimeout`.

    Without an init the process that waits is the container's first, number 1.
    """
    until = time.monotonic() + cli.timeout_s
    while True:
        answer = cli.run("exec", name, "/bin/sh", "-c", inside.PROBE)
        lines = answer.stdout.decode("utf-8", "replace").splitlines()
        keep = [int(line.split()[1]) for line in lines if line.startswith("keep ")] if has_init else [1]
        if answer.code == 0 and lines[-1:] == ["ready"] and keep:
            shown = dict(line.split(None, 1) for line in lines if ":" in line)
            return Probed(keep=min(keep), shown=shown)
        found = cli.inspect("container", name)
        if found is None or not found["State"]["Running"]:
            state = "is not there" if found is None else f"ended with exit code {found['State']['ExitCode']}"
            raise SandboxGone(f"{name} {state}: {cli.run('logs', '--tail', '5', name).said or answer.said}")
        if time.monotonic() > until:
            raise SandboxTimeout(f"{name} did not answer within {cli.timeout_s:g} s: {answer.said}")
        time.sleep(0.05)


def has_subreapers(cli: DockerCli, name: str) -> bool:
    """Whether a command in the container can have a reaper of its own (gVisor of 2022 has none)."""
    return cli.run("exec", name, inside.INIT, "-s", "--", "/bin/sh", "-c", "exit 0").code == 0


def _check_for_engine(argv: Sequence[str], user: str | None) -> None:
    if any(int(number) > _LAST_USER for number in (user or "0").split(":")):
        raise InvalidSpec("user", f"{user!r} is above {_LAST_USER}, the engine's last")
    try:
        "".join(argv).encode()
    except UnicodeEncodeError:
        raise InvalidSpec("argv", "an argument is no text in UTF-8, and the engine takes nothing else") from None


def env_file(env: Mapping[str, str]) -> bytes:
    """*env*, checked by `check_env`, as `--env-file` takes it."""
    return "".join(f"{name}={value}\n" for name, value in env.items()).encode()


def keep_logs(cli: DockerCli, name: str, records: Records) -> None:
    """What the container printed by itself, and what the engine knows of it, for the records; as far as it answers."""
    with suppress(SandboxTimeout, DockerUnavailable, OSError):
        logs = cli.run("logs", "--tail", _LOG_LINES, name)
        records.write(CONTAINER_LOGS, logs.stdout + logs.stderr)
        found = cli.inspect("container", name)
        records.write(CONTAINER_INSPECT, json.dumps(found, indent=1).encode() + b"\n")


def remove(cli: DockerCli, name: str, nonce: str, *, may_come: bool = False) -> None:
    """Remove the container that was started with *nonce*, and its volumes. Raises `SandboxError` if it stays.

    *may_come*: the engine did not answer to `docker run`, so it may still be making it; that is waited for a little.
    """
    until = time.monotonic() + (_SETTLE_S if may_come else 0)
    while True:
        listed = cli.run("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={NONCE}={nonce}")
        if listed.code:
            raise SandboxError(f"the engine does not say whether {name} is there: {listed.said}")
        numbers = listed.stdout.decode().split()
        if numbers or time.monotonic() >= until:
            break
        time.sleep(0.1)
    for number in numbers:
        answer = cli.run("rm", "--force", "--volumes", number)
        if cli.inspect("container", number) is not None:
            raise SandboxError(f"{name} cannot be removed, run `sandbox-runner cleanup` later: {answer.said}")


def attach(name: str, *, adopt: bool = True) -> DockerInstance:
    """Go on with a container of ours that runs (`keep_container`). From now on it is this process's, to close.

    Without *adopt* it stays its owner's, and `close` leaves it. Raises `SandboxGone` if there is none of that name.
    """
    state = StateFolder.find(name)
    data = None if state is None else state.read(ABOUT)
    if state is None or data is None:
        raise SandboxGone(f"there is no sandbox named {name}: `sandbox-runner ps` lists them")
    about = About.read(state.name, data)
    cli = DockerCli(about.timeout_s)
    found = cli.inspect("container", name)
    if found is None or found["Config"]["Labels"].get(NONCE) != about.nonce or not found["State"]["Running"]:
        raise SandboxGone(f"{name} does not run any more: `sandbox-runner cleanup` removes what is left of it")
    if adopt:
        state.adopt(os.getpid())
    else:
        about = replace(about, kept=True)
    return DockerInstance(about, cli, state, Records(state, Path(about.artifacts)))
