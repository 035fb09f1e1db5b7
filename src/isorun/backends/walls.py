"""From what the kernel said of a slot to the run's `isolation`, or the name of the wall that is missing.

Pure. A slot whose read-back differs from what was asked for is never handed out.
"""

from collections.abc import Mapping
from typing import Any

from isorun.core.errors import SetupFailed
from isorun.core.limits import Limits
from isorun.executor import rules

_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_WRITABLE = {rules.WORK, rules.OUT, "/tmp", "/dev/shm"}  # noqa: S108 - the slot's own tmpfs
_DESCRIPTORS = [rules.STDIN, rules.STDOUT, rules.STDERR, rules.TOOLS, rules.CONTROL]


def confirm(
    seen: Mapping[str, Any],
    *,
    limits: Limits,
    host_namespaces: Mapping[str, int],
    held_by: str,
    cgroup_limits: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The `isolation` of a slot, each wall with what the kernel said; `SetupFailed` names a missing one.

    *held_by* is what holds memory, processes and CPU: `cgroup-v2`, `cgroup-v1` or
    `rlimits+watcher`; *cgroup_limits* is what that cgroup says of itself.
    """
    status = seen["status"]
    _demand(status["Uid"].split() == [str(rules.UID)] * 4, "uid", status["Uid"])
    _demand(status["Gid"].split() == [str(rules.GID)] * 4, "gid", status["Gid"])
    for name in _CAPABILITY_SETS:
        _demand(int(status[name], 16) == 0, "capabilities", f"{name} is {status[name]}")
    _demand(status["NoNewPrivs"] == "1", "no_new_privs", status["NoNewPrivs"])
    _demand(status["Seccomp"] == "2", "seccomp", status["Seccomp"])
    filters = status.get("Seccomp_filters", "2")  # the line exists from Linux 5.9 on
    _demand(int(filters) >= 2, "seccomp", f"{filters} filters, wanted 2")
    shared = [kind for kind, inode in seen["namespaces"].items() if host_namespaces.get(kind) == inode]
    _demand(not shared, "namespaces", f"shared with the host: {', '.join(shared)}")
    writable = writable_mounts(seen["mounts"])
    _demand(writable == _WRITABLE, "mounts", f"writable: {', '.join(sorted(writable))}")
    _demand("hidepid" in seen["proc"] and "subset=pid" in seen["proc"], "proc", seen["proc"])
    _demand(seen["fds"] == _DESCRIPTORS, "descriptors", f"{seen['fds']}")
    _demand(seen["hostname"] == rules.HOSTNAME, "hostname", seen["hostname"])
    _sizes(seen["sizes"], limits)
    _rlimits(seen["rlimits"], limits, cgroup_limits)
    return {
        "level": "full",
        "backend": "namespace",
        "limits": held_by,
        "walls": {
            "uid": rules.UID,
            "gid": rules.GID,
            "capabilities": {name: status[name] for name in _CAPABILITY_SETS},
            "no_new_privs": 1,
            "seccomp": {"mode": 2, "filters": int(filters)},
            "landlock_abi": seen["landlock_abi"],
            "namespaces": sorted(seen["namespaces"]),
            "network": "none",
            "proc": seen["proc"],
            "read_only_root": True,
            "writable": sorted(writable),
            "sizes": seen["sizes"],
            "rlimits": seen["rlimits"],
            "cgroup": dict(cgroup_limits) if cgroup_limits is not None else None,
            "cpus": seen["cpus"],
            "descriptors": seen["fds"],
            "hostname": seen["hostname"],
        },
    }


def writable_mounts(mounts: list[list[Any]]) -> set[str]:
    """The mount points that accept writes, devices and /proc (whose files are the kernel's) left out."""
    last = {target: (kind, read_only) for target, kind, read_only in mounts}
    return {
        target
        for target, (kind, read_only) in last.items()
        if not read_only and kind != "proc" and target not in rules.DEVICES
    }


def executor_line(isolation: Mapping[str, Any]) -> str:
    """The line that operators grep for (SPEC A8)."""
    walls = isolation["walls"]
    effective = int(walls["capabilities"]["CapEff"], 16)
    return (
        f"[executor] UID={walls['uid']} GID={walls['gid']} CapEff={effective:x} "
        f"NoNewPrivs={walls['no_new_privs']} Seccomp={walls['seccomp']['mode']}"
    )


def _demand(holds: bool, wall: str, seen: str) -> None:
    if not holds:
        raise SetupFailed(f"wall {wall}", f"the kernel says: {seen}")


def _sizes(sizes: Mapping[str, list[int]], limits: Limits) -> None:
    wanted = {rules.WORK: limits.workspace_bytes, "/tmp": limits.tmp_bytes, "/dev/shm": limits.shm_bytes}  # noqa: S108
    for path, most in wanted.items():
        held = sizes[path][0]
        _demand(0 < held < most + 8192, "tmpfs size", f"{path} holds {held} bytes, wanted {most}")
    inodes = sizes[rules.WORK][1]
    _demand(0 < inodes <= limits.workspace_inodes + 3, "inodes", f"/workspace has {inodes}")


def _rlimits(seen: Mapping[str, list[int]], limits: Limits, cgroup: Mapping[str, Any] | None) -> None:
    wanted = {"RLIMIT_NPROC": limits.processes + 1, "RLIMIT_FSIZE": limits.file_bytes, "RLIMIT_CORE": 0}
    if cgroup is None:
        wanted["RLIMIT_DATA"] = limits.memory_bytes
    for name, most in wanted.items():
        hard = seen[name][1]
        _demand(0 <= hard <= most, "rlimits", f"{name} is {hard}, wanted {most}")
    if cgroup is not None:
        memory = cgroup["memory_bytes"]
        _demand(memory is not None and memory <= limits.memory_bytes, "cgroup memory", f"{memory}")
        processes = cgroup["processes"]
        _demand(processes is not None and processes <= limits.processes + 1, "cgroup processes", f"{processes}")
