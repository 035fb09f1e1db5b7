"""Attacks from inside a run, and how to see from outside that nothing came of them."""

import os
import time
from pathlib import Path
from typing import NamedTuple

from isorun import RunResult, SyncRuntime

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


class Attack(NamedTuple):
    """How an attack ended, and how its neighbour did: a run that worked beside it the whole time."""

    result: RunResult
    neighbour: RunResult


def attack(runtime: SyncRuntime, code: str, **options: object) -> Attack:
    """Run *code* while a neighbour forks, allocates, writes and prints; it must do so until we end it."""
    neighbour = runtime.start(_BEAT)
    events = neighbour.events()
    while next(events).kind != "output":
        pass
    try:
        result = runtime.execute(code, **options)
        while next(events).kind != "output":  # one more beat, after the attack
            pass
    finally:
        beside = neighbour.cancel()
    return Attack(result, beside)


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
    parents: dict[int, int] = {}
    deep: list[int] = []
    own = len(_status(os.getpid()).get("NSpid", "").split())
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (status := _status(int(entry))):
            parents[int(entry)] = int(status["PPid"])
            if not status["State"].startswith("Z") and len(status["NSpid"].split()) >= own + 2:
                deep.append(int(entry))
    return [pid for pid in deep if _descends(pid, parents)]


def _descends(pid: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        if pid == os.getpid():
            return True
        pid = parents[pid]
    return False


def _status(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def cgroups_left() -> list[str]:
    """The cgroup directories of runs that this process has made and not removed."""
    found = []
    for at, names, _ in os.walk("/sys/fs/cgroup"):
        found += [f"{at}/{name}" for name in names if name.startswith(f"isorun-{os.getpid()}-")]
    return found


def idle(deadline: float) -> list[str]:
    """What is left of the runs so far: [] as soon as nothing is, else what there still is at *deadline*.

    Slots are taken down in the background, so the last one may need some milliseconds more.
    """
    while True:
        left = [*map(str, processes_inside()), *cgroups_left()]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.005)
