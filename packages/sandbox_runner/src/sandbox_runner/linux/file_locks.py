"""Counts the file locks of a command while it runs, because nothing else does.

Each is some 200 bytes of the kernel's memory, and no limit of the kernel's and no control group counts them. They are
in one list for the whole machine, by process; a command's processes are known by their pid namespace.

Must not: read that list to its end, however long it is. To go on from line N the kernel walks over N lines, with all
locking of the machine at a stand.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

MOST = 4096
_LISTED = "/proc/locks"
_LOOK_S = 0.05
_LONGEST = 1 << 16  # lines
_CHUNK = 1 << 16


def counted(listed: str = _LISTED) -> Iterator[dict[int, int]]:
    """How many locks each process holds or waits for, of the newest that are listed: after every `MOST` of them."""
    found: dict[int, int] = {}
    descriptor = os.open(listed, os.O_RDONLY | os.O_CLOEXEC)
    try:
        rest, lines, told = b"", 0, 0
        while lines < _LONGEST and (data := os.read(descriptor, _CHUNK)):
            *whole, rest = (rest + data).split(b"\n")
            lines += len(whole)
            for line in whole:
                words = line.split()
                # From the end: who waits has an arrow before its type. -1 is nobody's.
                if len(words) >= 6 and words[-4].isdigit():
                    found[int(words[-4])] = found.get(int(words[-4]), 0) + 1
            if lines - told > MOST:
                told = lines
                yield found
    finally:
        os.close(descriptor)
    if lines > MOST:
        yield found


def namespace_of(number: int | str) -> int | None:
    """The pid namespace of a process; None if it is gone, or not ours to ask."""
    with suppress(OSError):
        return Path(f"/proc/{number}/ns/pid").stat().st_ino
    return None


class Guard:
    """While its block runs: calls *end*, once, if the processes in *namespaces* hold more than `MOST` file locks.

    *namespaces* is asked only while the whole machine has as many. Our own is never one of them.
    """

    def __init__(self, namespaces: Callable[[], Collection[int | None]], end: Callable[[], None]) -> None:
        self._namespaces, self._end = namespaces, end
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sandbox-runner-locks", daemon=True)
        self.has_ended_it = False
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def _watch(self) -> None:
        try:
            pause = _LOOK_S
            while not self._over.wait(pause):
                worked = time.thread_time()  # of the processor: a look that waits for those who lock puts off nothing
                has_too_many = self._has_too_many()
                pause = max(_LOOK_S, 4 * (time.thread_time() - worked))
                if has_too_many:
                    self.has_ended_it = True
                    self._end()
                    return
        except BaseException as failure:  # noqa: BLE001 - raised where the command's result is waited for
            self._failure = failure

    def _has_too_many(self) -> bool:
        for found in counted():
            theirs = set(self._namespaces()) - {None, namespace_of("self")}
            if sum(count for number, count in found.items() if namespace_of(number) in theirs) > MOST:
                return True
        return False
