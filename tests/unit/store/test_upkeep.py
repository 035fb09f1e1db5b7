"""What of the stored runs a host looks after before its first run, and what after it."""

import asyncio
import os
from pathlib import Path

import pytest

import isorun
from isorun.core.outcome import Exit
from isorun.store.folder import Lease, RunFolder
from isorun.store.recovery import listing
from isorun.store.sessions import listing as sessions
from isorun.store.sessions import path_of, take
from isorun.store.upkeep import Room, Upkeep
from isorun.testing.fake import Script, ScriptedBackend

pytestmark = pytest.mark.uid

HUGE = 1 << 62


def stored(root: Path, exec_id: str, *, ended: bool) -> None:
    """A run of a host that has gone; one that ended did so in 1970."""
    with Lease.take(root) as lease:
        folder = RunFolder.create(root, exec_id, lease, {})
        if ended:
            folder.write_result(b"{}")
            os.utime(folder.out / "result.json", (1000, 1000))


def forget(root: Path) -> None:
    """Remove the leases."""
    for lease in root.glob(".isorun-*/*.lease"):
        lease.unlink()


def ids(root: Path) -> dict[str, str]:
    return {run.exec_id: run.status for run in listing(root)}


def runtime(root: Path, *scripts: Script, **settings: float) -> isorun.Runtime:
    backend = ScriptedBackend(*scripts)
    return isorun.Runtime(backend=backend, settings=isorun.Settings(**settings), workspace_root=root, pool_size=0)


async def looked_after() -> None:
    """Wait for what is done after the first run."""
    for task in asyncio.all_tasks():
        if task.get_name() == "isorun-upkeep":
            await task


async def test_the_first_run_does_not_wait_for_the_removal_of_old_ones(tmp_path: Path) -> None:
    """An old run is there when the Runtime is open, and is gone once the Runtime has run and closed."""
    stored(tmp_path, "old", ended=True)
    async with runtime(tmp_path, Script(exit=Exit(code=0))) as rt:
        assert "old" in ids(tmp_path)
        assert (await rt.execute("pass", exec_id="new")).ok
    assert ids(tmp_path) == {"new": "ok"}


async def test_a_host_removes_none_of_its_own_runs(tmp_path: Path) -> None:
    """However short the retention is: its caller is to read them."""
    async with runtime(tmp_path, Script(exit=Exit(code=0)), retention_hours=1e-9) as rt:
        await rt.execute("pass", exec_id="new")
    assert ids(tmp_path) == {"new": "ok"}


async def test_a_runtime_without_runs_removes_old_ones_too(tmp_path: Path) -> None:
    """Also one that is closed at once."""
    stored(tmp_path, "old", ended=True)
    async with runtime(tmp_path):
        pass
    assert ids(tmp_path) == {}


async def test_a_lost_run_is_ended_before_a_runtime_is_open(tmp_path: Path) -> None:
    """Its host's lease tells; nobody who uses the Runtime meets a run that is neither running nor ended."""
    stored(tmp_path, "lost", ended=False)
    async with runtime(tmp_path):
        assert (tmp_path / "codegen_lost/out/result.json").exists()


async def test_after_a_host_that_died_old_runs_wait_for_the_first_run_too(tmp_path: Path) -> None:
    """What it left running is ended before a Runtime is open; ten thousand runs that have ended are looked at later."""
    stored(tmp_path, "lost", ended=False)
    stored(tmp_path, "old", ended=True)
    async with runtime(tmp_path, Script(exit=Exit(code=0))) as rt:
        assert ids(tmp_path)["lost"] == "lost"
        assert "old" in ids(tmp_path)
        await rt.execute("pass")
        await looked_after()
        assert "old" not in ids(tmp_path)


async def test_a_lost_run_without_a_lease_is_ended_after_the_first_run(tmp_path: Path) -> None:
    """A folder that somebody brought here, or whose lease is gone: an open Runtime finds it."""
    stored(tmp_path, "brought", ended=False)
    forget(tmp_path)
    async with runtime(tmp_path, Script(exit=Exit(code=0))) as rt:
        await rt.execute("pass")
        await looked_after()
        assert (tmp_path / "codegen_brought/out/result.json").exists()


@pytest.mark.parametrize("room", [Room(bytes=HUGE, files=0), Room(bytes=0, files=HUGE)], ids=["bytes", "files"])
async def test_on_a_disk_without_room_old_runs_go_first(room: Room, tmp_path: Path) -> None:
    """The first run has what they took."""
    stored(tmp_path, "old", ended=True)
    async with Upkeep(tmp_path, older_than_s=1, sessions_older_than_s=1, room=room):
        assert ids(tmp_path) == {}


async def test_sessions_that_nobody_uses_go_after_the_first_run(tmp_path: Path) -> None:
    """By a time of their own: files that a user comes back for are kept for longer than runs."""
    async with runtime(tmp_path, Script(exit=Exit(code=0)), session_retention_hours=1) as rt:
        for name in ("old", "new"):
            held = take(rt.root, name)
            assert held is not None
            (held.path / "a.txt").write_text("1")
            held.release()
        os.utime(path_of(rt.root, "old").parent, (1000, 1000))
        assert [one.name for one in sessions(rt.root)] == ["new", "old"]
        await rt.execute("pass")
        await looked_after()
        assert [one.name for one in sessions(rt.root)] == ["new"]


async def test_with_room_nothing_is_removed_before_the_host_is_open(tmp_path: Path) -> None:
    """Nor if the host cannot be opened after all."""
    stored(tmp_path, "old", ended=True)
    async with Upkeep(tmp_path, older_than_s=1, sessions_older_than_s=1, room=Room(bytes=0, files=0)):
        pass
    assert list(ids(tmp_path)) == ["old"]


@pytest.mark.parametrize(
    ("error", "has_place"),
    [(OSError("full"), False), (isorun.SetupFailed("store", "full"), False), (KeyError("x"), True)],
)
async def test_what_ends_the_looking_after_is_told(tmp_path, monkeypatch, caplog, error: Exception, has_place) -> None:
    """In a line, and with its place in the code if it is a fault of ours; the runs go on."""

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("isorun.store.upkeep.sweep", fails)
    async with runtime(tmp_path, Script(exit=Exit(code=0))) as rt:
        assert (await rt.execute("pass")).ok
    assert "are not looked after" in caplog.text
    assert ("Traceback" in caplog.text) is has_place
