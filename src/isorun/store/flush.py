"""Files that were just written, written through to the disk."""

import os
from collections.abc import Collection

from isorun.core.pace import rest

_FSYNC_EACH = 200  # files; 3000 took 3 s one by one and 0.1 s together, but then other people's data is waited for too


def flush(root: int, files: Collection[str], named: Collection[str] = ()) -> None:
    """Write *files* and every folder above them through to the disk; of the files *named* only the folders.

    All paths are relative to the folder *root*. Raises OSError.
    """
    if len(files) > _FSYNC_EACH:
        from isorun.store.syncfs import flush_file_system  # ctypes: only where it is needed

        flush_file_system(root)
        return
    folders = {"."}
    for path in files:
        _fsync(path, os.O_RDONLY, root)
    for path in (*files, *named):
        parts = path.split("/")
        folders |= {"/".join(parts[:count]) for count in range(1, len(parts))}
    for folder in folders:
        _fsync(folder, os.O_RDONLY | os.O_DIRECTORY, root)


def _fsync(path: str, flags: int, root: int) -> None:
    rest()
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
