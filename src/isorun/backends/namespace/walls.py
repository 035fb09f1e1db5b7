"""From what the kernel said of a slot to the run's `isolation`, or the name of the wall that is missing.

Pure. A slot whose read-back differs from what was asked for is never handed out.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from isorun.backends.reach import network_name, wrong_answer, wrong_network
from isorun.core.errors import SetupFailed
from isorun.core.limits import Limits
from isorun.core.text import one_line
from isorun.executor import rules
from isorun.executor.status import status_fields
from sandbox_runner.linux.mountinfo import Mounted, every_mount

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
        "reaping",  # of children that the zygote did not fork
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
    loopback: bool = False,
) -> dict[str, Any]:
    """The `isolation` of a slot, each wall with what the kernel said; `SetupFailed` names a missing one.

    The walls named in *without* were left out on the caller's wish: they are not
    demanded, and the level is then `weakened`. *held_by* is what holds memory,
    processes and CPU: `cgroup-v2`, `cgroup-v1` or `rlimits+watcher`; *cgroup_limits*
    is what that cgroup says of itself. *loopback*: whether the run is to have its own. The
    function is long because it demands each wall once, in the order of the report.
    """

    def demand(holds: bool, wall: str, said: object) -> None:
        if not holds and wall not in without:
            raise SetupFailed(f"wall {wall}", f"the kernel says: {said}")

    status = status_fields(seen["status"])
    mounts = every_mount(seen["mountinfo"])
    proc = next((",".join(mount.options) for mount in reversed(mounts) if mount.point == "/proc"), "")
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
    filters = int(status.get("Seccomp_filters", "0"))  # the line exists from Linux 5.9 on, as does close_range
    inherited = int(init.get("Seccomp_filters", "0"))  # init has those of the host, and not the program's
    demand(filters > inherited, "seccomp", f"{filters} filters, of which init has {inherited}")
    own = sorted(kind for kind, inode in seen["namespaces"].items() if host_namespaces.get(kind) != inode)
    for kind in host_namespaces:  # of the host's, so that one the slot did not report is missed too
        demand(kind in own, _NAMED.get(kind, kind), "the namespace is the host's")
    wrong = wrong_answer(seen["sockets"], loopback=loopback)
    demand(not wrong, "seccomp", wrong)
    wrong = wrong_network(seen["network"], loopback=loopback)
    demand(not wrong, "network", wrong)
    writable = writable_mounts(mounts)
    demand(writable == _WRITABLE, "read_only", f"writable: {', '.join(sorted(writable))}")
    demand("hidepid" in proc and "subset=pid" in proc, "proc", proc)
    demand(seen["fds"] == _DESCRIPTORS, "descriptors", f"{seen['fds']}")
    demand(seen["hostname"] == rules.HOSTNAME, "hostname", seen["hostname"])
    _sizes(seen["sizes"], limits, demand)
    _rlimits(seen["rlimits"], limits, cgroup_limits, demand)
    _core(seen["rlimits"]["RLIMIT_CORE"], seen["core_pattern"], demand)
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
            "seccomp": {"mode": int(status["Seccomp"]), "filters": filters},
            "landlock_abi": seen["landlock_abi"],
            "namespaces": own,
            "network": network_name(loopback=loopback) if "network" not in without else "the jail's",
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


def writable_mounts(mounts: Iterable[Mounted]) -> set[str]:
    """The mount points that accept writes, devices and /proc (whose files are the kernel's) left out."""
    uppermost = {mount.point: mount for mount in mounts}
    return {
        mount.point
        for mount in uppermost.values()
        if not mount.read_only and mount.kind != "proc" and mount.point not in rules.DEVICES
    }


_Demand = Callable[[bool, str, object], None]


def _sizes(sizes: Mapping[str, list[int]], limits: Limits, demand: _Demand) -> None:
    wanted = {rules.WORK: limits.workspace_bytes, "/tmp": limits.tmp_bytes, "/dev/shm": limits.shm_bytes}
    for path, most in wanted.items():
        held = sizes[path][0]
        demand(0 < held < most + 8192, "sizes", f"{path} holds {held} bytes, wanted {most}")
    inodes = sizes[rules.WORK][1]
    demand(0 < inodes <= limits.workspace_inodes + 3, "sizes", f"/workspace has {inodes}")


def _core(seen: list[int], pattern: str, demand: _Demand) -> None:
    """No dump reaches the host: at 1 the kernel hands none to a pipe, at 0 it writes none to a file.

    To a socket (Linux 6.16, `@` and a path) it hands a dump at any limit.
    """
    remedy = "run `sysctl -w kernel.core_pattern=core`, also in /etc/sysctl.d"
    demand(
        not pattern.startswith("@"),
        "rlimits",
        f"core_pattern gives every dump to {one_line(pattern.strip())}: {remedy}",
    )
    kept = seen == [1, 1] or (seen == [0, 0] and not pattern.startswith("|"))
    remedy = "raise the hard limit where isorun starts (ulimit -Hc unlimited)"
    demand(kept, "rlimits", f"RLIMIT_CORE is {seen[0]}, {seen[1]}, wanted 1, 1: {remedy}")


def _rlimits(seen: Mapping[str, list[int]], limits: Limits, cgroup: Mapping[str, Any] | None, demand: _Demand) -> None:
    nproc = limits.processes * (1 if cgroup is None else 2) + 1  # the cgroup refuses first, and counts it
    wanted = {"RLIMIT_NPROC": nproc, "RLIMIT_FSIZE": limits.file_bytes}
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
