"""From what the kernel said of a slot to the run's `isolation`, or the name of the wall that is missing.

Pure. A slot whose read-back differs from what was asked for is never handed out.
"""

from collections.abc import Callable, Mapping
from typing import Any

from isorun.core.errors import SetupFailed
from isorun.core.limits import Limits
from isorun.executor import rules
from isorun.kernel import mounts

#: What a caller may leave out, by name, to see what the wall is for. No setting reaches this.
OPTIONAL = frozenset(
    {
        "capabilities",
        "descriptors",
        "hostname",
        "ipc",
        "landlock",
        "network",
        "no_new_privs",
        "proc",
        "read_only",
        "rlimits",
        "seccomp",
        "sizes",
        "uts",
    }
)
_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_WRITABLE = {rules.WORK, rules.OUT, "/tmp", "/dev/shm"}
_NAMED = {"net": "network"}
_DESCRIPTORS = [rules.STDIN, rules.STDOUT, rules.STDERR, rules.TOOLS, rules.CONTROL, rules.TRACE]


def confirm(
    seen: Mapping[str, Any],
    *,
    limits: Limits,
    host_namespaces: Mapping[str, int],
    held_by: str,
    cgroup_limits: Mapping[str, Any] | None,
    without: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """The `isolation` of a slot, each wall with what the kernel said; `SetupFailed` names a missing one.

    The walls named in *without* were left out on the caller's wish: they are not
    demanded, and the level is then `weakened`. *held_by* is what holds memory,
    processes and CPU: `cgroup-v2`, `cgroup-v1` or `rlimits+watcher`; *cgroup_limits*
    is what that cgroup says of itself.
    """

    def demand(holds: bool, wall: str, said: object) -> None:
        if not holds and wall not in without:
            raise SetupFailed(f"wall {wall}", f"the kernel says: {said}")

    status = status_fields(seen["status"])
    mounted = mounts.mounted(seen["mountinfo"])
    proc = next((mount.options for mount in reversed(mounted) if mount.target == "/proc"), "")
    demand(status["Uid"].split() == [str(rules.UID)] * 4, "uid", status["Uid"])
    demand(status["Gid"].split() == [str(rules.GID)] * 4, "gid", status["Gid"])
    for name in _CAPABILITY_SETS:
        demand(int(status[name], 16) == 0, "capabilities", f"{name} is {status[name]}")
    demand(status["NoNewPrivs"] == "1", "no_new_privs", status["NoNewPrivs"])
    demand(status["Seccomp"] == "2", "seccomp", status["Seccomp"])
    init = status_fields(seen["init"])
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        demand(int(init[name], 16) == 0, "init", f"{name} is {init[name]}")
    demand(init["NoNewPrivs"] == "1", "init", f"NoNewPrivs is {init['NoNewPrivs']}")
    filters = status.get("Seccomp_filters", "0")  # the line exists from Linux 5.9 on, as does close_range
    demand(int(filters) >= 2, "seccomp", f"{filters} filters, wanted 2")
    own = sorted(kind for kind, inode in seen["namespaces"].items() if host_namespaces.get(kind) != inode)
    for kind in host_namespaces:  # of the host's, so that one the slot did not report is missed too
        demand(kind in own, _NAMED.get(kind, kind), "the namespace is the host's")
    writable = writable_mounts(mounted)
    demand(writable == _WRITABLE, "read_only", f"writable: {', '.join(sorted(writable))}")
    demand("hidepid" in proc and "subset=pid" in proc, "proc", proc)
    demand(seen["fds"] == _DESCRIPTORS, "descriptors", f"{seen['fds']}")
    demand(seen["hostname"] == rules.HOSTNAME, "hostname", seen["hostname"])
    _sizes(seen["sizes"], limits, demand)
    _rlimits(seen["rlimits"], limits, cgroup_limits, demand)
    if cgroup_limits is None:
        demand(len(seen["cpus"]) == 1, "cpu", f"may run on {seen['cpus']}")
    return {
        "level": "weakened" if without else "full",
        "without": sorted(without),
        "backend": "namespace",
        "limits": held_by,
        "walls": {
            "uid": rules.UID,
            "gid": rules.GID,
            "capabilities": {name: status[name] for name in _CAPABILITY_SETS},
            "no_new_privs": int(status["NoNewPrivs"]),
            "seccomp": {"mode": int(status["Seccomp"]), "filters": int(filters)},
            "landlock_abi": seen["landlock_abi"],
            "namespaces": own,
            "network": "none" if "network" not in without else "the jail's",
            "proc": proc,
            "read_only_root": writable == _WRITABLE,
            "writable": sorted(writable),
            "sizes": seen["sizes"],
            "rlimits": seen["rlimits"],
            "cgroup": dict(cgroup_limits) if cgroup_limits is not None else None,
            "cpus": seen["cpus"],
            "descriptors": seen["fds"],
            "hostname": seen["hostname"],
        },
    }


def status_fields(text: str) -> dict[str, str]:
    """The lines of /proc/<pid>/status, by name."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def writable_mounts(mounted: list[mounts.MountPoint]) -> set[str]:
    """The mount points that accept writes, devices and /proc (whose files are the kernel's) left out."""
    uppermost = {mount.target: mount for mount in mounted}
    return {
        mount.target
        for mount in uppermost.values()
        if not mount.read_only and mount.kind != "proc" and mount.target not in rules.DEVICES
    }


def executor_line(isolation: Mapping[str, Any]) -> str:
    """The line that operators grep for."""
    walls = isolation["walls"]
    if not walls:
        return f"[executor] unsealed ({isolation['backend']} backend)"
    effective = int(walls["capabilities"]["CapEff"], 16)
    return (
        f"[executor] UID={walls['uid']} GID={walls['gid']} CapEff={effective:x} "
        f"NoNewPrivs={walls['no_new_privs']} Seccomp={walls['seccomp']['mode']}"
    )


_Demand = Callable[[bool, str, object], None]


def _sizes(sizes: Mapping[str, list[int]], limits: Limits, demand: _Demand) -> None:
    wanted = {rules.WORK: limits.workspace_bytes, "/tmp": limits.tmp_bytes, "/dev/shm": limits.shm_bytes}
    for path, most in wanted.items():
        held = sizes[path][0]
        demand(0 < held < most + 8192, "sizes", f"{path} holds {held} bytes, wanted {most}")
    inodes = sizes[rules.WORK][1]
    demand(0 < inodes <= limits.workspace_inodes + 3, "sizes", f"/workspace has {inodes}")


def _rlimits(seen: Mapping[str, list[int]], limits: Limits, cgroup: Mapping[str, Any] | None, demand: _Demand) -> None:
    nproc = limits.processes * (1 if cgroup is None else 2) + 1  # the cgroup refuses first, and counts it
    wanted = {"RLIMIT_NPROC": nproc, "RLIMIT_FSIZE": limits.file_bytes, "RLIMIT_CORE": 0}
    wanted["RLIMIT_NOFILE"] = limits.open_files
    wanted["RLIMIT_MEMLOCK"] = 65536
    if cgroup is None:
        wanted["RLIMIT_DATA"] = limits.memory_bytes
    for name, most in wanted.items():
        hard = seen[name][1]
        demand(0 <= hard <= most, "rlimits", f"{name} is {hard}, wanted {most}")
    if cgroup is not None:
        memory = cgroup["memory_bytes"]
        demand(memory is not None and memory <= limits.memory_bytes, "cgroup memory", f"{memory}")
        processes = cgroup["processes"]
        demand(processes is not None and processes <= limits.processes, "cgroup processes", f"{processes}")
        cpus = cgroup["cpus"]  # None: a group above holds less
        demand(cpus is None or cpus <= limits.cpus, "cgroup cpus", f"{cpus}")
