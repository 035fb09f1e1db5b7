"""Attacks from inside a run, and how to see from outside that nothing came of them."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from isorun import RunResult, SyncRuntime
from isorun.runtime.events import Event

_BEAT = """
import os, time
while True:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with open("beat", "wb") as file:
        file.write(bytearray(1 << 20))
    open(f"{time.monotonic_ns()}", "w").close()
    for name in sorted(os.listdir("."))[:-4]:
        if name.isdigit():
            os.unlink(name)
    print("beat")
    time.sleep(0.05)
"""


def attack(runtime: SyncRuntime, code: str, **options: object) -> RunResult:
    """Run *code* beside a neighbour that forks, allocates, writes and prints until we end it.

    Asserts that it did all of that before, during and after the attack.
    """
    neighbour = runtime.start(_BEAT)
    events = neighbour.events()
    try:
        _next_beat(events)
        result: RunResult = runtime.execute(code, **options)
        _next_beat(events)
    finally:
        beside = neighbour.cancel()
    assert (beside.status, beside.stderr) == ("cancelled", ""), beside.report_text
    return result


def _next_beat(events: Iterator[Event]) -> None:
    for event in events:
        if event.kind == "output":
            return
    raise AssertionError("the neighbour ended")


def ended(result: RunResult) -> tuple[str, str | None, str | None]:
    """Status, error code and message: what a caller is told first."""
    error = result.error
    return result.status, error and error.code, error and error.message


def still_answers(runtime: SyncRuntime) -> RunResult:
    """The result of a harmless program in *runtime*, which must be what such a program gives anywhere."""
    result = runtime.execute("open('answer', 'w').write('42'); print(6 * 7)", timeout_s=10)
    assert (result.status, result.stdout) == ("ok", "42\n"), result.report_text
    assert [artifact.path for artifact in result.artifacts] == ["answer"]
    return result


def processes_inside() -> list[int]:
    """The pids of every live process in a slot of this test session.

    A slot's processes are two pid namespaces deeper than we are, wherever they were
    reparented to, and descend from us: their namespaces' reapers do.
    """
    parents = {int(name): parent for name in os.listdir("/proc") if name.isdigit() and (parent := _parent(name))}
    own = len(_status(os.getpid())["NSpid"].split())
    return [pid for pid in parents if _descends(pid, parents) and _is_deeper(pid, own + 2)]


def programs_inside() -> list[int]:
    """As `processes_inside` without the inits: what could still run code of a program.

    An init that is alone in its slot ends when the slot is taken down, some milliseconds after the result is there.
    """
    numbers = {pid: _status(pid).get("NSpid", "").split() for pid in processes_inside()}
    return [pid for pid, seen in numbers.items() if seen and seen[-1] != "1"]  # without one it is gone since


def _parent(pid: str) -> int:
    """The pid of its parent; 0 if it has none that we see, or has gone.

    Of `stat`, which is a fifth of the work of `status`: every process of the machine is asked, after every attack.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def _descends(pid: int, parents: dict[int, int]) -> bool:
    while pid and pid != os.getpid():
        pid = parents.get(pid, 0)
    return pid != 0


def _is_deeper(pid: int, levels: int) -> bool:
    status = _status(pid)
    return bool(status) and not status["State"].startswith("Z") and len(status["NSpid"].split()) >= levels


def _status(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def cgroups_left() -> list[str]:
    """The cgroups that this process has made and that still hold a process.

    An emptied one is kept for a later slot and removed with the backend: `test_runtime` sees to that.
    """
    found, folders = [], ["/sys/fs/cgroup"]
    for at in folders:
        below = _folders_below(at)
        folders += below
        found += [path for path in below if os.path.basename(path).startswith(f"isorun-{os.getpid()}-")]
    return [group for group in found if _processes_of(group)]


def _folders_below(at: str) -> list[str]:
    """None where it has no more links than its name and its `.`: most have no group in them, but thirty files."""
    try:
        if os.stat(at).st_nlink == 2:
            return []
        with os.scandir(at) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # it has just gone
        return []


def _processes_of(group: str) -> str:
    try:
        return (Path(group) / "cgroup.procs").read_text()
    except OSError:  # it has just gone
        return ""


def idle(deadline: float) -> list[str]:
    """What is left of the runs so far: [] as soon as nothing is, else what there still is at *deadline*.

    Slots are taken down in the background, so the last one may need some milliseconds more.
    """
    while True:
        left = [*map(str, processes_inside())] or cgroups_left()
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.005)


def cpu_s_inside() -> float:
    """CPU seconds that the live processes in slots have had, by the kernel's count."""
    ticks = 0
    for pid in processes_inside():
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        ticks += sum(map(int, text.rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def ticks_inside() -> dict[int, int]:
    """The CPU time, in the kernel's ticks, of every process in slots of this session, the dead among them, by its pid.

    As long as it stays the same, nothing runs there: nothing forks, ends or computes.
    """
    own = len(_status(os.getpid()).get("NSpid", "").split())
    parents, found = dict[int, int](), dict[int, int]()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (status := _status(int(entry))):
            parents[int(entry)] = int(status["PPid"])
            with suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                if len(status["NSpid"].split()) >= own + 2:
                    found[int(entry)] = int(fields[11]) + int(fields[12])
    return {pid: ticks for pid, ticks in found.items() if _descends(pid, parents)}


def disk_bytes(result: RunResult) -> int:
    """What the run's folder on the host takes of its disk."""
    files = (path.lstat() for path in result.out_dir.parent.rglob("*"))
    return sum(file.st_blocks * 512 for file in files if stat.S_ISREG(file.st_mode))
