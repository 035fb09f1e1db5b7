"""A namespace sandbox that stands, as a `SandboxInstance`: commands in it, and its end.

Nothing runs between commands: the sandbox is its state folder (the plan that `enter` reads), its
folder on the disk and its control group. Each command is a bubblewrap of its own, which dies
with the process that started it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sandbox_runner.errors import BackendUnavailable, InvalidSpec, SandboxError, SandboxGone, SandboxStartFailed
from sandbox_runner.execution import KILLED, Attached, ExecResult, Finished, run_command
from sandbox_runner.instance import Command, Common, SandboxInstance, found
from sandbox_runner.linux.cgroup import Group
from sandbox_runner.linux.file_locks import Guard, namespace_of
from sandbox_runner.linux.trees import remove_tree
from sandbox_runner.namespace import enter
from sandbox_runner.namespace.ceilings import remove_group
from sandbox_runner.namespace.processes import ENTER, INTERPRETER, called, end_first, end_processes, title
from sandbox_runner.records import Records
from sandbox_runner.state import StateFolder

ABOUT = "namespace.json"  # in the state folder: `About`
_OURS = (b"bwrap: ", enter.SAYS.encode())  # how a complaint begins that is not the command's
_OURS_BYTES = 4096  # how long one can be
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as a shell has it
_MOST_USERS = (1 << 32) - 2
_NO_PROGRAM = "bwrap: execvp "
_NO_PLACE = "bwrap: Can't chdir to "


@dataclass(frozen=True, slots=True, kw_only=True)
class About(Common):
    """What must be known of a namespace sandbox, too, also to remove it."""

    folder: str  # on the disk: its /tmp and its files of /etc
    groups: Mapping[str, str]  # its control group's directory, by controller
    canary: str  # the file in the workspace that proves that it is seen, while it starts
    gid: int


class NamespaceInstance(SandboxInstance):
    """See `SandboxInstance`. Threads may run commands at the same time.

    A command that is started with `command_prefix` dies with the thread that started it. Its environment is PATH, HOME,
    LANG, XDG_CACHE_HOME, the allowed names as the caller has them at that time, the overrides, and PWD. If it cannot be
    run, the prefix says why on stderr and exits with code 125, or with 1 if it was bubblewrap that failed.

    Of `exec`: *user* is the number a command has inside; on the host it stays the sandbox's user. `out_of_memory` is
    the sandbox's, if commands run at the same time. It raises `SandboxStartFailed`, too, if the machine no longer lets
    bubblewrap build the sandbox.
    """

    backend = "namespace"

    def __init__(self, about: About, state: StateFolder, records: Records) -> None:
        super().__init__(about, state, records)
        self._about: About = about
        self._group = Group(about.groups)
        self.command_prefix = [sys.executable, *INTERPRETER, ENTER, str(state.path)]

    def _run(self, command: Command) -> ExecResult:
        token = secrets.token_hex(8)
        argv = command.argv if command.terminal is None else _on_terminal(command.argv)
        request = {"env": dict(command.env), "cwd": command.cwd, "user": self._numbers(command.user)}
        kills = self._group.oom_kills()
        with self._asked(token, request) as said:
            complaint = _Complaint(said)
            guard = Guard(lambda: self._namespaces(token), lambda: self._end_processes(token))
            try:
                with guard:
                    finished = run_command(
                        [*self.command_prefix[:-1], f"--request={token}", str(self._state.path), *argv],
                        stdin=command.stdin,
                        timeout_s=command.timeout_s,
                        on_output=command.on_output,
                        max_output_bytes=command.max_output_bytes,
                        end=lambda: self._end(token, said),
                        stderr_filter=complaint,
                        terminal=None if command.terminal is None else Attached(command.terminal, is_relayed=False),
                    )
            finally:
                ended = said.end()
            if not ended:
                raise SandboxError(f"a command of {self.container_name} outlives SIGKILL")
        out_of_memory = self._group.oom_kills() > kills
        return self._result(finished, said, complaint, out_of_memory=out_of_memory, too_many_locks=guard.has_ended_it)

    def _take_down(self) -> None:
        take_down(self._state, self._about)

    def _numbers(self, user: str | None) -> tuple[int, int] | None:
        if user is None:
            return None
        uid, _, gid = user.partition(":")
        numbers = int(uid), int(gid) if gid else self._about.gid
        if max(numbers) > _MOST_USERS:
            raise InvalidSpec("user", f"{user!r} is above {_MOST_USERS}, the highest id of the kernel")
        return numbers

    @contextmanager
    def _asked(self, token: str, request: Mapping[str, Any]) -> Iterator[_Said]:
        """What `enter` is to do for one command, and where bubblewrap tells how that went."""
        fifo, running = (self._state.path / f"{kind}{token}" for kind in (enter.STATUS, enter.RUNNING))
        wanted = None
        try:
            try:
                wanted = self._state.write(f"{enter.REQUEST}{token}", json.dumps(request).encode())
                os.mkfifo(fifo, 0o600)
            except FileNotFoundError:
                raise SandboxGone(f"{self.container_name} is closed") from None
            with _Said(fifo) as said:
                yield said
        finally:
            for path in (fifo, wanted, running):
                if path is not None:
                    path.unlink(missing_ok=True)

    def _end(self, token: str, said: _Said) -> None:
        """End one command with everything it started; the sandbox goes on."""
        self._end_processes(token)
        said.end()  # what has another name by now would keep our pipes open

    def _called(self, token: str) -> set[int]:
        return called(title(self.container_name, token), f"--request={token}")

    def _end_processes(self, token: str) -> None:
        end_processes(lambda: self._called(token))

    def _namespaces(self, token: str) -> set[int | None]:
        return {namespace_of(number) for number in self._called(token)}

    def _result(
        self, finished: Finished, said: _Said, complaint: _Complaint, *, out_of_memory: bool, too_many_locks: bool
    ) -> ExecResult:
        code = said.exit_code
        if code is None and (finished.timed_out or too_many_locks):
            code = KILLED
        elif code is None:
            text = complaint.text.decode("utf-8", "replace").strip()
            if text.startswith(_NO_PROGRAM):
                code = _NOT_FOUND if "No such file" in text else _NOT_EXECUTABLE
            elif out_of_memory and finished.returncode < 0:
                code = 128 - finished.returncode  # bubblewrap itself was what the kernel chose
            else:
                self._explain(finished, text)
        elif code == KILLED and not (finished.timed_out or out_of_memory or too_many_locks):
            self._check_is_there()  # of what a removal kills, the first inside may go first: bubblewrap tells its end
        return finished.result(code, out_of_memory=out_of_memory, too_many_locks=too_many_locks)

    def _check_is_there(self) -> None:
        if self._state.read(enter.PLAN) is None:
            raise SandboxGone(f"{self.container_name} was closed while a command ran in it")

    def _explain(self, finished: Finished, text: str) -> NoReturn:
        """Raise what kept a command from running to its end, which was not the command."""
        self._check_is_there()
        if finished.returncode < 0:
            raise SandboxGone(f"something outside of {self.container_name} ended the command: {-finished.returncode}")
        if text.startswith(_NO_PLACE):
            raise InvalidSpec("cwd", f"there is no folder {text.removeprefix(_NO_PLACE).rpartition(':')[0]} inside")
        raise SandboxStartFailed(text or f"bubblewrap ended with code {finished.returncode} and did not say why")


def _on_terminal(argv: Sequence[str]) -> list[str]:
    """*argv*, run as the first of a session whose terminal is its stdin, which then gets all that it prints.

    Not by bubblewrap: it would show a terminal at its own stdout as a file of the sandbox's /dev.
    """
    setsid = shutil.which("setsid", path="/usr/bin:/bin")
    if setsid is None:
        raise BackendUnavailable("this machine has no setsid, which gives a command its terminal: install util-linux")
    return ["/bin/sh", "-c", 'exec "$0" --ctty -- "$@" >&0 2>&0', setsid, *argv]


class _Said:
    """What bubblewrap says of one command: the number of the first process inside, and how the command ended."""

    def __init__(self, fifo: Path) -> None:
        self._descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._text = b""

    def __enter__(self) -> _Said:
        return self

    def __exit__(self, *_: object) -> None:
        self._take()
        os.close(self._descriptor)
        self._descriptor = -1

    @property
    def exit_code(self) -> int | None:
        """As in a shell; None if the command did not begin, or bubblewrap did not live to see its end."""
        return self._number("exit-code")

    def end(self) -> bool:
        """See to it that nothing is left of a command whose bubblewrap has ended; False if something outlives SIGKILL.

        Its first process dies because bubblewrap has; but a command can write to that one's memory, through
        /proc/1/mem, and have it ask for no signal and be called something else.
        """
        number = self._number("child-pid")
        return number is None or end_first(number, self._number("pid-namespace"))

    def _number(self, key: str) -> int | None:
        self._take()
        for line in self._text.splitlines():
            with suppress(ValueError):
                if (number := json.loads(line).get(key)) is not None:
                    return int(number)
        return None

    def _take(self) -> None:
        with suppress(BlockingIOError):
            while self._descriptor >= 0 and (data := os.read(self._descriptor, 4096)):
                self._text += data


class _Complaint:
    """A `Filter` for stderr: holds back what may be a complaint of bubblewrap's or `enter`'s until it is known whose.

    Theirs comes before the command begins, so it is all there is; a command's is passed on. *text*: theirs.
    """

    def __init__(self, said: _Said) -> None:
        self._said = said
        self._held: bytes | None = b""
        self.text = b""

    def feed(self, data: bytes) -> bytes:
        """See `execution.Filter`."""
        if self._held is None:
            return data
        self._held += data
        may_be = any(self._held.startswith(ours[: len(self._held)]) for ours in _OURS)
        if may_be and len(self._held) <= _OURS_BYTES:
            return b""
        return self._release()

    def end(self) -> bytes:
        """See `execution.Filter`."""
        if self._held and self._said.exit_code is None:
            self.text, self._held = self._held, b""
            if not self.text.startswith(_NO_PROGRAM.encode()):
                return b""
            return self.text.removeprefix(_NO_PROGRAM.encode())  # the shell's way of saying it: name, then reason
        return self._release()

    def _release(self) -> bytes:
        held, self._held = self._held, None
        return held or b""


def attach(name: str, *, adopt: bool = True) -> NamespaceInstance:
    """Go on with a namespace sandbox that was kept. From now on it is this process's, to close.

    Without *adopt* it stays its owner's, and `close` leaves it. Raises `SandboxGone` if no sandbox has the name.
    """
    state, data = found(name, ABOUT)
    if state.read(enter.PLAN) is None:  # `take_down` has begun
        raise SandboxGone(f"{name} is not there any more: `sandbox-runner cleanup` removes what is left of it")
    about = About.read(state.name, data)
    records = Records(state, Path(about.artifacts))
    return NamespaceInstance(about.taken(state, adopt=adopt), state, records)


def remove_leftovers(state: StateFolder) -> None:
    """Remove what the namespace sandbox of *state* left outside of it; nothing if the state is not of such a sandbox.

    Raises `SandboxError` or `OSError` if something stays.
    """
    data = state.read(ABOUT)
    if data is not None:
        take_down(state, About.read(state.name, data))


def take_down(state: StateFolder, about: About) -> None:
    """End what runs in a sandbox and remove its control group and its folder. Not all of them need exist."""
    (state.path / enter.PLAN).unlink(missing_ok=True)  # first: from here on no command begins
    end_processes(lambda: called(title(about.name), str(state.path)))
    for note in state.path.glob(f"{enter.RUNNING}*"):
        _end_noted(note)
    remove_group(Group(about.groups))
    _remove_tree(about.folder)
    Path(about.canary).unlink(missing_ok=True)


def _end_noted(note: Path) -> None:
    with suppress(FileNotFoundError, ValueError):  # it has ended meanwhile, or never began
        told = json.loads(note.read_text(encoding="ascii"))
        if not end_first(told["child-pid"], told.get("pid-namespace")):
            raise SandboxError(f"process {told['child-pid']} outlives SIGKILL")


def _remove_tree(folder: str) -> None:
    """Remove what a sandbox has left on the disk. All of its processes are dead, so nothing moves under us."""
    parent, name = os.path.split(folder)
    place = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(name, place)
    except NotADirectoryError:  # a link, which a command has put there
        os.unlink(name, dir_fd=place)
    finally:
        os.close(place)
