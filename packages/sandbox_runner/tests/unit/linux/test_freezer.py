"""Freezing a group: what is written and waited for, on files of a folder; and by this machine's kernel."""

import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from sandbox_runner.linux.cgroup import FREEZER, Ceilings, Group
from sandbox_runner.linux.cgroup_parent import Host, Parent, find_parent

pytestmark = pytest.mark.uid  # the group is root's, or one that root gave


def on_v2(folder: Path, *, frozen: str) -> Group:
    (folder / "cgroup.events").write_text(f"populated 1\nfrozen {frozen}\n")
    (folder / "cgroup.freeze").write_text("0\n")
    return Group({"memory": str(folder), "pids": str(folder), "cpu": str(folder)}, version=2)


def on_v1(folder: Path, *, state: str) -> Group:
    (folder / "freezer.state").write_text(state)
    return Group({"memory": "/nowhere", "freezer": str(folder)})


def test_v2_is_frozen_once_its_events_say_so(tmp_path: Path) -> None:
    """cgroup.freeze is 1 from then on, and 0 once it is thawed."""
    group = on_v2(tmp_path, frozen="0")
    events = tmp_path / "cgroup.events"
    later = threading.Timer(0.05, lambda: events.write_text("populated 1\nfrozen 1\n"))
    later.start()
    group.freeze(30)
    assert "frozen 1" in events.read_text()
    assert (tmp_path / "cgroup.freeze").read_text().startswith("1")
    group.thaw()
    assert (tmp_path / "cgroup.freeze").read_text().startswith("0")
    later.join()


def test_v1_is_frozen_once_its_state_says_so(tmp_path: Path) -> None:
    """It is FREEZING for as long as one process runs; a file of a folder keeps what is written, and so is FROZEN."""
    group = on_v1(tmp_path, state="THAWED\n")
    group.freeze()
    assert (tmp_path / "freezer.state").read_text().startswith("FROZEN")
    group.thaw()
    assert (tmp_path / "freezer.state").read_text().startswith("THAWED")


def test_a_process_that_does_not_stand_still_is_an_error_and_all_run_on(tmp_path: Path) -> None:
    """The error names the file, and the group is thawed."""
    with pytest.raises(TimeoutError, match="a process does not stand still") as raised:
        on_v2(tmp_path, frozen="0").freeze(0.05)
    assert (raised.value.errno, raised.value.filename) == (errno.ETIMEDOUT, f"{tmp_path}/cgroup.freeze")
    assert (tmp_path / "cgroup.freeze").read_text().startswith("0")


@pytest.mark.parametrize(
    ("directories", "version", "can"), [({}, 2, True), ({}, 1, False), ({"freezer": "/f"}, 1, True)]
)
def test_a_group_can_be_frozen_on_v2_and_where_v1_has_a_freezer(
    directories: dict[str, str], version: int, can: bool
) -> None:
    """What has no ceiling is no part of the others."""
    assert Group({"memory": "/m", **directories}, version).can_freeze is can


def test_a_killed_group_is_thawed(tmp_path: Path) -> None:
    """On v1 nothing of it would die; here with a process that a file lists, and that is ours."""
    with subprocess.Popen(["sleep", "60"]) as process:
        (tmp_path / "cgroup.procs").write_text("")
        group = on_v1(tmp_path, state="FROZEN\n")
        listed = iter([{process.pid}] * 4)
        group.members = lambda: next(listed, set())  # type: ignore[method-assign] - a folder's list does not shrink
        group.kill()
        assert process.wait(30) == -9
    assert (tmp_path / "freezer.state").read_text().startswith("THAWED")


@pytest.fixture
def freezer(require: Callable[[str, str], NoReturn]) -> Iterator[Group]:
    """A new group of this machine's that can be frozen."""
    variable = "SANDBOX_RUNNER_CGROUP_PARENT"
    host = Host.of_this_process(variable=variable, leaf="sandbox_runner.test", configured=os.environ.get(variable))
    found = find_parent(("pids",), host, optional=(FREEZER,))
    if not isinstance(found, Parent):
        require("control_group", "; ".join(lack.reason for lack in found))
    if found.enable or not Group.at(found, "x").can_freeze:
        require("control_group", f"no group that can be frozen can be made below {found.paths[0]} as it is")
    with Group.at(found, f"sandbox_runner-test-{os.getpid()}") as group:
        group.make(Ceilings())
        yield group


def test_this_kernels_freezer_stops_and_thaws_a_process(freezer: Group) -> None:
    """It uses no time while it is frozen, SIGCONT or not, and goes on behind it."""
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as process:
        try:
            freezer.attach(process.pid)
            freezer.freeze()
            before = ticks(process.pid)
            subprocess.run(["kill", "-CONT", str(process.pid)], check=True)
            time.sleep(0.5)
            assert ticks(process.pid) == before
            freezer.thaw()
            until = time.monotonic() + 20
            while ticks(process.pid) == before and time.monotonic() < until:
                time.sleep(0.01)
            assert ticks(process.pid) > before
            freezer.freeze()
            freezer.kill()
        finally:
            process.kill()
        assert process.wait(30) == -9


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
