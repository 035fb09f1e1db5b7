"""The program's bytes on their way to the user: untouched into a pipe, harmless on a terminal."""

import os
import pty
import threading

import pytest

from isorun.cli.run.live import Live, Spinner, Visible, write


def _nothing() -> None:
    return


def test_a_pipe_gets_every_byte_untouched() -> None:
    """Whoever pipes the output gets what the program wrote, escapes and broken UTF-8 included."""
    out, into = os.pipe()
    live = Live(before=_nothing, on_gone=_nothing, descriptors={"stdout": into})
    live.take("stdout", b"\x1b[31m\xff")
    live.take("stdout", b"\x00\r\n")
    live.finish()
    os.close(into)
    assert os.read(out, 100) == b"\x1b[31m\xff\x00\r\n"
    os.close(out)


def test_a_terminal_gets_no_control_character() -> None:
    """A program cannot move the cursor, set the title or ring the bell of whoever watches."""
    shown, terminal = pty.openpty()
    live = Live(before=_nothing, on_gone=_nothing, descriptors={"stdout": terminal})
    live.take("stdout", b"a\x1b]0;title\x07\tb\rc\xe2\x80\xae\n")
    live.finish()
    assert os.read(shown, 1000) == rb"a\x1b]0;title\x07" + b"\tb" + rb"\rc\u202e" + b"\r\n"
    assert not live.mid_line
    for descriptor in (shown, terminal):
        os.close(descriptor)


def test_a_character_cut_in_two_arrives_whole() -> None:
    """Where one read ends and the next begins is chance, and is not seen."""
    visible = Visible()
    data = "ä€😀".encode()
    shown = b"".join(visible.feed(data[i : i + 1]) for i in range(len(data)))
    assert shown + visible.feed(b"", final=True) == data


def test_half_a_character_at_the_end_is_shown() -> None:
    """No byte is swallowed, not even one that never became a character."""
    visible = Visible()
    assert visible.feed(b"a\xe2\x82") == b"a"
    assert visible.feed(b"", final=True) == rb"\xe2\x82"


def test_a_reader_that_has_gone_is_reported_once() -> None:
    """`isorun run x.py | head -1` ends the run; the rest of the output is dropped without an error."""
    out, into = os.pipe()
    os.close(out)
    gone: list[int] = []
    live = Live(before=_nothing, on_gone=lambda: gone.append(1), descriptors={"stdout": into})
    live.take("stdout", b"one")
    live.take("stdout", b"two")
    live.finish()
    os.close(into)
    assert gone == [1]


def test_before_the_first_byte_the_spinner_is_told() -> None:
    """What is drawn on the terminal is gone before the program's first byte is there."""
    out, into = os.pipe()
    order: list[str] = []
    live = Live(before=lambda: order.append("before"), on_gone=_nothing, descriptors={"stdout": into})
    live.finish()
    assert order == []
    live = Live(before=lambda: order.append("before"), on_gone=_nothing, descriptors={"stdout": into})
    live.take("stdout", b"x")
    live.finish()
    assert order == ["before"]
    os.close(into)
    os.close(out)


def test_write_waits_for_a_slow_reader_of_a_non_blocking_pipe() -> None:
    """Another process may have made our stdout non-blocking; nothing is lost by that."""
    out, into = os.pipe()
    os.set_blocking(into, False)
    got = bytearray()

    def read() -> None:
        while data := os.read(out, 1 << 16):
            got.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    write(into, bytes(1 << 20))
    os.close(into)
    reader.join()
    os.close(out)
    assert len(got) == 1 << 20


@pytest.mark.parametrize("stop_first", [True, False])
def test_a_spinner_that_was_stopped_does_not_start(stop_first: bool) -> None:
    """A timer that fires late cannot draw over the program's output; without a terminal nothing is drawn."""
    out, into = os.pipe()
    spinner = Spinner(into)
    if stop_first:
        spinner.stop()
    spinner.start()
    spinner.stop()
    os.close(into)
    assert os.read(out, 10) == b""
    os.close(out)
