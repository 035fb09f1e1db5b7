"""From what the kernel and the engine said of an executor container to the run's `isolation`, or the missing wall.

Pure. The same walls as `walls`, held by other means: docs/security.md has both beside
each other. Our init reads `ContainerFacts` inside of the container, before a program is
there; what the engine made of the command line is judged by `sandbox_runner.docker.attached`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from isorun.backends.reach import network_name, wrong_answer, wrong_network
from isorun.core.errors import SetupFailed
from isorun.core.limits import Limits
from isorun.core.sent.facts import ContainerFacts
from isorun.executor import rules
from isorun.executor.status import status_fields
from sandbox_runner.linux.mountinfo import every_mount

_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_ALWAYS_TOLD = ("CapInh", "CapPrm", "CapEff", "CapBnd")  # gVisor has no ambient capabilities
_WRITABLE = {rules.WORKSPACE, "/tmp", "/dev/shm"}  # of the workspace's root, the host is the owner
#: What the engine mounts writable of its own: root's alone, or the kernel's.
_OF_THE_ENGINE = {
    "/dev",
    "/dev/pts",
    "/dev/mqueue",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/sys/fs/cgroup",
}
_NAMESPACES = ("ipc", "mnt", "net", "pid", "uts")
_DESCRIPTORS = [rules.STDIN, rules.STDOUT, rules.STDERR, rules.TOOLS, rules.CONTROL, rules.TRACE]
#: A runtime with a kernel of its own (gVisor) shows neither filters nor namespaces in /proc.
OWN_KERNEL = ("runsc",)
_PAGES = 8192  # bytes by which the size of a file system is rounded


@contextmanager
def _told() -> Iterator[None]:
    """What a container says is hostile: a text that is not the kernel's says nothing."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise SetupFailed("container", f"the container's report on itself cannot be read: {error!r}") from error


@_told()
def confirm(
    facts: ContainerFacts,
    *,
    ready: Mapping[str, Any],
    limits: Limits,
    ids: tuple[int, int],
    runtime: str,
    host_namespaces: Mapping[str, str],
    loopback: bool = False,
) -> dict[str, Any]:
    """The `isolation` of a slot in a container; `SetupFailed` names a wall that is missing.

    *ready*: what the program's process said of itself. *ids*: the executor's uid and gid. *loopback*:
    whether the program is to have its container's. The function is
    long because it demands each wall once, in the order of the report.
    """
    own_kernel = has_own_kernel(runtime)
    status, init = status_fields(facts.status), status_fields(facts.init)
    _ids(status, ids)
    _rights(status, init, _ALWAYS_TOLD if own_kernel else _CAPABILITY_SETS)
    wrong = wrong_answer(ready["sockets"], loopback=loopback)
    _demand(not wrong, "seccomp", wrong)
    if loopback:
        wrong = wrong_network(facts.network, loopback=True, own_kernel=own_kernel)
        _demand(not wrong, "network", wrong)
    if not own_kernel:
        _filtered(status, init)
        _apart(facts.namespaces, host_namespaces)
        _core(facts.rlimits)
    writable = _writable(facts.mountinfo)
    _demand(writable == _WRITABLE, "read_only", f"writable: {', '.join(sorted(writable))}")
    held = set(facts.fds)
    _demand({*_DESCRIPTORS} - {rules.TRACE} <= held <= {*_DESCRIPTORS}, "descriptors", f"{facts.fds}")
    _sizes(facts.sizes, limits)
    held_by = _ceilings(facts.cgroup, limits, told=not own_kernel)
    walls = {
        **_rights_said(status, ready, ids),
        "namespaces": sorted(facts.namespaces),
        "network": network_name(loopback=loopback),
        "runtime": runtime,
        "read_only_root": True,
        "writable": sorted(writable),
        "sizes": facts.sizes,
        "workspace": "sized",
        "rlimits": _rlimits(facts.rlimits),
        "cgroup": facts.cgroup,
        "descriptors": facts.fds,
        "hostname": ready.get("hostname"),
    }
    return {"level": "full", "without": [], "backend": "docker", "limits": held_by, "walls": walls}


def has_own_kernel(runtime: str) -> bool:
    """Whether containers of that runtime do not run on the host's kernel."""
    return any(name in runtime for name in OWN_KERNEL)


def _demand(holds: bool, wall: str, said: object) -> None:
    if not holds:
        raise SetupFailed(f"wall {wall}", f"the container says: {said}")


def _ids(status: Mapping[str, str], ids: tuple[int, int]) -> None:
    _demand(status["Uid"].split() == [str(ids[0])] * 4, "uid", status["Uid"])
    _demand(status["Gid"].split() == [str(ids[1])] * 4, "gid", status["Gid"])


def _rights(status: Mapping[str, str], init: Mapping[str, str], told: tuple[str, ...]) -> None:
    for whose, fields in (("capabilities", status), ("init", init)):
        for name in told:
            _demand(int(fields[name], 16) == 0, whose, f"{name} is {fields[name]}")
    # gVisor has no such line, and no setuid files that count, on a read-only root.
    usual = "1" if told is _ALWAYS_TOLD else None
    for whose, fields in (("no_new_privs", status), ("init", init)):
        _demand(fields.get("NoNewPrivs", usual) == "1", whose, f"NoNewPrivs is {fields.get('NoNewPrivs')}")


def _rights_said(status: Mapping[str, str], ready: Mapping[str, Any], ids: tuple[int, int]) -> dict[str, Any]:
    filters = int(status.get("Seccomp_filters", "0"))
    seccomp = {"mode": int(status.get("Seccomp", 0)), "filters": filters, "inet_errno": ready["sockets"]["inet"]}
    return {
        "uid": ids[0],
        "gid": ids[1],
        "capabilities": {name: status[name] for name in _CAPABILITY_SETS if name in status},
        "no_new_privs": int(status.get("NoNewPrivs", 1)),
        "seccomp": seccomp,
        "landlock_abi": ready.get("landlock_abi", 0),
    }


def _filtered(status: Mapping[str, str], init: Mapping[str, str]) -> None:
    """Init has the engine's filters alone, and the program has ours on top."""
    mode, filters, of_init = status.get("Seccomp"), *(int(one.get("Seccomp_filters", "0")) for one in (status, init))
    said = f"mode {mode}, {filters} filters, of which init has {of_init}; wanted the engine's and ours"
    _demand(mode == "2" and filters > of_init >= 1, "seccomp", said)


def _apart(namespaces: Mapping[str, str], of_the_host: Mapping[str, str]) -> None:
    own = {kind for kind, name in namespaces.items() if of_the_host.get(kind) not in (None, name)}
    shared = [kind for kind in _NAMESPACES if kind not in own]
    _demand(not shared, "namespaces", f"{', '.join(shared)} would be the host's")


def _writable(mountinfo: str) -> set[str]:
    uppermost = {mount.point: mount for mount in every_mount(mountinfo)}
    return {
        mount.point
        for mount in uppermost.values()
        if not mount.read_only
        and mount.kind not in ("proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue")
        and mount.point not in _OF_THE_ENGINE
        and not mount.point.startswith("/proc/")
        and mount.point not in rules.DEVICES
    }


def _sizes(sizes: Mapping[str, list[int]], limits: Limits) -> None:
    wanted = {"/tmp": limits.tmp_bytes, "/dev/shm": limits.shm_bytes, rules.WORK: limits.workspace_bytes}
    for path, most in wanted.items():
        held = sizes[path][0]
        _demand(0 < held < most + _PAGES, "sizes", f"{path} holds {held} bytes, wanted {most}")


def _ceilings(cgroup: Mapping[str, int], limits: Limits, *, told: bool) -> str:
    if not told:
        return "engine"
    for name, most in (("memory_bytes", limits.memory_bytes), ("processes", limits.processes + 1)):
        _demand(0 < cgroup[name] <= most, f"cgroup {name}", f"{cgroup[name]}, wanted {most}")
    return f"cgroup-v{cgroup['version']}"


def _core(limits: str) -> None:
    """At any other limit than 1 the kernel hands a dump to the pipe of the host's core_pattern."""
    row = next((line for line in limits.splitlines() if line.startswith("Max core file size")), "")
    _demand(row.split()[4:6] == ["1", "1"], "rlimits", row)


def _rlimits(text: str) -> dict[str, str]:
    width = 26
    rows = (line for line in text.splitlines() if line.startswith("Max "))
    return {row[:width].strip(): row[width:].split()[1] for row in rows}
