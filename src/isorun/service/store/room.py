"""Whether the disks that the service writes to have room."""

import errno
import shutil
import sqlite3
from collections.abc import Iterable
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_POSTGRES_FULL = "53100"
REMEDY = "remove runs and files that are needed no longer, or ask who runs the service to free space"
LEAST_FREE = 4 << 20  #: bytes; with less, a run's logs and the database's may not find room


def is_full(error: BaseException) -> bool:
    """Whether *error*, or what it was raised from, says that a disk or a quota of one is full."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError) and at.errno in _FULL:
            return True
        if getattr(at, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
        if getattr(at, "sqlstate", None) == _POSTGRES_FULL:
            return True
        at = at.__cause__ or at.__context__
    return False


def without_room(folders: Iterable[Path]) -> list[Path]:
    """Those of *folders* on whose disk less than `LEAST_FREE` bytes are free. Raises `OSError`; blocks."""
    return [folder for folder in folders if shutil.disk_usage(folder).free < LEAST_FREE]
