"""A run's output directory, as its tools may use it while the program runs and may change it.

A path that a program chose is a confused deputy in waiting: it must not lead out of
the directory, nor through a link the program planted, nor to a FIFO that blocks us.
"""

import codecs
import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any

from isorun.core.contract.items import MAX_PART_BYTES, MAX_PATH_BYTES
from isorun.kernel import beneath
from isorun.supervisor.tool import ToolError

INSIDE = PurePosixPath("/workspace/out")
_FLAGS = {
    "r": os.O_RDONLY,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
}
_LEADS_AWAY = {errno.ELOOP: "goes through a link", errno.EXDEV: "leads out of the output directory"}


class OutputDirectory:
    """The directory behind *descriptor*, which becomes this object's own; `close` ends every later `open`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()  # a closed number may be another directory's by the time it is used
        owner = os.fstat(descriptor)
        as_owner = os.geteuid() == 0 and owner.st_uid != 0
        # Root has more rights than the program, and none that the slot's user namespace knows.
        self._ids = (owner.st_uid, owner.st_gid) if as_owner else None
        self._open = True

    def close(self) -> None:
        """Nothing can be opened any more."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._descriptor)

    @contextmanager
    def lent(self) -> Iterator[int]:
        """A descriptor of the directory, for who opens files in this object's place; closed with the block."""
        with self._lock:
            self._demand_open()
            descriptor = os.dup(self._descriptor)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _demand_open(self) -> None:
        if not self._open:
            raise ToolError("the run has ended: its output directory is closed")

    def open(self, path: str, mode: str = "wb", encoding: str | None = None) -> IO[Any]:
        """See `ToolContext.open_output`."""
        kind, binary = _read_mode(mode)
        encoding = None if binary else codecs.lookup(encoding or "utf-8").name  # before anything is opened
        inside = _relative(path)
        with self._lock:
            self._demand_open()
            descriptor = self._opened(inside, kind, path)
        # From here the descriptor is the file object's to close, also if it cannot be made.
        return os.fdopen(descriptor, ("w" if kind == "x" else kind) + ("b" if binary else ""), encoding=encoding)

    def _opened(self, inside: str, kind: str, path: str) -> int:
        folder = inside.rpartition("/")[0]
        try:
            with beneath.acting_as(self._ids):
                if folder and kind != "r":
                    beneath.make_folders(self._descriptor, folder)
                # O_TRUNC only after we know what it is: opening alone must change nothing.
                descriptor = beneath.open_beneath(self._descriptor, inside, _FLAGS[kind] & ~os.O_TRUNC)
                try:
                    _check_regular(descriptor, path)
                    if kind == "w":
                        os.ftruncate(descriptor, 0)
                except BaseException:
                    os.close(descriptor)
                    raise
        except OSError as error:
            raise _refusal(error, path) from error
        os.set_blocking(descriptor, True)
        return descriptor


def _read_mode(mode: str) -> tuple[str, bool]:
    kind, rest = mode[:1], mode[1:]
    if kind not in _FLAGS or rest not in ("", "b"):
        raise ValueError(f"mode must be r, w, x or a, with or without b, got {mode!r}")
    return kind, rest == "b"


def _relative(path: str) -> str:
    """*path* below the output directory, also where it is written as the program sees it."""
    if path.startswith(f"{INSIDE}/"):
        path = path[len(str(INSIDE)) + 1 :]
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or not parts or "\0" in path:
        raise ToolError(f"{path!r} must be a relative path below the output directory, without '..'")
    encoded = [len(os.fsencode(part)) for part in parts]
    if max(encoded) > MAX_PART_BYTES or sum(encoded) + len(encoded) > MAX_PATH_BYTES:
        raise ToolError(f"the path is too long: at most {MAX_PART_BYTES} bytes a part and {MAX_PATH_BYTES} in all")
    return "/".join(parts)


def _check_regular(descriptor: int, path: str) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ToolError(f"{path!r} is not a regular file")


def _refusal(error: OSError, path: str) -> Exception:
    """The error for a tool: what the program brought about is said to it, the rest keeps its kind."""
    if error.errno in _LEADS_AWAY:
        return ToolError(f"{path!r} {_LEADS_AWAY[error.errno]}")
    if error.errno in (errno.ENXIO, errno.EISDIR, errno.ENOTDIR, errno.ENODEV):
        return ToolError(f"{path!r} is not a regular file")
    return type(error)(error.errno, os.strerror(error.errno or 0), path)
