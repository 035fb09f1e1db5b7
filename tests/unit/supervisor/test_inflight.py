"""The table of calls in flight: what a supervisor that died had begun and not told."""

import mmap
import os
from collections.abc import Iterator

import pytest

from isorun.supervisor.inflight import InFlight, Unsaid


@pytest.fixture
def pair() -> Iterator[tuple[InFlight, InFlight]]:
    """The writer's view and the host's, of the same memory."""
    host = InFlight.create()
    writer = InFlight(os.dup(host.descriptor))
    yield writer, host
    writer.close()
    host.close()


def test_a_call_is_named_until_its_record_is_sent(pair) -> None:
    """Begun, ended, told: the host sees each step."""
    writer, host = pair
    assert list(host.unsaid()) == []
    writer.began(7, "x.f", 12.5)
    assert list(host.unsaid()) == [Unsaid(7, "x.f", 12.5, ended=False)]
    writer.ended(7)
    assert list(host.unsaid()) == [Unsaid(7, "x.f", 12.5, ended=True)]
    writer.told()
    assert list(host.unsaid()) == []


def test_told_forgets_only_what_has_ended(pair) -> None:
    """A call that still runs stays named while others are told, also under an id that was used before."""
    writer, host = pair
    for number in (1, 2, 3):
        writer.began(number, f"x.{number}", 0.0)
    writer.ended(1)
    writer.ended(3)
    writer.told()
    writer.began(1, "x.again", 1.0)
    assert {(call.call_id, call.tool_id, call.ended) for call in host.unsaid()} == {
        (2, "x.2", False),
        (1, "x.again", False),
    }


def test_rows_are_used_again_without_end(pair) -> None:
    """Thousands of calls need no more rows than were open at once."""
    writer, host = pair
    for number in range(10_000):
        writer.began(number, "x.f", float(number))
        writer.ended(number)
        writer.told()
    assert list(host.unsaid()) == []


def test_a_full_table_names_what_it_holds(pair) -> None:
    """Calls beyond its rows are not named, and do no harm when they end."""
    writer, host = pair
    for number in range(300):
        writer.began(number, "x.f", 0.0)
    assert len(list(host.unsaid())) == 256
    for number in range(300):
        writer.ended(number)
    writer.told()
    assert list(host.unsaid()) == []
    writer.began(1, "x.f", 0.0)
    assert len(list(host.unsaid())) == 1


def test_an_end_without_a_beginning_is_nothing(pair) -> None:
    """A call that was refused before it began, or ended twice, leaves no row."""
    writer, host = pair
    writer.ended(5)
    writer.began(6, "x.f", 0.0)
    writer.ended(6)
    writer.ended(6)
    writer.told()
    assert list(host.unsaid()) == []


@pytest.mark.parametrize("name", ["", "x." + "y" * 500, "é" * 150, "\ud800"])
def test_any_name_fits(pair, name: str) -> None:
    """A long name is cut, and one that is cut inside a letter is still read."""
    writer, host = pair
    writer.began(1, name, 0.0)
    (call,) = host.unsaid()
    assert name.encode("utf-8", "replace").startswith(call.tool_id.rstrip("\ufffd").encode())


@pytest.mark.parametrize("number", [0, 1, 2**63 - 1, -1, -(2**63)])
def test_any_id_fits(pair, number: int) -> None:
    """Ids are the program's choice; a negative one is named by its 64 bits."""
    writer, host = pair
    writer.began(number, "x.f", 0.0)
    assert [call.call_id for call in host.unsaid()] == [number % 2**64]
    writer.ended(number)
    writer.told()
    assert list(host.unsaid()) == []


def test_what_a_killed_writer_had_begun_is_read(pair) -> None:
    """The memory outlives the process that wrote it."""
    writer, host = pair
    pid = os.fork()
    if pid == 0:
        writer.began(9, "x.f", 3.0)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert list(host.unsaid()) == [Unsaid(9, "x.f", 3.0, ended=False)]


def test_any_bytes_in_the_table_can_be_read(pair) -> None:
    """A writer that died in the middle of a row, or worse, makes nobody raise."""
    writer, host = pair
    size = os.fstat(host.descriptor).st_size
    with mmap.mmap(writer.descriptor, size) as memory:
        memory[:] = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert all(isinstance(call, Unsaid) for call in host.unsaid())
