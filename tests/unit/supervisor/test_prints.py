"""What tools print and log: told apart by call, bounded, and never a reason for a tool to fail."""

import asyncio
import contextvars
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from isorun.supervisor.prints import CallOutput, current, redirect


def test_lines_go_out_as_they_are_whole() -> None:
    """A line without its end waits for it, and goes out when the call is over."""
    lines: list[str] = []
    output = CallOutput(lines.append)
    output.write("a")
    output.write("b\nc\n\nd")
    assert lines == ["ab", "c", ""]
    output.close()
    output.close()
    assert lines == ["ab", "c", "", "d"]


def test_a_flood_is_cut_and_said() -> None:
    """One call gets 64 KiB into the log, in lines of at most 2,000 characters, and the reader is told."""
    lines: list[str] = []
    output = CallOutput(lines.append)
    for _ in range(1000):
        output.write("x" * 999 + "\n")
    output.close()
    assert sum(map(len, lines[:-1])) <= 64 << 10
    assert lines[-1] == "… cut: it printed more than 64 KiB"
    lines.clear()
    output = CallOutput(lines.append)
    output.write("y" * 5000)
    output.write("z" * 5000 + "\n")
    output.close()
    assert [len(line) for line in lines] == [2000]


def test_an_endless_line_holds_no_memory() -> None:
    """What is kept of a line without an end is no longer than a line."""
    output = CallOutput(lambda text: None)
    for _ in range(60):
        output.write("x" * 1000)
    assert len(output._rest) == 2000


@contextmanager
def redirected() -> Iterator[int]:
    """Streams and logging as in a supervisor process; the descriptor gives what went to its own stderr."""
    streams, handlers, level = (sys.stdout, sys.stderr), logging.root.handlers[:], logging.root.level
    reader, writer = os.pipe2(os.O_NONBLOCK)
    saved = os.dup(2)
    os.dup2(writer, 2)
    logging.root.handlers[:] = []  # pytest's own, which redirect() would close
    try:
        redirect()
        yield reader
    finally:
        os.dup2(saved, 2)
        sys.stdout, sys.stderr = streams
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
        for descriptor in (reader, writer, saved):
            os.close(descriptor)


async def test_prints_go_to_the_call_that_printed() -> None:
    """Overlapping calls, in tasks and in threads, print into their own output, by stdout, stderr and logging."""
    heard: dict[int, list[str]] = {1: [], 2: [], 3: []}
    both = threading.Barrier(2)

    def says(number: int) -> None:
        output = CallOutput(heard[number].append)
        token = current.set(output)
        print("out", number)
        print("err", number, file=sys.stderr)
        logging.getLogger("isorun.tool.x").warning("log %d", number)
        current.reset(token)

    async def task() -> None:
        says(1)

    def thread(number: int) -> None:
        both.wait()
        says(number)

    with redirected() as own:
        threads = [threading.Thread(target=contextvars.copy_context().run, args=(thread, n)) for n in (2, 3)]
        for one in threads:
            one.start()
        await asyncio.create_task(task())
        for one in threads:
            one.join()
        with pytest.raises(BlockingIOError):
            os.read(own, 1)
    for number, lines in heard.items():
        assert lines == [f"out {number}", f"err {number}", f"WARNING isorun.tool.x log {number}"]


def test_what_nobodys_call_prints_goes_to_our_own_stderr() -> None:
    """A thread of a tool's own, or a module while it loads, is heard by the host."""
    with redirected() as own:
        print("nobody")
        logging.getLogger("x").info("nobody's log \udcff")
        said = os.read(own, 1000)
    assert said == b"nobody\nINFO x nobody's log ?\n"


def test_a_log_call_that_does_not_fit_its_text_raises_nothing() -> None:
    """As with Python's own handlers, a slip in a log call is shown and the tool goes on."""
    lines: list[str] = []
    with redirected():
        token = current.set(CallOutput(lines.append))
        logging.getLogger("x").info("%d", "not a number")
        current.reset(token)
    assert lines[0] == "--- Logging error ---"


def test_the_streams_behave_as_files_do() -> None:
    """Code that asks is told; flush works, and write counts."""
    with redirected():
        told = (sys.stdout.writable(), sys.stdout.readable(), sys.stdout.isatty(), sys.stdout.write("abc\n"))
        sys.stdout.flush()
    assert told == (True, False, False, 4)
