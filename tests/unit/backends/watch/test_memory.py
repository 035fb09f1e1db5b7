"""Whom a look at a run's memory kills: of real processes, with ceilings of a test's choice."""

import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from isorun.backends.watch import memory, sampling
from isorun.backends.watch.memory import Memory
from isorun.backends.watch.told import Told
from tests.unit.backends.watch.families import family, is_running

MIB = 1 << 20


def test_below_the_ceiling_nobody_dies(tmp_path: Path) -> None:
    """What is told is what is held: a page that three processes share counts once."""
    with family(tmp_path / "records", 40, [1, 1]) as found:
        looked = found.memory(1000 * MIB)
        assert looked.look()[1] is None
        assert looked._telling.wait(threading.TIMEOUT_MAX)
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
        monkeypatch.setattr(memory, "_EXACT_LOOKS", 3)
        held_up = stack.enter_context(ExitStack())
        turn = threading.Event()
        held_up.callback(turn.set)
        sample = sampling.sample

        def slow(pids: tuple[int, int], *, shared_once: bool = False) -> sampling.Sample:
            if shared_once:
                assert turn.wait(30)
            return sample(pids, shared_once=shared_once)

        monkeypatch.setattr(sampling, "sample", slow)
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
        self.told = Told(stack.enter_context(records.open("w+b")).fileno(), 0)

    def go_on(self) -> None:
        """It begins to take the rest."""
        self._to.write(b"\n")
        self._to.flush()

    def is_ended(self, most: int) -> bool:
        """Whether a look at it ends all of it."""
        dying = Memory(most, (self.parent, self.parent), (self._pidfd, self._pidfd), self.told).look()[1]
        assert dying is not None
        assert select.select([dying], [], [], 10)[0]
        os.close(dying)
        return not is_running(self.parent)


def test_page_tables_need_no_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody shares them, and to measure a process with very many takes as long as it takes to make as many again."""

    def quick(pids: tuple[int, int], *, shared_once: bool = False) -> sampling.Sample:
        assert not shared_once
        return sample(pids)

    sample = sampling.sample
    monkeypatch.setattr(sampling, "sample", quick)
    with ExitStack() as stack:
        assert WithTables(stack, tmp_path / "records", 100).is_ended(90 * MIB)


@pytest.mark.parametrize(("then", "most_told"), [(110, 135), (150, None)], ids=["above", "far above"])
def test_page_tables_that_grow_while_they_are_measured_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: int, most_told: int | None
) -> None:
    """A look begins to measure what may be shared. Before that is done, the tables alone are above the ceiling."""
    sample = sampling.sample
    with ExitStack() as stack:
        found = WithTables(stack, tmp_path / "records", 86, then)
        is_over = threading.Event()
        stack.callback(is_over.set)

        def slow(pids: tuple[int, int], *, shared_once: bool = False) -> sampling.Sample:
            if shared_once:
                found.go_on()
                assert is_over.wait(30)
            return sample(pids, shared_once=shared_once)

        monkeypatch.setattr(sampling, "sample", slow)
        monkeypatch.setattr(memory, "_EXACT_LOOKS", 10_000)
        assert found.is_ended(90 * MIB)
        assert most_told is None or found.told._peak < most_told * MIB


def test_what_is_its_own_and_grows_far_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where private memory or page tables grow, nothing shared is counted again."""
    sample = sampling.sample
    with family(tmp_path / "records", 40, [1, 1, 1, 1]) as found:
        is_over, looks = threading.Event(), 0

        def growing(pids: tuple[int, int], *, shared_once: bool = False) -> sampling.Sample:
            nonlocal looks
            if shared_once:
                assert is_over.wait(30)
                return sample(pids, shared_once=True)
            looks, seen = looks + 1, sample(pids)
            seen.own_of = {pid: held + looks * 10 * MIB for pid, held in seen.own_of.items()}
            return seen

        monkeypatch.setattr(sampling, "sample", growing)
        dying = found.memory(120 * MIB).look()[1]
        is_over.set()
        assert dying is not None
        os.close(dying)
        assert found.is_dead()
        assert found.record()[0] > 1.5 * 120 * MIB
        assert looks < memory._EXACT_LOOKS


def test_a_look_that_waits_does_not_put_off_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times what it took of the processor, and never less than one interval."""
    monkeypatch.setattr(memory.time, "thread_time", lambda: 1.5)
    assert (memory.pause_after(1.0), memory.pause_after(1.499)) == (2.0, memory.LOOK_S)


def test_too_much_that_is_shared_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To count once what very many share would keep the watcher from its next look."""
    monkeypatch.setattr(memory, "_DEAR", 2)
    monkeypatch.setattr(memory, "_DEAR_BYTES", 150 * MIB)
    with family(tmp_path / "records", 40, [1, 1, 1, 1]) as found:
        dying = found.memory(70 * MIB).look()[1]
        assert dying is not None
        os.close(dying)
        assert found.is_dead()
