"""Control groups, v1 and v2: which one may hold a run, and the group of one run.

Theory of operation. `find_parent` decides from texts alone where groups may be made and
never touches the host; `prepare` does once what that decision still needs; `make` makes one
group per run beneath it, and the group's own files are the only source for what was enforced
and used. A group's name carries its owner's pid and start time, so that a later process can
tell an orphan from a neighbour's.

Must not: choose ceilings, know what a run is, leave a directory behind on failure, or touch a
group that has not one of our names.

Longer than 400 lines because each rule of the kernel's that the deciding half reads is one that
the acting half obeys; they change together.
"""

import errno
import os
import pwd
import re
import select
import shlex
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

V1 = "cgroup-v1"
V2 = "cgroup-v2"
NEEDED = ("memory", "pids", "cpu")
HOST_LEAF = "isorun.host"

_UNIFIED = "cgroup2"
_PERIOD_US = 100_000
_MIN_QUOTA_US = 1_000  # the kernel refuses a smaller one
_NAME = re.compile(r"isorun-([1-9][0-9]*)-([0-9]+)-([0-9]+)")
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Parent:
    """Where groups may be made: the directory of each controller (one and the same on v2).

    `enable` and `leaf` are what `prepare` has still to do: controllers to switch on for children,
    and the group this process must move into first (v2 lets no group with controllers enabled
    for its children hold processes itself; only the machine's root group is exempt).
    """

    version: str
    memory: Path
    pids: Path
    cpu: Path
    cpuacct: Path | None = None  # v1: counts CPU time; optional, since it holds no ceiling
    enable: tuple[str, ...] = ()
    leaf: Path | None = None

    @property
    def dirs(self) -> tuple[Path, ...]:
        """Each directory once: v1 controllers may share a hierarchy, on v2 all do."""
        found = (self.memory, self.pids, self.cpu, self.cpuacct)
        return tuple(dict.fromkeys(d for d in found if d is not None))


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


@dataclass(frozen=True, slots=True)
class CgroupUsage:
    """What the kernel counted for one group. None: this kernel does not count it."""

    oom_kills: int
    pids_max_hits: int
    peak_memory_bytes: int | None
    cpu_s: float | None


# ---- deciding ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Mount:
    root: PurePosixPath  # which group of the hierarchy is seen at `point`: not "/" in containers
    point: Path
    kinds: frozenset[str]  # v1: its controllers; v2: {"cgroup2"}

    def dir_of(self, group: str) -> Path | None:
        """The directory of *group*, or None when this mount does not show it."""
        path = PurePosixPath(group)
        # "/../x" is how a group outside our cgroup namespace is spelled.
        if ".." in path.parts or not path.is_relative_to(self.root):
            return None
        return self.point / path.relative_to(self.root)


@dataclass(frozen=True, slots=True)
class _Host:
    mounts: tuple[_Mount, ...]
    own: dict[str, str]
    configured: str | None
    is_writable: Callable[[Path], bool]
    read: Callable[[Path], str]
    pid: int
    user: str

    def words(self, path: Path) -> list[str] | None:
        """The words of a file; None when it is not there or may not be read."""
        try:
            return self.read(path).split()
        except OSError:
            return None

    def of_kind(self, kind: str) -> list[_Mount]:
        return [m for m in self.mounts if kind in m.kinds]


def find_parent(
    mountinfo: str,
    self_cgroup: str,
    *,
    configured: str | None,
    is_writable: Callable[[Path], bool],
    read: Callable[[Path], str],
    pid: int,
    user: str,
) -> Parent | Refusal:
    """Where groups of runs may be made: v2 if it offers every controller, else v1, else why not.

    The texts are those of /proc/self/mountinfo and /proc/self/cgroup. Without *configured*
    the parent is this process's own group, so that the ceilings set on us hold for runs as well.
    *configured* (ISORUN_CGROUP_PARENT) is relative to the mounts or absolute beneath one of them.
    """
    host = _Host(_mounts(mountinfo), _own_groups(self_cgroup), configured or None, is_writable, read, pid, user)
    unified = host.of_kind(_UNIFIED)
    offered = {w for m in unified for w in host.words(m.point / "cgroup.controllers") or ()}
    if offered.issuperset(NEEDED):
        return _on_v2(host)
    if unified and not any(host.of_kind(c) for c in NEEDED):
        return _on_v2(host)
    return _on_v1(host)


def find_own_parent(configured: str | None) -> Parent | Refusal:
    """`find_parent` for this process on this machine."""
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        self_cgroup = Path("/proc/self/cgroup").read_text(errors="surrogateescape")
    except FileNotFoundError:  # a kernel without control groups has no /proc/self/cgroup
        mountinfo = self_cgroup = ""
    return find_parent(
        mountinfo,
        self_cgroup,
        configured=configured,
        # Asks the kernel, so that a read-only mount is seen as well, and for root too.
        is_writable=lambda path: os.access(path, os.W_OK, effective_ids=True),
        read=Path.read_text,
        pid=os.getpid(),
        user=_own_name(),
    )


def _own_name() -> str:
    """How chown may call us: our name, or where the machine has none for us the number."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _mounts(mountinfo: str) -> tuple[_Mount, ...]:
    """The cgroup mounts; of several on one mount point the last, which hides the others."""
    found: dict[Path, _Mount] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, source = left.split(" "), right.split(" ")
        if len(fields) < 6 or len(source) < 3:
            continue
        point = Path(_unescaped(fields[4]))
        found.pop(point, None)
        if source[0] == _UNIFIED:
            found[point] = _Mount(PurePosixPath(_unescaped(fields[3])), point, frozenset({_UNIFIED}))
        elif source[0] == "cgroup":
            kinds = frozenset(source[2].split(","))
            found[point] = _Mount(PurePosixPath(_unescaped(fields[3])), point, kinds)
    return tuple(found.values())


def _unescaped(field: str) -> str:
    return _ESCAPED.sub(lambda m: chr(int(m[1], 8)), field)


def _own_groups(self_cgroup: str) -> dict[str, str]:
    groups: dict[str, str] = {}
    for line in self_cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        names = [_UNIFIED] if number == "0" and not controllers else controllers.split(",")
        groups.update(dict.fromkeys(names, path))
    return groups


def _candidates(host: _Host, kind: str) -> list[Path] | str:
    """The directories that could be the parent for *kind*, the best first; a text: why there is none."""
    mounts = host.of_kind(kind)
    if not mounts:
        return "no control group hierarchy with it is mounted"
    if host.configured is not None:
        inside = _configured_within(host)
        if inside is None:
            return f"ISORUN_CGROUP_PARENT={host.configured} is not beneath a control group mount"
        found = [m.point / inside for m in mounts]
        there = [d for d in found if host.words(d / "cgroup.procs") is not None]
        return there or f"ISORUN_CGROUP_PARENT={host.configured}: {found[0]} does not exist"
    own = host.own.get(kind, "/")
    found = [d for m in mounts if (d := m.dir_of(own)) is not None]
    if found:
        return found
    if kind == _UNIFIED:
        # Moving a process needs the common ancestor's cgroup.procs, which nobody here can name.
        return f"our own group {own} is not beneath the mounted {mounts[0].root}"
    return [m.point for m in mounts]


def _configured_within(host: _Host) -> PurePosixPath | None:
    path = PurePosixPath(host.configured or "")
    if ".." in path.parts:
        return None
    if not path.is_absolute():
        return path
    # The longest mount point first: the hierarchies of v1 lie beneath the tmpfs or v2 mount of others.
    for mount in sorted(host.mounts, key=lambda m: len(m.point.parts), reverse=True):
        if path.is_relative_to(mount.point):
            return path.relative_to(mount.point)
    return None


def _first_writable(host: _Host, dirs: list[Path]) -> Path | None:
    return next((d for d in dirs if host.is_writable(d)), None)


def _on_v1(host: _Host) -> Parent | Refusal:
    found: dict[str, Path] = {}
    lacks: list[Lack] = []
    for controller in NEEDED:
        dirs = _candidates(host, controller)
        if isinstance(dirs, str):
            remedy = "mount the hierarchy, or unset or correct ISORUN_CGROUP_PARENT"
            lacks.append(Lack(controller, dirs, remedy))
        elif (best := _first_writable(host, dirs)) is None:
            lacks.append(Lack(controller, f"{dirs[0]} is not writable by this process", _v1_remedy(host)))
        else:
            found[controller] = best
    if lacks:
        return Refusal(tuple(lacks))
    accounts = _candidates(host, "cpuacct")
    cpuacct = None if isinstance(accounts, str) else _first_writable(host, accounts)
    return Parent(V1, found["memory"], found["pids"], found["cpu"], cpuacct)


def _v1_remedy(host: _Host) -> str:
    """One command for every hierarchy, and the one name that is then valid in all of them."""
    inside = _configured_within(host) if host.configured is not None else PurePosixPath("isorun")
    points = dict.fromkeys(mounts[0].point for c in NEEDED if (mounts := host.of_kind(c)))
    groups = " ".join(shlex.quote(str(point / (inside or ""))) for point in points)
    remedy = f"as root: mkdir -p {groups} && chown -R {host.user} {groups}"
    return remedy if host.configured is not None else f"{remedy}; then: export ISORUN_CGROUP_PARENT=isorun"


_DELEGATE = "start it with: systemd-run --user --scope -p Delegate=yes COMMAND"


def _on_v2(host: _Host) -> Parent | Refusal:
    dirs = _candidates(host, _UNIFIED)
    if isinstance(dirs, str):
        return _all_lack(dirs, f"unset or correct ISORUN_CGROUP_PARENT, or {_DELEGATE}")
    # A process that an isorun started sits in the leaf that isorun moved to: the parent is above.
    dirs = [d.parent if d.name == HOST_LEAF else d for d in dirs]
    base = _first_writable(host, dirs)
    if base is None:
        return _all_lack(f"{dirs[0]} is not writable by this process", _DELEGATE)
    offered = host.words(base / "cgroup.controllers") or []
    missing = [c for c in NEEDED if c not in offered]
    if missing:
        remedy = f"have the service above delegate it (Delegate={' '.join(NEEDED)})"
        return Refusal(tuple(Lack(c, f"{base} is not given this controller", remedy) for c in missing))
    meeting = _common_ancestor(host, base) / "cgroup.procs"
    if not host.is_writable(meeting):
        return _all_lack(f"{meeting} is not writable, so no process can be moved", _DELEGATE)
    enabled = host.words(base / "cgroup.subtree_control") or []
    enable = tuple(c for c in NEEDED if c not in enabled)
    return _with_enabled(host, base, enable) if enable else Parent(V2, base, base, base)


def _with_enabled(host: _Host, base: Path, enable: tuple[str, ...]) -> Parent | Refusal:
    """The parent *base*, if its controllers can be switched on for its children."""
    control = base / "cgroup.subtree_control"
    if not host.is_writable(control):
        return Refusal(tuple(Lack(c, f"{control} is not writable", _DELEGATE) for c in enable))
    if host.words(base / "cgroup.type") is None:  # only the machine's root group has no such file
        return Parent(V2, base, base, base, enable=enable)
    inside = host.words(base / "cgroup.procs") or []
    others = [p for p in inside if p != str(host.pid)]
    if others:
        reason = f"{base} holds {len(others)} other processes, so its controllers cannot be enabled"
        return Refusal(tuple(Lack(c, reason, f"{_DELEGATE}; or set ISORUN_CGROUP_PARENT") for c in enable))
    return Parent(V2, base, base, base, enable=enable, leaf=base / HOST_LEAF if inside else None)


def _common_ancestor(host: _Host, base: Path) -> Path:
    """The group above both ours and *base*: v2 asks for the right to write its cgroup.procs."""
    mount = next(m for m in host.of_kind(_UNIFIED) if base.is_relative_to(m.point))
    own = mount.dir_of(host.own.get(_UNIFIED, "/")) or mount.point
    return next(d for d in (base, *base.parents) if own.is_relative_to(d))


def _all_lack(reason: str, remedy: str) -> Refusal:
    return Refusal(tuple(Lack(c, reason, remedy) for c in NEEDED))


def settings(version: str, *, memory_bytes: int, processes: int, cpus: float) -> tuple[tuple[str, str, str, bool], ...]:
    """The files of one group in the order they are written: (controller, file, text, must exist)."""
    quota = int(cpus * _PERIOD_US)
    if memory_bytes <= 0 or processes <= 0 or quota < _MIN_QUOTA_US:
        raise ValueError(
            f"a group needs positive memory_bytes and processes and cpus of 0.01 or more, "
            f"got {memory_bytes}, {processes} and {cpus}"
        )
    if version == V2:
        return (
            ("memory", "memory.max", str(memory_bytes), True),
            # Without it a hog pages the whole machine out before it dies.
            ("memory", "memory.swap.max", "0", False),
            # One process of the run dies of memory, not all: a child's end is the program's to handle.
            ("memory", "memory.oom.group", "0", False),
            ("pids", "pids.max", str(processes), True),
            ("cpu", "cpu.max", f"{quota} {_PERIOD_US}", True),
        )
    return (
        # Before memsw: memory and swap together may never be set below memory alone.
        ("memory", "memory.limit_in_bytes", str(memory_bytes), True),
        ("memory", "memory.memsw.limit_in_bytes", str(memory_bytes), False),
        # Where swap is not counted (no memsw) this keeps the group's pages out of it.
        ("memory", "memory.swappiness", "0", False),
        ("pids", "pids.max", str(processes), True),
        ("cpu", "cpu.cfs_period_us", str(_PERIOD_US), True),
        ("cpu", "cpu.cfs_quota_us", str(quota), True),
    )


# ---- acting ------------------------------------------------------------------------------------


def prepare(parent: Parent) -> None:
    """Do what `find_parent` found still to do; once, before this process starts any other."""
    if parent.leaf is not None:
        parent.leaf.mkdir(exist_ok=True)
        _write(f"{parent.leaf}/cgroup.procs", "0")  # 0: the writer
    if parent.enable:
        _write(f"{parent.memory}/cgroup.subtree_control", " ".join(f"+{c}" for c in parent.enable))


def group_name(n: int) -> str:
    """The name of this process's *n*th group."""
    return f"isorun-{os.getpid()}-{_start_time(os.getpid())}-{n}"


class Cgroup:
    """The group of one run. It owns its directories until `remove`; a `with` block does it."""

    def __init__(self, parent: Parent, name: str) -> None:
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"not the name of a group of ours: {name!r}")
        self.version = parent.version
        self.name = name
        self.dirs = tuple(d / name for d in parent.dirs)
        self._dir = {c: f"{getattr(parent, c)}/{name}" for c in NEEDED}
        self._cpuacct = f"{parent.cpuacct}/{name}" if parent.cpuacct else None

    def __enter__(self) -> "Cgroup":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.remove()

    def attach(self, pid: int) -> None:
        """Put the process *pid* into the group; what it forks later is in it, what it forked is not."""
        for d in self.dirs:
            _write(f"{d}/cgroup.procs", str(pid))

    def usage(self) -> CgroupUsage:
        """The kernel's counts; they stand after the last process died, until `remove`."""
        memory, v2 = self._dir["memory"], self.version == V2
        peak = _read_optional(f"{memory}/{'memory.peak' if v2 else 'memory.max_usage_in_bytes'}")
        events = _read(f"{memory}/{'memory.events' if v2 else 'memory.oom_control'}")
        return CgroupUsage(
            oom_kills=_keyed(events, "oom_kill"),
            pids_max_hits=_keyed(_read(f"{self._dir['pids']}/pids.events"), "max"),
            peak_memory_bytes=None if peak is None else int(peak),
            cpu_s=self._cpu_s(),
        )

    def _cpu_s(self) -> float | None:
        if self.version == V2:
            return _keyed(_read(f"{self._dir['cpu']}/cpu.stat"), "usage_usec") / 1e6
        return int(_read(f"{self._cpuacct}/cpuacct.usage")) / 1e9 if self._cpuacct else None

    def held_bytes(self) -> int:
        """What is charged to the group now; after its last process, what the kernel has not yet given back."""
        name = "memory.current" if self.version == V2 else "memory.usage_in_bytes"
        return int(_read(f"{self._dir['memory']}/{name}"))

    def reset_peak(self) -> bool:
        """Start the peak anew; False where the kernel cannot (v2 resets it for one open file only)."""
        if self.version == V2:
            return False
        _write(f"{self._dir['memory']}/memory.max_usage_in_bytes", "0")
        return True

    def limits(self) -> dict[str, int | float | None]:
        """The ceilings as the kernel holds them; None: not held here (by a group above, or by none)."""
        memory, v2 = self._dir["memory"], self.version == V2
        swap = "memory.swap.max" if v2 else "memory.memsw.limit_in_bytes"
        limit = _number(_read(f"{memory}/{'memory.max' if v2 else 'memory.limit_in_bytes'}"))
        return {
            "memory_bytes": limit,
            ("swap_bytes" if v2 else "memory_and_swap_bytes"): _number(_read_optional(f"{memory}/{swap}")),
            "processes": _number(_read(f"{self._dir['pids']}/pids.max")),
            "cpus": _cpus(self._dir["cpu"], self.version),
        }

    def pids(self) -> set[int]:
        """The processes in the group that this pid namespace can name."""
        return {int(p) for d in self.dirs for p in (_read_optional(f"{d}/cgroup.procs") or "").split()} - {0}

    def is_empty(self) -> bool:
        """Whether no live process is in the group."""
        return not self.pids()

    def kill(self, within_s: float = 2.0) -> None:
        """SIGKILL every process of the group; returns once it is empty, else raises TimeoutError."""
        deadline = time.monotonic() + within_s
        if self.is_empty():
            return
        if not self._killed_by_kernel():
            # A fork bomb would outrun the sweep below; from here on nothing in it can fork.
            with suppress(OSError):
                _write(f"{self._dir['pids']}/pids.max", "0")
        while pids := self.pids():
            if time.monotonic() > deadline:
                reason = f"{len(pids)} processes outlive SIGKILL"
                raise TimeoutError(errno.ETIMEDOUT, reason, str(self.dirs[0]))
            with _pidfds(pids) as fds:
                # Only a pid that is still listed: one that died in between may be a stranger's by now.
                for pid in self.pids() & fds.keys():
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(fds[pid], signal.SIGKILL)
                _wait_ended(fds.values(), deadline)

    def _killed_by_kernel(self) -> bool:
        if self.version != V2:
            return False
        try:
            _write(f"{self.dirs[0]}/cgroup.kill", "1")
        except FileNotFoundError:  # before Linux 5.14
            return False
        return True

    def remove(self, within_s: float = 2.0) -> None:
        """Remove the group from every hierarchy; raises OSError naming the first path that stays."""
        deadline = time.monotonic() + within_s
        failures = [exc for d in reversed(self.dirs) if (exc := _rmdir(d, deadline)) is not None]
        if failures:
            raise failures[0]


def make(parent: Parent, name: str, *, memory_bytes: int, processes: int, cpus: float) -> Cgroup:
    """A new group with these ceilings. Raises OSError naming the file; then nothing of it exists."""
    wanted = settings(parent.version, memory_bytes=memory_bytes, processes=processes, cpus=cpus)
    group = Cgroup(parent, name)
    made: list[Path] = []
    try:
        for d in group.dirs:
            d.mkdir()
            made.append(d)
        for controller, file, text, required in wanted:
            _set(f"{group._dir[controller]}/{file}", text, required=required)
    except BaseException:  # also on Ctrl-C: a directory of ours must not stay
        for d in reversed(made):
            _rmdir(d, time.monotonic() + 1.0)
        raise
    return group


def stale(parent: Parent) -> list[Path]:
    """The groups of ours beneath *parent* whose owner is dead, one path per hierarchy."""
    return [d for base in parent.dirs for d in sorted(base.glob("isorun-*-*-*")) if _is_stale(d)]


def remove_stale(parent: Parent) -> list[Path]:
    """Kill and remove what `stale` lists; the paths removed. Raises OSError when one stays."""
    found = stale(parent)
    for name in sorted({d.name for d in found}):
        group = Cgroup(parent, name)
        group.kill()
        group.remove()
    return found


def _is_stale(d: Path) -> bool:
    match = _NAME.fullmatch(d.name)
    if match is None:
        return False
    try:
        if _start_time(int(match[1])) == int(match[2]):
            return False
        if os.geteuid() not in (0, d.stat().st_uid):
            return False  # another user's: not ours to judge, nor could we remove it
        pids = _read(f"{d}/cgroup.procs").split()
    except OSError:
        return False  # hidden from us (hidepid), or its owner is removing it at this moment
    # A process that we cannot name lives in another pid namespace, and so may its owner.
    unseen = "0" in pids or (not pids and (_read_optional(f"{d}/pids.current") or "0").strip() != "0")
    return not unseen


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/<pid>/stat: with the pid it names a process for the machine's uptime."""
    stat = _read_optional(f"/proc/{pid}/stat")
    # The command in parentheses may hold spaces and parentheses of its own.
    return int(stat.rpartition(")")[2].split()[19]) if stat else None


def _rmdir(d: Path, deadline: float) -> OSError | None:
    pause = 0.000_05
    while True:
        try:
            d.rmdir()
        except FileNotFoundError:
            return None
        except OSError as exc:
            # A process that has just been reaped may keep its group busy for some microseconds more.
            if exc.errno != errno.EBUSY or time.monotonic() > deadline:
                return exc
            time.sleep(pause)
            pause = min(pause * 2, 0.005)
        else:
            return None


@contextmanager
def _pidfds(pids: Iterable[int]) -> Iterator[dict[int, int]]:
    fds: dict[int, int] = {}
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                fds[pid] = os.pidfd_open(pid)
        yield fds
    finally:
        for fd in fds.values():
            os.close(fd)


def _wait_ended(fds: Iterable[int], deadline: float) -> None:
    poll = select.poll()
    waiting = set(fds)
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            poll.unregister(fd)
            waiting.discard(fd)


def _set(path: str, text: str, *, required: bool) -> None:
    try:
        _write(path, text)
    except OSError as exc:
        if not required and exc.errno in (errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM):
            return
        # v1 refuses a quota above an ancestor's: that one is the tighter ceiling and holds already.
        if exc.errno == errno.EINVAL and path.endswith("/cpu.cfs_quota_us") and _held_above(path, int(text)):
            return
        raise


def _held_above(path: str, quota: int) -> bool:
    cpus = (_cpus(str(d), V1) for d in Path(path).parent.parents if (d / "cpu.cfs_quota_us").exists())
    return any(c is not None and c * _PERIOD_US <= quota for c in cpus)


def _cpus(d: str, version: str) -> float | None:
    if version == V2:
        quota, _, period = _read(f"{d}/cpu.max").partition(" ")
    else:
        quota, period = _read(f"{d}/cpu.cfs_quota_us"), _read(f"{d}/cpu.cfs_period_us")
    return None if quota.strip() in ("max", "-1") else int(quota) / int(period)


def _number(text: str | None) -> int | None:
    return None if text is None or text.strip() == "max" else int(text)


def _keyed(text: str, key: str) -> int:
    """The count after *key* in a file of `key value` lines; 0 when the kernel does not list it."""
    return next((int(line.split()[1]) for line in text.splitlines() if line.split()[:1] == [key]), 0)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, path) from None  # write(2) itself names no file
    finally:
        os.close(fd)


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = list(iter(lambda: os.read(fd, 65536), b""))
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, path) from None
    finally:
        os.close(fd)
    return b"".join(chunks).decode(errors="replace")


def _read_optional(path: str) -> str | None:
    try:
        return _read(path)
    except OSError as exc:
        # ENODEV: the group was removed after the open. ESRCH: the same for a process of /proc.
        if exc.errno in (errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EOPNOTSUPP):
            return None
        raise
