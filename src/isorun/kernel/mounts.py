"""mount(2) and what /proc/self/mountinfo says of the result."""

import functools
import os
from dataclasses import dataclass

from isorun.kernel.libc import check, libc

RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
REMOUNT, BIND, REC, PRIVATE = 32, 4096, 16384, 1 << 18


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2), with the target named if it fails."""
    result = libc.mount(_bytes(source), _bytes(target), _bytes(kind), flags, _bytes(data))
    check(result, f"mount {target}")


def make_private(target: str = "/") -> None:
    """Stop mounts from travelling between this namespace and the one it came from."""
    mount(None, target, None, REC | PRIVATE)


def tmpfs(target: str, *, size: int, inodes: int, mode: int) -> None:
    """An empty filesystem in memory that holds at most *size* bytes and *inodes* files."""
    mount("tmpfs", target, "tmpfs", NOSUID | NODEV, f"size={size},nr_inodes={inodes},mode={mode:o}")


def bind(source: str, target: str) -> None:
    """Show *source* at *target* as well, with what is mounted below it."""
    mount(source, target, None, BIND | REC)


def read_only(target: str) -> None:
    """Refuse writes through this mount (what is mounted below it is not changed)."""
    mount(None, target, None, REMOUNT | BIND | RDONLY | NOSUID | NODEV)


def read_only_device(target: str) -> None:
    """As `read_only` for a device node: its times, mode and attributes stay; writing to the device still works."""
    mount(None, target, None, REMOUNT | BIND | RDONLY | NOSUID)


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One line of mountinfo: where, what kind, whether this mount refuses writes, and the filesystem's options."""

    target: str
    kind: str
    read_only: bool
    options: str


def mounted(text: str) -> list[MountPoint]:
    """The mounts that the text of a /proc/<pid>/mountinfo tells of, in the order they were made."""
    # The first three fields are numbers that differ from slot to slot, the rest does not.
    return _parsed(tuple(line.split(" ", 3)[3] for line in text.splitlines()))


@functools.lru_cache(maxsize=64)
def _parsed(lines: tuple[str, ...]) -> list[MountPoint]:
    found = []
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")[0]
        flags = fields[2].split(",")
        found.append(MountPoint(_unescape(fields[1]), kind, "ro" in flags, right.rpartition(" ")[2]))
    return found


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)
