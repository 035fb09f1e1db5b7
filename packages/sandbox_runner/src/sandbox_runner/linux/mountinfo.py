"""Reads the kernel's list of mounts, /proc/self/mountinfo (proc(5)). Pure: text in, values out."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

_ESCAPED = re.compile(r"\\([0-7]{3})")  # a space, a tab, a line break or a backslash


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount: what of its filesystem (`root`) is seen where (`point`); `read_only`: this mount refuses writes."""

    root: str
    point: str
    kind: str  # of the filesystem
    options: tuple[str, ...]  # the filesystem's own, as the kernel writes them
    read_only: bool


def mounted(text: str) -> Iterator[Mounted]:
    """The mounts in *text*, in its order; of several at one place the last hides the others."""
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, source = left.split(" "), right.split(" ")
        if len(fields) >= 6 and len(source) >= 3:
            root, point = (_ESCAPED.sub(lambda code: chr(int(code[1], 8)), field) for field in fields[3:5])
            yield Mounted(root, point, source[0], tuple(source[2].split(",")), "ro" in fields[5].split(","))


def every_mount(text: str) -> tuple[Mounted, ...]:
    """As `mounted`, for a list that proves a wall: a line that cannot be read may hide a mount.

    Raises ValueError or IndexError for such a line. Remembered, because one machine has few lists: the first three
    fields are numbers of each mount, the rest is the same in every sandbox.
    """
    return _every_mount(tuple(line.split(" ", 3)[3] for line in text.splitlines()))


@functools.lru_cache(maxsize=64)
def _every_mount(lines: tuple[str, ...]) -> tuple[Mounted, ...]:
    found = tuple(mounted("\n".join(f"0 0 0 {line}" for line in lines)))
    if len(found) != len(lines):
        raise ValueError("a line of mountinfo cannot be read")
    return found
