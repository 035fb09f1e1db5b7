"""Which real ids programs get from the embedded backend if isorun is root and no ids are set.

The account with a program's uid on the host owns the program's user namespace, and every capability in there: that
account can enter the run, read it, and write its results. So the ids are nobody's, not the first free ones of a
machine, which the next account that is made would get. Inside, they are 1001 and 1000 in any case.
"""

import grp
import os
import pwd
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isorun.core.errors import Unavailable
from isorun.settings import Settings

#: Beyond what useradd, systemd and container engines give out; then one that 16 bits hold, as a container may have.
UIDS, GIDS = (2_000_001_001, 61_001), (2_000_001_000, 61_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The real ids of an executor, and whether we are root, who may choose them and give them what is ours."""

    uid: int
    gid: int
    root: bool

    @classmethod
    def of_jail(cls, uid: int, gid: int) -> "Identity":
        """*uid* and *gid* if this process is root; its own otherwise. Inside, they are 1001 and 1000."""
        if os.geteuid() == 0:
            return cls(uid=uid, gid=gid, root=True)
        return cls(uid=os.geteuid(), gid=os.getegid(), root=False)

    @classmethod
    def of_container(cls, uid: int, gid: int) -> "Identity":
        """*uid* and *gid*. Raises `Unavailable` if this process could not share a folder with that group."""
        root = os.geteuid() == 0
        if not root and gid not in {os.getegid(), *os.getgroups()}:
            raise Unavailable(
                f"the executor runs with group {gid} and you are not a member, so it could not write its output: set "
                f"ISORUN_EXECUTOR_GID to one of your groups ({os.getegid()}), or run isorun as root"
            )
        return cls(uid=uid, gid=gid, root=root)

    @property
    def shared_gid(self) -> int:
        """The group of what a container's executor reaches and does not own: root gives it its folders."""
        return os.getegid() if self.root else self.gid


def of_settings(settings: Settings) -> tuple[int, int]:
    """The uid and gid that were set; for each that was not, an id that this machine has and no account uses."""
    given = {row.name for row in settings.rows() if row.source != "default"}
    uid, gid = settings.executor_uid, settings.executor_gid
    if "ISORUN_EXECUTOR_UID" not in given:
        uid = unused(UIDS, pwd.getpwuid, _mapped("uid"), uid)
    if "ISORUN_EXECUTOR_GID" not in given:
        gid = unused(GIDS, grp.getgrgid, _mapped("gid"), gid)
    return uid, gid


def unused(wanted: Iterable[int], find: Callable[[int], Any], mapped: Iterable[range], otherwise: int) -> int:
    """The first of *wanted* that lies in *mapped* and that *find* has no entry for."""
    ranges = tuple(mapped)
    for number in wanted:
        if any(number in known for known in ranges):
            try:
                find(number)
            except KeyError:
                return number
    return otherwise


def _mapped(kind: str) -> tuple[range, ...]:
    """The ids that this process's user namespace has; an id that it has not cannot be taken."""
    found = []
    with suppress(OSError):
        for line in Path(f"/proc/self/{kind}_map").read_text().splitlines():
            first, _, count = map(int, line.split())
            found.append(range(first, first + count))
    return tuple(found)


def accounts(uid: int, gid: int) -> tuple[str, ...]:
    """The names that the host has for these ids, each once."""
    names = []
    with suppress(KeyError):
        names.append(pwd.getpwuid(uid).pw_name)
    with suppress(KeyError):
        names.append(grp.getgrgid(gid).gr_name)
    return tuple(dict.fromkeys(names))
