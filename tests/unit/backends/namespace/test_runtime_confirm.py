"""`walls.confirm`: no wall that is missing from a read-back goes unnamed. One row per demand."""

import copy
import socket
from typing import Any

import pytest

import isorun
from isorun.backends.namespace import walls
from isorun.core.errors import SetupFailed
from isorun.kernel import namespaces
from tests.unit.records import NETWORK, SOCKETS

LIMITS = isorun.Limits()
HOST = {kind: number for number, kind in enumerate(namespaces.KINDS, 1)}
MOUNTINFO = """\
1 0 0:1 / / ro - tmpfs tmpfs ro
2 1 0:2 / /proc rw - proc proc rw,hidepid=invisible,subset=pid
3 1 0:3 / /workspace ro - tmpfs tmpfs rw
4 3 0:3 /work /workspace/work rw - tmpfs tmpfs rw
5 3 0:3 /out /workspace/out rw - tmpfs tmpfs rw
6 1 0:4 / /tmp rw - tmpfs tmpfs rw
7 1 0:5 / /dev/shm rw - tmpfs tmpfs rw
8 1 0:6 /null /dev/null rw - devtmpfs dev rw
"""
GOOD: dict[str, Any] = {
    "status": "Uid:\t1001\t1001\t1001\t1001\nGid:\t1000\t1000\t1000\t1000\n"
    "CapInh:\t0\nCapPrm:\t0\nCapEff:\t0\n"
    "CapBnd:\t0\nCapAmb:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n",
    "init": "Name:\tpython3\nCapInh:\t0\nCapPrm:\t0\nCapEff:\t0\nCapAmb:\t0\nNoNewPrivs:\t1\nSeccomp_filters:\t0\n",
    "mountinfo": MOUNTINFO,
    "namespaces": {kind: 100 + number for kind, number in HOST.items()},
    "sizes": {
        "/workspace/work": [LIMITS.workspace_bytes, LIMITS.workspace_inodes + 3],
        "/tmp": [LIMITS.tmp_bytes, 64],
        "/dev/shm": [LIMITS.shm_bytes, 64],
    },
    "rlimits": {
        "RLIMIT_NPROC": [LIMITS.processes] * 2,
        "RLIMIT_DATA": [LIMITS.memory_bytes] * 2,
        "RLIMIT_FSIZE": [LIMITS.file_bytes] * 2,
        "RLIMIT_NOFILE": [LIMITS.open_files] * 2,
        "RLIMIT_CORE": [1, 1],
        "RLIMIT_MEMLOCK": [65536] * 2,
    },
    "network": NETWORK[False],
    "sockets": SOCKETS[False],
    "core_pattern": "|/usr/lib/systemd/systemd-coredump %P\n",
    "fds": list(walls._DESCRIPTORS),
    "hostname": "isorun",
    "landlock_abi": 7,
    "cpus": [0],
}
CGROUP = {"memory_bytes": LIMITS.memory_bytes, "processes": LIMITS.processes, "cpus": 1.0}


def confirm(
    seen: dict[str, Any], cgroup: dict[str, Any] | None = None, without: frozenset[str] = frozenset()
) -> dict[str, Any]:
    held = "cgroup-v2" if cgroup else "rlimits+watcher"
    return walls.confirm(seen, limits=LIMITS, host_namespaces=HOST, held_by=held, cgroup_limits=cgroup, without=without)


def status(field: str, value: str) -> tuple[str, str, str]:
    return ("status", field, value)


TAMPERED = [
    (status("Uid", "0\t1001\t1001\t1001"), "uid"),
    (status("Uid", "1001\t1001\t0\t1001"), "uid"),
    (status("Gid", "0\t0\t0\t0"), "gid"),
    *((status(name, "200000"), "capabilities") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")),
    (("init", "CapEff:\t0", "CapEff:\t200000"), "init"),
    (("init", "CapPrm:\t0", "CapPrm:\t1"), "init"),
    (("init", "NoNewPrivs:\t1", "NoNewPrivs:\t0"), "init"),
    (("cpus", None, [0, 1]), "cpu"),
    (("sockets", None, SOCKETS[True]), "seccomp"),  # the other filter
    (("sockets", None, {}), "seccomp"),
    (("network", None, NETWORK[True]), "network"),
    (status("NoNewPrivs", "0"), "no_new_privs"),
    (status("Seccomp", "0"), "seccomp"),
    (status("Seccomp", "1"), "seccomp"),
    (status("Seccomp_filters", "0"), "seccomp"),
    (("init", "Seccomp_filters:\t0", "Seccomp_filters:\t1"), "seccomp"),  # the host's own, which all inherit
    *((("namespaces", kind, number), walls._NAMED.get(kind, kind)) for kind, number in HOST.items()),
    *((("namespaces", kind, None), walls._NAMED.get(kind, kind)) for kind in HOST),
    (("mountinfo", "1 0 0:1 / / ro - tmpfs tmpfs ro", "1 0 0:1 / / rw - tmpfs tmpfs rw"), "read_only"),
    (("mountinfo", "3 1 0:3 / /workspace ro", "3 1 0:3 / /workspace rw"), "read_only"),
    (("mountinfo", "6 1 0:4 / /tmp rw", "6 1 0:4 / /tmp ro"), "read_only"),
    (("mountinfo", "8 1 0:6 /null /dev/null", "8 1 0:6 /sda /dev/sda"), "read_only"),
    (("mountinfo", "hidepid=invisible,", ""), "proc"),
    (("mountinfo", ",subset=pid", ""), "proc"),
    (("fds", None, [*walls._DESCRIPTORS, 9]), "descriptors"),
    (("fds", None, walls._DESCRIPTORS[:-1]), "descriptors"),
    (("hostname", None, socket.gethostname() + "-host"), "hostname"),
    (("sizes", "/workspace/work", [LIMITS.workspace_bytes + 8192, 3]), "sizes"),
    (("sizes", "/workspace/work", [LIMITS.workspace_bytes, LIMITS.workspace_inodes + 4]), "sizes"),
    (("sizes", "/workspace/work", [LIMITS.workspace_bytes, 0]), "sizes"),
    (("sizes", "/tmp", [LIMITS.tmp_bytes * 2, 64]), "sizes"),
    (("sizes", "/tmp", [0, 64]), "sizes"),
    (("sizes", "/dev/shm", [LIMITS.shm_bytes * 2, 64]), "sizes"),
    (("rlimits", "RLIMIT_NPROC", [1, -1]), "rlimits"),
    (("rlimits", "RLIMIT_NPROC", [1, LIMITS.processes + 2]), "rlimits"),
    (("rlimits", "RLIMIT_FSIZE", [1, LIMITS.file_bytes + 1]), "rlimits"),
    (("rlimits", "RLIMIT_NOFILE", [1, LIMITS.open_files + 1]), "rlimits"),
    (("rlimits", "RLIMIT_CORE", [0, 1]), "rlimits"),
    (("rlimits", "RLIMIT_CORE", [0, 0]), "rlimits"),  # where a program gets the dumps
    (("rlimits", "RLIMIT_CORE", [1, -1]), "rlimits"),
    (("rlimits", "RLIMIT_CORE", [2, 2]), "rlimits"),
    (("rlimits", "RLIMIT_DATA", [1, -1]), "rlimits"),
    (("rlimits", "RLIMIT_MEMLOCK", [1, 65537]), "rlimits"),
]


def tampered(where: str, key: str | None, value: object) -> dict[str, Any]:
    seen = copy.deepcopy(GOOD)
    if where == "status":
        lines = [f"{key}:\t{value}" if line.startswith(f"{key}:") else line for line in seen["status"].splitlines()]
        seen["status"] = "\n".join(lines)
    elif where in ("mountinfo", "init"):
        assert key in seen[where]
        seen[where] = seen[where].replace(key, value)
    elif key is None:
        seen[where] = value
    elif value is None:
        del seen[where][key]
    else:
        seen[where][key] = value
    return seen


def test_a_good_read_back_is_full() -> None:
    """The untampered values pass, with a cgroup and without: each refusal below is of its own change."""
    assert confirm(GOOD)["level"] == confirm(GOOD, CGROUP)["level"] == "full"


@pytest.mark.parametrize(("change", "wall"), TAMPERED)
def test_a_missing_wall_is_named(change, wall) -> None:
    """Each demand, violated alone, refuses the slot and names the wall."""
    with pytest.raises(SetupFailed) as caught:
        confirm(tampered(*change))
    assert caught.value.step == f"wall {wall}"
    assert caught.value.reason.startswith("the kernel says: ")


@pytest.mark.parametrize(("change", "wall"), [row for row in TAMPERED if row[1] in walls.OPTIONAL])
def test_a_wall_left_out_excuses_itself_and_no_other(change, wall) -> None:
    """The named wall is not demanded; all the others left out do not excuse it."""
    assert confirm(tampered(*change), without=frozenset({wall}))["level"] == "weakened"
    with pytest.raises(SetupFailed, match=f"wall {wall}"):
        confirm(tampered(*change), without=walls.OPTIONAL - {wall})


@pytest.mark.parametrize(
    ("change", "wall"),
    [
        ({"memory_bytes": None}, "cgroup memory"),
        ({"memory_bytes": LIMITS.memory_bytes + 1}, "cgroup memory"),
        ({"processes": None}, "cgroup processes"),
        ({"processes": LIMITS.processes + 9}, "cgroup processes"),
    ],
)
def test_a_cgroup_that_does_not_hold_is_named(change, wall) -> None:
    """What the cgroup says of itself is demanded too."""
    with pytest.raises(SetupFailed) as caught:
        confirm(GOOD, {**CGROUP, **change})
    assert caught.value.step == f"wall {wall}"


def test_no_core_dumps_at_all_will_do_where_they_are_files() -> None:
    """A hard limit of 0, as services often have it, cannot be raised to 1; the kernel then writes no file."""
    seen = copy.deepcopy(GOOD)
    seen["rlimits"]["RLIMIT_CORE"], seen["core_pattern"] = [0, 0], "core\n"
    assert confirm(seen)["level"] == "full"


@pytest.mark.parametrize("limits", [[1, 1], [0, 0]])
def test_no_program_runs_where_a_socket_gets_every_dump(limits: list[int]) -> None:
    """Linux 6.16 and later hand a dump to the socket of a core_pattern with `@` at any limit."""
    seen = copy.deepcopy(GOOD)
    seen["rlimits"]["RLIMIT_CORE"], seen["core_pattern"] = limits, "@/run/dumps\n"
    with pytest.raises(SetupFailed, match="gives every dump to @/run/dumps: run `sysctl -w") as caught:
        confirm(seen)
    assert caught.value.step == "wall rlimits"
