"""Control groups, v1 and v2, for the ceilings of the namespace backend: where one may be made, and a sandbox's own.

Theory of operation. `find_parent` decides from a `Tree` where a group may be made, or why
not; `Group` is one sandbox's group, whose directories are known before they are made, so
that they can be noted where `cleanup` finds them. A command joins by writing to the
`cgroup.procs` of each before it becomes bubblewrap (`enter`).

Must not: choose ceilings, or touch a group that was not made here. A ceiling that cannot
be held is refused: there is no second-best one.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sandbox_runner.errors import BackendUnavailable, SandboxError
from sandbox_runner.mountinfo import mounted
from sandbox_runner.processes import end_processes
from sandbox_runner.spec import SandboxSpec

PARENT_VARIABLE = "SANDBOX_RUNNER_CGROUP_PARENT"
HOST_LEAF = "sandbox-runner.host"
_PERIOD_US = 100_000
_LEAST_QUOTA_US = 1_000  # the kernel refuses less
_END_S = 5.0
_WALLS = {"memory": "memory_limit", "pids": "pids_limit"}


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a group has to hold. None: nothing."""

    memory_bytes: int | None = None
    pids: int | None = None
    cpus: float | None = None

    @classmethod
    def of(cls, spec: SandboxSpec) -> Ceilings:
        """Those of *spec*."""
        return cls(memory_bytes=spec.memory_bytes, pids=spec.pids, cpus=spec.resources.cpus)

    @property
    def controllers(self) -> tuple[str, ...]:
        """The kernel's controllers that hold them."""
        wanted = {"memory": self.memory_bytes, "pids": self.pids, "cpu": self.cpus}
        return tuple(name for name, value in wanted.items() if value is not None)

    def files(self, version: int) -> list[tuple[str, str, str, bool]]:
        """What to write, in this order: controller, file, text, and whether a kernel must have the file."""
        found = []
        if self.memory_bytes is not None:
            size = str(self.memory_bytes)
            # Without a ceiling of swap, a hog pages the machine out before it dies.
            if version == 2:
                found += [("memory", "memory.max", size, True), ("memory", "memory.swap.max", "0", False)]
            else:
                found += [
                    ("memory", "memory.limit_in_bytes", size, True),
                    ("memory", "memory.memsw.limit_in_bytes", size, False),
                    ("memory", "memory.swappiness", "0", False),
                ]
        if self.pids is not None:
            found.append(("pids", "pids.max", str(self.pids), True))
        if self.cpus is not None:
            quota = max(int(self.cpus * _PERIOD_US), _LEAST_QUOTA_US)
            if version == 2:
                found.append(("cpu", "cpu.max", f"{quota} {_PERIOD_US}", True))
            else:
                found.append(("cpu", "cpu.cfs_period_us", str(_PERIOD_US), True))
                found.append(("cpu", "cpu.cfs_quota_us", str(quota), True))
        return found


@dataclass(frozen=True, slots=True)
class Tree:
    """What the kernel says of control groups, as texts, and of what this process may write."""

    mountinfo: str
    own: str  # of /proc/self/cgroup
    configured: str | None = None  # a group's name beneath each mount, instead of our own
    pid: int = 0
    is_writable: Callable[[Path], bool] = lambda path: os.access(path, os.W_OK, effective_ids=True)

    @classmethod
    def of_this_process(cls) -> Tree:
        """As it is here and now."""
        configured = os.environ.get(PARENT_VARIABLE) or None
        return cls(_text("/proc/self/mountinfo"), _text("/proc/self/cgroup"), configured, os.getpid())


@dataclass(frozen=True, slots=True)
class Parent:
    """Where groups may be made: the directory of each controller (on v2 the same one).

    `enable`: what has to be switched on for its children. `leaf`: the group this process moves to first, because v2
    lets no group with controllers for its children hold processes itself.
    """

    version: int
    directories: Mapping[str, Path]
    enable: tuple[str, ...] = ()
    leaf: Path | None = None


@dataclass(frozen=True, slots=True)
class _Mount:
    root: PurePosixPath  # the group that is seen at `point`: not "/" in containers
    point: Path
    kinds: frozenset[str]  # v1: its controllers; v2: {"unified"}

    def directory_of(self, group: str) -> Path | None:
        path = PurePosixPath(group)
        if ".." in path.parts or not path.is_relative_to(self.root):
            return None
        return self.point / path.relative_to(self.root)


class _Lack(Exception):
    """Why no group can be made, and what to do about it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


def find_parent(ceilings: Ceilings, tree: Tree) -> Parent | None:
    """Where a group that holds *ceilings* may be made; None if there is nothing to hold.

    Raises `BackendUnavailable` naming the ceilings that would not stand, why, and both ways out.
    """
    if not ceilings.controllers:
        return None
    mounts = _mounts(tree.mountinfo)
    unified = [mount for mount in mounts if "unified" in mount.kinds]
    offered = {word for mount in unified for word in _words(mount.point / "cgroup.controllers") or ()}
    on_v1 = {kind for mount in mounts for kind in mount.kinds} & set(ceilings.controllers)
    try:
        if offered.issuperset(ceilings.controllers) or (unified and not on_v1):
            return _on_v2(ceilings.controllers, tree, unified)
        return _on_v1(ceilings.controllers, tree, mounts)
    except _Lack as lack:
        raise BackendUnavailable(_refusal(ceilings, str(lack), lack.remedy)) from None


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


_DELEGATE = "start the program with `systemd-run --user --scope -p Delegate=yes COMMAND`"


def _on_v1(controllers: Sequence[str], tree: Tree, mounts: Sequence[_Mount]) -> Parent:
    own = _own_groups(tree.own)
    found = {}
    for controller in controllers:
        at = [mount for mount in mounts if controller in mount.kinds]
        if not at:
            raise _Lack(f"no hierarchy with the {controller} controller is mounted", "mount it")
        places = [_configured(tree, mount) or mount.directory_of(own.get(controller, "/")) for mount in at]
        shown = [place for place in places if place is not None] or [mount.point for mount in at]
        writable = [place for place in shown if tree.is_writable(place)]
        if not writable:
            points = {mount.point for kind in controllers for mount in mounts if kind in mount.kinds}
            groups = " ".join(sorted(f"{point}/{tree.configured or 'sandbox-runner'}" for point in points))
            raise _Lack(
                f"{shown[0]} is not writable by this process",
                f"as root `mkdir -p {groups}` and `chown -R USER {groups}`, and then set "
                f"{PARENT_VARIABLE}={tree.configured or 'sandbox-runner'}",
            )
        found[controller] = writable[0]
    return Parent(1, found)


def _on_v2(controllers: Sequence[str], tree: Tree, unified: Sequence[_Mount]) -> Parent:
    mount = unified[-1]
    group = _own_groups(tree.own).get("unified", "/")
    own = mount.directory_of(group)
    if own is None:
        raise _Lack(f"our own group {group} is not beneath the mounted {mount.root}", _DELEGATE)
    if (asked := _configured(tree, mount)) is not None:
        return _v2_at(asked, controllers, tree, own)
    # A process that one of ours started sits in the leaf that it moved to; the parent is above.
    base = own.parent if own.name == HOST_LEAF else own
    lack: _Lack | None = None
    for place in (base, *base.parents):
        if not place.is_relative_to(mount.point) or not _may_move(tree, place):
            break
        try:
            return _v2_at(place, controllers, tree, own)
        except _Lack as why:
            lack = lack or why
    raise lack or _Lack(f"{base} is not writable by this process", _DELEGATE)


def _may_move(tree: Tree, place: Path) -> bool:
    return tree.is_writable(place) and tree.is_writable(place / "cgroup.procs")


def _v2_at(place: Path, controllers: Sequence[str], tree: Tree, own: Path) -> Parent:
    """The parent *place*. Raises `_Lack` if no group with *controllers* can be made in it."""
    if not _may_move(tree, place):
        raise _Lack(f"{place} is not writable by this process", _DELEGATE)
    directories = dict.fromkeys(controllers, place)
    enabled = _words(place / "cgroup.subtree_control") or []
    enable = tuple(name for name in controllers if name not in enabled)
    if not enable:
        return Parent(2, directories)
    if missing := [name for name in enable if name not in (_words(place / "cgroup.controllers") or [])]:
        raise _Lack(f"{place} is not given the controllers {' and '.join(missing)}", _DELEGATE)
    if not tree.is_writable(place / "cgroup.subtree_control"):
        raise _Lack(f"{place}/cgroup.subtree_control is not writable by this process", _DELEGATE)
    inside = _words(place / "cgroup.procs") or []
    if not inside or not (place / "cgroup.type").exists():  # the machine's root group, which is exempt, has none
        return Parent(2, directories, enable)
    if place != own or inside != [str(tree.pid)]:
        others = len(set(inside) - {str(tree.pid)})
        raise _Lack(f"{place} holds {others} other processes, so no controller can be enabled in it", _DELEGATE)
    return Parent(2, directories, enable, place / HOST_LEAF)


def _configured(tree: Tree, mount: _Mount) -> Path | None:
    if tree.configured is None:
        return None
    name = PurePosixPath(tree.configured)
    place = mount.point / name
    if name.is_absolute() or ".." in name.parts or not place.is_dir():
        raise _Lack(f"{PARENT_VARIABLE}={tree.configured} names no group beneath {mount.point}", "correct or unset it")
    return place


def _mounts(mountinfo: str) -> list[_Mount]:
    """Of several mounts at one place the last, which hides the others."""
    found: dict[str, _Mount] = {}
    for mount in mounted(mountinfo):
        if mount.kind in ("cgroup", "cgroup2"):
            kinds = ("unified",) if mount.kind == "cgroup2" else mount.options
            found[mount.point] = _Mount(PurePosixPath(mount.root), Path(mount.point), frozenset(kinds))
    return list(found.values())


def _own_groups(own: str) -> dict[str, str]:
    groups: dict[str, str] = {}
    for line in own.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        kinds = ["unified"] if number == "0" and not controllers else controllers.split(",")
        groups.update(dict.fromkeys(kinds, path))
    return groups


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:  # a kernel without control groups
        return ""


def _words(path: Path) -> list[str] | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return None


class Group:
    """One sandbox's group: a directory of one name beneath each of its parent's."""

    def __init__(self, directories: Mapping[str, str]) -> None:
        self.directories = dict(directories)  # by controller
        self.paths = tuple(dict.fromkeys(self.directories.values()))

    @classmethod
    def at(cls, parent: Parent | None, name: str) -> Group:
        """The group *name*, not yet made; without a parent, no group at all."""
        places = {} if parent is None else parent.directories
        return cls({controller: f"{place}/sandbox-runner-{name}" for controller, place in places.items()})

    def make(self, parent: Parent | None, ceilings: Ceilings) -> None:
        """Make it. Raises `BackendUnavailable` if the kernel refuses; what is left then, `remove` removes."""
        if parent is None:
            return
        try:
            if parent.leaf is not None:
                parent.leaf.mkdir(exist_ok=True)
                _write(f"{parent.leaf}/cgroup.procs", "0")  # 0: the writer
            if parent.enable:
                place = next(iter(parent.directories.values()))
                _write(f"{place}/cgroup.subtree_control", " ".join(f"+{name}" for name in parent.enable))
            for path in self.paths:
                Path(path).mkdir()
            for controller, file, text, required in ceilings.files(parent.version):
                _set(f"{self.directories[controller]}/{file}", text, required=required)
        except OSError as error:
            where = f"{error.filename}: {error.strerror}"
            raise BackendUnavailable(_refusal(ceilings, where, "see why the kernel refused it")) from None

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory."""
        place = self.directories.get("memory")
        for name in ("memory.events", "memory.oom_control") if place else ():
            with suppress(OSError):
                lines = Path(f"{place}/{name}").read_text(encoding="ascii").splitlines()
                return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
        return 0

    def members(self) -> set[int]:
        """The processes in it that this pid namespace can name."""
        return {int(word) for path in self.paths for word in _words(Path(f"{path}/cgroup.procs")) or ()} - {0}

    def remove(self) -> None:
        """End what runs in it, and remove it. Raises `SandboxError` if that fails. None of it need exist."""
        end_processes(self.members)
        until = time.monotonic() + _END_S
        for path in self.paths:
            _remove_directory(path, until)


def _remove_directory(path: str, until: float) -> None:
    while True:
        try:
            Path(path).rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            # A process that was just reaped keeps its group busy for some microseconds more.
            if error.errno != errno.EBUSY or time.monotonic() > until:
                raise SandboxError(f"the control group {path} cannot be removed: {error.strerror}") from None
            time.sleep(0.001)
        else:
            return


def _set(path: str, text: str, *, required: bool) -> None:
    try:
        _write(path, text)
    except OSError as error:
        if required or error.errno not in (errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM):
            raise


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None  # write(2) itself names no file
    finally:
        os.close(descriptor)
