"""The ceilings that a run met, by fact: what the kernel counted and what the disks held at the end.

Pure: from values to text. Such a fact is told first: the exception, the signal or the timeout that followed may not
show it.
"""

import re
from collections.abc import Iterator

from isorun.core.outcome import Code
from isorun.core.text import file_name
from isorun.runtime.hints.message import size_text, sizes_of
from isorun.runtime.hints.seen import MAX_TEXT, Seen

_SHOWN = 3  # files

_LIMIT_NAMES = {
    Code.OUT_OF_MEMORY: "ISORUN_MAX_MEMORY_BYTES",
    Code.PROCESS_LIMIT: "ISORUN_MAX_PROCESSES",
    Code.FILE_SIZE_LIMIT: "ISORUN_MAX_FILE_BYTES",
    Code.INODE_LIMIT: "ISORUN_MAX_WORKSPACE_INODES",
    Code.OUTPUT_LIMIT: "ISORUN_MAX_OUTPUT_BYTES",
}
_SIZES = {
    "/workspace": "ISORUN_MAX_WORKSPACE_BYTES",
    "/tmp": "ISORUN_MAX_TMP_BYTES",  # noqa: S108 - a mount point inside, not a file of ours
    "/dev/shm": "ISORUN_MAX_SHM_BYTES",  # noqa: S108 - as above
}
# What libraries say in words of their own of a ceiling that leaves no trace.
_SAID = (
    (re.compile(r"No space left on device|database or disk is full"), Code.WORKSPACE_LIMIT),
    (re.compile(r"File too large|[0-9]{1,20} requested and [0-9]{1,20} written"), Code.FILE_SIZE_LIMIT),
    (re.compile(r"can't start new thread|[Tt]hread creation failed"), Code.PROCESS_LIMIT),
    (
        re.compile(
            r"(?:Cannot|[Uu]nable to|can't|not enough memory: you tried to) allocate |bad_alloc|\bMemoryError\b"
        ),
        Code.OUT_OF_MEMORY,
    ),
)


def limit_hint(code: Code | None, full: tuple[str, ...] = ()) -> str:
    """What moves the ceiling of *code*; *full*: the places without room."""
    if code is Code.WORKSPACE_LIMIT:
        names = [name for place, name in _SIZES.items() if place in full] or list(_SIZES.values())
        return f"write less, or raise {' or '.join(names)}"
    if code is Code.LOCK_LIMIT:
        return "lock whole files, or fewer parts of them, and release each lock that is no longer used"
    name = _LIMIT_NAMES.get(code) if code else None
    return f"use less, or raise {name}" if name else ""


def met(seen: Seen) -> Iterator[str]:
    """Each ceiling that was met, with what moves it."""
    ended = seen.exit
    if ended is not None and ended.oom_kills:
        size = size_text(seen.limits.memory_bytes)
        yield (
            f"{ended.oom_kills} process(es) of the run were killed for memory ({size} for all together): "
            "use less in each, or fewer of them, or raise ISORUN_MAX_MEMORY_BYTES"
        )
    yield from full_places(seen)
    if seen.at_limit:
        names = ", ".join(file_name(path) for path in sorted(seen.at_limit)[:_SHOWN])
        size = size_text(seen.limits.file_bytes)
        yield f"{names}: a file takes at most {size}: write less into one, or raise ISORUN_MAX_FILE_BYTES"
    if ended is not None and ended.process_limit_hits:
        yield (
            f"{ended.process_limit_hits} fork(s) or thread(s) were refused: start fewer (at most "
            f"{seen.limits.processes} at once), or raise ISORUN_MAX_PROCESSES"
        )


def full_places(seen: Seen) -> Iterator[str]:
    """Each place that was full at the end."""
    if seen.exit is None:
        return
    for place, size in sizes_of(seen.limits).items():
        if place in seen.exit.full_bytes:
            yield f"{place} ({size_text(size)}) is full: write less, or raise {_SIZES[place]}"
        elif place in seen.exit.full_inodes:
            raised = ", or raise ISORUN_MAX_WORKSPACE_INODES" if place == "/workspace" else ""
            yield f"{place} can hold no more files and folders: make fewer{raised}"


def said(text: str) -> str:
    """What to do about a ceiling that *text* speaks of in the words of a library; "" if of none."""
    text = text[-MAX_TEXT:]
    return next((limit_hint(code) for pattern, code in _SAID if pattern.search(text)), "")
