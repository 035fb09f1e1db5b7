"""A container that stands, as a `SandboxInstance`: commands in it, and its end."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sandbox_runner.docker import inside
from sandbox_runner.docker.command import DockerCli, own_environment
from sandbox_runner.docker.line import NONCE
from sandbox_runner.errors import DockerUnavailable, InvalidSpec, SandboxError, SandboxGone, SandboxTimeout
from sandbox_runner.execution import KILLED, Attached, ExecResult, Finished, run_command
from sandbox_runner.instance import Command, Common, SandboxInstance, found
from sandbox_runner.linux import walls
from sandbox_runner.linux.file_locks import Guard, namespace_of
from sandbox_runner.linux.kernel_log import tells_of_full_memory
from sandbox_runner.pseudo_terminal import PseudoTerminal
from sandbox_runner.records import CONTAINER_INSPECT, CONTAINER_LOGS, Records
from sandbox_runner.spec import WORKSPACE, has_break
from sandbox_runner.state import StateFolder

ABOUT = "container.json"  # in the state folder: `About`
ENVIRONMENT = "env"  # in the state folder: the overrides, as --env-file takes them
_LOG_LINES = "10000"
_END_S = 15.0
_SETTLE_S = 2.0
_LAST_USER = 2**31 - 1
_NO_KEYS = ",".join(["ctrl-^"] * 8)  # the client leaves a command alone at such keys, and has some if it is given none


@dataclass(frozen=True, slots=True, kw_only=True)
class About(Common):
    """What must be known of a container, too."""

    nonce: str
    image_tag: str
    image_hash: str | None
    keeper: int  # the number, inside, of the process that waits, so that the container stays
    own_init: bool  # whether each command gets a reaper of its own
    env_allowlist: tuple[str, ...]
    overridden: tuple[str, ...]
    timeout_s: float
    sources: tuple[tuple[str, int, int], ...]  # our paths of what is mounted, each with its device and inode
    is_nested: bool = False  # a command can put a link in the place of one: it is mounted this once

    def is_in_place(self) -> bool:
        """Whether every source of a mount is what it was at the start."""
        return identities(path for path, _, _ in self.sources) == tuple(map(tuple, self.sources))


def identities(paths: Iterable[str | os.PathLike[str]]) -> tuple[tuple[str, int, int], ...] | None:
    """Each path with the device and inode it is; None if one of them is reached by a link, or is not there."""
    found = []
    for path in (os.fspath(path) for path in paths):
        try:
            status = Path(path).lstat()
        except OSError:
            return None
        if os.path.realpath(path) != path:
            return None
        found.append((path, status.st_dev, status.st_ino))
    return tuple(found)


class DockerInstance(SandboxInstance):
    """See `SandboxInstance`. Threads may run commands at the same time."""

    backend = "docker"

    def __init__(self, about: About, cli: DockerCli, state: StateFolder, records: Records) -> None:
        super().__init__(about, state, records)
        self._about: About = about
        self._cli = cli
        self._was_out_of_memory = False  # the engine goes on to say so for the container's whole life
        self.image_tag, self.image_hash = about.image_tag, about.image_hash
        self.command_prefix = [
            "docker" if cli.is_default else cli.program,
            "exec",
            "-i",
            *self._env_options(),
            about.name,
        ]

    def _env_options(self, *hidden: str) -> list[str]:
        """The allowed names, whose values the CLI takes from its own environment; an override comes from a file.

        The names *hidden* come from another file, behind it.
        """
        about, options = self._about, []
        for name in about.env_allowlist:
            if name not in (*about.overridden, *hidden):
                options += ["--env", name]
        if about.overridden:
            options += ["--env-file", str(self._state.path / ENVIRONMENT)]
        return options

    def _run(self, command: Command) -> ExecResult:
        _check_for_engine(command)
        token = inside.new_token()
        marks = inside.Marks(token.encode())
        guard = Guard(self._namespaces, lambda: self._end(marks, command.user))
        # What a file of lines cannot hold travels in the CLI's own environment.
        broken = {name: value for name, value in command.env.items() if has_break(value)}
        with self._environment(command.env, broken) as options, guard:
            finished = run_command(
                [
                    self._cli.program,
                    "exec",
                    *(["--interactive"] if command.stdin is not None or command.terminal is not None else []),
                    *_terminal_options(command.terminal),
                    *_user_option(command.user),
                    *options,
                    self.container_name,
                    *inside.command(
                        token,
                        self._about.keeper,
                        command.cwd or WORKSPACE,
                        list(command.argv),
                        own_init=self._about.own_init,
                    ),
                ],
                env={**own_environment(), **broken} if broken else None,
                stdin=command.stdin,
                timeout_s=command.timeout_s,
                on_output=command.on_output,
                max_output_bytes=command.max_output_bytes,
                end=lambda: self._end(marks, command.user),
                is_alive=self._is_running,  # gVisor's client waits for ever once its sandbox is gone
                stdout_filter=marks if command.terminal is not None else None,  # all of it comes by the terminal
                stderr_filter=marks if command.terminal is None else None,
                terminal=None if command.terminal is None else Attached(command.terminal, is_relayed=True),
            )
        if marks.has_no_place:
            raise InvalidSpec("cwd", f"there is no folder {command.cwd} inside")
        return self._result(finished, marks, command.user, too_many_locks=guard.has_ended_it)

    def _namespaces(self) -> set[int | None]:
        """Of the container's processes, if they are this machine's and we see them."""
        found = self._cli.inspect("container", self.container_name)
        with suppress(OSError):
            number = found["State"]["Pid"] if found else 0
            if found and found["Id"] in Path(f"/proc/{number}/cgroup").read_text(encoding="ascii"):
                return {namespace_of(number)}
        return set()

    def _take_down(self) -> None:
        keep_logs(self._cli, self.container_name, self._records)
        try:
            remove(self._cli, self.container_name, self._about.nonce)
        except SandboxError:
            self._state.abandon()
            raise

    @contextmanager
    def _environment(self, env: Mapping[str, str], broken: Collection[str]) -> Iterator[list[str]]:
        """The options that give a command its variables; no value is among them."""
        options = [*self._env_options(*env), *(part for name in broken for part in ("--env", name))]
        lines = {name: value for name, value in env.items() if name not in broken}
        if not lines:
            yield options
            return
        # Behind the sandbox's own: of two values of one name, the engine takes the later.
        path = self._state.write(f"{ENVIRONMENT}-{secrets.token_hex(8)}", env_file(lines))
        try:
            yield [*options, "--env-file", str(path)]
        finally:
            path.unlink(missing_ok=True)

    def _end(self, marks: inside.Marks, user: str | None, *, may_restart: bool = True) -> None:
        """End the command that *marks* tells of, with everything it started; the sandbox goes on."""
        if not self._is_running():
            return
        script = inside.end(marks, self._about.keeper)
        with suppress(SandboxTimeout):
            if self._cli.run("exec", *_user_option(user), self.container_name, *script, timeout_s=_END_S).code == 0:
                return
        if not may_restart or not self._is_running():
            return
        # It left no process for us to begin, or makes new ones faster than they can be ended, or one that may not be
        # ended by its user.
        self._cli.run("kill", self.container_name)
        if self._about.is_nested or not self._about.is_in_place():
            # The engine resolves the mounts anew: a command may have put a link in the place of one.
            remove(self._cli, self.container_name, self._about.nonce)
            return
        self._cli.run("start", self.container_name)
        keeper = probe(self._cli, self.container_name, has_init=self._about.keeper != 1).keeper
        self._about = replace(self._about, keeper=keeper)
        self._about.write(self._state, ABOUT)

    def _result(self, finished: Finished, marks: inside.Marks, user: str | None, *, too_many_locks: bool) -> ExecResult:
        # Our shell's last word is the mark, and then it exits with 0: a mark without that is forged.
        ended = marks.ended if finished.returncode == 0 else None
        is_ours = finished.timed_out or too_many_locks
        code, killed = ended or (KILLED if is_ours else finished.returncode, 0)
        if ended is None and not is_ours:
            # Somebody ended our shell, so nobody has ended what the command left. If it did not even begin, it was the
            # engine that failed: that is no reason to end the commands of others by a restart.
            self._end(marks, user, may_restart=marks.began is not None)
            self._find_out(finished, marks)
        if marks.has_left:
            self._end(marks, user)
        self._was_out_of_memory |= killed > 0
        return finished.result(code, out_of_memory=killed > 0, too_many_locks=too_many_locks)

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
            killed = found is not None and was_out_of_memory(found) and not self._was_out_of_memory
            why = "its memory was full" if killed else "something ended all of its processes, or the container"
            raise SandboxGone(f"{self.container_name} ended while a command ran in it: {why}")
        if marks.began is None or finished.returncode <= 128:
            raise SandboxError(f"the engine did not run the command to its end: {said[-1000:] or 'it did not say why'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What `inside.PROBE` found."""

    keeper: int
    shown: Mapping[str, str]  # lines of /proc/self/status


def probe(cli: DockerCli, name: str, *, has_init: bool = True) -> Probed:
    """Wait until commands can run in the container. Raises `SandboxGone` if it is not running, `SandboxTimeout`.

    Without an init the process that waits is the container's first, number 1.
    """
    until = time.monotonic() + cli.timeout_s
    while True:
        answer = cli.run("exec", name, "/bin/sh", "-c", inside.PROBE)
        lines = answer.stdout.decode("utf-8", "replace").splitlines()
        keepers = [int(line.split()[1]) for line in lines if line.startswith("keeper ")] if has_init else [1]
        if answer.code == 0 and lines[-1:] == ["ready"] and keepers:
            return Probed(keeper=min(keepers), shown=walls.shown(lines))
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


def was_out_of_memory(inspected: Mapping[str, Any]) -> bool:
    """Whether the kernel ended processes of a container because its memory was full, by *inspected*, the engine's word.

    An engine hears of it from a control group that goes away with the container, and so, under load, at times not at
    all. Once it has ended the kernel's own log is asked, where this process may read it; that takes milliseconds.
    """
    state = inspected["State"]
    return bool(state.get("OOMKilled")) or (not state.get("Running") and tells_of_full_memory(inspected["Id"]))


def _terminal_options(terminal: PseudoTerminal | None) -> list[str]:
    """For a command with a terminal, which the engine makes, in the container: ours is its client's."""
    if terminal is None:
        return []
    terminal.pass_on()
    return ["--tty", "--detach-keys", _NO_KEYS]


def _user_option(user: str | None) -> list[str]:
    return ["--user", user] if user else []


def _check_for_engine(command: Command) -> None:
    argv, user = command.argv, command.user
    for name, value in command.env.items():
        if has_break(value) and (name in ("HOME", "PATH") or name.startswith(("DOCKER_", "LD_"))):
            raise InvalidSpec("env", f"the value of {name} has a line break, and the Docker CLI would obey it itself")
    if any(int(number) > _LAST_USER for number in (user or "0").split(":")):
        raise InvalidSpec("user", f"{user!r} is above {_LAST_USER}, the highest id that the engine takes")
    try:
        "".join(argv).encode()
    except UnicodeEncodeError:
        raise InvalidSpec("argv", "an argument is not UTF-8 text; the engine takes nothing else") from None


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
        inspected = cli.inspect("container", number)
        if inspected is not None and inspected["Name"] != f"/{name}":
            continue  # somebody else's, of an image that was committed from ours: it has our labels
        remove_number(cli, name, number)


def remove_number(cli: DockerCli, name: str, number: str) -> None:
    """Remove the container *number*, and its volumes. Raises `SandboxError` if it stays."""
    until = time.monotonic() + cli.timeout_s
    while True:
        answer = cli.run("rm", "--force", "--volumes", number)
        if cli.inspect("container", number) is None:
            return
        # Somebody else has begun to remove it; then that takes as long as it takes.
        if "already in progress" not in answer.said or time.monotonic() > until:
            raise SandboxError(f"{name} cannot be removed, run `sandbox-runner cleanup` later: {answer.said}")
        time.sleep(0.1)


def attach(name: str, *, adopt: bool = True) -> DockerInstance:
    """Go on with a container of ours that runs (`keep_container`). From now on it is this process's, to close.

    Without *adopt* it stays its owner's, and `close` leaves it. Raises `SandboxGone` if no sandbox has the name.
    """
    state, data = found(name, ABOUT)
    about = About.read(state.name, data)
    cli = DockerCli(about.timeout_s)
    inspected = cli.inspect("container", name)
    if (
        inspected is None
        or inspected["Config"]["Labels"].get(NONCE) != about.nonce
        or not inspected["State"]["Running"]
    ):
        raise SandboxGone(f"{name} does not run any more: `sandbox-runner cleanup {name}` removes what is left of it")
    if not about.is_in_place():
        raise SandboxGone(f"{name} has other folders than it was started with: `sandbox-runner cleanup {name}` ends it")
    records = Records(state, Path(about.artifacts))
    about = about.taken(state, adopt=adopt)
    return DockerInstance(about, cli, state, records)
