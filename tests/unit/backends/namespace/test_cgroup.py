"""Which group may hold a run, decided on trees in a folder; and groups of this machine's kernel, acting."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isorun.backends.namespace import ceilings, cgroup
from isorun.backends.namespace.cgroup import HOST_LEAF, VARIABLE, Refusal
from isorun.kernel.processes.owner import Owner
from sandbox_runner.linux.cgroup import Group, Usage, prepare
from sandbox_runner.linux.cgroup_parent import Host, Parent

pytestmark = pytest.mark.uid

PID = 4242
V1, V2 = 1, 2
MIB = 1 << 20
DELEGATE = "start it with: systemd-run --user --scope -p Delegate=yes COMMAND"


def parent_of(version: int, memory: Path, pids: Path, cpu: Path, cpuacct: Path | None = None, **left: Any) -> Parent:  # noqa: ANN401 - what is left to do
    places = {"memory": memory, "pids": pids, "cpu": cpu, **({"cpuacct": cpuacct} if cpuacct else {})}
    return Parent(version, places, **left)


class Tree:
    """A folder that looks like /sys/fs/cgroup, and the texts of /proc that go with it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.mountinfo = "22 1 8:1 / / rw,relatime - ext4 /dev/root rw\n"
        self.writable: set[Path] = set()  # and all beneath
        self.all_writable = False

    def mount(self, point: str, kind: int, controllers: str = "", root: str = "/") -> Path:
        path = self.top / point
        source = f"cgroup2 cgroup2 rw,{controllers}" if kind == V2 else f"cgroup cgroup rw,{controllers}"
        self.mountinfo += f"31 22 0:28 {root} {path} rw,nosuid shared:9 - {source}\n"
        return path

    def group(self, path: Path, *, root: bool = False, **files: str) -> Path:
        """A group's directory; *root*: the machine's own root group, which has no cgroup.type."""
        path.mkdir(parents=True, exist_ok=True)
        texts = {"cgroup_procs": "", **({} if root else {"cgroup_type": "domain\n"}), **files}
        for name, text in texts.items():
            (path / name.replace("_", ".", 1)).write_text(text)
        return path

    def find(self, self_cgroup: str, configured: str | None = None) -> Parent | Refusal:
        host = Host(
            self.mountinfo,
            self_cgroup,
            variable=VARIABLE,
            leaf=HOST_LEAF,
            configured=configured,
            is_writable=lambda p: p.exists() and (self.all_writable or any(p.is_relative_to(w) for w in self.writable)),
            pid=PID,
            user="ann",
        )
        return cgroup.find_parent(host)


ALL = "cpuset cpu io memory hugetlb pids rdma misc\n"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_v2_root_needs_controllers_enabled_and_no_leaf(tree: Tree) -> None:
    """The machine's root group may hold processes and enable controllers at once."""
    tree.all_writable = True
    top = tree.group(
        tree.mount("cg", V2),
        root=True,
        cgroup_controllers=ALL,
        cgroup_subtree_control="",
        cgroup_procs="1\n2\n",
    )
    assert tree.find("0::/\n") == parent_of(V2, top, top, top, enable=("memory", "pids", "cpu"))


def user_scope(tree: Tree, *, procs: str, enabled: str = "", controllers: str = ALL) -> Path:
    top = tree.group(tree.mount("cg", V2), root=True, cgroup_controllers=ALL)
    return tree.group(
        top / "user.slice/run-1.scope",
        cgroup_controllers=controllers,
        cgroup_subtree_control=enabled,
        cgroup_procs=procs,
    )


def test_v2_delegated_to_a_user_moves_itself_to_a_leaf(tree: Tree) -> None:
    """A delegated scope that holds only us becomes the parent once we sit in a leaf of it."""
    scope = user_scope(tree, procs=f"{PID}\n")
    tree.writable = {scope}
    expected = parent_of(V2, scope, scope, scope, enable=("memory", "pids", "cpu"), leaf=scope / HOST_LEAF)
    assert tree.find("0::/user.slice/run-1.scope\n") == expected


def test_v2_a_process_in_the_leaf_uses_the_group_above(tree: Tree) -> None:
    """A process that an isorun started finds its parent ready, beside the leaf that it sits in."""
    scope = user_scope(tree, procs="", enabled="cpu memory pids\n")
    tree.group(scope / HOST_LEAF, cgroup_procs=f"{PID}\n")
    tree.writable = {scope}
    assert tree.find(f"0::/user.slice/run-1.scope/{HOST_LEAF}\n") == parent_of(V2, scope, scope, scope)


def test_v2_not_delegated_is_refused_with_the_way_to_get_it(tree: Tree) -> None:
    """A session's scope belongs to root: every controller is refused, with the command that delegates."""
    scope = user_scope(tree, procs=f"{PID}\n")
    refusal = tree.find("0::/user.slice/run-1.scope\n")
    assert isinstance(refusal, Refusal)
    assert [lack.controller for lack in refusal.lacks] == ["memory", "pids", "cpu"]
    reasons = "; ".join(f"{c}: {scope} is not writable by this process" for c in ("memory", "pids", "cpu"))
    assert str(refusal) == f"{reasons} ({DELEGATE})"


def test_v2_with_internal_processes_is_refused(tree: Tree) -> None:
    """Controllers cannot be enabled above processes of others, and we move nobody but ourselves."""
    scope = user_scope(tree, procs=f"17\n{PID}\n18\n")
    tree.writable = {scope}
    refusal = tree.find("0::/user.slice/run-1.scope\n")
    assert isinstance(refusal, Refusal)
    assert refusal.lacks[0].reason == f"{scope} holds 2 other processes, so its controllers cannot be enabled"
    assert refusal.lacks[0].remedy == f"{DELEGATE}; or set ISORUN_CGROUP_PARENT"


def test_v2_without_one_controller_names_that_one(tree: Tree) -> None:
    """A scope that was not given cpu lacks cpu alone."""
    scope = user_scope(tree, procs=f"{PID}\n", controllers="memory pids\n")
    tree.writable = {scope}
    assert str(tree.find("0::/user.slice/run-1.scope\n")) == (
        f"cpu: {scope} is not given the controller cpu (have the service above delegate it (Delegate=memory pids cpu))"
    )


def test_v2_configured_needs_the_common_ancestor(tree: Tree) -> None:
    """A writable parent is of no use while the kernel would refuse to move our processes there."""
    scope = user_scope(tree, procs=f"{PID}\n")
    other = tree.group(tree.top / "cg/isorun", cgroup_controllers=ALL, cgroup_subtree_control="memory pids cpu\n")
    tree.writable = {other, scope}
    refusal = tree.find("0::/user.slice/run-1.scope\n", "isorun")
    assert isinstance(refusal, Refusal)
    ancestor = tree.top / "cg/cgroup.procs"
    assert refusal.lacks[0].reason == f"{ancestor} is not writable, so no process can be moved"
    tree.writable.add(ancestor)
    assert tree.find("0::/user.slice/run-1.scope\n", "isorun") == parent_of(V2, other, other, other)
    assert tree.find("0::/user.slice/run-1.scope\n", str(other)) == parent_of(V2, other, other, other)


HYBRID = "9:name=systemd:/\n8:pids:/\n4:memory:/svc/51bf\n2:cpuacct:/\n1:cpu:/\n0::/\n"


def hybrid(tree: Tree) -> Path:
    for controller in ("cpu", "cpuacct", "memory", "pids"):
        tree.group(tree.mount(f"cg/{controller}", V1, controller))
    tree.group(tree.mount("cg/unified", V2), root=True, cgroup_controllers="hugetlb\n")
    tree.group(tree.top / "cg/memory/svc/51bf")
    return tree.top / "cg"


def test_v1_hybrid_as_root_stays_in_its_own_groups(tree: Tree) -> None:
    """v1 counts when v2 has none of the three; each hierarchy has its own group of ours."""
    tree.all_writable = True
    cg = hybrid(tree)
    assert tree.find(HYBRID) == parent_of(V1, cg / "memory/svc/51bf", cg / "pids", cg / "cpu", cg / "cpuacct")


def test_v1_has_the_freezer_beside_the_ceilings_where_it_is_ours(tree: Tree) -> None:
    """It holds none, so a run does without it where it is not mounted, or not ours; what root may do names it."""
    cg = hybrid(tree)
    tree.group(tree.mount("cg/freezer", V1, "freezer"))
    tree.writable = {cg / kind for kind in ("memory", "pids", "cpu", "cpuacct")}
    found = tree.find(HYBRID)
    assert isinstance(found, Parent)
    assert "freezer" not in found.directories
    tree.writable.add(cg / "freezer")
    found = tree.find(HYBRID)
    assert isinstance(found, Parent)
    assert found.directories["freezer"] == cg / "freezer"
    tree.writable = set()
    assert f"{cg}/freezer/isorun" in str(tree.find(HYBRID))


def test_v1_comounted_controllers_are_one_directory(tree: Tree) -> None:
    """cpu and cpuacct in one hierarchy give one directory, made and removed once."""
    tree.all_writable = True
    for point, kinds in (("cg/cpu,cpuacct", "cpu,cpuacct"), ("cg/memory", "memory"), ("cg/pids", "pids")):
        tree.group(tree.mount(point, V1, kinds))
    found = tree.find("3:cpu,cpuacct:/\n2:memory:/\n1:pids:/\n")
    assert isinstance(found, Parent)
    assert found.paths == tuple(tree.top / "cg" / d for d in ("memory", "pids", "cpu,cpuacct"))


def test_v1_delegated_to_a_user(tree: Tree) -> None:
    """A user's own subtree in each hierarchy is enough, by configuration and in either spelling."""
    cg = hybrid(tree)
    dirs = {c: tree.group(cg / c / "users/ann") for c in ("memory", "pids", "cpu")}
    tree.writable = set(dirs.values())
    expected = parent_of(V1, **dirs)
    assert tree.find(HYBRID, "users/ann") == expected
    assert tree.find(HYBRID, str(cg / "memory/users/ann")) == expected


def test_v1_not_delegated_names_what_root_must_do(tree: Tree) -> None:
    """Each hierarchy that is not ours is named with the two commands that make it ours."""
    cg = hybrid(tree)
    tree.writable = {cg / "pids", cg / "cpu"}
    where = cg / "memory/svc/51bf"
    assert str(tree.find(HYBRID)) == (f"memory: {where} is not writable by this process ({_remedy(cg)})")


def test_v1_the_remedy_is_said_once_and_is_valid_in_every_hierarchy(tree: Tree) -> None:
    """One command and one name for all controllers, not one for each."""
    cg = hybrid(tree)
    tree.writable = set()
    refusal = str(tree.find(HYBRID))
    assert refusal.endswith(f" is not writable by this process ({_remedy(cg)})")
    assert refusal.count("mkdir") == 1


def _remedy(cg: Path) -> str:
    groups = f"{cg}/memory/isorun {cg}/pids/isorun {cg}/cpu/isorun"
    return f"as root: mkdir -p {groups} && chown -R ann {groups}; then: export ISORUN_CGROUP_PARENT=isorun"


@pytest.mark.parametrize(
    ("configured", "reason"),
    [
        ("absent", "ISORUN_CGROUP_PARENT=absent: {cg}/memory/absent does not exist"),
        ("/etc", "ISORUN_CGROUP_PARENT=/etc is not beneath a control group mount"),
        ("../up", "ISORUN_CGROUP_PARENT=../up is not beneath a control group mount"),
        ("svc", "{cg}/memory/svc is not writable by this process"),
    ],
)
def test_a_bad_configured_parent_is_refused(tree: Tree, configured: str, reason: str) -> None:
    """A setting that cannot be followed is refused, never replaced by a parent nobody chose."""
    cg = hybrid(tree)
    for controller in ("memory", "pids", "cpu"):
        tree.group(cg / controller / "svc")
    tree.writable = {cg / "pids", cg / "cpu", cg / "memory/svc/51bf"}
    refusal = tree.find(HYBRID, configured)
    assert isinstance(refusal, Refusal)
    assert refusal.lacks[0].controller == "memory"
    assert refusal.lacks[0].reason == reason.format(cg=cg)


def test_nothing_at_all_is_refused_per_controller(tree: Tree) -> None:
    """Without any hierarchy each controller says so."""
    refusal = tree.find("")
    assert isinstance(refusal, Refusal)
    assert [(lk.controller, lk.reason) for lk in refusal.lacks] == [
        (c, f"no hierarchy with the {c} controller is mounted") for c in ("memory", "pids", "cpu")
    ]


def test_nested_container_mounts_are_read_by_their_root_field(tree: Tree) -> None:
    """In a container the mount shows one group of the host's tree, and our path is the host's."""
    tree.all_writable = True
    for c in ("cpu", "memory", "pids"):
        tree.group(tree.mount(f"cg/{c}", V1, c, root="/docker/ab12"))
        tree.group(tree.top / f"cg/{c}/inner")
    cg = tree.top / "cg"
    found = tree.find("3:cpu:/docker/ab12/inner\n2:memory:/docker/ab12\n1:pids:/elsewhere\n")
    assert found == parent_of(V1, cg / "memory", cg / "pids", cg / "cpu/inner")


def test_a_hidden_mount_is_not_used(tree: Tree) -> None:
    """Of two mounts on one point only the later can be reached."""
    tree.all_writable = True
    for c in ("cpu", "memory", "pids"):
        tree.group(tree.mount(f"cg/{c}", V1, c, root="/old"))
        tree.mount(f"cg/{c}", V1, c, root="/")
        tree.group(tree.top / f"cg/{c}/old/x")
    found = tree.find("3:cpu:/old/x\n2:memory:/old/x\n1:pids:/old/x\n")
    assert isinstance(found, Parent)
    assert found.directories["memory"] == tree.top / "cg/memory/old/x"


def test_v2_of_a_container_that_hides_our_group_is_refused(tree: Tree) -> None:
    """A group above our cgroup namespace cannot be left, so nothing could be attached."""
    tree.all_writable = True
    tree.group(tree.mount("cg", V2), cgroup_controllers=ALL)
    refusal = tree.find("0::/../elsewhere\n")
    assert isinstance(refusal, Refusal)
    assert refusal.lacks[0].reason == "our own group /../elsewhere is not beneath the mounted /"


def test_mount_points_with_spaces(tmp_path: Path) -> None:
    """The kernel writes a space in a path as \\040."""
    tree = Tree(tmp_path / "a b")
    tree.all_writable = True
    top = tree.group(
        tree.mount("cg", V2), root=True, cgroup_controllers=ALL, cgroup_subtree_control="memory pids cpu\n"
    )
    tree.mountinfo = tree.mountinfo.replace("a b", "a\\040b")
    assert tree.find("0::/\n") == parent_of(V2, top, top, top)


def test_settings_of_v2_hold_swap_and_kill_one_process_only() -> None:
    """v2: exact texts, in order; only the swap and oom.group files may be missing."""
    assert cgroup.ceilings(memory_bytes=MIB, processes=7, cpus=0.5).files(V2) == [
        ("memory", "memory.max", "1048576", True),
        ("memory", "memory.swap.max", "0", False),
        ("memory", "memory.oom.group", "0", False),
        ("pids", "pids.max", "7", True),
        ("cpu", "cpu.max", "50000 100000", True),
    ]


@pytest.mark.parametrize(("memory_bytes", "processes", "cpus"), [(0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.009), (-1, 1, 1.0)])
def test_settings_refuse_what_would_mean_unlimited(memory_bytes: int, processes: int, cpus: float) -> None:
    """Zero and negative ceilings, and quotas the kernel cannot hold, never reach a file."""
    with pytest.raises(ValueError, match="a group needs positive memory_bytes and processes and cpus of "):
        cgroup.ceilings(memory_bytes=memory_bytes, processes=processes, cpus=cpus)


def test_v2_files_are_read_as_usage_and_limits(tmp_path: Path) -> None:
    """v2's own file formats, as the kernel prints them, become the same values as v1's."""
    name = "isorun-1-2-3-4"
    files = {
        "memory.events": "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n",
        "memory.peak": "4096\n",
        "pids.events": "max 3\n",
        "cpu.stat": "usage_usec 1500000\nuser_usec 1\nsystem_usec 2\n",
        "memory.max": "1048576\n",
        "memory.swap.max": "max\n",
        "pids.max": "max\n",
        "cpu.max": "50000 100000\n",
    }
    (tmp_path / name).mkdir()
    for file, text in files.items():
        (tmp_path / name / file).write_text(text)
    group = cgroup.group(parent_of(V2, tmp_path, tmp_path, tmp_path), name)
    assert group.usage() == Usage(oom_kills=1, pids_max_hits=3, peak_memory_bytes=4096, cpu_s=1.5)
    assert group.limits() == {"memory_bytes": MIB, "swap_bytes": None, "processes": None, "cpus": 0.5}


@pytest.mark.parametrize("name", ["isorun-1-2-3", "../isorun-1-2-3-4", "isorun-1-2-3-4/x", "isorun-0-2-3-4", "init"])
def test_only_our_own_names_are_groups_of_ours(name: str) -> None:
    """A name that is not ours can be neither made nor killed."""
    with pytest.raises(ValueError, match="not the name of a group of ours"):
        cgroup.group(parent_of(V1, Path("/a"), Path("/b"), Path("/c")), name)


# ---- the kernel's own groups -------------------------------------------------------------------

Require = Callable[[str, str], None]


@pytest.fixture
def parent(require: Require) -> Iterator[Parent]:
    """A parent of this test alone, beneath this process's own groups; it must be empty at the end."""
    found = cgroup.find_own_parent(os.environ.get("ISORUN_CGROUP_PARENT"))
    if isinstance(found, Refusal):
        require("cgroup", str(found))
        raise AssertionError("require returned")
    prepare(found)
    sub = f"test-isorun-{os.getpid()}"
    private = Parent(found.version, {kind: place / sub for kind, place in found.directories.items()})
    for d in private.paths:
        d.mkdir()
    try:
        if private.version == V2:
            (private.directories["memory"] / "cgroup.subtree_control").write_text("+memory +pids +cpu")
        yield private
        assert left(private) == []
    finally:
        for group in {p.name for p in left(private)}:
            with cgroup.group(private, group):
                pass
        for d in private.paths:
            d.rmdir()


def left(parent: Parent) -> list[Path]:
    return [p for d in parent.paths for p in d.iterdir() if p.is_dir()]


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs *code* once a line is sent to it."""
    with subprocess.Popen(
        [sys.executable, "-c", f"input()\n{code}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def made(parent: Parent, n: int = 0, *, memory_bytes: int = 64 * MIB, processes: int = 16) -> Group:
    name = cgroup.group_name(n)
    return cgroup.make(parent, name, memory_bytes=memory_bytes, processes=processes, cpus=0.5)


def test_limits_are_read_back_from_the_kernel(parent: Parent) -> None:
    """What `make` was given is what the kernel says it holds."""
    with made(parent) as group:
        limits = group.limits()
        assert (limits["memory_bytes"], limits["processes"], limits["cpus"]) == (64 * MIB, 16, 0.5)
    assert left(parent) == []


def test_allocating_over_the_ceiling_is_one_oom_kill(parent: Parent) -> None:
    """A process that touches more than memory_bytes is killed, and the group says it was for memory."""
    with made(parent, memory_bytes=32 * MIB) as group, child("x = b'x' * (64 << 20)") as hog:
        group.attach(hog.pid)
        assert group.usage().oom_kills == 0
        tell(hog)
        assert hog.wait() == -9
        usage = group.usage()
        assert usage.oom_kills == 1
        assert usage.peak_memory_bytes is None or 16 * MIB < usage.peak_memory_bytes <= 32 * MIB


FORKS = """
import os, signal
made = 0
try:
    while True:
        if os.fork() == 0:
            signal.pause()
        made += 1
except BlockingIOError:
    print(made, flush=True)
signal.pause()
"""


def test_forking_over_the_ceiling_is_counted_and_kill_empties(parent: Parent) -> None:
    """The group holds `processes` processes and no more; killing it leaves none."""
    with made(parent, processes=5) as group, child(FORKS) as bomb:
        group.attach(bomb.pid)
        tell(bomb)
        assert hear(bomb) == "4\n"
        assert group.usage().pids_max_hits > 0
        assert len(group.members()) == 5
        group.kill()
        assert not group.members()


RESTLESS = """
import os, signal
for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(s, signal.SIG_IGN)
print('up', flush=True)
while True:
    try:
        if os.fork():
            os._exit(0)
    except BlockingIOError:
        pass
"""


def test_kill_catches_a_process_that_never_stands_still(parent: Parent) -> None:
    """A program that forks and exits in a loop has a new pid at each look, and is emptied all the same."""
    with made(parent, processes=40) as group, child(RESTLESS) as restless:
        group.attach(restless.pid)
        tell(restless)
        assert hear(restless) == "up\n"
        group.kill()
        assert not group.members()
        if parent.version == V1:
            assert group.limits()["processes"] == 0  # v1 has no cgroup.kill: forks are stopped first


def test_usage_counts_cpu_time(parent: Parent) -> None:
    """CPU seconds are those of the group, where the machine counts them."""
    busy = "import time\nwhile time.process_time() < 0.15: pass"
    with made(parent) as group, child(busy) as spinner:
        group.attach(spinner.pid)
        tell(spinner)
        assert spinner.wait() == 0
        cpu_s = group.usage().cpu_s
        if parent.version == V2 or "cpuacct" in parent.directories:
            assert cpu_s is not None
            assert 0.1 < cpu_s < 5
        else:
            assert cpu_s is None


def test_a_dead_process_counts_until_it_is_reaped(parent: Parent) -> None:
    """So a group that counts nobody holds nobody who could still write."""
    with made(parent) as group, child("") as sleeper:
        assert group.count() == 0
        group.attach(sleeper.pid)
        assert group.count() == 1
        sleeper.kill()
        os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
        assert group.count() == 1
        sleeper.wait()
        assert group.count() == 0


def test_attach_names_the_file_that_refused(parent: Parent) -> None:
    """A process that is gone cannot be attached, and the error says where that was."""
    with child("") as gone:
        tell(gone)
        gone.wait()
        with made(parent) as group, pytest.raises(ProcessLookupError) as caught:
            group.attach(gone.pid)
    assert caught.value.filename == f"{group.paths[0]}/cgroup.procs"


def test_a_group_that_stays_is_an_error_naming_it(parent: Parent) -> None:
    """`remove` of a group with a live process gives up in time and names what stays."""
    with made(parent) as group, child("input()") as sleeper:
        group.attach(sleeper.pid)
        with pytest.raises(OSError, match="busy") as caught:
            group.remove(within_s=0.01)
        assert caught.value.errno == errno.EBUSY
        assert caught.value.filename == group.paths[-1]


def test_remove_waits_for_processes_that_are_dying(parent: Parent) -> None:
    """Between SIGKILL and the last exit the kernel calls the group busy: no error, if it ends in time."""
    group = made(parent)
    with child(FORKS) as bomb:
        group.attach(bomb.pid)
        tell(bomb)
        assert hear(bomb) == "15\n"
        for pid in group.members():
            os.kill(pid, signal.SIGKILL)
        group.remove()
    assert left(parent) == []


def test_remove_twice_is_no_error(parent: Parent) -> None:
    """Clean-up after clean-up finds nothing to do."""
    group = made(parent)
    group.remove()
    group.remove()
    assert left(parent) == []


def test_make_that_cannot_make_a_directory_leaves_nothing(parent: Parent) -> None:
    """A hierarchy that refuses takes the directories of the others with it."""
    absent = parent.directories["cpu"] / "absent"
    broken = replace(parent, directories={**parent.directories, "cpu": absent, "cpuacct": absent})
    with pytest.raises(FileNotFoundError) as caught:
        made(broken)
    assert caught.value.filename == str(absent / cgroup.group_name(0))
    assert left(parent) == []


def test_make_that_cannot_write_a_ceiling_leaves_nothing(parent: Parent) -> None:
    """A ceiling the kernel refuses is an error naming its file, and no group."""
    with pytest.raises(OSError, match=r"Invalid argument: '.*/pids\.max'"):
        made(parent, processes=1 << 40)
    assert left(parent) == []


def test_a_tighter_cpu_ceiling_above_is_kept(parent: Parent) -> None:
    """v1 refuses a quota above an ancestor's: the ancestor's holds, and `limits` does not claim ours."""
    if parent.version == V2:
        (parent.directories["cpu"] / "cpu.max").write_text("10000 100000")
    else:
        (parent.directories["cpu"] / "cpu.cfs_quota_us").write_text("10000")
    with made(parent) as group:
        assert group.limits()["cpus"] == (0.5 if parent.version == V2 else None)


ORPHAN = """
import os, sys
from pathlib import Path
from isorun.backends.namespace import cgroup
from sandbox_runner.linux.cgroup_parent import Parent
places = dict(word.split("=", 1) for word in sys.argv[2:])
parent = Parent(int(sys.argv[1]), {kind: Path(place) for kind, place in places.items()})
group = cgroup.make(parent, cgroup.group_name(7), memory_bytes=1 << 26, processes=9, cpus=1.0)
group.attach(int(input()))
print(os.path.basename(group.paths[0]), flush=True)
input()
"""


def test_stale_groups_are_those_of_dead_owners(parent: Parent) -> None:
    """While its owner lives a group is nobody else's; after, it is found, emptied and removed."""
    args = [str(parent.version), *(f"{kind}={place}" for kind, place in parent.directories.items())]
    with made(parent) as ours, child("input()") as sleeper:
        with subprocess.Popen(
            [sys.executable, "-c", ORPHAN, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as owner:
            assert owner.stdin is not None
            owner.stdin.write(f"{sleeper.pid}\n")
            owner.stdin.flush()
            name = hear(owner).strip()
            assert name.startswith(f"isorun-{owner.pid}-")
            assert cgroup.stale(parent) == []
            owner.kill()
        assert cgroup.stale(parent) == [d / name for d in parent.paths]
        assert cgroup.remove_stale(parent) == [d / name for d in parent.paths]
        assert sleeper.wait() == -9
        assert left(parent) == [Path(path) for path in ours.paths]


def test_a_reused_pid_is_not_the_owner(parent: Parent) -> None:
    """The start time in the name tells the owner from a later process with its pid."""
    name = f"isorun-{replace(Owner.of_this_process(), started=1)}-0"
    group = cgroup.make(parent, name, memory_bytes=64 * MIB, processes=9, cpus=1.0)
    assert cgroup.stale(parent) == [Path(path) for path in group.paths]
    cgroup.remove_stale(parent)
    assert left(parent) == []


def test_a_group_of_a_dead_host_that_stays_stops_no_start(parent: Parent, caplog: pytest.LogCaptureFixture) -> None:
    """It is told, and removed by a later start."""
    name = f"isorun-{replace(Owner.of_this_process(), started=1)}-0"
    group = cgroup.make(parent, name, memory_bytes=64 * MIB, processes=9, cpus=1.0)
    holds = Path(group.paths[0]) / "holds"
    holds.mkdir()
    ceilings.held_beneath(parent).close()
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "a cgroup of a dead host stays behind for now"
    ]
    holds.rmdir()
    ceilings.held_beneath(parent).close()
    assert left(parent) == []


def test_v2_kill_and_remove_on_a_real_v2_tree(require: Require) -> None:
    """The v2 way to empty a group works on any v2 mount, with or without controllers."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " cgroup2 " in line]
    top = next((Path(p) for p in points if os.access(p, os.W_OK)), None)
    if top is None:
        require("cgroup", "no cgroup v2 mount is writable")
        raise AssertionError("require returned")
    group = cgroup.group(parent_of(V2, top, top, top), cgroup.group_name(0))
    place = Path(group.paths[0])
    place.mkdir()
    with group, child(FORKS.replace("while True", "for _ in range(3)") + "input()") as family:
        group.attach(family.pid)
        tell(family)
        while len(group.members()) < 4:
            assert family.poll() is None
        assert group._killed_by_kernel()
        assert family.wait(timeout=10) == -9
    assert not place.exists()


async def _expected(found: Parent, times: int = 1) -> None:
    held = ceilings.held_beneath(found)
    for _ in range(times):
        held.expect()
    await asyncio.get_running_loop().shutdown_default_executor()


@pytest.mark.parametrize("leaf", ["", HOST_LEAF])
async def test_an_attach_is_prepared_by_staying_where_we_are(tree: Tree, leaf: str) -> None:
    """Our own number is written to the list that has it: on v1 the parent's, on v2 our leaf's."""
    base = tree.group(tree.top / "a")
    procs = tree.group(base / leaf, cgroup_procs=f"1\n{os.getpid()}\n") / "cgroup.procs"
    await _expected(parent_of(V1, base, base, base), times=2)
    assert procs.read_text() == str(os.getpid())


async def test_a_group_that_we_are_not_in_is_left_alone(tree: Tree) -> None:
    """To be written to its list would move this process."""
    base = tree.group(tree.top / "a", cgroup_procs=f"1\n{os.getpid()}0\n")
    await _expected(parent_of(V1, base, base, base))
    assert (base / "cgroup.procs").read_text() == f"1\n{os.getpid()}0\n"


async def test_a_group_that_we_were_moved_out_of_is_left_alone(tree: Tree) -> None:
    """Who moved this process elsewhere meanwhile, an operator say, has moved it for good."""
    base = tree.group(tree.top / "a", cgroup_procs=f"{os.getpid()}\n")
    held = ceilings.held_beneath(parent_of(V1, base, base, base))
    held.expect()
    await asyncio.get_running_loop().shutdown_default_executor()
    (base / "cgroup.procs").write_text("1\n")
    ceilings._stay(base / "cgroup.procs")
    assert (base / "cgroup.procs").read_text() == "1\n"


def test_no_process_changes_its_group_by_that(require: Require) -> None:
    """On this machine's own tree, beneath our own group."""
    found = cgroup.find_own_parent(os.environ.get("ISORUN_CGROUP_PARENT"))
    if isinstance(found, Refusal):
        require("cgroup", str(found))
    prepare(found)
    before = Path("/proc/self/cgroup").read_text()
    asyncio.run(_expected(found))
    assert Path("/proc/self/cgroup").read_text() == before
