"""mount(2)."""

import os

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


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)
