"""Resources: what the watcher alone holds, beside a cgroup or without one, and that nothing keeps it from looking."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from isorun import SetupFailed, SyncRuntime
from isorun.backends.namespace.backend import NamespaceBackend, Options
from isorun.backends.watch import watching
from tests.escapes.attacking import attack, ended, programs_inside
from tests.escapes.conftest import ROOMY, SMALL
from tests.escapes.test_resources_memory import killed_for_memory

pytestmark = [pytest.mark.usefixtures("unharmed"), pytest.mark.embedded, pytest.mark.alone]

MIB = 1 << 20
LOCKED = ("limit_exceeded", "lock_limit", "held more than 4096 file locks at once")
KILLED = ("out_of_memory", "out_of_memory", "killed for exceeding its memory limit of 256 MiB")
MOST = 160_000  # locks: 32 MiB of the kernel's memory

LOCKS = """
import fcntl, os, struct, sys
def lock(file, byte, kind=fcntl.F_WRLCK):
    fcntl.fcntl(file, fcntl.F_SETLK, struct.pack("hhqqi4x", kind, 0, byte, 1, 0))
def many(most, files):
    made = 0
    while made < most:
        for file in files:
            lock(file, 2 * (made // len(files)))
            made += 1
            if made % 1000 == 0:
                os.write(1, b"k\\n")
"""
OWN = "many({most}, [open(f'/tmp/{{n}}', 'wb') for n in range(100)])"
BY_CHILDREN = """
import signal
for child in range(20):
    if os.fork() == 0:
        many({most} // 20, [open(f"/tmp/{{child}}-{{n}}", "wb") for n in range(10)])
        os.kill(os.getpid(), signal.SIGSTOP)
for child in range(20):
    os.waitpid(-1, os.WUNTRACED)
"""
READ_ONLY = """
names = [f"{{place}}/{{name}}" for place, _, names in os.walk(os.path.dirname(os.__file__)) for name in names]
files = [open(name, "rb") for name in names[:150] if os.path.isfile(name)][:100]
for n in range({most} // 100):
    for file in files:
        lock(file, 2 * n, fcntl.F_RDLCK)
    if n % 10 == 0:
        os.write(1, b"k\\n")
"""
ON_PIPES = """
pipes = [os.pipe() for _ in range(50)]
many({most}, [end for _, end in pipes])
"""


@contextmanager
def unlimited(monkeypatch, ceilings) -> Iterator[SyncRuntime]:
    """A runtime whose watcher lets a run have as many locks as it wants."""
    monkeypatch.setattr(watching, "MAX_LOCKS", 1 << 40)
    backend = NamespaceBackend(Options(use_cgroup=ceilings == "cgroup"))
    with SyncRuntime(backend=backend, limits=SMALL, pool_size=0) as runtime:
        yield runtime


@pytest.mark.parametrize("by", [OWN, BY_CHILDREN, READ_ONLY, ON_PIPES], ids=["own", "children", "read-only", "pipes"])
def test_file_locks_are_counted(sealed, monkeypatch, ceilings, by) -> None:
    """Record locks, which no limit of the kernel's and no cgroup counts, end a run that has thousands of them."""
    result = attack(sealed, LOCKS + by.format(most=3_000_000), timeout_s=20)
    assert ended(result) == LOCKED
    assert result.stdout.count("k") * 1000 < MOST
    assert programs_inside() == []
    # Control: a run may have some thousands; and more than that if nobody counts them.
    assert sealed.execute(LOCKS + by.format(most=3_000)).status == "ok"
    with unlimited(monkeypatch, ceilings) as runtime:
        assert runtime.execute(LOCKS + by.format(most=30_000)).status == "ok"


DEAD = """
import ctypes
libc = ctypes.CDLL(None)
files = [open(f"/tmp/{n}", "wb") for n in range(100)]
for batch in range(600):
    pid = libc.syscall(56, 0x400 | 17, 0, 0, 0, 0)  # CLONE_FILES
    if pid == 0:
        for n in range(50):
            for file in files:
                lock(file, 2 * (batch * 50 + n))
        os._exit(0)
    print("child", pid > 0, flush=True)
    if pid < 0:
        break
    os.waitpid(pid, 0)
"""


def test_locks_of_the_dead_are_counted(sealed, without) -> None:
    """A child that shares its parent's descriptors leaves its locks to it, under its own dead pid."""
    assert attack(sealed, LOCKS + DEAD).stdout == "child False\n"
    # The filter off: on the run's own file systems they are the run's, whoever made them.
    result = attack(without("seccomp"), LOCKS + DEAD, timeout_s=20)
    assert ended(result) == LOCKED
    assert result.stdout.count("child True") * 5000 < MOST


PAGE_TABLES = """
import mmap, os
def touch(gib):
    zeroes = mmap.mmap(-1, gib << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=mmap.PROT_READ)
    for at in range(0, gib << 30, 2 << 20):
        zeroes[at]
    return zeroes
"""
ALONE = "held = touch({0})\nprint('on')"
TOGETHER = """
for _ in range(16):
    if os.fork() == 0:
        held = touch({0} // 16)
        os.write(1, b"touched\\n")
        os.kill(os.getpid(), 19)
for _ in range(16):
    os.waitpid(-1, os.WUNTRACED)
print("on")
"""


@pytest.mark.parametrize("by", [ALONE, TOGETHER], ids=["alone", "together"])
def test_page_tables_are_held(sealed, without, by) -> None:
    """One byte of every 2 MiB of zeroes costs a page of page tables each, and no memory that a process has."""
    result = attack(sealed, PAGE_TABLES + by.format(2048), timeout_s=20)  # 4 GiB of page tables
    if result.status == "ok":
        assert any("killed for memory" in notice for notice in result.notices)
        assert result.stdout.count("touched") < 8
    else:
        assert ended(result) == KILLED
    assert 128 * MIB < result.usage["max_rss_bytes"] < 1024 * MIB
    # Control: with room for them, it can have 320 MiB.
    fits = without(limits=ROOMY).execute(PAGE_TABLES + by.format(160))
    assert (fits.status, fits.notices) == ("ok", ())


ENDED_FIRST = """
import ctypes, os, threading
def grow():
    held = []
    for _ in range(60):
        held.append(bytearray(b"x") * (1 << 20))
        os.write(1, b"m")
    os.kill(os.getpid(), 19)
for _ in range(8):
    if os.fork() == 0:
        threading.Thread(target=grow).start()
        ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
for _ in range(8):
    os.waitpid(-1, os.WUNTRACED)
print("on")
"""


def test_memory_of_processes_whose_first_thread_has_ended_is_held(sealed, without) -> None:
    """The kernel shows no memory of a process by its first thread once that has ended; the others go on with it."""
    result = attack(sealed, ENDED_FIRST, timeout_s=20)
    if result.status == "ok":
        assert any("killed for memory" in notice for notice in result.notices)
    else:
        assert ended(result) == KILLED
    assert result.usage["max_rss_bytes"] > 40 * MIB
    # Control: with room for them, they can have all of it.
    fits = without(limits=ROOMY).execute(ENDED_FIRST, timeout_s=20)
    assert (fits.status, fits.notices, fits.stdout.count("m")) == ("ok", (), 480)


#: All of it within the second that the host decodes, and no faster than that on a machine with quick memory.
CHILDREN = """
import os, time
for child in range(12):
    if os.fork() == 0:
        held = []
        with open(str(child), "wb", buffering=0) as said:
            for _ in range(60):
                held.append(bytearray(b"x") * (1 << 20))
                said.write(b"m")
                time.sleep(0.01)
        os.kill(os.getpid(), 19)
for _ in range(12):
    os.waitpid(-1, os.WUNTRACED)
"""


def test_the_watcher_looks_while_the_host_decodes(monkeypatch) -> None:
    """Whatever holds the host's interpreter, as a large frame does, does not hold the watcher."""
    with SyncRuntime(backend=NamespaceBackend(Options(use_cgroup=False)), limits=SMALL, pool_size=0) as runtime:

        def grown() -> int:
            run = runtime.start(CHILDREN)
            next(event for event in run.events() if event.kind == "started")
            3 ** (6 << 20)  # one step of the interpreter: no other thread of this process runs meanwhile
            result = run.result()
            return sum(artifact.bytes for artifact in result.artifacts)

        assert grown() < 2 * 256
        # Control: with the watcher asleep they have all that they ask for.
        with paused(runtime):
            assert grown() == 12 * 60


def pid_of_watcher(runtime: SyncRuntime) -> int:
    return runtime._original.backend._watcher._process._process.pid


@contextmanager
def paused(runtime: SyncRuntime) -> Iterator[None]:
    os.kill(pid_of_watcher(runtime), signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid_of_watcher(runtime), signal.SIGCONT)


def test_a_run_that_nobody_watches_is_ended(ceilings) -> None:
    """The watcher dies under a run: that is killed, says why, and the next run has a new one."""
    with SyncRuntime(
        backend=NamespaceBackend(Options(use_cgroup=ceilings == "cgroup")), limits=SMALL, pool_size=0
    ) as runtime:
        before = pid_of_watcher(runtime)
        run = runtime.start("import time; print('on', flush=True); time.sleep(30)")
        next(event for event in run.events() if event.kind == "output")
        os.kill(before, signal.SIGKILL)
        with pytest.raises(SetupFailed, match="watcher: it ended, and the run was killed"):
            run.result()
        assert programs_inside() == []
        # Control: with the new one a run is held as before.
        assert ended(runtime.execute(LOCKS + OWN.format(most=3_000_000))) == LOCKED
        assert pid_of_watcher(runtime) != before


HOST = """
import isorun, select, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored where this session began
with isorun.SyncRuntime(backend="namespace") as runtime:
    print(runtime._original.backend._watcher._process._process.pid, flush=True)
    while not select.select([sys.stdin], [], [], 0.1)[0]:
        pass  # a signal just before a call that waits is seen after it
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_watcher_ends_with_its_host(number) -> None:
    """However the host ends, no watcher is left."""
    with subprocess.Popen([sys.executable, "-c", HOST], stdin=-1, stdout=-1, stderr=subprocess.DEVNULL) as host:
        watcher = os.pidfd_open(int(host.stdout.readline()))
        assert not select.select([watcher], [], [], 0)[0]  # control: it lives as long as its host does
        host.send_signal(number)
        assert select.select([watcher], [], [], 10)[0]
        os.close(watcher)


def test_a_run_with_very_many_shared_pages_is_not_waited_for(sharing) -> None:
    """Memory that many processes share is counted once; counting it does not make the watcher blind to what grows."""
    code = """
import mmap, os, time
shared = mmap.mmap(-1, 180 << 20)
for _ in range(180):
    shared.write(b"x" * (1 << 20))
for child in range({children}):
    if os.fork() == 0:
        for at in range(0, 180 << 20, 4096):
            shared[at]
        if child >= {grows}:
            held = []
            with open(str(child), "wb", buffering=0) as said:
                for _ in range(100):
                    held.append(bytearray(b"x") * (1 << 20))
                    said.write(b"m")
                    time.sleep(0.01)
        os.kill(os.getpid(), 19)
for _ in range({children}):
    os.waitpid(-1, os.WUNTRACED)
"""
    result = attack(sharing, code.format(children=24, grows=18), timeout_s=20)
    assert sum(artifact.bytes == 100 for artifact in result.artifacts) < 3, result.report_text  # 480 MiB are not held
    # Control: the shared pages alone are within the ceiling, however many have them.
    shared = sharing.execute(code.format(children=12, grows=12))
    assert (shared.status, shared.notices) == ("ok", ())
    assert shared.usage["max_rss_bytes"] < 256 * MIB


STORM = """
import ctypes, mmap, os, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
def storm():
    at = libc.mmap(None, ctypes.c_size_t(1 << 27), 1, 0x4022, -1, ctypes.c_long(0))
    until = time.monotonic() + 4
    while time.monotonic() < until:
        for page in range(0, 1 << 27, 8192):
            libc.mprotect(ctypes.c_void_p(at + page), ctypes.c_size_t(4096), 0)
        libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(1 << 27), 1)
shared = bytearray(b"x") * ({shared} << 20)
for child in range(16):
    if os.fork() == 0:
        storm()
        os.kill(os.getpid(), 19)
for child in range(8):
    if os.fork() == 0:
        held = []
        with open(str(child), "wb", buffering=0) as said:
            for _ in range({each}):
                held.append(bytearray(b"x") * (1 << 20))
                said.write(b"m")
        os.kill(os.getpid(), 19)
for _ in range(24):
    os.waitpid(-1, os.WUNTRACED)
"""


def test_a_run_that_keeps_the_watcher_from_measuring_it_is_held(without) -> None:
    """Who changes mappings without end holds up whoever would walk them, and not the looks that find growth."""
    result = attack(
        without(limits=replace(SMALL, workspace_inodes=500)), STORM.format(shared=20, each=200), timeout_s=20
    )
    assert sum(artifact.bytes for artifact in result.artifacts) < 800, result.report_text  # of 1,600 MiB
    assert result.usage["max_rss_bytes"] < 4 * 256 * MIB
    # Control: with room for it, it has what it asks for.
    fits = without(limits=ROOMY).execute(STORM.format(shared=1, each=40), timeout_s=25)
    assert sum(artifact.bytes for artifact in fits.artifacts) == 8 * 40, fits.report_text


def test_one_run_does_not_hold_up_the_looks_at_another(without) -> None:
    """Beside a run that is as dear to look at as it can be made, one that grows is held as it is alone."""
    runtime = without(limits=SMALL)
    dear = runtime.start(STORM.replace("+ 4", "+ 20").format(shared=20, each=0), timeout_s=20)
    next(event for event in dear.events() if event.kind == "started")
    try:
        result = attack(runtime, CHILDREN, timeout_s=20)
    finally:
        dear.cancel()
    assert result.status == "out_of_memory" or killed_for_memory(result) >= 6, result.report_text
    assert result.usage["max_rss_bytes"] < 2 * 256 * MIB
    # Control: that of the test with the watcher asleep, where they have all that they ask for.


def test_what_was_held_is_told(without, ceilings) -> None:
    """`max_rss_bytes` counts a page once, however many processes have it."""
    code = """
import os
held = bytearray(b"x") * (60 << 20)
for _ in range(10):
    if os.fork() == 0:
        os.kill(os.getpid(), 19)
for _ in range(10):
    os.waitpid(-1, os.WUNTRACED)
import time
time.sleep(0.2)
"""
    result = without(limits=replace(ROOMY, processes=32)).execute(code)
    assert 55 * MIB < result.usage["max_rss_bytes"] < 120 * MIB
