"""What the main thread of the watcher's process decides: about real processes, with ceilings of a test's choice."""

import os
import select
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from isorun.backends.watch import loop as watch_loop
from isorun.backends.watch.loop import Loop, Run
from isorun.backends.watch.memory import TRIES, Memory, Sockets
from isorun.backends.watch.told import BROKEN, LOCKS
from isorun.kernel.locks import Listing
from tests.unit.backends.watch.families import Family, family, is_running

MIB = 1 << 20


def test_a_run_that_cannot_be_watched_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of the watcher's is not room above the ceiling."""
    with family(tmp_path / "records", 1, []) as found, ExitStack() as stack:
        records = os.open(tmp_path / "records", os.O_RDWR)
        packet = f"0 {MIB} 0 {found.first} {found.first} 0".encode()
        host = stack.enter_context(socket.socket(socket.AF_UNIX))
        run = Run(packet, [os.dup(found.pidfd), os.dup(found.pidfd)], records, host)

        def broken(self: Memory) -> None:
            raise ValueError("for this test")

        monkeypatch.setattr(Memory, "look", broken)
        with pytest.raises(ValueError, match="for this test"):
            run._hold_memory(os.dup(found.pidfd), os.dup(found.pidfd))
        assert found.is_dead()
        assert found.record()[3] == BROKEN
        run.close()
        os.close(records)


def loop_with(
    stack: ExitStack, found: Family, listed: Path, *, most_locks: int, tells: int
) -> tuple[Loop, socket.socket]:
    """A loop that watches *found*, and the host's end."""
    host, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.enter_context(host)
    stack.enter_context(theirs)
    loop = Loop(theirs, found._records, most_locks)
    loop._listing = Listing(str(listed))
    device = os.makedev(0, 0x1B)
    pidfds = [os.dup(found.pidfd), os.dup(found.pidfd)]
    loop.runs.append(
        Run(f"0 0 0 {found.first} {found.first} {tells} {device}".encode(), pidfds, found._records, theirs)
    )
    stack.callback(loop.runs[0].close)
    return loop, host


def lines(*locks: tuple[int, str]) -> str:
    return "".join(f"{n}: POSIX  ADVISORY  WRITE {pid} {inode} {n} {n}\n" for n, (pid, inode) in enumerate(locks))


@pytest.mark.parametrize(
    ("listed", "dies"),
    [
        (lambda found: [(found.first, "fe:00:1")] * 11, True),
        (lambda found: [(found.first, "fe:00:1")] * 10, False),
        (lambda found: [(found.first, "fe:00:1")] * 6 + [(999_999_999, "00:1b:7")] * 5, True),  # of a dead one's
        (lambda found: [(-1, "00:1b:7")] * 11, True),  # of no process
        (lambda found: [(-1, "00:1c:7")] * 11, False),
        (lambda found: [(999_999_999, "fe:00:1")] * 11, False),
    ],
    ids=["its", "few", "dead", "none", "other device", "another's"],
)
def test_the_locks_of_a_run_are_found_among_all(tmp_path: Path, listed, dies) -> None:
    """By the processes that hold them, and by the file systems that are the run's alone."""
    with ExitStack() as stack:
        found = stack.enter_context(family(tmp_path / "records", 1, []))
        (tmp_path / "locks").write_text(lines(*[(os.getpid(), "fe:00:9")] * 20, *listed(found)))
        loop, _ = loop_with(stack, found, tmp_path / "locks", most_locks=10, tells=0)
        loop.runs[0].namespace = None  # the family is in ours, as everything that is no run's
        loop.look_at_locks()
        assert loop._listing.lines == 20 + len(listed(found))
        assert found.record()[3] == (LOCKS if dies else 0)
        assert bool(select.select([found.pidfd], [], [], None if dies else 0)[0]) == dies


def test_a_run_is_not_blamed_for_what_was_listed_before_it(tmp_path: Path) -> None:
    """A dead run's devices and numbers are given away again: who came since the pass began waits for the next."""
    with ExitStack() as stack:
        found = stack.enter_context(family(tmp_path / "records", 1, []))
        (tmp_path / "locks").write_text(lines(*[(-1, "00:1b:7")] * 11, *[(found.first, "fe:00:1")] * 11))
        loop, _ = loop_with(stack, found, tmp_path / "locks", most_locks=10, tells=0)
        run = loop.runs[0]
        run.since, came = float("inf"), run.since
        loop.look_at_locks()
        assert found.record()[1:4:2] == (0, 0)
        assert is_running(found.first)
        run.since = came
        loop.look_at_locks()
        assert found.is_dead()


def test_a_pass_that_does_not_end_does_not_shield_a_younger_run(tmp_path: Path, monkeypatch) -> None:
    """Who locks without end keeps a pass from its end; if that began before the run, another one is begun soon."""
    with ExitStack() as stack:
        found = stack.enter_context(family(tmp_path / "records", 1, []))
        (tmp_path / "locks").write_text(lines(*[(-1, "00:1b:7")] * 60_000))
        loop, _ = loop_with(stack, found, tmp_path / "locks", most_locks=10, tells=0)
        run = loop.runs[0]
        monkeypatch.setattr(watch_loop, "_TURN_S", 0.001)  # a part of the list in each look
        run.since = float("inf")
        loop.look_at_locks()
        run.since = time.monotonic()
        monkeypatch.setattr(watch_loop, "_OVERTAKEN_S", 0)
        for _ in range(3):
            loop.look_at_locks()
        assert found.is_dead()
        assert found.record()[3] == LOCKS


def test_a_host_is_told_before_the_run_is_killed(tmp_path: Path) -> None:
    """One that can end a run better has some looks' time for it."""
    with ExitStack() as stack:
        found = stack.enter_context(family(tmp_path / "records", 1, []))
        (tmp_path / "locks").write_text(lines(*[(-1, "00:1b:7")] * 11))
        loop, host = loop_with(stack, found, tmp_path / "locks", most_locks=10, tells=1)
        for _ in range(3):
            loop.look_at_locks()
            assert host.recv(100) == b"0"
            assert is_running(found.first)
        loop.look_at_locks()
        assert found.is_dead()
        assert found.record()[3] == LOCKS


@pytest.mark.parametrize("tells", [False, True])
def test_a_run_whose_sockets_hold_too_much_ends(tmp_path: Path, tells: bool) -> None:
    """All of it, as out of memory; a host that may end what we may not is told some looks before."""
    with family(tmp_path / "records", 1, []) as found:
        told: list[None] = []
        tell = (lambda: told.append(None)) if tells else None
        within = Sockets(0, found.first, found.pidfd, found.told, tell)
        assert within.look()[1] is None
        assert found.record()[2] == 0
        above = Sockets(-1, found.first, found.pidfd, found.told, tell)
        for _ in range(TRIES if tells else 0):
            _, dying = above.look()
            assert dying is not None
            os.close(dying)
            assert is_running(found.first)
        _, dying = above.look()
        assert dying is not None
        os.close(dying)
        assert found.is_dead()
        assert (found.record()[2], len(told)) == (1, TRIES if tells else 0)


def test_a_run_with_loopback_is_held_where_a_group_holds_its_memory(tmp_path: Path) -> None:
    """In a thread of its own; a run without is not looked at."""
    with family(tmp_path / "records", 1, []) as found, ExitStack() as stack:
        host, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(host)
        stack.enter_context(theirs)
        for most_in_sockets, held in ((0, False), (1, True)):
            packet = f"0 0 {most_in_sockets} {found.first} {found.first} 0".encode()
            run = Run(packet, [os.dup(found.pidfd), os.dup(found.pidfd)], found._records, theirs)
            stack.callback(run.close)
            run.since = 0.0
            run.hold_memory()
            assert run._has_thread is held
