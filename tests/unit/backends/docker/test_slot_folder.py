"""The folder of a container's slot on the host, whom it is given to, and what becomes of it."""

import os
from pathlib import Path

import pytest

from isorun.backends.docker import lease as container_lease
from isorun.backends.docker.folder import given, remove
from isorun.backends.executor_ids import Identity
from isorun.core.errors import CleanupFailed, Unavailable
from sandbox_runner.errors import DockerUnavailable

pytestmark = pytest.mark.uid

OURS = Identity(uid=os.geteuid(), gid=os.getegid(), root=False)


def test_what_is_made_is_the_groups_and_nobody_elses(tmp_path: Path) -> None:
    """What is made in it is the group's too; behind the block nothing is left, however deep."""
    parent = os.open(tmp_path, os.O_RDONLY)
    folder = given("out", parent, OURS)
    assert (tmp_path / "out").stat().st_mode & 0o7777 == 0o2770
    for _ in range(1200):
        os.mkdir("x", dir_fd=folder)
        below = os.open("x", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    os.close(parent)
    remove(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_group_that_is_not_ours_is_refused(monkeypatch) -> None:
    """The executor could not write its output; the error names a group that would do."""
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(Unavailable, match="the executor runs with group 65000 and you are not a member"):
        Identity.of_container(1001, 65000)


class NoEngine:
    """A CLI whose daemon has no containers, or is away."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_away = False

    def run(self, *arguments: str) -> object:
        """Note which lease it was asked for, and answer with nothing."""
        if self.is_away:
            raise DockerUnavailable("the Docker engine does not answer")
        self.asked.append(arguments[-1].rpartition("=")[2])
        return type("Answer", (), {"code": 0, "stdout": b"", "said": ""})


def test_a_lease_that_somebody_holds_is_left_alone(tmp_path: Path) -> None:
    """Once nobody does, its containers are asked for by its name, and its folder goes."""
    engine = NoEngine()
    with container_lease.take(tmp_path, engine) as lease:
        assert container_lease.recover(tmp_path, engine) == []
        assert lease.is_dir()
    assert not lease.exists()
    dead = lease.with_name("host_dead")
    (dead / "slot_1/work").mkdir(parents=True)
    assert container_lease.recover(tmp_path, engine) == ["host_dead"]
    assert not dead.exists()
    assert engine.asked == [lease.name] * 2 + ["host_dead"] * 2  # for containers, then for volumes


def test_a_lease_whose_containers_stay_is_found_again(tmp_path: Path) -> None:
    """Its daemon is away when it ends; whoever comes once that is back removes them."""
    engine = NoEngine()
    stay = r"containers or volumes of host_\w+ stay until isorun is started here again"
    said = f"^{stay}: the Docker engine does not answer$"
    with pytest.raises(CleanupFailed, match=said), container_lease.take(tmp_path, engine) as lease:
        engine.is_away = True
    engine.is_away = False
    assert container_lease.recover(tmp_path, engine) == [lease.name]
    assert (engine.asked, lease.exists()) == ([lease.name] * 2, False)
