"""Runs one command on the host to its end: output bounded, time bounded.

It knows nothing of sandboxes: what must be ended inside one is the caller's `end`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import IO, Protocol

from sandbox_runner.errors import InvalidSpec, SandboxError
from sandbox_runner.pseudo_terminal import END_OF_FILE, PseudoTerminal
from sandbox_runner.pump import Pump

MAX_OUTPUT = 16 << 20  # bytes of stdout, and of stderr, that are kept
OnOutput = Callable[[str, bytes], None]
_PR_SET_PDEATHSIG = 1
_LOOK_S = 3.0
_END_S = 5.0  # for the command to be gone after `end`, and for its last output
KILLED = 128 + 9  # a shell's exit code of a command that SIGKILL ended
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """What a command came to. Exactly one of `exit_code` and `signal` is set.

    As in a shell, an exit code of 128 + n is read as signal n. `truncated`: it printed more than was kept.
    `too_many_locks`: it was ended, because it held more than 4,096 file locks.
    """

    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    timed_out: bool
    out_of_memory: bool
    truncated: bool
    duration_s: float
    too_many_locks: bool = False

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.exit_code == 0 and not self.timed_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a process of the host came to; `returncode` is negative for a signal."""

    returncode: int
    stdout: bytes
    stderr: bytes
    timed_out: bool
    truncated: bool
    duration_s: float

    def result(self, code: int, *, out_of_memory: bool, too_many_locks: bool = False) -> ExecResult:
        """The result of the command that it ran, which ended with a shell's exit *code*."""
        exit_code, signal = status(code)
        return ExecResult(
            exit_code=exit_code,
            signal=signal,
            stdout=self.stdout,
            stderr=self.stderr,
            timed_out=self.timed_out,
            out_of_memory=out_of_memory,
            truncated=self.truncated,
            duration_s=self.duration_s,
            too_many_locks=too_many_locks,
        )


@dataclass(frozen=True, slots=True)
class Attached:
    """A terminal for a process. *is_relayed*: it is a client's, which passes on what has a terminal elsewhere."""

    pty: PseudoTerminal
    is_relayed: bool


class Filter(Protocol):
    """Takes a stream's bytes and gives back those that are the command's."""

    def feed(self, data: bytes) -> bytes: ...

    def end(self) -> bytes:
        """What was held back, at the end of the stream."""


def status(code: int) -> tuple[int | None, int | None]:
    """Exit code and signal of a shell's exit *code*."""
    return (None, code - 128) if 128 < code <= 192 else (code, None)


class _Passed:
    """One stream: passed on, and not kept."""

    def __init__(self, on_output: Callable[[bytes], None]) -> None:
        self._on_output = on_output

    def take(self, data: bytes) -> None:
        if data:
            self._on_output(data)


class _Kept:
    """One stream: passed on and kept, up to a limit."""

    def __init__(self, name: str, limit: int, on_output: OnOutput | None, through: Filter | None) -> None:
        self._name, self._left, self._on_output, self._through = name, limit, on_output, through
        self.parts: list[bytes] = []
        self.truncated = False

    def take(self, data: bytes) -> None:
        self._keep(self._through.feed(data) if self._through else data)

    def end(self) -> None:
        if self._through:
            self._keep(self._through.end())

    def _keep(self, data: bytes) -> None:
        if len(data) > self._left:
            self.truncated = True
            data = data[: self._left]
        self._left -= len(data)
        if data:
            self.parts.append(data)
            if self._on_output:
                self._on_output(self._name, data)


def run_command(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    stdin: bytes | int | None = None,
    timeout_s: float | None = None,
    on_output: OnOutput | None = None,
    max_output_bytes: int = MAX_OUTPUT,
    end: Callable[[], None],
    is_alive: Callable[[], bool] = lambda: True,
    stdout_filter: Filter | None = None,
    stderr_filter: Filter | None = None,
    terminal: Attached | None = None,
) -> Finished:
    """Run *argv* with exactly the environment *env* (None: ours) and *stdin* (None: empty) until it ends.

    *stdin* is bytes, or a descriptor to read from as long as the process takes what comes. With a *terminal*, what is
    printed there is its stdout.

    After *timeout_s* the process is killed, and *end* is called, which must end what it started elsewhere; so also if
    *on_output* raises. What is printed beyond *max_output_bytes* is read and dropped.
    *is_alive* is asked every few seconds: if the sandbox is gone, the process is killed likewise. Long because a
    process, its pipes and its end have one owner.
    """
    began = time.monotonic()
    out = _Kept("stdout", max_output_bytes, on_output, stdout_filter)
    err = _Kept("stderr", max_output_bytes, on_output, stderr_filter)
    timed_out = False
    with _moved(argv, env, cwd, stdin, terminal, out, err) as (process, pump):
        try:
            timed_out = not _follow(process, pump, float("inf") if timeout_s is None else began + timeout_s, is_alive)
        finally:
            if process.poll() is None:
                # First: an engine whose client does not read may do nothing else for this sandbox.
                process.kill()
                end()
        if timed_out:
            _run(process, pump, time.monotonic() + _END_S)
    out.end()
    err.end()
    return Finished(
        returncode=process.returncode,
        stdout=b"".join(out.parts),
        stderr=b"".join(err.parts),
        timed_out=timed_out,
        truncated=out.truncated or err.truncated,
        duration_s=time.monotonic() - began,
    )


def follow(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: IO[bytes] | None,
    timeout_s: float,
    on_output: Callable[[bytes], None],
) -> int | None:
    """Run *argv* to its end and give its exit code; None if *timeout_s* came first.

    *on_output* gets what it prints to either stream, as it comes. *stdin* is a real file. It and what
    it started are gone then, also after an error.
    """
    until = time.monotonic() + timeout_s
    process = _begin(argv, env, None, subprocess.DEVNULL if stdin is None else stdin, stderr=subprocess.STDOUT)
    pump = Pump({_taken(process.stdout): _Passed(on_output)}, None, None)
    with process, closing(pump):
        try:
            return process.returncode if _run(process, pump, until) else None
        finally:
            # It leads its process group, and its number is not free before we wait for it.
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _moved(
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    cwd: str | None,
    stdin: bytes | int | None,
    terminal: Attached | None,
    out: _Kept,
    err: _Kept,
) -> Iterator[tuple[subprocess.Popen[bytes], Pump]]:
    """The process, begun, and what moves its bytes; at the block's end it is waited for."""
    if terminal is None:
        process = _begin(argv, env, cwd, subprocess.DEVNULL if stdin is None else subprocess.PIPE)
        inlet = None if process.stdin is None else _taken(process.stdin)
        pump = Pump({_taken(process.stdout): out, _taken(process.stderr): err}, inlet, stdin)
    else:
        pty = terminal.pty
        theirs = pty.theirs if terminal.is_relayed else subprocess.DEVNULL
        process = _begin(argv, env, cwd, pty.theirs, theirs, controls=terminal.is_relayed)
        pty.close_theirs()
        pump = Pump({os.dup(pty.ours): out, _taken(process.stderr): err}, os.dup(pty.ours), stdin, END_OF_FILE)
    with process, closing(pump):
        yield process, pump


def _taken(pipe: IO[bytes] | None) -> int:
    """The descriptor of *pipe*, ours to close from now on."""
    assert pipe is not None
    with pipe:
        return os.dup(pipe.fileno())


def _run(process: subprocess.Popen[bytes], pump: Pump, until: float) -> bool:
    """Move bytes until the streams and the process have ended; False if *until* came first."""
    if not pump.run(until):
        return False
    try:
        process.wait(max(until - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        return False
    return True


def _follow(process: subprocess.Popen[bytes], pump: Pump, until: float, is_alive: Callable[[], bool]) -> bool:
    """Move bytes until the process has ended, or the sandbox is gone; False if *until* came first."""
    while not _run(process, pump, min(until, time.monotonic() + _LOOK_S)):
        if time.monotonic() >= until:
            return False
        if not is_alive():
            break
    return True


def _begin(
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    cwd: str | None,
    stdin: int | IO[bytes],
    stdout: int = subprocess.PIPE,
    *,
    stderr: int = subprocess.PIPE,
    controls: bool = False,
) -> subprocess.Popen[bytes]:
    """*controls*: its stdin is the terminal that signals it, such as for a new size."""
    try:
        return subprocess.Popen(
            list(argv),
            env=None if env is None else dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            preexec_fn=_die_with_parent_on_a_terminal if controls else die_with_parent,
            start_new_session=controls,
            # Our terminal's Ctrl-C is for us, who then end the command wherever it runs.
            process_group=None if controls else 0,
        )
    except OSError as error:
        if error.errno == errno.E2BIG:
            raise InvalidSpec("argv", "an argument, or all of them with the environment, is too long") from None
        raise SandboxError(f"{argv[0]} cannot be started: {error.strerror}") from None


def die_with_parent() -> None:
    """For `preexec_fn`: a process whose caller was killed must not go on to make things without an owner."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_with_parent_on_a_terminal() -> None:
    die_with_parent()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
