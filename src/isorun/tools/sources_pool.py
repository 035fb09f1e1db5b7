"""The file of a turn's sources, `out/sources_pool.json`: a JSON list that several workers and the program can write.

Theory of operation. Tools have `open_output` alone: no rename, no removal. So a writer takes a lock on the file
(`flock`), reads it, and writes the new list behind the old one, after a line with a mark. Only then it overwrites the
beginning and cuts the file. Who is killed at any moment leaves a whole list in it, at the beginning or behind the
mark. The next reader takes the list behind the mark if it is whole. The lock ends with its holder.

The program owns the file: it may hold the lock, replace the file, or write anything. So the wait is bounded, the file
that is read must be the file that is locked, and what was read is checked (`sources.checked_pool`). A file without
a pool is copied to `sources_pool.invalid.json`, and a new pool begins. Under a lock that does not become free the rows
get their numbers all the same, and the file is left alone: the numbers may then differ from those of another call.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import IO, Any

from isorun.supervisor.tool import ToolContext, ToolError
from isorun.tools.sources import Source, checked_pool, merge_sources

FILE = "sources_pool.json"
ASIDE = "sources_pool.invalid.json"
MAX_POOL = 4 << 20  # bytes of a pool: a thousand sources with full texts in Latin letters
MAX_BYTES = 3 * MAX_POOL  # of the file: two pools, and what a killed writer left
MAX_SOURCES = 1000  # that are kept; more get a number, and are not in the file
_SHORT = 200  # characters of each text once the pool is full
LOCK_S = 5.0  # a merge takes milliseconds, so who waits longer waits for the program
_MARK = b"\n\x1e\n"  # JSON has no such character
_MARKS = 16  # that are looked at: a killed writer leaves one, and millions, which the program wrote, would take minutes
_PAUSE_S = 0.002
_TRIES = 5  # of a file that is replaced while we lock it


class _NoPool(Exception):
    """The file cannot be written; the text says why."""


def add_sources(
    context: ToolContext, rows: Iterable[Mapping[str, Any]], *, lock_s: float = LOCK_S
) -> tuple[list[Source], dict[int, int]]:
    """Merge *rows* into the turn's pool: the pool, and the mapping of `merge_sources`. Blocks for at most *lock_s*.

    Safe among threads and processes that share the output directory. Never raises for what the program did to the
    file, nor for a full disk: then the rows have their numbers, the file may lack them, and the run's log says why.
    """
    rows = list(rows)
    try:
        with _Locked(context, min(time.monotonic() + lock_s, context.deadline)) as locked:
            before, is_whole = locked.read()
            pool, numbers = merge_sources(before, rows)
            kept = _kept(pool, context)
            if kept != before or not is_whole:
                locked.write(kept)
            return pool, numbers
    except (_NoPool, OSError, ToolError) as error:
        context.log.warning("%s was not updated: %s", FILE, error)
        return merge_sources(read_sources(context), rows)


def read_sources(context: ToolContext) -> list[Source]:
    """The sources of the turn so far; an empty list without a file, or without a pool in it. Never waits.

    A write that goes on meanwhile shows the pool before it or after it.
    """
    before: bytes | None = None
    try:
        for _ in range(_TRIES):
            with context.open_output(FILE, "rb") as file:
                data = file.read(MAX_BYTES + 1)
            if data == before or (found := _found(data)) is not None:
                break
            before = data  # it may have been cut while it was read: then it is another one now
    except (OSError, ToolError):
        return []
    return found or []


def _kept(pool: list[Source], context: ToolContext) -> list[Source]:
    """As much of *pool* as the file may hold: texts become short first, then the last sources are left out."""
    kept = pool[:MAX_SOURCES]
    if len(_written(kept)) > MAX_POOL:
        kept = [Source(**{**source, "text": source["text"][:_SHORT]}) for source in kept]
    while len(_written(kept)) > MAX_POOL:
        kept = kept[: len(kept) * 3 // 4]
    if kept != pool:
        context.log.warning("%s is full: texts are short, %d sources are not in it", FILE, len(pool) - len(kept))
    return kept


def _written(pool: list[Source]) -> bytes:
    """*pool* as JSON, a source a line. A lone surrogate, which UTF-8 has not, becomes a question mark."""
    lines = (json.dumps(source, ensure_ascii=False) for source in pool)
    return ("[\n" + ",\n".join(lines) + "\n]\n" if pool else "[]\n").encode("utf-8", "replace")


def _found(data: bytes) -> list[Source] | None:
    """The pool in *data*: behind the last mark if a whole one is there, else before it; else None."""
    if len(data) > MAX_BYTES:
        return None
    for part in reversed(data.rsplit(_MARK, _MARKS)):
        with suppress(ValueError, RecursionError):  # a part that is not whole is not JSON
            pool = checked_pool(json.loads(part))
            if pool is not None:
                return pool
    return None


class _Locked:
    """The pool's file, locked and open twice: for reading, and for writing at any place."""

    def __init__(self, context: ToolContext, until: float) -> None:
        self._context = context
        self._until = until
        self._file: IO[bytes]
        self._size = 0

    def __enter__(self) -> _Locked:
        for _ in range(_TRIES):
            self._file = self._context.open_output(FILE, "ab")
            try:
                self._lock()
                if self._is_there():
                    return self
            except BaseException:
                self._file.close()
                raise
            self._file.close()
        raise _NoPool("the program replaces it again and again")

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _lock(self) -> None:
        while True:
            try:
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                    raise
            if time.monotonic() > self._until:
                raise _NoPool("its lock is held, perhaps by the program")
            time.sleep(_PAUSE_S)

    def _is_there(self) -> bool:
        """Whether the locked file is still the one with this name."""
        try:
            with self._context.open_output(FILE, "rb") as file:
                return os.path.samestat(os.fstat(file.fileno()), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def read(self) -> tuple[list[Source], bool]:
        """The pool, and whether the file is nothing but that pool. Anything else in the file is put aside."""
        with self._context.open_output(FILE, "rb") as file:
            if not os.path.samestat(os.fstat(file.fileno()), os.fstat(self._file.fileno())):
                raise _NoPool("the program replaced it")
            data = file.read(MAX_BYTES + 1)
        self._size = os.fstat(self._file.fileno()).st_size
        if not data:
            return [], True
        pool = _found(data)
        if pool is None:
            self._put_aside(data)
            return [], False
        return pool, data == _written(pool)

    def _put_aside(self, data: bytes) -> None:
        self._context.log.warning("%s held no pool of sources: it is now %s, and a new pool begins", FILE, ASIDE)
        with suppress(OSError, ToolError), self._context.open_output(ASIDE, "wb") as aside:
            aside.write(data)
        self._size = 0

    def write(self, pool: list[Source]) -> None:
        """Make the file *pool*; see the theory of operation for the order. Raises OSError, with the old list kept."""
        data = _written(pool)
        descriptor = self._file.fileno()
        # The file was opened for appending because that mode cuts nothing; from here each write has its place.
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_APPEND)
        if self._size:
            # Blanks keep the copy behind all that the second write covers, and JSON allows them.
            blanks = b" " * (len(data) - self._size)
            try:
                _write_at(descriptor, blanks + _MARK + data, self._size)
            except OSError:
                os.ftruncate(descriptor, self._size)
                raise
        _write_at(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
