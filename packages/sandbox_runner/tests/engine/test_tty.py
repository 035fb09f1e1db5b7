"""`sandbox-runner run --tty` as somebody types it, at a terminal of the test's own; and a pipe that goes on."""

import json
import os
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl

import pytest
from tests.engine.test_cli import CLI, Typed, namespaces_work, processes_with, typed, wait_until

from sandbox_runner.state import StateFolder

__all__ = ["namespaces_work", "typed"]  # fixtures

LOOP = "echo waiting; while :; do sleep 0.1; done"


class Screen:
    """A terminal, and the process that has it."""

    def __init__(self, process: "subprocess.Popen[bytes]", ours: int, theirs: int) -> None:
        self.process, self._ours, self.theirs = process, ours, theirs
        self.shown = b""

    def wait_for(self, words: bytes) -> None:
        """Until they are on the screen; 60 s are a failure."""
        until = time.monotonic() + 60
        while words not in self.shown:
            assert select.select([self._ours], [], [], max(until - time.monotonic(), 0))[0], self.shown
            self.shown += os.read(self._ours, 4096)

    def type(self, keys: bytes) -> None:
        """As a person does."""
        os.write(self._ours, keys)

    def resize(self, rows: int, columns: int) -> None:
        """Drag its corner."""
        ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self) -> int:
        """Its exit code; what it shows is taken meanwhile."""
        while self.process.poll() is None:
            if select.select([self._ours], [], [], 0.1)[0]:
                self.shown += os.read(self._ours, 4096)
        while select.select([self._ours], [], [], 0)[0]:
            self.shown += os.read(self._ours, 4096)
        return self.process.returncode


@contextmanager
def at_terminal(typed: Typed, *words: str) -> Iterator[Screen]:
    """Type it at a terminal of 33 rows and 99 columns."""
    ours, theirs = os.openpty()
    ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    with subprocess.Popen(
        [*CLI, *words],
        cwd=typed.where,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        try:
            yield Screen(process, ours, theirs)
        finally:
            process.kill()
            process.wait()
            os.close(ours)
            os.close(theirs)


def test_a_command_is_typed_in(typed: Typed) -> None:
    """It asks and is answered; what it showed is in the log; the terminal is as before, and the exit code its own."""
    script = "stty -echo; printf 'name? '; read name; echo got $name; echo $TERM; exit 7"
    with at_terminal(typed, *typed.run, "-t", "--", "sh", "-c", script) as screen:
        before = termios.tcgetattr(screen.theirs)
        screen.wait_for(b"name? ")
        screen.type(b"Ana\r")
        assert screen.wait() == 7, screen.shown
        assert b"got Ana\r\n" in screen.shown
        assert termios.tcgetattr(screen.theirs) == before
    assert b"got Ana\r\n" in (typed.artifacts() / "stdout.log").read_bytes()


def test_the_window_and_ctrl_c_are_the_commands(typed: Typed) -> None:
    """A change of the size reaches it, and Ctrl-C ends it and not us: the records are written."""
    script = 'trap "exit 9" INT; echo waiting; until [ "$(stty size)" = "44 111" ]; do sleep 0.1; done; echo wide; '
    over = threading.Event()
    with at_terminal(typed, *typed.run, "-t", "--", "sh", "-c", script + LOOP) as screen:
        screen.wait_for(b"waiting\r\n")

        def dragged() -> None:
            while not over.wait(0.2):  # an engine's client does not hear of a change while it begins
                screen.resize(43, 111)
                screen.resize(44, 111)

        thread = threading.Thread(target=dragged)
        thread.start()
        try:
            screen.wait_for(b"wide\r\n")
        finally:
            over.set()
            thread.join()
        screen.type(b"\x03")
        assert screen.wait() == 9, screen.shown
    assert json.loads((typed.artifacts() / "command.json").read_text())["exit_code"] == 9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_mends_the_terminal(typed: Typed, number: signal.Signals) -> None:
    """Nothing of the command is left, and the terminal shows again what is typed."""
    mark = f"mark-{os.getpid()}-{typed.backend}-{number}"
    with at_terminal(typed, *typed.run, "-t", "--", "sh", "-c", LOOP, mark) as screen:
        before = termios.tcgetattr(screen.theirs)
        screen.wait_for(b"waiting\r\n")
        assert termios.tcgetattr(screen.theirs) != before
        screen.process.send_signal(number)
        assert screen.wait() == 128 + number, screen.shown
        assert termios.tcgetattr(screen.theirs) == before
    assert processes_with(mark) == []


def test_a_killed_caller_leaves_no_command_in_namespaces(typed: Typed) -> None:
    """As without a terminal: the kernel ends it there; in a container `cleanup` does."""
    mark = f"mark-{os.getpid()}-{typed.backend}-kill"
    with at_terminal(typed, *typed.run, "-t", "--", "sh", "-c", LOOP, mark) as screen:
        screen.wait_for(b"waiting\r\n")
        screen.process.kill()
    if typed.backend == "docker":
        assert typed("cleanup").returncode == 0
    wait_until(lambda: processes_with(mark) == [])
    typed("cleanup")
    record = next(iter(typed.where.glob("sandbox-runs/*")))
    assert [state.name for state in StateFolder.all() if str(record) in str(state.read("drafts.json"))] == []


def test_a_pipe_goes_on_while_the_command_runs(typed: Typed) -> None:
    """Its next line is written once the one before came back, and its end is passed on."""
    with subprocess.Popen(
        [*CLI, *typed.run, "--stdin", "--", "sh", "-c", "cat; echo end"],
        cwd=typed.where,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in (b"one\n", b"two\n"):
            process.stdin.write(line)
            assert process.stdout.read(4) == line
        process.stdin.close()
        assert process.stdout.read(4) == b"end\n"
        assert process.wait(60) == 0
