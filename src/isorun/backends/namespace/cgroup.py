"""Which control group may hold a run, and the group of one run. The policy; `sandbox_runner.linux` does it.

A run needs all three controllers: without them the caller takes rlimits and a watcher, so a
lack is an answer here and not an error. A group's name carries its owner, so that a later
process can tell an orphan from a neighbour's.

Must not: know what a run is, or touch a group that has not one of our names.
"""

import os
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

from isorun.kernel.processes.owner import PATTERN, Owner
from sandbox_runner.linux import cgroup_parent
from sandbox_runner.linux.cgroup import FREEZER, LEAST_QUOTA_US, PERIOD_US, Ceilings, Group
from sandbox_runner.linux.cgroup_parent import Cause, Host, Parent

NEEDED = ("memory", "pids", "cpu")
HOST_LEAF = "isorun.host"
VARIABLE = "ISORUN_CGROUP_PARENT"

_BESIDE = ("cpuacct", FREEZER)  # v1: counts CPU time, and freezes; optional, since they hold no ceiling
_NAME = re.compile(rf"isorun-({PATTERN})-[0-9]+")
_DELEGATE = "start it with: systemd-run --user --scope -p Delegate=yes COMMAND"


@dataclass(frozen=True, slots=True)
class Lack:
    """Why one controller cannot be used, and what an operator can do about it."""

    controller: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """No control group can hold a run here: one `Lack` per controller that is missing."""

    lacks: tuple[Lack, ...]

    def __str__(self) -> str:
        """The reasons, and after those that share a remedy the remedy, once."""
        alike = groupby(self.lacks, key=lambda lack: lack.remedy)
        return "; ".join(f"{'; '.join(f'{x.controller}: {x.reason}' for x in lacks)} ({say})" for say, lacks in alike)


def find_parent(host: Host) -> Parent | Refusal:
    """Where groups of runs may be made, or why not.

    Without a configured parent it is this process's own group, so that the ceilings set on us hold for runs as well.
    """
    found = cgroup_parent.find_parent(NEEDED, host, optional=_BESIDE)
    if isinstance(found, Parent):
        return found
    return Refusal(tuple(Lack(lack.controller, lack.reason, _remedy(lack.cause, host)) for lack in found))


def find_own_parent(configured: str | None) -> Parent | Refusal:
    """`find_parent` for this process on this machine."""
    return find_parent(Host.of_this_process(variable=VARIABLE, leaf=HOST_LEAF, configured=configured))


def _remedy(cause: Cause, host: Host) -> str:
    match cause:
        case Cause.UNMOUNTED:
            return f"mount the hierarchy, or unset or correct {VARIABLE}"
        case Cause.MISNAMED:
            return f"unset or correct {VARIABLE}"
        case Cause.NOT_OURS:
            return _v1_remedy(host)
        case Cause.WITHHELD:
            return f"have the service above delegate it (Delegate={' '.join(NEEDED)})"
        case Cause.CROWDED:
            return f"{_DELEGATE}; or set {VARIABLE}"
        case Cause.NOT_DELEGATED:
            return _DELEGATE


def _v1_remedy(host: Host) -> str:
    """One command for every hierarchy, and the one name that is then valid in all of them."""
    from isorun.backends.remedy import Command, Export, Remedy  # a start that has its group needs none

    inside = host.inside() if host.configured is not None else PurePosixPath("isorun")
    groups = [point / (inside or "") for point in host.points((*NEEDED, FREEZER))]
    make = Command.of("mkdir", "-p", *groups, as_root=True)
    give = Command.of("chown", "-R", host.user, *groups, as_root=True)
    if host.configured is not None:
        return Remedy(f"as root: {make} && {give}", make, give)
    name = Export(VARIABLE, "isorun")
    return Remedy(f"as root: {make} && {give}; then: {name}", make, give, name)


def ceilings(*, memory_bytes: int, processes: int, cpus: float) -> Ceilings:
    """The ceilings of one run. Raises ValueError for what would mean "unlimited"."""
    if memory_bytes <= 0 or processes <= 0 or int(cpus * PERIOD_US) < LEAST_QUOTA_US:
        raise ValueError(
            f"a group needs positive memory_bytes and processes and cpus of 0.01 or more, "
            f"got {memory_bytes}, {processes} and {cpus}"
        )
    return Ceilings(memory_bytes=memory_bytes, pids=processes, cpus=cpus)


def group_name(n: int) -> str:
    """The name of this process's *n*th group."""
    return f"isorun-{Owner.of_this_process()}-{n}"


def group(parent: Parent, name: str) -> Group:
    """The group *name*, which need not exist. Raises ValueError for a name that is not one of ours."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"not the name of a group of ours: {name!r}")
    return Group.at(parent, name)


def make(parent: Parent, name: str, *, memory_bytes: int, processes: int, cpus: float) -> Group:
    """A new group with these ceilings. Raises OSError naming the file; then nothing of it exists."""
    wanted = ceilings(memory_bytes=memory_bytes, processes=processes, cpus=cpus)
    made = group(parent, name)
    made.make(wanted)
    return made


def stale(parent: Parent) -> list[Path]:
    """The groups of ours beneath *parent* whose owner is dead, one path per hierarchy."""
    return [d for base in parent.paths for d in sorted(base.glob("isorun-*-*-*-*")) if _is_stale(d)]


def remove_stale(parent: Parent) -> list[Path]:
    """Kill and remove what `stale` lists; the paths removed. Raises OSError when one stays."""
    found = stale(parent)
    for name in sorted({d.name for d in found}):
        left = group(parent, name)
        left.kill()
        left.remove()
    return found


def _is_stale(d: Path) -> bool:
    match = _NAME.fullmatch(d.name)
    owner = Owner.parse(match[1]) if match else None
    if owner is None or owner.is_alive:
        return False
    try:
        if os.geteuid() not in (0, d.stat().st_uid):
            return False  # another user's: not ours to judge, nor could we remove it
        # A process that we cannot name lives in another pid namespace.
        return "0" not in (d / "cgroup.procs").read_text().split()
    except OSError:
        return False  # its owner is removing it at this moment
