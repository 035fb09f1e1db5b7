"""Resources: a frozen program uses none, nothing that it does wakes it, and it outlives no run and no host."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isorun import SetupFailed, SyncRuntime
from isorun.api import SyncRun
from isorun.backends.namespace import cgroup, orphans
from isorun.backends.namespace.backend import NamespaceBackend, Options
from isorun.core.request import RunRequest
from isorun.runtime.request import accept
from isorun.runtime.run import Options as RunOptions
from isorun.runtime.run import program_for
from isorun.settings import Settings
from tests.escapes.attacking import cgroups_left, cpu_s_inside, processes_inside, programs_inside, ticks_inside
from tests.escapes.conftest import SMALL

pytestmark = [pytest.mark.usefixtures("unharmed"), pytest.mark.embedded, pytest.mark.alone]

BEGUN = "print('begun', flush=True)\n"
SPIN = BEGUN + "while True: pass\n"
MOST_CPU_S = 0.05  # in 2 s
PATIENCE_S = 20.0
ENDS_S = 5.0  # of a run that is cancelled; the grace is 0.3 s


@contextmanager
def begun(runtime: SyncRuntime, code: str, **options: object) -> Iterator[SyncRun]:
    """A run of *code* that has printed something; cancelled behind the block."""
    run = runtime.start(code, **{"timeout_s": 20, **options})
    try:
        first = next(event for event in run.events() if event.kind in ("output", "outcome"))
        assert str(first.data.get("text")).startswith("begun"), first  # several may print at once
        yield run
    finally:
        run.cancel()


def used_s(seconds: float) -> float:
    """The processor time that runs use in *seconds*."""
    before = cpu_s_inside()
    time.sleep(seconds)
    return cpu_s_inside() - before


def runs_on() -> bool:
    """Whether a busy loop uses twice what it may when frozen; on a machine that others use, too, that takes a while."""
    before, until = cpu_s_inside(), time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if cpu_s_inside() > before + 2 * MOST_CPU_S:
            return True
        time.sleep(0.05)
    return False


def test_a_frozen_program_uses_no_processor_time(sealed) -> None:
    """A busy loop stands still, and its timeout does not pass; then it goes on, and is ended after its own time."""
    began = time.monotonic()
    with begun(sealed, SPIN, timeout_s=4) as run:
        with run.frozen():
            assert used_s(4.5) < MOST_CPU_S
        assert runs_on()  # control: as soon as it is not frozen
        result = run.result()
    assert (result.status, result.error.code) == ("timed_out", "timeout")
    assert 4.5 <= result.timings["frozen_s"] < time.monotonic() - began - 4
    assert 4 <= result.timings["run_s"] == result.usage["wall_s"]


#: Timers of the kernel's that send SIGCONT: what is stopped by a signal goes on with it. One whose signal still waits
#: when SIGSTOP comes is lost, so there are many.
WAKES_ITSELF = """
import ctypes, signal, struct
libc = ctypes.CDLL(None)
signal.signal(signal.SIGCONT, lambda *_: None)  # a signal that is ignored, as without a handler, comes once
for n in range(1, 100):
    timer = ctypes.c_void_p()
    event = ctypes.create_string_buffer(struct.pack("qiiq", 0, signal.SIGCONT, 0, 0), 64)
    assert libc.timer_create(1, event, ctypes.byref(timer)) == 0
    every = struct.pack("qqqq", 1, 0, 0, n * 10_000_000)
    assert libc.timer_settime(timer, 0, every, None) == 0
"""


def test_a_timer_that_sends_sigcont_wakes_no_frozen_program(sealed, ceilings) -> None:
    """By a control group it stands still. Without one it is stopped again at each look, and soon ended for it."""
    with begun(sealed, WAKES_ITSELF + SPIN) as run:
        # Control: one SIGSTOP, as the program of another could be stopped, does not hold it.
        assert runs_on()
        ticks = ticks_inside()
        os.kill(max(ticks, key=lambda pid: ticks[pid]), signal.SIGSTOP)
        assert runs_on()
        run.freeze()
        if ceilings == "cgroup":
            assert used_s(2) < MOST_CPU_S
            run.thaw()
            assert runs_on()
        else:
            result = run.result()
            assert (result.status, result.error.code) == ("protocol_violation", "protocol_violation")
            assert result.error.message == "the program was ended: it kept waking itself while it was frozen"


def test_a_sigcont_from_elsewhere_wakes_no_frozen_program(sealed) -> None:
    """One that an operator sends is undone, and the run goes on when it is thawed."""
    with begun(sealed, SPIN) as run:
        run.freeze()
        for pid in processes_inside():
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.5)
        assert used_s(1) < MOST_CPU_S
        run.thaw()
        assert runs_on()


BOMB = """
import os
for _ in range(3):
    os.fork()
print('begun', flush=True)
while True:
    try:
        if os.fork() == 0:
            os._exit(0)
        os.wait()
    except OSError:
        pass
"""
#: Each process forks the next and ends: a list of them is old when it is made.
CHAIN = """
import os, time
if os.fork():
    time.sleep(60)
print('begun', flush=True)
while True:
    if os.fork():
        os._exit(0)
"""
DEAD_LEADER = """
import ctypes, threading
def spin():
    print('begun', flush=True)
    while True: pass
threading.Thread(target=spin).start()
ctypes.CDLL(None).syscall(60, 0)  # exit, of the first thread alone
"""
#: The parent of a vfork waits for its child where no signal reaches it, and the child for a writer that never comes.
VFORK = """
import os
os.mkfifo("/tmp/fifo")
if os.fork() == 0:
    os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, "/tmp/fifo", os.O_RDONLY, 0)])
print('begun', flush=True)
while True: pass
"""


@pytest.mark.parametrize("code", [BOMB, CHAIN, DEAD_LEADER, VFORK], ids=["bomb", "chain", "dead leader", "vfork"])
def test_what_forks_and_what_hides_is_frozen_as_well(sealed, code) -> None:
    """Twenty times, each of them whole: no process is missed, and all go on behind it."""
    with begun(sealed, code) as run:
        for _ in range(20):
            with run.frozen():
                before = ticks_inside()
                time.sleep(0.05)
                assert ticks_inside() == before
        with run.frozen():
            before = ticks_inside()
            time.sleep(1)
            assert ticks_inside() == before
        time.sleep(1)
        assert ticks_inside() != before  # control
        began = time.monotonic()
        assert run.cancel().status == "cancelled"
        assert time.monotonic() - began < ENDS_S
    assert programs_inside() == []


def test_a_child_that_the_program_stopped_stays_stopped(sealed) -> None:
    """Thawing undoes the freezing, and nothing else."""
    code = (
        "import os, signal, time\nchild = os.fork()\nif child == 0:\n    while True: pass\n"
        "os.kill(child, signal.SIGSTOP)\nos.waitpid(child, os.WUNTRACED)\nprint('begun', flush=True)\ntime.sleep(60)"
    )
    with begun(sealed, code) as run:
        with run.frozen():
            pass
        assert used_s(0.5) < MOST_CPU_S


def test_a_frozen_run_is_cancelled_as_any_other(sealed) -> None:
    """It gets its SIGTERM, its files are kept, and no process and no group is left."""
    code = "import signal, sys\nsignal.signal(15, lambda *_: (open('last', 'w').close(), sys.exit(3)))\n" + SPIN
    with begun(sealed, code) as run:
        run.freeze()
        began = time.monotonic()
        result = run.cancel()
    assert time.monotonic() - began < ENDS_S
    assert (result.status, [artifact.path for artifact in result.artifacts]) == ("cancelled", ["last"])
    assert (programs_inside(), cgroups_left()) == ([], [])


def test_a_runtime_that_is_closed_ends_its_frozen_runs(ceilings, tmp_path) -> None:
    """In the usual time, and nothing of them is left."""
    with SyncRuntime(backend=_backend(ceilings), limits=SMALL, pool_size=0, workspace_root=tmp_path) as runtime:
        run = runtime.start(SPIN, timeout_s=20)
        next(event for event in run.events() if event.kind == "output")
        run.freeze()
        began = time.monotonic()
    assert time.monotonic() - began < ENDS_S
    assert processes_inside() == []


@pytest.mark.parametrize("how", ["killed", "left"])
async def test_a_slot_that_is_frozen_ends_in_time(ceilings, how) -> None:
    """Whether it is killed, or its block is left, as when a runtime is torn down: SIGKILL alone would wait for ever."""
    program = program_for(accept(RunRequest.of(SPIN), SMALL), RunOptions())
    async with _backend(ceilings) as backend:
        async with backend.launch(SMALL) as slot:
            await slot.start(program)
            await slot.freeze()
            began = time.monotonic()
            if how == "killed":
                exit_, _ = await slot.kill()
                assert exit_.signal == signal.SIGKILL
        assert time.monotonic() - began < ENDS_S
        assert processes_inside() == []


def _backend(ceilings: str) -> NamespaceBackend:
    named = Settings.load().cgroup_parent if ceilings == "cgroup" else None
    return NamespaceBackend(Options(use_cgroup=ceilings == "cgroup", cgroup_parent=str(named) if named else None))


def test_a_run_whose_watcher_dies_while_it_is_frozen_ends(ceilings, tmp_path) -> None:
    """It is killed at once as any run is then, and thawed, so that it can die."""
    backend = _backend(ceilings)
    with SyncRuntime(backend=backend, limits=SMALL, pool_size=0, workspace_root=tmp_path) as runtime:
        run = runtime.start(SPIN, timeout_s=20)
        next(event for event in run.events() if event.kind == "output")
        run.freeze()
        os.kill(backend._watcher._process._process.pid, signal.SIGKILL)
        with pytest.raises(SetupFailed, match="watcher"):
            run.result()
        assert programs_inside() == []


HOST = """
import os, signal, sys
from isorun import SyncRuntime
from isorun.backends.namespace.backend import NamespaceBackend, Options
backend = NamespaceBackend(Options(use_cgroup=sys.argv[1] == "cgroup", cgroup_parent=sys.argv[3] or None))
with SyncRuntime(backend=backend, pool_size=0, workspace_root=sys.argv[4]) as runtime:
    run = runtime.start("import os\\nos.fork()\\nprint('begun', flush=True)\\nwhile True: pass", timeout_s=60)
    next(event for event in run.events() if event.kind == "output")
    run.freeze()
    if sys.argv[2] == "both":
        os.kill(backend._watcher._process._process.pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_host(ceilings: str, which: str, root: Path) -> int:
    """The pid of a host that was killed while its run was frozen; `both`: its watcher, too."""
    named = str(Settings.load().cgroup_parent or "") if ceilings == "cgroup" else ""
    with subprocess.Popen([sys.executable, "-c", HOST, ceilings, which, named, str(root)]) as host:
        assert host.wait(60) == -signal.SIGKILL
        return host.pid


def left_of(host: int) -> set[str]:
    """The processes of the jails and the groups of a host."""
    found = {
        f"jail {entry.name}"
        for entry in Path("/proc").glob("[0-9]*")
        if (owner := orphans.owner_in(_read(entry / "cmdline"))) is not None and owner.pid == host
    }
    for at, names, _ in os.walk("/sys/fs/cgroup"):
        for name in names:
            if name.startswith(f"isorun-{host}-"):
                found |= {f"process {pid}" for pid in _read(Path(at, name, "cgroup.procs")).decode().split()}
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def settled(host: int, seconds: float) -> set[str]:
    """What is left of a host, once nothing is or after so long."""
    until = time.monotonic() + seconds
    while (found := left_of(host)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def test_a_frozen_run_does_not_outlive_its_killed_host(ceilings, tmp_path) -> None:
    """Without a host its watcher ends it, and thaws it, so that it can die."""
    assert settled(killed_host(ceilings, "host", tmp_path), 10) == set()


def test_a_frozen_run_without_host_and_watcher_is_ended_by_the_next_host(ceilings, tmp_path) -> None:
    """On v1 nothing else could: a frozen process outlives SIGKILL, and with it the end of its jail (the control)."""
    host = killed_host(ceilings, "both", tmp_path)
    on_v1 = ceilings == "cgroup" and Path("/sys/fs/cgroup/freezer").is_dir()
    left = settled(host, 2 if on_v1 else 10)
    assert {one for one in left if one.startswith("process")} != set() if on_v1 else left == set()
    if ceilings == "cgroup":
        named = Settings.load().cgroup_parent
        parent = cgroup.find_own_parent(str(named) if named else None)
        assert not isinstance(parent, cgroup.Refusal)
        cgroup.remove_stale(parent)
    assert settled(host, 10) == set()
