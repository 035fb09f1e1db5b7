"""Processes that would outlive their run: siblings made with CLONE_PARENT, of every make, and what cannot be killed.

Three layers end them, each alone: the filter refuses the flag, the zygote reaps every child it is given, and the kill
sees that the dead alone are left. Each attack is made with the other layers off.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from isorun import CleanupFailed, RunResult, SetupFailed, SyncRuntime
from isorun.backends.namespace import backend as namespace
from isorun.backends.namespace import ending
from isorun.backends.namespace.backend import NamespaceBackend, Options
from tests.escapes.attacking import idle, processes_inside, still_answers
from tests.escapes.conftest import SMALL
from tests.escapes.probing import RAW_CALLS, inside

LAYERS = [
    pytest.param(("reaping",), id="filter"),
    pytest.param(("seccomp",), id="zygote"),
    pytest.param(("seccomp", "reaping"), id="kill"),
]
#: Raw, so that no library stands between; `sibling` gives 0 in the child, else its pid or minus an errno.
_BEFORE = """
import os, signal, sys, threading, time
from raw_calls import *
PARENT = 0x8000
def sibling(flags=signal.SIGCHLD):
    return call("clone", PARENT | flags, 0, 0, 0, 0)
def sleep():
    while True:
        signal.pause()
"""
ATTACKS = {
    "one": "if sibling() == 0: os._exit(0)",
    "twenty, dead and alive": """
for n in range(20):
    if sibling() == 0:
        os._exit(n) if n % 2 else sleep()
""",
    "stopped": """
made = sibling()
if made == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(0)
if made > 0: os.kill(made, signal.SIGSTOP)
""",
    "every exit signal": """
for number in range(65):
    if sibling(number) == 0: os._exit(0)
""",
    "by a child, and by its child": """
for _ in range(2):
    if os.fork() == 0:
        if sibling() == 0: sleep()
        if sibling() == 0: os._exit(1)
        if os.fork() == 0: sibling(); sleep()
        os._exit(0)
""",
    "by a sibling": """
if sibling() == 0:
    sibling()
    sibling()
    sleep()
""",
    "by a thread, whose leader then ends": """
def make():
    sibling()
    if os.getpid() != own: sleep()
    time.sleep(0.2)
    os._exit(0)
own = os.getpid()
threading.Thread(target=make).start()
call("exit", 0)
""",
    "that leads a session of its own": """
if sibling() == 0:
    os.setsid()
    if os.fork() == 0: sleep()
    sleep()
""",
    "whose leader is dead and whose thread lives": """
if sibling() == 0:
    threading.Thread(target=sleep).start()
    call("exit", 0)
""",
    "held in vfork by a stopped child": """
made = sibling(0x4000 | signal.SIGCHLD) if os.fork() == 0 else None
if made == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(0.1)
""",
    "traced by the program": """
if sibling() == 0:
    call("ptrace", 0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    sleep()
time.sleep(0.1)
""",
    "traced by a sibling": """
reader, writer = os.pipe()
first = sibling()
if first == 0:
    pid = int.from_bytes(os.read(reader, 4), "little")
    call("ptrace", 16, pid, 0, 0)
    sleep()
if sibling() == 0:
    os.write(writer, os.getpid().to_bytes(4, "little"))
    sleep()
time.sleep(0.1)
""",
    "that runs another program": """
if sibling() == 0: os.execv(sys.executable, [sys.executable, "-c", "import signal; signal.pause()"])
time.sleep(0.1)
""",
}


def _attacked(runtime: SyncRuntime, code: str, **options: object) -> RunResult:
    result: RunResult = runtime.execute(_BEFORE + code, inputs=[RAW_CALLS], timeout_s=10, **options)
    return result


@pytest.mark.embedded
@pytest.mark.parametrize("off", LAYERS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_sibling_does_not_outlive_its_run(without, attack, off) -> None:
    """The run ends as one that forks does, and after the next run nothing of it is left. No control here: the
    next test has it."""
    runtime = without(*off)
    result = _attacked(runtime, ATTACKS[attack])
    assert result.status in ("ok", "failed"), result.report_text  # where the flag is refused, a plan may fail
    assert json.loads((result.out_dir / "result.json").read_text())["status"] == result.status
    still_answers(runtime)
    assert idle(time.monotonic() + 3.0) == []


@pytest.mark.embedded
def test_a_sibling_is_made_where_the_filter_is_off(sealed, without) -> None:
    """The control: the flag is EPERM inside; without the filter the child is the zygote's, whom nobody sees."""
    code = """
reader, writer = os.pipe()
made = call("clone", 0x8000 | 17, 0, 0, 0, 0)
if made == 0:
    os.write(writer, b"%d" % os.getppid())
    os._exit(0)
answer = said(made) if made < 0 else int(os.read(reader, 9))
"""
    assert inside(sealed, code) == "EPERM"
    assert inside(without("seccomp"), code) == 0  # a parent outside of the pid namespace has no number in it


@pytest.mark.parametrize("attack", ["one", "twenty, dead and alive", "by a child, and by its child"])
def test_a_sibling_ends_with_its_run_in_every_backend(sealed, attack) -> None:
    """With every wall up, in a container too: the run ends, and nothing is left."""
    result = _attacked(sealed, ATTACKS[attack])
    assert result.status in ("ok", "failed"), result.report_text
    still_answers(sealed)
    assert idle(time.monotonic() + 3.0) == []


def _clones() -> str:
    """A program that calls clone with each bit, and each pair with CLONE_VM's, in a child for each."""
    return """
for bit in range(64):
    for more in (0, 0x100, 0x4000):
        pid = os.fork()
        if pid == 0:
            flags = 1 << bit | more
            made = call("clone", flags - (1 << 64) if flags >> 63 else flags, 0, 0, 0, 0)
            os._exit(0)
        os.waitpid(pid, 0x40000000)
print("done")
"""


@pytest.mark.embedded
@pytest.mark.parametrize("off", [(), *LAYERS[1:]])
def test_no_flag_of_clone_keeps_a_run_from_ending(without, off) -> None:
    """Every bit that clone takes, alone, with shared memory and with vfork's wait: each run ends, whatever it did."""
    runtime = without(*off)
    result = _attacked(runtime, _clones())
    assert (result.out_dir / "result.json").exists()
    still_answers(runtime)
    assert idle(time.monotonic() + 3.0) == []


@pytest.mark.embedded
def test_a_jail_with_the_dead_in_it_is_not_used_again(without) -> None:
    """Where only the kill is left, the jail that holds zombies is left to its last run, and the next gets another."""
    runtime = without("seccomp", "reaping")
    still_answers(runtime)
    jail = runtime._original.backend._jail.jail
    _attacked(runtime, ATTACKS["one"])
    assert jail.remains
    still_answers(runtime)
    assert runtime._original.backend._jail.jail is not jail
    assert jail.process.poll() is not None or idle(time.monotonic() + 3.0) == []


def _status(pid: int, name: str) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(f"{name}:"))


def _program() -> int:
    """The program's process of the only slot: the second of its pid namespace."""
    return next(pid for pid in processes_inside() if _status(pid, "NSpid")[-1] == "2")


def _stored(runtime: SyncRuntime, exec_id: str) -> dict[str, object]:
    result = json.loads((runtime.root / f"codegen_{exec_id}" / "out" / "result.json").read_text())
    assert (result["status"], result["ok"], result["error"]["code"]) == ("lost", False, "sandbox_lost")
    assert result["stdout"] == "partial\n"
    assert "partial" in (runtime.root / f"codegen_{exec_id}" / "out" / "logs" / "user.log").read_text()
    return dict(result)


@pytest.mark.embedded
def test_a_zygote_that_answers_nobody_does_not_hold_its_run(without, monkeypatch) -> None:
    """Stopped, it reaps nothing and tells nothing: the run is lost with its output, and the next has another jail."""
    monkeypatch.setattr(namespace, "_TOLD_S", 1.0)
    runtime = without("hostname")  # a runtime of its own
    still_answers(runtime)
    run = _printed_and_waiting(runtime)
    os.kill(int(_status(_program(), "PPid")[0]), signal.SIGSTOP)
    with pytest.raises(SetupFailed, match="zygote: it did not say how the program ended"):
        run.cancel()
    _stored(runtime, run.exec_id)
    still_answers(runtime)
    assert idle(time.monotonic() + 3.0) == []


@contextmanager
def _frozen(pid: int) -> Iterator[str]:
    """*pid* in a control group that is frozen: gives `v1`, `v2`, or nothing where no such group can be made."""
    for version, base, file, on, off in _FREEZERS:
        group = Path(base) / f"test-frozen-{os.getpid()}"
        try:
            group.mkdir()
            (group / "cgroup.procs").write_text(str(pid))
            (group / file).write_text(on)
        except OSError:
            continue
        try:
            yield version
        finally:
            (group / file).write_text(off)
            assert _gone(group)
        return
    yield ""


_FREEZERS = (
    ("v1", "/sys/fs/cgroup/freezer", "freezer.state", "FROZEN", "THAWED"),
    ("v2", "/sys/fs/cgroup", "cgroup.freeze", "1", "0"),
)


def _gone(group: Path) -> bool:
    deadline = time.monotonic() + 5
    while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.005)
    group.rmdir()
    return not group.exists()


@pytest.mark.embedded
def test_a_process_that_cannot_be_killed_is_told_of(ceilings, tmp_path, monkeypatch) -> None:
    """Frozen by a group of v1 a process outlives SIGKILL: the run is lost with its output and its result is written,
    the next run gets another jail, and leaving does not fail once the process could die."""
    backend = NamespaceBackend(Options(use_cgroup=ceilings == "cgroup"))
    with SyncRuntime(backend=backend, limits=SMALL, pool_size=0, workspace_root=tmp_path) as runtime:
        run = _printed_and_waiting(runtime)
        program = _program()
        with _frozen(program) as version:
            if version == "v1":
                with monkeypatch.context() as hurry:
                    hurry.setattr(ending, "END_S", 1.0)
                    with pytest.raises(CleanupFailed, match=rf"outlive SIGKILL by 1 s: .*{program}"):
                        run.cancel()
                _stored(runtime, run.exec_id)
                still_answers(runtime)
            else:  # a frozen group of v2 lets SIGKILL through
                assert run.cancel().status == "cancelled"
    assert idle(time.monotonic() + 3.0) == []


def _printed_and_waiting(runtime: SyncRuntime) -> Any:  # noqa: ANN401 - the twin of `Run`
    run = runtime.start("import time; print('partial', flush=True); time.sleep(60)")
    events = run.events()
    while next(events).kind != "output":
        pass
    return run
