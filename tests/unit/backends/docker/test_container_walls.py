"""From facts to `isolation`: a wall that the container does not show is named, and nothing is handed out."""

import copy
import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from isorun.backends.docker import walls as container_walls
from isorun.core.errors import SetupFailed
from isorun.core.limits import Limits
from isorun.core.sent.facts import ContainerFacts
from isorun.executor.container import facts as container_facts
from isorun.executor.status import line_of_isolation, line_of_status
from tests.unit.records import NETWORK, SOCKETS

LIMITS = Limits()
STATUS = """Name:\tpython3
Uid:\t1001\t1001\t1001\t1001
Gid:\t1000\t1000\t1000\t1000
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t2
"""
INIT = STATUS.replace("filters:\t2", "filters:\t1")
#: gVisor's, which has no ambient set, no NoNewPrivs and counts no filters.
GVISOR = "".join(
    f"{line}\n" for line in STATUS.splitlines() if not line.startswith(("CapAmb", "NoNewPrivs", "Seccomp"))
)
MOUNTS = "".join(
    f"{number} 1 0:{number} / {target} {flags},relatime - {kind} {kind} {flags}\n"
    for number, (target, kind, flags) in enumerate(
        [
            ("/", "overlay", "ro"),
            ("/proc", "proc", "rw"),
            ("/dev", "tmpfs", "rw"),
            ("/dev/pts", "devpts", "rw"),
            ("/dev/mqueue", "mqueue", "rw"),
            ("/dev/shm", "tmpfs", "rw"),
            ("/sys", "sysfs", "ro"),
            ("/sys/fs/cgroup", "tmpfs", "rw"),
            ("/tmp", "tmpfs", "rw"),
            ("/etc/hosts", "ext4", "rw"),
            ("/proc/keys", "tmpfs", "rw"),
            ("/workspace", "tmpfs", "rw"),
            ("/run/isorun", "ext4", "ro"),
        ],
        start=2,
    )
)
HOST = {kind: f"{kind}:[1]" for kind in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")}
READY = {"landlock_abi": 7, "hostname": "isorun", "sockets": SOCKETS[False]}


def facts(**changes: object) -> dict[str, Any]:
    """What init of a good container says."""
    told = {
        "status": STATUS,
        "init": INIT,
        "mountinfo": MOUNTS,
        "rlimits": "Limit                     Soft Limit           Hard Limit           Units\n"
        "Max core file size        1                    1                    bytes\n"
        "Max open files            1024                 1024                 files\n",
        "namespaces": {kind: f"{kind}:[2]" for kind in HOST} | {"user": "user:[1]"},
        "network": NETWORK[True],  # an engine raises it in every container
        "fds": [0, 1, 2, 3, 4, 6],
        "sizes": {
            "/workspace/work": [LIMITS.workspace_bytes, 10_003],
            "/tmp": [LIMITS.tmp_bytes, 16_384],
            "/dev/shm": [LIMITS.shm_bytes, 16_384],
        },
        "cgroup": {"version": 1, "memory_bytes": LIMITS.memory_bytes, "processes": LIMITS.processes + 1},
    }
    return {**copy.deepcopy(told), **changes}


def confirmed(told: dict[str, Any], *, runtime: str = "runc", **changes: object) -> dict[str, Any]:
    """`confirm`, as the backend asks it."""
    options = {"ready": READY, "ids": (1001, 1000), "host_namespaces": HOST, **changes}
    return container_walls.confirm(ContainerFacts(**told), limits=LIMITS, runtime=runtime, **options)


def test_a_container_with_every_wall_is_full() -> None:
    """With what the kernel said of each; the line that operators look for can be made of it."""
    isolation = confirmed(facts())
    assert (isolation["level"], isolation["backend"], isolation["limits"]) == ("full", "docker", "cgroup-v1")
    assert line_of_isolation(isolation) == "[executor] UID=1001 GID=1000 CapEff=0 NoNewPrivs=1 Seccomp=2"
    assert line_of_status(STATUS) == line_of_isolation(isolation)
    assert isolation["walls"]["rlimits"] == {"Max core file size": "1", "Max open files": "1024"}


def test_gvisor_is_believed_what_it_shows_and_tried_for_the_rest() -> None:
    """Its kernel tells of no filters: a socket that is refused by ours does."""
    told = facts(status=GVISOR, init=GVISOR, namespaces={})
    isolation = confirmed(told, runtime="runsc")
    assert (isolation["limits"], isolation["walls"]["seccomp"]["inet_errno"]) == ("engine", errno.EAFNOSUPPORT)
    said = "wall seccomp: the container says: a socket of the kind inet is answered with 0"
    with pytest.raises(SetupFailed, match=said):
        confirmed(told, runtime="runsc", ready={**READY, "sockets": SOCKETS[True]})


def test_loopback_is_demanded_where_it_was_asked_for() -> None:
    """The filter that lets it through, and a network that has nothing else; a kernel of its own shows less of it."""
    ready = {**READY, "sockets": SOCKETS[True]}
    assert confirmed(facts(), ready=ready, loopback=True)["walls"]["network"] == "loopback"
    assert confirmed(facts())["walls"]["network"] == "none"
    with pytest.raises(SetupFailed, match="wall seccomp"):
        confirmed(facts(), loopback=True)
    more = facts(network={**NETWORK[True], "dev": f"{NETWORK[True]['dev']}  eth0: 0\n"})
    with pytest.raises(SetupFailed, match="wall network: the container says: eth0 is there beside lo"):
        confirmed(more, ready=ready, loopback=True)
    shown = {**NETWORK[True], "fib_trie": ""}
    told = facts(status=GVISOR, init=GVISOR, namespaces={}, network=shown)
    assert confirmed(told, runtime="runsc", ready=ready, loopback=True)["walls"]["network"] == "loopback"
    with pytest.raises(SetupFailed, match="none: lo is down"):
        confirmed(facts(network=shown), ready=ready, loopback=True)


def changed(name: str, old: str, new: str) -> Callable[[dict[str, Any]], None]:
    """*name* of the facts with one text in another's place, which must be there."""

    def change(told: dict[str, Any]) -> None:
        assert old in told[name]
        told[name] = told[name].replace(old, new, 1)

    return change


BREAKS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "uid": ("uid", changed("status", "Uid:\t1001", "Uid:\t0")),
    "gid": ("gid", changed("status", "Gid:\t1000", "Gid:\t0")),
    "effective": ("capabilities", changed("status", "CapEff:\t0", "CapEff:\t1")),
    "bounding": ("capabilities", changed("status", "CapBnd:\t0", "CapBnd:\t1")),
    "no_new_privs": ("no_new_privs", changed("status", "NoNewPrivs:\t1", "NoNewPrivs:\t0")),
    "init's rights": ("init", changed("init", "CapPrm:\t0", "CapPrm:\t1")),
    "no filter": ("seccomp", changed("status", "Seccomp:\t2", "Seccomp:\t0")),
    "the engine's alone": ("seccomp", changed("status", "filters:\t2", "filters:\t1")),
    "ours alone": ("seccomp", lambda told: told.update(status=INIT, init=INIT.replace("filters:\t1", "filters:\t0"))),
    "network": ("namespaces", lambda told: told["namespaces"].update(net=HOST["net"])),
    "pid not told": ("namespaces", lambda told: told["namespaces"].pop("pid")),
    "root": ("read_only", changed("mountinfo", "/ / ro", "/ / rw")),
    "a mount more": ("read_only", lambda told: told.update(mountinfo=MOUNTS + "99 1 0:9 / /host rw - ext4 x rw\n")),
    "a descriptor more": ("descriptors", lambda told: told["fds"].append(9)),
    "the place of the handover": ("read_only", changed("mountinfo", "/run/isorun ro", "/run/isorun rw")),
    "a workspace of the host's": ("read_only", changed("mountinfo", "/workspace rw", "/workspace/out rw")),
    "/tmp": ("sizes", lambda told: told["sizes"].update({"/tmp": [1 << 40, 0]})),
    "workspace": ("sizes", lambda told: told["sizes"].update({"/workspace/work": [1 << 40, 0]})),
    "memory": ("cgroup memory_bytes", lambda told: told["cgroup"].update(memory_bytes=1 << 40)),
    "memory not told": ("cgroup memory_bytes", lambda told: told["cgroup"].update(memory_bytes=-1)),
    "processes": ("cgroup processes", lambda told: told["cgroup"].update(processes=1 << 20)),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_wall_that_is_missing_is_named(case: str) -> None:
    """Each alone; the slot is not handed out."""
    wall, change = BREAKS[case]
    told = facts()
    change(told)
    with pytest.raises(SetupFailed) as caught:
        confirmed(told)
    assert caught.value.step == f"wall {wall}"


@pytest.mark.parametrize(
    ("most", "free", "full"),
    [(4096, 1, False), (4096, 0, True), (0, 0, False)],
    ids=["room", "none", "counted by nobody"],
)
def test_a_place_is_full_where_its_room_is_counted(monkeypatch, most: int, free: int, full: bool) -> None:
    """gVisor says of every tmpfs that 0 of 0 inodes are free."""
    size = os.statvfs_result((4096, 4096, 100, 50, 50, most, free, free, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: size)
    found = container_facts.final_facts(0, too_many_locks=False, unasked=True)
    assert found.full_inodes == (["/tmp", "/dev/shm"] if full else [])
    assert found.full_bytes == []


@pytest.mark.parametrize(
    "change",
    [
        {"sizes": {}},
        {"sizes": {"/workspace/work": [], "/tmp": [], "/dev/shm": []}},
        {"status": ""},
        {"mountinfo": "short"},
        {"mountinfo": MOUNTS + "99 1 0:9 / /host rw\n"},  # one line that cannot be read may hide a mount
        {"cgroup": {}},
    ],
    ids=str,
)
def test_facts_that_cannot_be_read_are_none(change: dict[str, Any]) -> None:
    """The container says them, so they may be anything; nothing but a failed setup comes of it."""
    with pytest.raises(SetupFailed, match=r"^container: the container's report on itself cannot be read: "):
        confirmed(facts(**change))


@pytest.mark.parametrize("core", ["0                    1", "0                    0", "1                    unlimited"])
def test_a_core_dump_that_the_host_would_get_is_a_missing_wall(core: str) -> None:
    """The kernel keeps dumps from a pipe at 1 alone."""
    with pytest.raises(SetupFailed, match="wall rlimits: the container says: Max core file size"):
        confirmed(facts(rlimits=f"Max core file size        {core}  bytes\n"))


@pytest.mark.parametrize(("change", "wall"), [({"fds": []}, "descriptors"), ({"status": "NoNewPrivs"}, "no_new_privs")])
def test_what_nobody_saw_does_not_stand(change: dict[str, Any], wall: str) -> None:
    """A list that is empty, or a line that is missing, is no wall."""
    if "status" in change:
        change = {"status": "\n".join(line for line in STATUS.splitlines() if not line.startswith("NoNewPrivs"))}
    with pytest.raises(SetupFailed, match=rf"^wall {wall}: "):
        confirmed(facts(**change))
