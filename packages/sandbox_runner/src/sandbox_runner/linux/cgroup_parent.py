"""Where control groups may be made, v1 and v2, and why not. It decides from texts and makes nothing.

A `Host` is what the kernel says, and what this process may write. What an operator can do about a lack depends on who
asks, so a `Lack` has its cause and reason, and no remedy.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path, PurePosixPath

from sandbox_runner.linux.mountinfo import mounted

_UNIFIED = "cgroup2"


@dataclass(frozen=True, slots=True)
class Parent:
    """Where groups may be made: the directory of each controller (on v2 the same one).

    `enable` and `leaf` are what `prepare` has still to do: controllers to switch on for children, and the group this
    process must move into first (v2 lets no group with controllers enabled for its children hold processes itself;
    only the machine's root group is exempt).
    """

    version: int
    directories: Mapping[str, Path]
    enable: tuple[str, ...] = ()
    leaf: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Each directory once: v1 controllers may share a hierarchy, on v2 all do."""
        return tuple(dict.fromkeys(self.directories.values()))


class Cause(Enum):
    """Why a controller cannot be used: what an owner of a policy chooses a remedy by."""

    UNMOUNTED = auto()
    MISNAMED = auto()  # the variable's value
    NOT_OURS = auto()  # a directory of v1
    NOT_DELEGATED = auto()  # the same of v2, where moving processes needs rights, too
    WITHHELD = auto()  # v2: the group above does not hand the controller down
    CROWDED = auto()  # v2: processes of others keep a controller from being enabled


@dataclass(frozen=True, slots=True)
class Lack:
    """Why one controller cannot be used."""

    controller: str
    cause: Cause
    reason: str


@dataclass(frozen=True, slots=True)
class _Mount:
    root: PurePosixPath  # which group of the hierarchy is seen at `point`: not "/" in containers
    point: Path
    kinds: frozenset[str]  # v1: its controllers; v2: {"cgroup2"}

    def directory_of(self, group: str) -> Path | None:
        """The directory of *group*, or None when this mount does not show it."""
        path = PurePosixPath(group)
        # "/../x" is how a group outside our cgroup namespace is spelled.
        if ".." in path.parts or not path.is_relative_to(self.root):
            return None
        return self.point / path.relative_to(self.root)


def may_write(path: Path) -> bool:
    """Asks the kernel, so that a read-only mount is seen as well, and for root too."""
    return os.access(path, os.W_OK, effective_ids=True)


class Host:
    """What the kernel says of control groups, as texts, and of what this process may write.

    *variable* is the environment's name of *configured*: a group's name beneath each mount, or its folder in one, in
    place of our own group. *leaf* is what the group is called that a process of this program moves to.
    """

    def __init__(
        self,
        mountinfo: str,
        own: str,
        *,
        variable: str,
        leaf: str,
        configured: str | None = None,
        pid: int = 0,
        user: str = "USER",
        is_writable: Callable[[Path], bool] = may_write,
    ) -> None:
        self.variable, self.leaf, self.configured = variable, leaf, configured or None
        self.pid, self.user, self.is_writable = pid, user, is_writable
        self.own = _own_groups(own)
        self.mounts = _mounts(mountinfo)

    @classmethod
    def of_this_process(cls, *, variable: str, leaf: str, configured: str | None) -> Host:
        """As it is here and now."""
        return cls(
            _text("/proc/self/mountinfo"),
            _text("/proc/self/cgroup"),
            variable=variable,
            leaf=leaf,
            configured=configured,
            pid=os.getpid(),
            user=_own_name(),
        )

    def of_kind(self, kind: str) -> list[_Mount]:
        """The mounts of a controller (v1), or of v2."""
        return [mount for mount in self.mounts if kind in mount.kinds]

    def points(self, controllers: Sequence[str]) -> list[Path]:
        """One mount point for each of *controllers* that v1 has."""
        return list(dict.fromkeys(at[0].point for kind in controllers if (at := self.of_kind(kind))))

    def inside(self) -> PurePosixPath | None:
        """The configured group's name beneath every hierarchy; an absolute path says it by its folder in one."""
        path = PurePosixPath(self.configured or "")
        if self.configured is None or ".." in path.parts:
            return None
        if not path.is_absolute():
            return path
        # The longest mount point first: the hierarchies of v1 lie beneath the tmpfs or v2 mount of others.
        points = sorted((mount.point for mount in self.mounts), key=lambda point: len(point.parts), reverse=True)
        return next((path.relative_to(point) for point in points if path.is_relative_to(point)), None)

    def first_writable(self, places: Sequence[Path]) -> Path | None:
        """The first of *places* in which this process can make a group."""
        return next((place for place in places if self.is_writable(place)), None)

    def candidates(self, kind: str) -> list[Path] | tuple[Cause, str]:
        """The directories that could be the parent for *kind*, the best first; or why it has none."""
        mounts = self.of_kind(kind)
        if not mounts:
            return Cause.UNMOUNTED, f"no hierarchy with the {kind} controller is mounted"
        if self.configured is not None:
            inside = self.inside()
            if inside is None:
                return Cause.MISNAMED, f"{self.variable}={self.configured} is not beneath a control group mount"
            found = [mount.point / inside for mount in mounts]
            there = [place for place in found if place.is_dir()]
            return there or (Cause.MISNAMED, f"{self.variable}={self.configured}: {found[0]} does not exist")
        own = self.own.get(kind, "/")
        shown = [place for mount in mounts if (place := mount.directory_of(own)) is not None]
        if not shown and kind == _UNIFIED:
            # Moving a process needs the common ancestor's cgroup.procs, which has no name here.
            return Cause.NOT_DELEGATED, f"our own group {own} is not beneath the mounted {mounts[0].root}"
        return shown or [mount.point for mount in mounts]


def find_parent(
    controllers: Sequence[str], host: Host, *, optional: Sequence[str] = (), climb: bool = False
) -> Parent | tuple[Lack, ...]:
    """Where groups with *controllers* may be made: v2 if it offers them all, else v1; or what is lacking.

    *optional* ones of v1 are used where they can be. With *climb* a group above our own may be the parent, if this
    process can move to its groups; else the ceilings set on us hold for each group as well.
    """
    unified = host.of_kind(_UNIFIED)
    offered = {word for mount in unified for word in _words(mount.point / "cgroup.controllers") or ()}
    if offered.issuperset(controllers) or (unified and not any(host.of_kind(name) for name in controllers)):
        return _on_v2(controllers, host, climb=climb)
    return _on_v1(controllers, host, optional)


def _on_v1(controllers: Sequence[str], host: Host, optional: Sequence[str]) -> Parent | tuple[Lack, ...]:
    found: dict[str, Path] = {}
    lacks: list[Lack] = []
    for controller in (*controllers, *optional):
        places = host.candidates(controller)
        best = host.first_writable(places) if isinstance(places, list) else None
        if best is not None:
            found[controller] = best
        elif controller not in controllers:
            continue
        elif isinstance(places, list):
            lacks.append(Lack(controller, Cause.NOT_OURS, f"{places[0]} is not writable by this process"))
        else:
            lacks.append(Lack(controller, *places))
    return tuple(lacks) or Parent(1, found)


def _on_v2(controllers: Sequence[str], host: Host, *, climb: bool) -> Parent | tuple[Lack, ...]:
    places = host.candidates(_UNIFIED)
    if not isinstance(places, list):
        return _all_lack(controllers, *places)
    # A process that one of ours started sits in the leaf that it moved to; the parent is above.
    places = [place.parent if place.name == host.leaf else place for place in places]
    base = host.first_writable(places)
    if base is None:
        return _all_lack(controllers, Cause.NOT_DELEGATED, f"{places[0]} is not writable by this process")
    top = next(mount for mount in host.of_kind(_UNIFIED) if base.is_relative_to(mount.point))
    own = top.directory_of(host.own.get(_UNIFIED, "/")) or top.point
    first = _v2_at(base, controllers, host, own)
    for place in base.parents if climb and host.configured is None else ():
        # Above a group that is not ours, none is in reach: the kernel would not let a process move there.
        if isinstance(first, Parent) or not place.is_relative_to(top.point) or not _may_move(place, host, own):
            break
        if isinstance(found := _v2_at(place, controllers, host, own), Parent):
            return found
    return first


def _may_move(place: Path, host: Host, own: Path) -> bool:
    return host.is_writable(place) and host.is_writable(_meeting(place, own))


def _meeting(place: Path, own: Path) -> Path:
    """What v2 asks for the right to write, of who moves a process: the group above both ours and *place*."""
    return next(d for d in (place, *place.parents) if own.is_relative_to(d)) / "cgroup.procs"


def _v2_at(base: Path, controllers: Sequence[str], host: Host, own: Path) -> Parent | tuple[Lack, ...]:
    offered = _words(base / "cgroup.controllers") or []
    if missing := [name for name in controllers if name not in offered]:
        return tuple(Lack(name, Cause.WITHHELD, f"{base} is not given the controller {name}") for name in missing)
    meeting = _meeting(base, own)
    if not host.is_writable(meeting):
        reason = f"{meeting} is not writable, so no process can be moved"
        return _all_lack(controllers, Cause.NOT_DELEGATED, reason)
    directories = dict.fromkeys(controllers, base)
    enabled = _words(base / "cgroup.subtree_control") or []
    enable = tuple(name for name in controllers if name not in enabled)
    if not enable:
        return Parent(2, directories)
    control = base / "cgroup.subtree_control"
    if not host.is_writable(control):
        return _all_lack(enable, Cause.NOT_DELEGATED, f"{control} is not writable by this process")
    if _words(base / "cgroup.type") is None:  # only the machine's root group has no such file
        return Parent(2, directories, enable)
    inside = _words(base / "cgroup.procs") or []
    if others := [number for number in inside if number != str(host.pid)]:
        reason = f"{base} holds {len(others)} other processes, so its controllers cannot be enabled"
        return _all_lack(enable, Cause.CROWDED, reason)
    return Parent(2, directories, enable, base / host.leaf if inside else None)


def _all_lack(controllers: Sequence[str], cause: Cause, reason: str) -> tuple[Lack, ...]:
    return tuple(Lack(name, cause, reason) for name in controllers)


def _own_name() -> str:
    """How chown may call us: our name, or where the machine has none for us, as in many containers, the number."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _mounts(mountinfo: str) -> list[_Mount]:
    """The cgroup mounts; of several on one mount point the last, which hides the others."""
    found: dict[str, _Mount] = {}
    for mount in mounted(mountinfo):
        found.pop(mount.point, None)
        if mount.kind in ("cgroup", _UNIFIED):
            kinds = (_UNIFIED,) if mount.kind == _UNIFIED else mount.options
            found[mount.point] = _Mount(PurePosixPath(mount.root), Path(mount.point), frozenset(kinds))
    return list(found.values())


def _own_groups(own: str) -> dict[str, str]:
    groups: dict[str, str] = {}
    for line in own.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        kinds = [_UNIFIED] if number == "0" and not controllers else controllers.split(",")
        groups.update(dict.fromkeys(kinds, path))
    return groups


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:  # a kernel without control groups
        return ""


def _words(path: Path) -> list[str] | None:
    """The words of a file; None when it is not there or may not be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return None
