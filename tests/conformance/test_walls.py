"""The walls, as the host sees them from outside, against what a result's `isolation` claims.

Only the embedded backend; a container's walls are looked at in `tests/docker`. A sleeping
program is looked at through the host's /proc and cgroup files: nothing it says of itself
counts. Besides: what is left out on purpose is said, and no wall that is missing goes unnamed.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conformance.conftest import options_for

import isorun
from isorun.backends.namespace import walls
from isorun.backends.namespace.backend import NamespaceBackend, Options
from isorun.kernel import namespaces

_SLEEPER = """
import ctypes
libc = ctypes.CDLL(None)
assert libc.prctl(15, sys.argv[1].encode()) == 0  # PR_SET_NAME: how the host tells it from the others
print("named")
time.sleep(60)
"""


class Seen(NamedTuple):
    """A program that sleeps, from both sides."""

    pid: int
    status: dict[str, str]
    isolation: dict[str, Any]

    @property
    def walls(self) -> dict[str, Any]:
        return self.isolation["walls"]


def named(name: str) -> int:
    """The pid of the one process called *name*."""
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == name:
                found.append(int(path.parent.name))
        except OSError:
            continue
    (pid,) = found
    return pid


def fields(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.fixture(scope="session")
def seen(rt: isorun.SyncRuntime, kind: str, embedded: str) -> Iterator[Seen]:
    """A sleeping program of the shared Runtime, and the isolation that its result will claim."""
    name = f"walls-{os.getpid() % 10000}-{kind[-4:]}"
    run = rt.start(_SLEEPER, argv=[name], timeout_s=60)
    next(iter(event for event in run.events() if event.kind == "output"))
    pid = named(name)
    yield Seen(pid, fields(pid), dict(rt.execute("pass").isolation))
    run.cancel()


def test_ids(seen) -> None:
    """The real ids are the executor's when isorun is root, and the caller's own otherwise: never root's."""
    uid, gid = (1001, 1000) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    assert seen.status["Uid"].split() == [str(uid)] * 4
    assert seen.status["Gid"].split() == [str(gid)] * 4
    assert (seen.walls["uid"], seen.walls["gid"]) == (1001, 1000)
    assert set(seen.status["Groups"].split()) <= {str(gid), "65534"} | {str(group) for group in os.getgroups()}


@pytest.mark.parametrize("which", ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
def test_capabilities(seen, which) -> None:
    """Every set is empty, also the bounding set."""
    assert int(seen.status[which], 16) == 0
    assert int(seen.walls["capabilities"][which], 16) == 0


def test_no_new_privs_and_seccomp(seen) -> None:
    """Both are on, and one filter is stacked on those that the host has itself."""
    assert (seen.status["NoNewPrivs"], seen.status["Seccomp"]) == ("1", "2")
    own = re.search(r"^Seccomp_filters:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert own is not None
    assert int(seen.status["Seccomp_filters"]) == int(own[1]) + 1
    assert (seen.walls["no_new_privs"], seen.walls["seccomp"]["mode"]) == (1, 2)


@pytest.mark.root
@pytest.mark.parametrize("which", ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"])
def test_namespaces(seen, which) -> None:
    """Each namespace is not the host's, and `isolation` lists it."""
    assert os.stat(f"/proc/{seen.pid}/ns/{which}").st_ino != os.stat(f"/proc/self/ns/{which}").st_ino
    assert which in seen.walls["namespaces"]


@pytest.mark.root
def test_two_slots_share_no_namespace(rt, seen) -> None:
    """Another slot of the same zygote has namespaces of its own, every one."""
    name = f"walls-b-{os.getpid() % 10000}"
    run = rt.start(_SLEEPER, argv=[name], timeout_s=60)
    next(iter(event for event in run.events() if event.kind == "output"))
    other, mine = namespaces.identifiers(named(name)), namespaces.identifiers(seen.pid)
    run.cancel()
    assert {kind for kind in mine if mine[kind] == other[kind]} == set()


def test_the_program_is_not_pid_1(seen) -> None:
    """In its innermost pid namespace it has another pid: 1 is ours."""
    assert int(seen.status["NSpid"].split()[-1]) > 1


@pytest.mark.root
def test_init_has_no_rights_and_cannot_be_read(seen) -> None:
    """pid 1 of the slot has no capability, may gain none, and is not dumpable: its /proc belongs to root."""
    space = os.stat(f"/proc/{seen.pid}/ns/pid").st_ino
    inits = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            same = os.stat(path / "ns/pid").st_ino == space
            if same and fields(int(path.name))["NSpid"].split()[-1] == "1":
                inits.append(int(path.name))
        except OSError:
            continue
    (init,) = inits
    status = fields(init)
    # Its bounding set is not asked for: it never executes another program.
    assert [int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")] == [0] * 4
    assert status["NoNewPrivs"] == "1"
    assert os.stat(f"/proc/{init}/environ").st_uid == 0
    assert os.listdir(f"/proc/{init}/fd") == []


@pytest.mark.root
def test_descriptors(seen) -> None:
    """It holds its three streams, one socket, one trace file of its own workspace, and nothing else."""
    held = {}
    for name in os.listdir(f"/proc/{seen.pid}/fd"):
        held[int(name)] = os.readlink(f"/proc/{seen.pid}/fd/{name}")
    kinds = {number: target.split(":")[0] for number, target in held.items()}
    assert (kinds[0], kinds[1], kinds[2], kinds[3]) == ("/dev/null", "pipe", "pipe", "socket")
    assert [target for number, target in held.items() if number > 3] == ["/workspace/work/.isorun-last-trace"]


@pytest.mark.root
def test_mounts(seen) -> None:
    """From outside too, the writable mounts are the four that `isolation` names (and devices)."""
    writable = set()
    uppermost: dict[str, list[str]] = {}
    for line in Path(f"/proc/{seen.pid}/mountinfo").read_text().splitlines():
        words = line.split()
        uppermost[words[4]] = words
    for target, words in uppermost.items():
        options = words[5].split(",") + words[-1].split(",")
        if "ro" not in options and "proc" not in words:
            writable.add(target)
    devices = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")}
    assert (
        writable - devices
        == set(seen.walls["writable"])
        == {
            "/workspace/work",
            "/workspace/out",
            "/tmp",
            "/dev/shm",
        }
    )


def test_rlimits(seen, rt) -> None:
    """The kernel's table for the process has the limits that `isolation` claims."""
    table = {
        line[:26].strip(): line[26:].split()[:2] for line in Path(f"/proc/{seen.pid}/limits").read_text().splitlines()
    }
    claimed = seen.walls["rlimits"]
    for name, key in (
        ("Max processes", "RLIMIT_NPROC"),
        ("Max file size", "RLIMIT_FSIZE"),
        ("Max open files", "RLIMIT_NOFILE"),
        ("Max core file size", "RLIMIT_CORE"),
    ):
        assert table[name] == [str(value) for value in claimed[key]]
    assert claimed["RLIMIT_CORE"] == [1, 1]
    assert claimed["RLIMIT_FSIZE"][1] == rt.limits.file_bytes
    # Where a cgroup counts processes this one only stands behind it.
    most = rt.limits.processes + 1 if seen.walls["cgroup"] is None else 4 * rt.limits.processes
    assert rt.limits.processes <= claimed["RLIMIT_NPROC"][1] <= most


def test_ceilings(seen, rt, kind) -> None:
    """A cgroup's files say the limits and list the program; without one, RLIMIT_DATA and one CPU hold it."""
    if kind == "namespace-rlimits":
        assert seen.isolation["limits"] == "rlimits+watcher"
        assert seen.walls["rlimits"]["RLIMIT_DATA"][1] == rt.limits.memory_bytes
        assert len(os.sched_getaffinity(seen.pid)) == 1
        return
    groups = [p.parent for p in Path("/sys/fs/cgroup").glob(f"**/isorun-{os.getpid()}-*/cgroup.procs")
              if str(seen.pid) in p.read_text().split()]  # fmt: skip
    files = {name: (group / name).read_text().strip() for group in groups for name in os.listdir(group)
             if name in ("memory.max", "pids.max", "cpu.max", "memory.limit_in_bytes", "cpu.cfs_quota_us",
                         "cpu.cfs_period_us")}  # fmt: skip
    assert files.get("memory.max", files.get("memory.limit_in_bytes")) == str(rt.limits.memory_bytes)
    assert rt.limits.processes <= int(files["pids.max"]) <= rt.limits.processes + 1
    quota, period = (
        files["cpu.max"].split() if "cpu.max" in files else (files["cpu.cfs_quota_us"], files["cpu.cfs_period_us"])
    )
    assert int(quota) / int(period) == rt.limits.cpus


def test_nothing_is_left_of_a_killed_slot(rt, sealed) -> None:
    """When a run's result is there its processes are not, however many there were, whatever they ignored."""
    name = f"walls-c-{os.getpid() % 10000}"
    result = rt.execute(
        f"""
import ctypes, signal
ctypes.CDLL(None).prctl(15, b"{name}")
for n in range(30):
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if n % 2: os.setsid()
        if n % 3 == 0 and os.fork(): os._exit(0)
        time.sleep(60)
"""
    )
    assert result.status == "ok"
    with pytest.raises(ValueError, match="not enough values"):
        named(name)


#: What `isolation` then shows. None: the outer jail has the same wall, so the slot's own cannot be missed.
CHANGES: dict[str, Callable[[dict[str, Any]], bool] | None] = {
    "capabilities": lambda w: int(w["capabilities"]["CapBnd"], 16) != 0,
    "descriptors": lambda w: 9 in w["descriptors"],
    "hostname": None,
    "ipc": None,
    "landlock": lambda w: w["landlock_abi"] == 0,
    "network": lambda w: w["network"] == "the jail's" and "net" not in w["namespaces"],
    "no_new_privs": None,
    "proc": lambda w: "hidepid" not in w["proc"],
    "read_only": lambda w: not w["read_only_root"],
    "reaping": None,  # what the zygote does, and no state of the slot
    "rlimits": lambda w: w["rlimits"]["RLIMIT_CORE"][1] != 1,
    "seccomp": lambda w: w["seccomp"] == {"mode": 0, "filters": 0},
    "sizes": lambda w: w["sizes"]["/tmp"][0] > 1 << 30,
    "uts": None,
}


def test_every_optional_wall_is_in_the_table() -> None:
    """A wall that can be left out has its line below."""
    assert set(CHANGES) == walls.OPTIONAL


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_wall_left_out_is_said(name, tmp_path, require) -> None:
    """The level is weakened, the wall is named, and what was read back shows it."""
    backend = NamespaceBackend(Options(without=frozenset({name})))
    try:
        with isorun.SyncRuntime(**options_for(backend, tmp_path, pool_size=0)) as rt:
            result = rt.execute("print('ran')")
    except isorun.Unavailable as error:
        require("namespace", str(error))
    assert result.stdout == "ran\n"
    assert (result.isolation["level"], result.isolation["without"]) == ("weakened", [name])
    shown = CHANGES[name]
    assert shown is None or shown(result.isolation["walls"])


def test_no_unknown_wall_can_be_left_out() -> None:
    """A name that is no wall is the caller's error, not a wall that silently stays."""
    with pytest.raises(isorun.InvalidRequest, match=r"^cgroup, everything is not a wall that you can leave out$"):
        Options(without=frozenset({"everything", "cgroup", "seccomp"}))
