"""SPEC D, the sync: only out/ comes back, overwriting, atomically, without logs; one run of a user at a time.

A process that syncs is killed for real, again and again, at points of chance. The seed of
each series is fixed, so that a failure can be repeated.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isorun import InvalidRequest, SetupFailed
from isorun.runtime.aside import in_thread
from isorun.tools.workspace import STATE, Workspaces
from tests.conformance.sync_child import FILES, generation_of, write

KILLS = 100


@pytest.fixture
def spaces(tmp_path: Path) -> Workspaces:
    return Workspaces(tmp_path / "workspace", tmp_path / "sandbox")


@contextmanager
def killer(how: str, root: Path) -> Iterator[Callable[[int, float], None]]:
    """`kill(first, after_s)`: let a child sync from generation *first* on, and kill it after so long."""
    script = Path(__file__).with_name("sync_child.py")
    with subprocess.Popen(
        [sys.executable, str(script), how, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def kill(first: int, after_s: float) -> None:
            process.stdin.write(f"{first}\n")
            process.stdin.flush()
            pid = int(process.stdout.readline())
            time.sleep(after_s)  # the point of chance, not a wait for anything
            os.kill(pid, signal.SIGKILL)
            assert process.stdout.readline() == "dead\n"

        yield kill
        process.stdin.close()


@pytest.mark.any_user
@pytest.mark.timeout(300)  # on a disk that others use, each of some thousand fsync takes its time
def test_a_killed_sync_leaves_the_old_or_the_new_state(tmp_path, spaces) -> None:
    """100 kills at random points: out/ is always one generation, whole, and the next start removes the rest."""
    chance = random.Random(7)
    out, state = spaces.workspace_root / "alice" / "out", spaces.workspace_root / STATE / "alice"
    longest_s = 3 * asyncio.run(one_sync_s(spaces))  # a kill can fall anywhere in the first, or behind it
    seen, mid_way = [0], 0
    with killer("sync", tmp_path) as kill:
        for _ in range(KILLS):
            kill(seen[-1] + 1, chance.uniform(0, longest_s))
            mid_way += os.listdir(state) != ["lock"]
            generation = generation_of(out)
            assert generation is not None, sorted(path.name for path in out.rglob("*"))
            assert generation >= seen[-1]
            seen.append(generation)
            asyncio.run(opened_and_left(spaces))
            assert os.listdir(state) == ["lock"]
            assert generation_of(out) == generation
    assert mid_way > 5  # else the kills missed what they were meant for
    assert len(set(seen)) > 5


async def one_sync_s(spaces: Workspaces) -> float:
    """How long a child's turn takes here and now; generation 0 is there afterwards."""
    began = time.monotonic()
    async with spaces.open("alice") as space:
        write(space.out, 0)
        await space.sync()
    return time.monotonic() - began


async def opened_and_left(spaces: Workspaces) -> None:
    await opened_and_left_by("alice", spaces)


async def opened_and_left_by(user: str, spaces: Workspaces) -> None:
    async with spaces.open(user):
        pass


@pytest.mark.any_user
def test_control_a_naive_copy_is_caught_half_way(tmp_path) -> None:
    """The same kills, against a copy without the exchange, find a folder that is neither old nor new."""
    chance = random.Random(7)
    out = tmp_path / "workspace" / "alice" / "out"
    with killer("naive", tmp_path) as kill:
        states = []
        for number in range(KILLS):
            kill(number * 1000, chance.uniform(0, 0.1))
            states.append(generation_of(out) if out.exists() else None)
            if states.count(None) > 1:
                return
    pytest.fail(f"never caught half-way in {KILLS} kills: {states}")


async def test_only_the_files_of_program_and_tools_come_back(spaces) -> None:
    """Logs, result.json, executed programs and the records that are named stay in the sandbox."""
    async with spaces.open("alice") as space:
        for name in (
            "turn_1/files/report.md",
            "turn_1/logs/own.log",
            "notes/n.txt",
            "logs/user.log",
            "result.json",
            "tool_calls_index.json",
            "local_tools.write_note-1-1.json",
            "runtime.out.log",
            "runtime.err.log",
            "executed_programs/x/user_code.py",
        ):
            (space.out / name).parent.mkdir(parents=True, exist_ok=True)
            (space.out / name).write_text(name)
        synced = await space.sync(without=["local_tools.write_note-1-1.json"])
        assert files_below(space.workspace) == [
            "out/notes/n.txt",
            "out/turn_1/files/report.md",
            "out/turn_1/logs/own.log",
        ]
        assert (synced.files, synced.bytes, synced.refused) == (3, 52, ())
        assert (space.out / "logs/user.log").exists()


async def test_a_sync_replaces_the_whole_of_out(spaces) -> None:
    """A file that the run deleted is gone from the workspace, one that it changed is changed, work/ is not touched."""
    async with spaces.open("alice") as space:
        (space.out / "old.txt").write_text("old")
        (space.out / "changed.txt").write_text("before")
        await space.sync()
    (spaces.workspace_root / "alice/work/data.csv").write_text("1,2")
    async with spaces.open("alice") as space:
        assert files_below(space.sandbox) == ["out/changed.txt", "out/old.txt", "work/data.csv"]
        (space.out / "old.txt").unlink()
        (space.out / "changed.txt").write_text("after")
        (space.work / "main.py").write_text("the loader")
        await space.sync()
        assert files_below(space.workspace) == ["out/changed.txt", "work/data.csv"]
        assert (space.workspace / "out/changed.txt").read_text() == "after"


async def test_the_sandbox_is_made_anew_and_its_logs_stay_until_then(spaces) -> None:
    """What a run left in the sandbox is there afterwards, and gone when that user's next run begins."""
    async with spaces.open("alice") as space:
        (space.out / "logs").mkdir()
        (space.out / "logs/user.log").write_text("log")
        await space.sync()
    async with spaces.open("bob"):
        assert files_below(spaces.sandbox_root / "alice") == ["out/logs/user.log"]
    async with spaces.open("alice") as space:
        assert files_below(space.sandbox) == []


async def test_many_files_are_synced_too(spaces) -> None:
    """More files than are flushed one by one, in folders of their own."""
    async with spaces.open("alice") as space:
        for number in range(300):
            (space.out / str(number)).mkdir()
            (space.out / str(number) / "x").write_text(str(number))
        assert (await space.sync()).files == 300
        assert len(files_below(space.workspace)) == 300


async def test_without_a_sync_the_workspace_stays_as_it_was(spaces) -> None:
    """A run that is not synced leaves nothing in the workspace."""
    async with spaces.open("alice") as space:
        (space.out / "junk").write_bytes(bytes(1000))
    assert files_below(spaces.workspace_root / "alice") == []


async def test_two_runs_of_a_user_wait_for_each_other(spaces) -> None:
    """A second opening begins when the first has ended; another user's does not wait."""
    order: list[str] = []

    async def use(name: str, user: str) -> None:
        async with spaces.open(user):
            order.append(f"{name} in")
            await asyncio.sleep(0)  # let the others try
            order.append(f"{name} out")

    async with spaces.open("alice"):
        second = asyncio.create_task(use("second", "alice"))
        await use("other", "bob")
        assert order == ["other in", "other out"]
    await second
    assert order[2:] == ["second in", "second out"]
    order.clear()
    await asyncio.gather(*(use(str(n), "alice") for n in range(5)))
    assert [one.split()[0] for one in order[::2]] == [one.split()[0] for one in order[1::2]]


async def test_another_process_waits_too(spaces, tmp_path) -> None:
    """The lock is the kernel's: a process that shares one of the two roots is kept out as well."""
    code = """
import asyncio, sys
from pathlib import Path
from isorun.tools.workspace import Workspaces
async def main():
    async with asyncio.timeout(float(sys.argv[3])), Workspaces(Path(sys.argv[1]), Path(sys.argv[2])).open("alice"):
        print("in")
asyncio.run(main())
"""
    for roots in (("workspace", "sandbox"), ("elsewhere", "sandbox"), ("workspace", "elsewhere")):
        arguments = [sys.executable, "-c", code, *(str(tmp_path / root) for root in roots)]
        async with spaces.open("alice"):
            done = await asyncio.to_thread(subprocess.run, [*arguments, "0.3"], capture_output=True, text=True)
            assert (done.stdout, done.stderr.splitlines()[-1]) == ("", "TimeoutError")
        free = await asyncio.to_thread(subprocess.run, [*arguments, "30"], capture_output=True, text=True)
        assert (free.stdout, free.stderr) == ("in\n", "")


async def test_a_cancelled_wait_and_a_cancelled_run_free_the_lock(spaces) -> None:
    """Neither who gave up waiting nor who was cancelled inside keeps anybody out."""
    async with spaces.open("alice"):
        waiting = asyncio.create_task(opened_and_left(spaces))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
    async with asyncio.timeout(5):
        await opened_and_left(spaces)


async def test_a_cancellation_waits_for_the_copy_under_way() -> None:
    """However often it is cancelled: the thread that copies ends first, and only then is the lock freed."""
    begun, may_end, order = threading.Event(), threading.Event(), []

    def copy() -> None:
        begun.set()
        may_end.wait()
        order.append("copied")

    async def run() -> None:
        try:
            await in_thread(copy)
        finally:
            order.append("freed")

    task = asyncio.create_task(run())
    await asyncio.to_thread(begun.wait)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
    may_end.set()
    await asyncio.wait({task})
    assert (task.cancelled(), order) == (True, ["copied", "freed"])


async def test_a_cleared_user_has_nothing_and_others_keep_theirs(spaces) -> None:
    """Workspace and sandbox are gone, the next run begins empty; a clearing waits for a run under way."""
    for user in ("alice", "bob"):
        async with spaces.open(user) as space:
            (space.out / "x").write_text(user)
            await space.sync()
    async with spaces.open("alice") as space:
        clearing = asyncio.create_task(spaces.clear("alice"))
        await opened_and_left_by("bob", spaces)
        assert not clearing.done()
        assert files_below(space.workspace) == ["out/x"]
    await clearing
    assert not (spaces.workspace_root / "alice").exists()
    assert not (spaces.sandbox_root / "alice").exists()
    assert files_below(spaces.workspace_root / "bob") == ["out/x"]
    async with spaces.open("alice") as space:
        assert files_below(space.sandbox) == []


async def test_nested_roots_are_refused(tmp_path) -> None:
    """A sandbox is emptied before each run, so it may not hold a workspace, nor lie in one."""
    for one, other in (("a", "a"), ("a/b", "a"), ("a", "a/b")):
        with pytest.raises(InvalidRequest, match="lie in each other; set ISO_RUNTIME_USER_WORKSPACE_ROOT") as caught:
            async with Workspaces(tmp_path / one, tmp_path / other).open("alice"):
                pass
        assert caught.value.code == "invalid_root"


async def test_a_file_system_without_the_exchange_is_found_out_before_a_run(spaces, monkeypatch) -> None:
    """The error says what this file system cannot do, and names the setting; the sandbox is not touched."""

    def refuse(*_: object, **__: object) -> int:
        import ctypes
        import errno

        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr("isorun.store.exchange._renameat2", refuse)
    with pytest.raises(SetupFailed) as caught:
        await opened_and_left(spaces)
    assert str(caught.value) == (
        f"prepare: {spaces.workspace_root}/alice: this file system cannot exchange two folders in one step; "
        "correct that, or set ISO_RUNTIME_USER_WORKSPACE_ROOT and ISO_RUNTIME_SANDBOX_ROOT"
    )
    assert not (spaces.sandbox_root / "alice").exists()


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_the_generation_of_a_mixture_is_none(tmp_path) -> None:
    """The test's own eye: one missing, one short or one other file is seen."""
    write(tmp_path, 3)
    assert generation_of(tmp_path) == 3
    (tmp_path / FILES[0]).write_bytes(f"{4:012d}".encode().ljust(4000, b"."))
    assert generation_of(tmp_path) is None
    write(tmp_path, 3)
    (tmp_path / FILES[-1]).unlink()
    assert generation_of(tmp_path) is None
