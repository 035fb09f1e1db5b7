"""What the watcher's process decides: about real processes, with ceilings of a test's choice."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from isorun.backends.watch import loop as watch_loop
from isorun.backends.watch.loop import BROKEN, LOCKS, RECORD, Loop, Memory, Run, Told
from isorun.kernel.locks import Listing

MIB = 1 << 20

#: In a network of its own, as a run is: else every socket of the machine would be counted as the family's.
FAMILY = """
import ctypes, os, signal
assert ctypes.CDLL(None).unshare(0x1000_0000 | 0x4000_0000) == 0  # CLONE_NEWUSER, CLONE_NEWNET
shared = bytearray(b"x") * ({shared} << 20)
print(os.getpid(), flush=True)
for own in {own}:
    if (pid := os.fork()) == 0:
        held = bytearray(b"x") * (own << 20)
        os.write(1, b"%d " % os.getpid() + bytes([10]))
        signal.pause()
signal.pause()
"""


class Family:
    """A process, its children, and what is told of them."""

    def __init__(self, stack: ExitStack, records: Path, shared: int, own: list[int]) -> None:
        first = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", FAMILY.format(shared=shared, own=own)], stdout=-1, process_group=0)
        )
        stack.callback(os.killpg, first.pid, signal.SIGKILL)
        assert first.stdout is not None
        said = [int(first.stdout.readline()) for _ in range(1 + len(own))]
        self.first, self.children = said[0], sorted(said[1:])
        self._records = os.open(records, os.O_RDWR | os.O_CREAT)
        stack.callback(os.close, self._records)
        self.pidfd = os.pidfd_open(self.first)
        stack.callback(os.close, self.pidfd)
        self.told = Told(self._records, 0)

    def memory(self, most: int) -> Memory:
        return Memory(most, (self.first, self.first), (self.pidfd, self.pidfd), self.told)

    def record(self) -> tuple[int, int, int, int]:
        return RECORD.unpack(os.pread(self._records, RECORD.size, 0).ljust(RECORD.size, b"\0"))

    def is_dead(self) -> bool:
        return bool(select.select([self.pidfd], [], [])[0])


@contextmanager
def family(records: Path, shared: int, own: list[int]) -> Iterator[Family]:
    with ExitStack() as stack:
        yield Family(stack, records, shared, own)


def is_running(pid: int) -> bool:
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_below_the_ceiling_nobody_dies(tmp_path: Path) -> None:
    """What is told is what is held: a page that three processes share counts once."""
    with family(tmp_path / "records", 40, [1, 1]) as found:
        memory = found.memory(1000 * MIB)
        assert memory.look()[1] is None
        assert memory._telling.wait(threading.TIMEOUT_MAX)
        peak, _, kills, why = found.record()
        assert 40 * MIB < peak < 90 * MIB
        assert (kills, why) == (0, 0)
        assert is_running(found.first)


def test_the_largest_dies_alone(tmp_path: Path) -> None:
    """The kill is told before it is done, and the first process of all is the last to be chosen."""
    with family(tmp_path / "records", 1, [30, 90]) as found:
        dying = found.memory(100 * MIB).look()[1]
        assert dying is not None
        assert select.select([dying], [], [])[0]
        os.close(dying)
        assert not is_running(found.children[1])
        assert is_running(found.children[0])
        assert found.record()[2] == 1


def test_far_above_all_die(tmp_path: Path) -> None:
    """Half as much again is too fast to be held one by one."""
    with family(tmp_path / "records", 1, [45, 45]) as found:
        dying = found.memory(40 * MIB).look()[1]
        assert dying is not None
        os.close(dying)
        assert found.is_dead()
        assert found.record()[0] > 40 * MIB  # all of it, where it was there in time


def test_what_is_shared_is_not_above(tmp_path: Path) -> None:
    """Five processes that share 40 MiB hold 40 MiB, whatever the cheap sum says."""
    with family(tmp_path / "records", 40, [1, 1, 1, 1]) as found:
        assert found.memory(120 * MIB).look()[1] is None
        assert found.record()[2] == 0
        assert found.record()[0] < 120 * MIB


def test_a_run_that_does_not_let_itself_be_measured_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever keeps the watcher from counting shared pages once has them counted for each process."""
    with ExitStack() as stack:
        found = stack.enter_context(family(tmp_path / "records", 40, [1, 1, 1, 1]))
        monkeypatch.setattr(watch_loop, "_EXACT_LOOKS", 3)
        held_up = stack.enter_context(ExitStack())
        turn = threading.Event()
        held_up.callback(turn.set)
        sample = watch_loop.watcher.sample

        def slow(pids: tuple[int, int], *, shared_once: bool = False) -> watch_loop.watcher.Sample:
            if shared_once:
                assert turn.wait(30)
            return sample(pids, shared_once=shared_once)

        monkeypatch.setattr(watch_loop.watcher, "sample", slow)
        dying = found.memory(120 * MIB).look()[1]
        assert dying is not None
        os.close(dying)
        assert found.is_dead()


TABLES = """
import ctypes, mmap, os, signal
assert ctypes.CDLL(None).unshare(0x1000_0000 | 0x4000_0000) == 0  # CLONE_NEWUSER, CLONE_NEWNET
if os.fork():
    signal.pause()
zeroes = mmap.mmap(-1, 80 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=mmap.PROT_READ)
for at in range(0, {first} << 29, 2 << 20):
    zeroes[at]
print(os.getpid(), os.getppid(), flush=True)
input()
for at in range({first} << 29, {then} << 29, 2 << 20):
    zeroes[at]
signal.pause()
"""


class WithTables:
    """A process whose child has *first* MiB of page tables, and *then* once it goes on."""

    def __init__(self, stack: ExitStack, records: Path, first: int, then: int = 0) -> None:
        line = [sys.executable, "-c", TABLES.format(first=first, then=then)]
        opened = subprocess.Popen(line, stdin=-1, stdout=-1, process_group=0)
        process = stack.enter_context(opened)
        stack.callback(os.killpg, process.pid, signal.SIGKILL)
        assert process.stdin is not None
        assert process.stdout is not None
        self._to = process.stdin
        self.child, self.parent = map(int, process.stdout.readline().split())
        self._pidfd = os.pidfd_open(self.parent)
        stack.callback(os.close, self._pidfd)
        self._told = Told(stack.enter_context(records.open("w+b")).fileno(), 0)

    def go_on(self) -> None:
        """It begins to take the rest."""
        self._to.write(b"\n")
        self._to.flush()

    def loses_its_child(self, most: int) -> bool:
        """Whether a look at it kills the child, and the child alone."""
        dying = Memory(most, (self.parent, self.parent), (self._pidfd, self._pidfd), self._told).look()[1]
        assert dying is not None
        assert select.select([dying], [], [], 10)[0]
        os.close(dying)
        return is_running(self.parent) and not is_running(self.child)


def test_page_tables_need_no_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody shares them, and to measure a process with very many takes as long as it takes to make as many again."""

    def quick(pids: tuple[int, int], *, shared_once: bool = False) -> watch_loop.watcher.Sample:
        assert not shared_once
        return sample(pids)

    sample = watch_loop.watcher.sample
    monkeypatch.setattr(watch_loop.watcher, "sample", quick)
    with ExitStack() as stack:
        assert WithTables(stack, tmp_path / "records", 100).loses_its_child(90 * MIB)


def test_page_tables_that_grow_while_they_are_measured_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look begins to measure what may be shared; before that is done, the tables alone are above the ceiling."""
    sample = watch_loop.watcher.sample
    with ExitStack() as stack:
        found = WithTables(stack, tmp_path / "records", 86, 110)
        is_over = threading.Event()
        stack.callback(is_over.set)

        def slow(pids: tuple[int, int], *, shared_once: bool = False) -> watch_loop.watcher.Sample:
            if shared_once:
                found.go_on()
                assert is_over.wait(30)
            return sample(pids, shared_once=shared_once)

        monkeypatch.setattr(watch_loop.watcher, "sample", slow)
        assert found.loses_its_child(90 * MIB)


def test_what_grows_much_while_it_is_measured_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what is a process's own grows, nothing shared is counted again: here the page tables, to far above."""
    sample = watch_loop.watcher.sample
    with ExitStack() as stack:
        found = WithTables(stack, tmp_path / "records", 86, 150)
        is_over = threading.Event()
        stack.callback(is_over.set)

        def slow(pids: tuple[int, int], *, shared_once: bool = False) -> watch_loop.watcher.Sample:
            if shared_once:
                found.go_on()
                assert is_over.wait(30)
            return sample(pids, shared_once=shared_once)

        monkeypatch.setattr(watch_loop.watcher, "sample", slow)
        monkeypatch.setattr(Memory, "_is_certain", lambda memory, sample: False)
        assert not found.loses_its_child(90 * MIB)


def test_too_much_that_is_shared_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To count once what very many share would keep the watcher from its next look."""
    monkeypatch.setattr(watch_loop, "_DEAR", 2)
    monkeypatch.setattr(watch_loop, "_DEAR_BYTES", 150 * MIB)
    with family(tmp_path / "records", 40, [1, 1, 1, 1]) as found:
        dying = found.memory(70 * MIB).look()[1]
        assert dying is not None
        os.close(dying)
        assert found.is_dead()


def test_a_run_that_cannot_be_watched_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of the watcher's is not room above the ceiling."""
    with family(tmp_path / "records", 1, []) as found:
        records = os.open(tmp_path / "records", os.O_RDWR)
        packet = f"0 {MIB} {found.first} {found.first} 0".encode()
        run = Run(packet, [os.dup(found.pidfd), os.dup(found.pidfd)], records)

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
    loop.runs.append(Run(f"0 0 {found.first} {found.first} {tells} {device}".encode(), pidfds, found._records))
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
