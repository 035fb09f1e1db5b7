"""Control groups, v1 and v2: making one, what the kernel says of it, and its end. The mechanism, and no policy.

`cgroup_parent` finds where one may be made. `prepare` does once what that decision still
needs. `Group` is one group, whose directories are known before they are made; its own
files are the only source for what the kernel holds and has counted.

Must not: choose ceilings, name a group, or touch one that was not named to it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sandbox_runner.linux.cgroup_parent import Parent
from sandbox_runner.linux.ending import end_processes

PERIOD_US = 100_000
LEAST_QUOTA_US = 1_000  # the kernel refuses less
#: What a file that is not there, or that this kernel does not let us write, answers.
_NOT_HELD = (errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM)
#: v1 has a hierarchy for it, which holds no ceiling; on v2 every group can be frozen.
FREEZER = "freezer"
_LOOK_S = 0.000_1
#: ENODEV: the group was removed after the open. ESRCH: the same for a process of /proc.
_NOT_COUNTED = (errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a group has to hold. None: nothing."""

    memory_bytes: int | None = None
    pids: int | None = None
    cpus: float | None = None

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
            if version == 2:
                found += [
                    ("memory", "memory.max", size, True),
                    # Without it a hog pages the whole machine out before it dies.
                    ("memory", "memory.swap.max", "0", False),
                    # One process dies of memory, not all: a child's end is the program's to handle.
                    ("memory", "memory.oom.group", "0", False),
                ]
            else:
                found += [
                    # Before memsw: memory and swap together may never be set below memory alone.
                    ("memory", "memory.limit_in_bytes", size, True),
                    ("memory", "memory.memsw.limit_in_bytes", size, False),
                    # Where swap is not counted (no memsw) this keeps the group's pages out of it.
                    ("memory", "memory.swappiness", "0", False),
                ]
        if self.pids is not None:
            found.append(("pids", "pids.max", str(self.pids), True))
        if self.cpus is not None:
            quota = max(int(self.cpus * PERIOD_US), LEAST_QUOTA_US)
            if version == 2:
                found.append(("cpu", "cpu.max", f"{quota} {PERIOD_US}", True))
            else:
                found.append(("cpu", "cpu.cfs_period_us", str(PERIOD_US), True))
                found.append(("cpu", "cpu.cfs_quota_us", str(quota), True))
        return found


def prepare(parent: Parent) -> None:
    """Do what `find_parent` found still to do, before a group is made. Raises OSError naming the file."""
    if parent.leaf is not None:
        parent.leaf.mkdir(exist_ok=True)
        _write(f"{parent.leaf}/cgroup.procs", "0")  # 0: the writer
    if parent.enable:
        _write(f"{parent.paths[0]}/cgroup.subtree_control", " ".join(f"+{name}" for name in parent.enable))


@dataclass(frozen=True, slots=True)
class Usage:
    """What the kernel counted for one group. None: this kernel does not count it."""

    oom_kills: int
    pids_max_hits: int
    peak_memory_bytes: int | None
    cpu_s: float | None


class Group:
    """One group: a directory of one name beneath each of a parent's. It need not exist; a `with` block ends it."""

    def __init__(self, directories: Mapping[str, str], version: int = 1) -> None:
        """*directories*: by controller. *version*: for what makes a group or reads its ceilings and usage."""
        self.directories = dict(directories)
        self.paths = tuple(dict.fromkeys(self.directories.values()))
        self._version = version
        self._freezer = self.directories.get(FREEZER)

    @classmethod
    def at(cls, parent: Parent, name: str) -> Group:
        """The group *name*, not yet made."""
        return cls({kind: f"{place}/{name}" for kind, place in parent.directories.items()}, parent.version)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.remove()

    def make(self, ceilings: Ceilings) -> None:
        """Make it, with these ceilings. Raises OSError naming the file; then nothing of it exists."""
        made: list[str] = []
        try:
            for path in self.paths:
                os.mkdir(path)  # noqa: PTH102 - it is no Path anywhere here
                made.append(path)
            for controller, file, text, required in ceilings.files(self._version):
                _set(f"{self.directories[controller]}/{file}", text, required=required)
        except BaseException:  # also on Ctrl-C: a directory of ours must not stay
            for path in reversed(made):
                _rmdir(path, time.monotonic() + 1.0)
            raise

    def attach(self, pid: int) -> None:
        """Put the process *pid* into the group; what it forks later is in it, what it forked is not."""
        for path in self.paths:
            _write(f"{path}/cgroup.procs", str(pid))

    def members(self) -> set[int]:
        """The processes in the group that this pid namespace can name."""
        held = (path for path in self.paths if path != self._freezer or len(self.paths) == 1)  # who is there is in all
        return {int(p) for path in held for p in (_read_optional(f"{path}/cgroup.procs") or "").split()} - {0}

    def count(self) -> int:
        """How many processes and threads are in it, those included that are dead and not reaped, and those to come.

        Of a group with a ceiling of them. The kernel's own count, which misses none as `members` may.
        """
        return int(_read(f"{self.directories['pids']}/pids.current"))

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory."""
        place = self.directories.get("memory")
        for name in ("memory.events", "memory.oom_control") if place else ():
            if (events := _read_optional(f"{place}/{name}")) is not None:
                return _keyed(events, "oom_kill")
        return 0

    def usage(self) -> Usage:
        """The kernel's counts; they stand after the last process died, until `remove`. Of a group with all ceilings."""
        peak = "memory.peak" if self._version == 2 else "memory.max_usage_in_bytes"
        return Usage(
            oom_kills=self.oom_kills(),
            pids_max_hits=_keyed(_read(f"{self.directories['pids']}/pids.events"), "max"),
            peak_memory_bytes=_number(_read_optional(f"{self.directories['memory']}/{peak}")),
            cpu_s=self._cpu_s(),
        )

    def _cpu_s(self) -> float | None:
        if self._version == 2:
            return _keyed(_read(f"{self.directories['cpu']}/cpu.stat"), "usage_usec") / 1e6
        accounts = self.directories.get("cpuacct")
        return int(_read(f"{accounts}/cpuacct.usage")) / 1e9 if accounts else None

    def held_bytes(self) -> int:
        """What is charged to the group now; after its last process, what the kernel has not yet given back."""
        name = "memory.current" if self._version == 2 else "memory.usage_in_bytes"
        return int(_read(f"{self.directories['memory']}/{name}"))

    def reset_peak(self) -> bool:
        """Start the peak anew; False where the kernel cannot (v2 resets it for one open file only)."""
        if self._version == 2:
            return False
        _write(f"{self.directories['memory']}/memory.max_usage_in_bytes", "0")
        return True

    def limits(self) -> dict[str, int | float | None]:
        """The ceilings as the kernel holds them; None: not held here (by a group above, or by none)."""
        memory, v2 = self.directories["memory"], self._version == 2
        swap = "memory.swap.max" if v2 else "memory.memsw.limit_in_bytes"
        return {
            "memory_bytes": _number(_read(f"{memory}/{'memory.max' if v2 else 'memory.limit_in_bytes'}")),
            ("swap_bytes" if v2 else "memory_and_swap_bytes"): _number(_read_optional(f"{memory}/{swap}")),
            "processes": _number(_read(f"{self.directories['pids']}/pids.max")),
            "cpus": _cpus_of_v2(self.directories["cpu"]) if v2 else _cpus_of_v1(self.directories["cpu"]),
        }

    @property
    def can_freeze(self) -> bool:
        """Whether `freeze` finds what it needs here."""
        return self._version == 2 or self._freezer is not None

    @property
    def thawed_by(self) -> tuple[str, str]:
        """The file by which the group is frozen and thawed, and what to write there to thaw it."""
        if self._version == 2:
            return f"{self.paths[0]}/cgroup.freeze", "0"
        return f"{self._freezer}/freezer.state", "THAWED"

    def freeze(self, within_s: float = 2.0) -> None:
        """Block until no process of the group runs any more: none can, by any signal, until `thaw`.

        Only if it `can_freeze`. Raises OSError naming the file, and TimeoutError if a process does not stand still;
        then all of them run.
        """
        until = time.monotonic() + within_s
        try:
            _write(self.thawed_by[0], "1" if self._version == 2 else "FROZEN")
            self._await_frozen(until)
        except BaseException:  # also on Ctrl-C: nobody would thaw it
            self.thaw()
            raise

    def thaw(self) -> None:
        """Let its processes run on; without effect if it is not frozen. Raises OSError naming the file."""
        path, text = self.thawed_by
        _write(path, text)

    def _await_frozen(self, until: float) -> None:
        pause = _LOOK_S
        while not self._stands_still():
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, "a process does not stand still", self.thawed_by[0])
            time.sleep(pause)
            pause = min(pause * 2, 0.005)

    def _stands_still(self) -> bool:
        if self._version == 2:
            return _keyed(_read(f"{self.paths[0]}/cgroup.events"), "frozen") == 1
        return _read(f"{self._freezer}/freezer.state").strip() == "FROZEN"

    def kill(self, within_s: float = 2.0) -> None:
        """SIGKILL every process of the group; returns once it is empty, else raises TimeoutError naming it."""
        if not self.members():
            return
        if not self._killed_by_kernel() and (counted := self.directories.get("pids")):
            # A fork bomb would outrun the sweep below; from here on nothing in it can fork.
            with suppress(OSError):
                _write(f"{counted}/pids.max", "0")
        if self.can_freeze:
            with suppress(OSError):  # gone from this hierarchy; then nothing is frozen
                self.thaw()  # on v1 what is frozen does not die
        try:
            end_processes(self.members, within_s)
        except TimeoutError as error:
            raise TimeoutError(errno.ETIMEDOUT, error.strerror, self.paths[0]) from None

    def _killed_by_kernel(self) -> bool:
        """Whether the kernel does it for us: v2, from Linux 5.14 on."""
        try:
            _write(f"{self.paths[0]}/cgroup.kill", "1")
        except FileNotFoundError:
            return False
        return True

    def remove(self, within_s: float = 2.0) -> None:
        """Remove the group from every hierarchy; raises OSError naming the first path that stays."""
        deadline = time.monotonic() + within_s
        failures = [error for path in reversed(self.paths) if (error := _rmdir(path, deadline)) is not None]
        if failures:
            raise failures[0]


def _rmdir(path: str, deadline: float) -> OSError | None:
    pause = 0.000_05
    while True:
        try:
            os.rmdir(path)  # noqa: PTH106 - it is no Path anywhere here
        except FileNotFoundError:
            return None
        except OSError as error:
            # A process that has just been reaped may keep its group busy for some microseconds more.
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                return error
            time.sleep(pause)
            pause = min(pause * 2, 0.005)
        else:
            return None


def _set(path: str, text: str, *, required: bool) -> None:
    try:
        _write(path, text)
    except OSError as error:
        if not required and error.errno in _NOT_HELD:
            return
        # v1 refuses a quota above an ancestor's: that one is the tighter ceiling and holds already.
        if error.errno == errno.EINVAL and path.endswith("/cpu.cfs_quota_us") and _held_above(path, int(text)):
            return
        raise


def _held_above(path: str, quota: int) -> bool:
    cpus = (_cpus_of_v1(str(d)) for d in Path(path).parent.parents if (d / "cpu.cfs_quota_us").exists())
    return any(found is not None and found * PERIOD_US <= quota for found in cpus)


def _cpus_of_v1(place: str) -> float | None:
    return _share(_read(f"{place}/cpu.cfs_quota_us"), _read(f"{place}/cpu.cfs_period_us"))


def _cpus_of_v2(place: str) -> float | None:
    quota, _, period = _read(f"{place}/cpu.max").partition(" ")
    return _share(quota, period)


def _share(quota: str, period: str) -> float | None:
    return None if quota.strip() in ("max", "-1") else int(quota) / int(period)


def _number(text: str | None) -> int | None:
    return None if text is None or text.strip() == "max" else int(text)


def _keyed(text: str, key: str) -> int:
    """The count after *key* in a file of `key value` lines; 0 when the kernel does not list it."""
    return next((int(line.split()[1]) for line in text.splitlines() if line.split()[:1] == [key]), 0)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None  # write(2) itself names no file
    finally:
        os.close(descriptor)


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = list(iter(lambda: os.read(descriptor, 65536), b""))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(descriptor)
    return b"".join(chunks).decode(errors="replace")


def _read_optional(path: str) -> str | None:
    try:
        return _read(path)
    except OSError as error:
        if error.errno in _NOT_COUNTED:
            return None
        raise
