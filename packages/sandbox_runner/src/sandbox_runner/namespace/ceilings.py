"""The ceilings of the namespace backend: a control group for each sandbox, or a refusal.

`linux.cgroup_parent` finds where a group may be made, and `linux.cgroup` makes it. Here is the policy: a ceiling
that cannot be held is refused, because there is no second-best one, and the refusal says
both ways out. A command joins its sandbox's group by writing to the `cgroup.procs` of each
directory before it becomes bubblewrap (`enter`).
"""

from __future__ import annotations

import os
import shlex
from pathlib import PurePosixPath

from sandbox_runner.errors import BackendUnavailable, SandboxError
from sandbox_runner.linux import cgroup_parent
from sandbox_runner.linux.cgroup import Ceilings, Group, prepare
from sandbox_runner.linux.cgroup_parent import Cause, Host, Lack, Parent
from sandbox_runner.spec import SandboxSpec

PARENT_VARIABLE = "SANDBOX_RUNNER_CGROUP_PARENT"
HOST_LEAF = "sandbox-runner.host"
_END_S = 5.0
_WALLS = {"memory": "memory_limit", "pids": "pids_limit"}
_DELEGATE = "start the program with `systemd-run --user --scope -p Delegate=yes COMMAND`"


def of_spec(spec: SandboxSpec) -> Ceilings:
    """The ceilings of *spec*."""
    return Ceilings(memory_bytes=spec.memory_bytes, pids=spec.pids, cpus=spec.resources.cpus)


def this_host() -> Host:
    """What the kernel says of control groups here and now."""
    configured = os.environ.get(PARENT_VARIABLE)
    return Host.of_this_process(variable=PARENT_VARIABLE, leaf=HOST_LEAF, configured=configured)


def find_parent(ceilings: Ceilings, host: Host) -> Parent | None:
    """Where a group that holds *ceilings* may be made; None if there is nothing to hold.

    Raises `BackendUnavailable` naming the ceilings that would not stand, why, and both ways out.
    """
    if not ceilings.controllers:
        return None
    found = cgroup_parent.find_parent(ceilings.controllers, host, climb=True)
    if isinstance(found, Parent):
        return found
    raise BackendUnavailable(_refusal(ceilings, found[0].reason, _remedy(found[0], ceilings, host)))


def _remedy(lack: Lack, ceilings: Ceilings, host: Host) -> str:
    match lack.cause:
        case Cause.UNMOUNTED:
            return "mount it"
        case Cause.MISNAMED:
            return "correct or unset it"
        case Cause.NOT_OURS:
            name = host.inside() or PurePosixPath("sandbox-runner")
            groups = " ".join(shlex.quote(str(point / name)) for point in host.points(ceilings.controllers))
            return (
                f"as root `mkdir -p {groups}` and `chown -R {host.user} {groups}`, and then set "
                f"{PARENT_VARIABLE}={shlex.quote(str(name))}"
            )
        case _:
            return _DELEGATE


def _refusal(ceilings: Ceilings, reason: str, remedy: str) -> str:
    walls = [_WALLS[name] for name in ceilings.controllers if name in _WALLS]
    missing = walls + (["resources.cpus"] if ceilings.cpus is not None else [])
    without = []
    if walls:
        without.append(f"name {' and '.join(walls)} in SandboxSpec.loosen")
    if ceilings.cpus is not None:
        without.append("leave out resources.cpus")
    return (
        f"{' and '.join(missing)} cannot be held, because no control group can be made here: {reason}. "
        f"Either {remedy}; or go on without: {' and '.join(without)}"
    )


def group_of(parent: Parent | None, name: str) -> Group:
    """The group of the sandbox *name*, not yet made; without a parent, no group at all."""
    return Group({}) if parent is None else Group.at(parent, f"sandbox-runner-{name}")


def make_group(group: Group, parent: Parent | None, ceilings: Ceilings) -> None:
    """Make it. Raises `BackendUnavailable`, with nothing left, if the kernel refuses."""
    if parent is None:
        return
    try:
        prepare(parent)
        group.make(ceilings)
    except OSError as error:
        where = f"{error.filename}: {error.strerror}"
        raise BackendUnavailable(_refusal(ceilings, where, "see why the kernel refused it")) from None


def remove_group(group: Group) -> None:
    """End what runs in it, and remove it. Raises `SandboxError` if that fails. None of it need exist."""
    try:
        group.kill(_END_S)
        group.remove(_END_S)
    except OSError as error:
        raise SandboxError(f"the control group {error.filename} cannot be removed: {error.strerror}") from None
