"""The two descriptors of the client while the server runs: nothing else of this process comes to them."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from typing import BinaryIO

import pytest

from isorun.service.mcp import stdio

PROGRAM = """
import os, subprocess, sys
from isorun.service.mcp.stdio import _put_aside
with _put_aside() as (stdin, stdout):
    print("printed", flush=True)
    subprocess.run(["sh", "-c", "echo by a child; cat"])
    stdout.write(stdin.readline().decode())
    stdout.flush()
print("afterwards")
"""


@pytest.mark.slow
def test_what_is_printed_meanwhile_is_not_on_the_wire() -> None:
    """Neither our own prints nor a child's are, no child reads what the client sends, and later all is as before."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=b"a message\n", capture_output=True, check=True)
    assert done.stdout == b"a message\nafterwards\n"
    assert done.stderr == b"printed\nby a child\n"


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """What the server reads, and what the client writes to."""
    read, write = os.pipe()
    with open(read, "rb") as reader, open(write, "wb", buffering=0) as writer:
        yield reader, writer


async def test_lines_are_read_until_the_end(pipe) -> None:
    """Bytes that are not UTF-8 end nothing, and a last line needs no newline."""
    reader, writer = pipe
    writer.write(b"one\n\xff\n")
    async with aclosing(stdio._lines(reader)) as lines, asyncio.timeout(60):
        assert [await anext(lines), await anext(lines)] == ["one\n", "\ufffd\n"]
        writer.write(b"three")
        writer.close()
        assert [line async for line in lines] == ["three"]


async def test_a_line_without_an_end_ends_the_connection(pipe, monkeypatch, caplog) -> None:
    """A client that never ends its line cannot fill the memory; the log says why it was left."""
    monkeypatch.setattr(stdio, "MAX_LINE", 8)
    reader, writer = pipe
    writer.write(b"short\n" + b"x" * 100)
    async with aclosing(stdio._lines(reader)) as lines, asyncio.timeout(60):
        assert [line async for line in lines] == ["short\n"]
    assert "more than 8 bytes" in caplog.text


async def test_reading_can_be_given_up(pipe) -> None:
    """The client is silent: the server's end does not wait for its next line."""
    reader, writer = pipe
    async with aclosing(stdio._lines(reader)) as lines:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(lines), 0.01)
    writer.write(b"late\n")  # so that the thread that reads ends with the test
