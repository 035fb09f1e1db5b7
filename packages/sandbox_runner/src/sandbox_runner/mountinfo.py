"""Reads the kernel's list of mounts, /proc/self/mountinfo (proc(5)). Pure: text in, values out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_ESCAPED = re.compile(r"\\([0-7]{3})")  # a space, a tab, a line break or a backslash


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount: what of its filesystem (`root`) is seen where (`point`)."""

    root: str
    point: str
    kind: str  # of the filesystem
    options: tuple[str, ...]  # the filesystem's own, as the kernel writes them


def mounted(text: str) -> Iterator[Mounted]:
    """The mounts in *text*, in its order; of several at one place the last hides the others."""
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, source = left.split(" "), right.split(" ")
        if len(fields) >= 6 and len(source) >= 3:
            root, point = (_ESCAPED.sub(lambda code: chr(int(code[1], 8)), field) for field in fields[3:5])
            yield Mounted(root, point, source[0], tuple(source[2].split(",")))
