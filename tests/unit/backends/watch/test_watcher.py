"""What the processes of a run hold, read from a /proc in a folder and from the real one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isorun.backends.watch.sampling import Sample, has_children_files, sample, socket_bytes

KIB = 1024
MIB = 1 << 20


def told(seen: Sample) -> tuple[int, int, tuple[int, ...]]:
    """Bytes, processes and pids."""
    return seen.rss_bytes, seen.processes, seen.pids


class Proc:
    """A folder that looks like /proc."""

    def __init__(self, path: Path, *, children_files: bool) -> None:
        self.path = path
        self.children_files = children_files
        if children_files:
            self.write("thread-self/children", "")

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def process(
        self,
        pid: int,
        parent: int,
        *,
        anon: int = 0,
        shmem: int = 0,
        tables: int = 0,
        threads: int = 1,
        name: str = "x",
    ) -> None:
        self.write(f"{pid}/stat", f"{pid} ({name}) S {parent} {pid} {pid} 0 -1\n")
        memory = f"VmPTE:\t{tables:8} kB\nRssAnon:\t{anon:8} kB\nRssFile:\t    9999 kB\nRssShmem:\t{shmem:8} kB\n"
        self.write(f"{pid}/status", f"Name:\t{name}\nState:\tS\n{memory}Threads:\t{threads}\nSigQ:\t0/1\n")
        for thread in range(pid, pid + threads) if self.children_files else ():
            self.write(f"{pid}/task/{thread}/children", "")

    def child_of(self, pid: int, thread: int, children: str) -> None:
        if self.children_files:
            self.write(f"{pid}/task/{thread}/children", children)


@pytest.fixture(params=[True, False], ids=["children", "scan"])
def proc(tmp_path: Path, request: pytest.FixtureRequest) -> Proc:
    return Proc(tmp_path, children_files=request.param)


def test_the_whole_tree_is_summed(proc: Proc) -> None:
    """Private and shared memory and the threads of every descendant count; files and strangers do not."""
    proc.process(10, 1, anon=1)
    proc.process(20, 10, anon=100, shmem=10, threads=3, name="a) S 77 (b")
    proc.process(30, 20, anon=1000)
    proc.process(40, 1, anon=5000)
    proc.child_of(10, 10, "20 ")
    proc.child_of(20, 22, "30 ")  # forked by a thread
    seen = sample([10], proc.path)
    assert told(seen) == (1111 * KIB, 5, (10, 20, 30))
    assert seen.bytes_of == {10: KIB, 20: 110 * KIB, 30: 1000 * KIB}


def test_page_tables_and_private_memory_are_its_own(proc: Proc) -> None:
    """Where they grow, nothing that others have as well is counted again."""
    proc.process(10, 1, anon=100, shmem=10, tables=7)
    seen = sample([10], proc.path)
    assert (seen.own_of, seen.bytes_of, seen.table_bytes) == ({10: 107 * KIB}, {10: 117 * KIB}, 7 * KIB)


def test_a_process_reached_twice_counts_once(proc: Proc) -> None:
    """The program is named beside its init, and is its child as well."""
    proc.process(10, 1, anon=1)
    proc.process(20, 10, anon=2)
    proc.child_of(10, 10, "20 ")
    assert told(sample([10, 20], proc.path)) == (3 * KIB, 2, (10, 20))


def test_a_vanished_process_is_skipped(proc: Proc) -> None:
    """A pid that is listed and gone at the next read is no error and holds nothing."""
    proc.process(10, 1, anon=1)
    proc.child_of(10, 10, "20 ")
    assert told(sample([10, 99], proc.path)) == (KIB, 1, (10,))


def test_a_zombie_counts_as_a_process(proc: Proc) -> None:
    """A zombie has no memory lines, and still holds the pid that a fork needs."""
    proc.process(10, 1, anon=1)
    proc.write("10/status", "Name:\tx\nState:\tZ (zombie)\nThreads:\t1\n")
    assert told(sample([10], proc.path)) == (0, 1, (10,))


def test_a_process_cannot_name_its_own_figures(proc: Proc) -> None:
    """The kernel escapes newlines in a name, so `RssAnon:` in it is not at the start of a line."""
    proc.process(10, 1, anon=7, name="RssAnon: 0 kB\\nThreads: 0")
    assert told(sample([10], proc.path)) == (7 * KIB, 1, (10,))


def test_shared_pages_count_once_on_demand(proc: Proc) -> None:
    """PSS replaces the sum where it may be read; a process that hides it counts in full."""
    proc.process(10, 1, anon=100)
    proc.process(20, 10, anon=100)
    proc.child_of(10, 10, "20 ")
    proc.write("10/smaps_rollup", "Rss: 900 kB\nPss: 70 kB\nPss_Anon: 50 kB\nPss_File: 9 kB\nPss_Shmem: 5 kB\n")
    assert sample([10], proc.path).rss_bytes == 200 * KIB
    assert sample([10], proc.path, shared_once=True).rss_bytes == 155 * KIB


FAMILY = """
import mmap, os, signal, threading
block = b'x' * (40 << 20)
shared = mmap.mmap(-1, 8 << 20)
shared.write(b'x' * (8 << 20))
threading.Thread(target=threading.Event().wait, daemon=True).start()
if os.fork() == 0:
    if os.fork() == 0:
        print('up', flush=True)
    signal.pause()
signal.pause()
"""


@contextmanager
def family() -> Iterator[int]:
    """Three generations that share 40 MiB of private and 8 MiB of shared memory; the first has a thread."""
    command = [sys.executable, "-W", "ignore", "-c", FAMILY]  # the warning of 3.12 on fork beside threads
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "up\n"
            yield first.pid
        finally:
            os.killpg(first.pid, 9)


def test_real_processes_are_found_and_weighed() -> None:
    """The sum counts forked pages once per process; with shared_once, once."""
    with family() as pid:
        each = sample([pid])
        once = sample([pid], shared_once=True)
    assert (each.processes, len(each.pids)) == (4, 3)
    assert once.pids == each.pids
    assert 120 * MIB < each.rss_bytes < 240 * MIB
    assert 45 * MIB < once.rss_bytes < 80 * MIB


ENDED_FIRST = """
import ctypes, os, sys, threading
def hold():
    block = bytearray(b"x") * (40 << 20)
    held = [os.dup(0) for _ in range(500)]
    while open(f"/proc/self/task/{os.getpid()}/stat").read().rpartition(")")[2].split()[0] != "Z":
        pass
    print("up", flush=True)
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=hold).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
"""


@pytest.mark.parametrize("shared_once", [False, True])
def test_a_process_whose_first_thread_has_ended_is_weighed(shared_once: bool) -> None:
    """Its own status then has no memory and no descriptors, while another thread goes on with both."""
    with subprocess.Popen([sys.executable, "-c", ENDED_FIRST], stdin=-1, stdout=-1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        seen = sample([process.pid], shared_once=shared_once)
        counted = os.stat(f"/proc/{os.getpid()}/fd").st_size > 0  # from Linux 6.2 on
        process.stdin.close()
    assert seen.processes == 2
    assert seen.rss_bytes > (42 if counted else 40) * MIB


def test_this_kernel_is_read_the_way_it_offers() -> None:
    """The fast walk is used exactly where the kernel lists children."""
    assert has_children_files() == Path(f"/proc/self/task/{os.getpid()}/children").exists()


def test_descriptors_count() -> None:
    """Each above the first 64 may keep a page of the kernel's; where the kernel does not say how many, none does."""
    code = (
        "import os, sys\nheld = [os.dup(0) for _ in range(int(sys.argv[1]))]\nprint('on', flush=True)\nsys.stdin.read()"
    )
    held = []
    for count in (0, 500):
        with subprocess.Popen([sys.executable, "-c", code, str(count)], stdin=-1, stdout=-1) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            held.append(sample([process.pid]).rss_bytes)
            process.stdin.close()
    tells = Path("/proc/self/fd").stat().st_size > 0  # Linux 6.2
    assert (held[1] - held[0] > 400 * 4864) is tells


SOCKSTAT = """sockets: used {used}
TCP: inuse 700 orphan 7 tw 3 alloc 9999 mem 8888
UDP: inuse 900 mem 77
"""
ONE = 212_992 + (64 << 10)  # the most that one holds, by the sizes that the kernel has without others


def test_every_socket_counts(tmp_path: Path) -> None:
    """Of whatever kind, by the namespace's own count; the first 64 together are free. The larger buffer is its size."""
    proc = Proc(tmp_path, children_files=True)
    assert socket_bytes(7, tmp_path) == 0  # it is gone, or has no such file
    proc.write("7/net/sockstat", SOCKSTAT.format(used=64))
    assert socket_bytes(7, tmp_path) == 0
    proc.write("7/net/sockstat", SOCKSTAT.format(used=66))
    assert socket_bytes(7, tmp_path) == 2 * ONE
    proc.write("sys/net/core/wmem_default", "1000\n")
    assert socket_bytes(7, tmp_path) == 2 * ONE  # what is read has a buffer, too
    proc.write("sys/net/core/rmem_default", "2000\n")
    assert socket_bytes(7, tmp_path) == 2 * (2000 + (64 << 10))
