"""The folder of a container's slot where it cannot be mounted: given to a group, watched, and removed."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from isorun.backends import container_lease
from isorun.backends.slot_folder import Ids, WorkspaceWatch, slot_folder
from isorun.backends.slot_folder import _held as held
from isorun.core.errors import CleanupFailed, Unavailable
from isorun.core.limits import Limits
from sandbox_runner.errors import DockerUnavailable

SMALL = replace(Limits(), workspace_bytes=1 << 20, workspace_inodes=50)
OURS = Ids(uid=os.geteuid(), gid=os.getegid(), root=False)


def test_work_and_out_belong_to_the_group_and_nobody_else_enters(tmp_path: Path) -> None:
    """What is made in them is the group's too; behind the block nothing is left, however deep."""
    with slot_folder(tmp_path, SMALL, OURS, may_mount=False) as made:
        modes = [(made.path / name).stat().st_mode & 0o7777 for name in ("work", "out")]
        assert (modes, made.path.stat().st_mode & 0o007, made.is_sized) == ([0o2770, 0o2770], 0, False)
        folder = os.dup(made.out)
        for _ in range(1200):
            os.mkdir("x", dir_fd=folder)
            below = os.open("x", os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = below
        os.close(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_group_that_is_not_ours_is_refused(monkeypatch) -> None:
    """The executor could not write its output; the error names a group that would do."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(Unavailable, match="the executor's group 65000 is none of yours"):
        Ids.of_this_process(1001, 65000)


@pytest.mark.parametrize("what", ["bytes", "inodes"])
async def test_a_workspace_that_is_too_full_is_told_once(tmp_path: Path, what: str) -> None:
    """Which of the two it was is known; below the ceilings nothing is said."""
    with slot_folder(tmp_path, SMALL, OURS, may_mount=False) as made:
        over = asyncio.Event()
        watch = WorkspaceWatch(made, SMALL, over.set)
        watching = asyncio.create_task(watch.run())
        (made.path / "out/small").write_bytes(bytes(1 << 18))
        await asyncio.sleep(0.2)
        assert not over.is_set()
        if what == "bytes":
            (made.path / "work/large").write_bytes(bytes(2 << 20))
        else:
            for number in range(60):
                (made.path / f"out/{number}").touch()
        await asyncio.wait_for(watching, 10)
        assert (over.is_set(), watch.full_bytes, watch.full_inodes) == (True, what == "bytes", what == "inodes")


async def test_a_tree_too_deep_to_be_looked_at_is_too_full(tmp_path: Path) -> None:
    """What is below a path's length could be anything; control: a tree that can be seen."""
    with slot_folder(tmp_path, SMALL, OURS, may_mount=False) as made:
        watch = WorkspaceWatch(made, SMALL, lambda: None)
        place = os.dup(made.out)
        for depth in range(17):
            os.mkdir("d" * 250, dir_fd=place)
            above, place = place, os.open("d" * 250, os.O_RDONLY, dir_fd=place)
            os.close(above)
            if depth == 10:
                assert await watch.look() is False
        os.close(place)
        assert (await watch.look(), watch.full_bytes, watch.full_inodes) == (True, False, True)


def test_what_changes_while_it_is_looked_at_hides_nothing_else(tmp_path: Path, monkeypatch) -> None:
    """A program puts a file in the place of a folder; the rest is counted, and the watch goes on."""
    with slot_folder(tmp_path, SMALL, OURS, may_mount=False) as made:
        (made.path / "out/folder").mkdir()
        (made.path / "work/file").write_bytes(bytes(4096))
        scan = os.scandir

        def late(folder: str) -> object:
            if folder.endswith("/folder"):
                raise NotADirectoryError
            return scan(folder)

        with monkeypatch.context() as changed:
            changed.setattr(os, "scandir", late)
            assert held((made.work, made.out)) == (4096, 2)


class NoEngine:
    """A CLI whose daemon has no containers, or is away."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_away = False

    def run(self, *arguments: str) -> object:
        """Note which lease it was asked for, and answer with nothing."""
        if self.is_away:
            raise DockerUnavailable("no Docker daemon answers")
        self.asked.append(arguments[-1].rpartition("=")[2])
        return type("Answer", (), {"code": 0, "stdout": b"", "said": ""})


def test_a_lease_that_somebody_holds_is_left_alone(tmp_path: Path) -> None:
    """Once nobody does, its containers are asked for by its name, and its folder goes."""
    engine = NoEngine()
    with container_lease.take(tmp_path, engine) as lease:  # type: ignore[arg-type]
        assert container_lease.recover(tmp_path, engine) == []  # type: ignore[arg-type]
        assert lease.is_dir()
    assert not lease.exists()
    dead = lease.with_name("host_dead")
    (dead / "slot_1/work").mkdir(parents=True)
    assert container_lease.recover(tmp_path, engine) == ["host_dead"]  # type: ignore[arg-type]
    assert not dead.exists()
    assert engine.asked == [lease.name, "host_dead"]


def test_a_lease_whose_containers_stay_is_found_again(tmp_path: Path) -> None:
    """Its daemon is away when it ends; whoever comes once that is back removes them."""
    engine = NoEngine()
    said = r"^containers of host_\w+ stay until isorun is started here again: no Docker daemon answers$"
    with pytest.raises(CleanupFailed, match=said), container_lease.take(tmp_path, engine) as lease:  # type: ignore[arg-type]
        engine.is_away = True
    engine.is_away = False
    assert container_lease.recover(tmp_path, engine) == [lease.name]  # type: ignore[arg-type]
    assert (engine.asked, lease.exists()) == ([lease.name], False)
