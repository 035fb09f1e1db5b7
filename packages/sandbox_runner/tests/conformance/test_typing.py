"""What a command is given while it runs: bytes that come one after the other, and a terminal to be typed in."""

import os
import threading
from collections.abc import Callable, Iterator

import pytest

from sandbox_runner import InvalidSpec
from sandbox_runner.pseudo_terminal import PseudoTerminal

SIZE = """\
trap 'heard=1' WINCH
echo waiting
until [ "$heard $(stty size)" = "1 44 111" ]; do sleep 0.1; done
"""
WAIT = "trap 'echo heard; exit 9' INT; echo waiting; while :; do sleep 0.1; done"


class Talk:
    """Answers what a command prints: each of *answers* as soon as its words are there, in their order."""

    def __init__(self, *answers: tuple[bytes, Callable[[], object]]) -> None:
        self._answers = list(answers)
        self.heard = b""

    def hear(self, _: str, data: bytes) -> None:
        self.heard += data
        while self._answers and self._answers[0][0] in self.heard:
            self._answers.pop(0)[1]()


@pytest.fixture
def typing() -> Iterator[list[int]]:
    """The reading and the writing end of a pipe, as two numbers."""
    ends = list(os.pipe())
    yield ends
    for end in ends:
        if end >= 0:
            os.close(end)


def shut(ends: list[int]) -> None:
    """Its end comes."""
    os.close(ends[1])
    ends[1] = -1


def test_input_goes_in_as_it_comes(sandbox, typing) -> None:
    """The next line is written once the one before has come back; then the end is passed on."""
    talk = Talk(
        (b"one\n", lambda: os.write(typing[1], b"two\n")),
        (b"two\n", lambda: shut(typing)),
    )
    os.write(typing[1], b"one\n")
    result = sandbox.exec(["sh", "-c", "cat; echo end"], stdin=typing[0], on_output=talk.hear, timeout_s=60)
    assert (result.exit_code, result.stdout) == (0, b"one\ntwo\nend\n")


def test_an_input_that_never_ends_holds_nothing_up(sandbox, typing) -> None:
    """With no bytes, with endless bytes, and with bytes that the command does not read."""
    assert sandbox.exec(["echo", "x"], stdin=typing[0], timeout_s=60).stdout == b"x\n"
    with open("/dev/zero", "rb") as zero:
        assert sandbox.exec(["head", "-c", "200000"], stdin=zero.fileno(), timeout_s=60).stdout == bytes(200_000)
        result = sandbox.exec(["sh", "-c", "exec <&-; echo x"], stdin=zero.fileno(), timeout_s=60)
        assert (result.exit_code, result.stdout) == (0, b"x\n")


def test_a_file_is_an_input(sandbox, tmp_path) -> None:
    """From where its descriptor stands, which stays open."""
    (tmp_path / "file").write_bytes(bytes(range(256)) * 1000)
    with (tmp_path / "file").open("rb", buffering=0) as file:
        file.seek(256)
        assert sandbox.exec(["cat"], stdin=file.fileno(), timeout_s=60).stdout == bytes(range(256)) * 999
        assert file.read() == b""


def test_a_command_has_the_terminal_that_it_is_given(sandbox, lacking) -> None:
    """All three streams; it may open it anew, and has its signals and its end-of-file. Its exit code is its own."""
    script = "test -t 0 && test -t 1 && test -t 2 && echo all; (: < /dev/tty) && echo anew; cat; exit 7"
    with PseudoTerminal() as terminal:
        result = sandbox.exec(["sh", "-c", script], stdin=b"typed\n", terminal=terminal, timeout_s=60)
    assert result.exit_code == 7
    assert {b"all", b"typed"} <= set(result.stdout.split())
    assert lacking("dev_tty") or b"anew" in result.stdout.split()
    assert result.stderr == b""


def test_control_without_one_it_has_none(sandbox) -> None:
    """Nor can it open the caller's."""
    script = "test -t 0 || test -t 1 || test -t 2 || echo none; (: < /dev/tty) || echo closed"
    assert sandbox.exec(["sh", "-c", script], stdin=b"", timeout_s=60).stdout == b"none\nclosed\n"


def test_a_window_has_its_size_and_a_new_one_is_told(sandbox) -> None:
    """Rows and columns; for each change the command has SIGWINCH."""
    over = threading.Event()

    def changing() -> None:
        # An engine's client does not hear of a change that comes while it begins.
        while not over.wait(0.2):
            terminal.resize(43, 111)
            terminal.resize(44, 111)

    with PseudoTerminal(33, 99) as terminal:
        talk = Talk((b"waiting", threading.Thread(target=changing).start))
        try:
            result = sandbox.exec(["sh", "-c", SIZE], terminal=terminal, on_output=talk.hear, timeout_s=60)
        finally:
            over.set()
    assert result.ok, result


def test_ctrl_c_is_the_commands(sandbox) -> None:
    """One that hears it goes on as it likes; another is ended by it, and only that one."""
    ends = os.pipe()
    with PseudoTerminal() as terminal:
        talk = Talk((b"waiting", lambda: os.write(ends[1], b"\x03")))
        result = sandbox.exec(["sh", "-c", WAIT], stdin=ends[0], terminal=terminal, on_output=talk.hear, timeout_s=60)
    assert (result.exit_code, result.signal, b"heard" in result.stdout) == (9, None, True)
    with PseudoTerminal() as terminal:
        talk = Talk((b"waiting", lambda: os.write(ends[1], b"\x03")))
        script = ["sh", "-c", "echo waiting; exec sleep 3600"]
        result = sandbox.exec(script, stdin=ends[0], terminal=terminal, on_output=talk.hear, timeout_s=60)
    for end in ends:
        os.close(end)
    assert (result.exit_code, result.signal, result.timed_out) == (None, 2, False)


def test_a_timeout_leaves_nothing_of_a_command_with_a_terminal(sandbox, marker) -> None:
    """Nor of what it put into the background, with the hang-up of its terminal ignored."""
    script = f"trap '' HUP; setsid sleep {marker.text} & sleep {marker.text}"
    with PseudoTerminal() as terminal:
        result = sandbox.exec(["sh", "-c", script], terminal=terminal, timeout_s=1)
    assert (result.timed_out, result.signal) == (True, 9)
    assert marker.seen(sandbox) == []


def test_a_terminal_brings_nothing_into_dev(sandbox) -> None:
    """The sandbox's own devices, and none of the machine's terminals."""
    listed = ["sh", "-c", "cd /dev; for name in * pts/*; do echo $name; done | sort"]
    before = sandbox.exec(listed).stdout.split()
    with PseudoTerminal() as terminal:
        with_one = sandbox.exec(listed, terminal=terminal, timeout_s=60).stdout.split()
    assert {name for name in set(with_one) - set(before) if not name.startswith(b"pts/")} <= set()
    if sandbox.backend == "namespace":
        assert with_one == before


def test_a_terminal_is_for_one_command(sandbox) -> None:
    """And what cannot be an input is named."""
    with PseudoTerminal() as terminal:
        assert sandbox.exec(["true"], terminal=terminal, timeout_s=60).ok
        with pytest.raises(InvalidSpec, match="terminal: a command had it already"):
            sandbox.exec(["true"], terminal=terminal)
    for bad in ("text", True, 1.5):
        with pytest.raises(InvalidSpec, match="stdin: must be bytes, or a descriptor"):
            sandbox.exec(["true"], stdin=bad)
