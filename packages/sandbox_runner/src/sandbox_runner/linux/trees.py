"""Folders that a program filled: opened in any mode that it gave them, and removed however deep they are.

Needs the standard library alone, and nothing of this package: isorun also sends its text into a container.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress


def open_folder(name: str, dir_fd: int) -> int:
    """An fd of the folder *name* in *dir_fd*; a link is refused. Raises OSError."""
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)


def open_any_folder(name: str, dir_fd: int) -> int:
    """As `open_folder`, and made readable and writable for us in any mode that a program gave it."""
    try:
        fd = open_folder(name, dir_fd)
    except PermissionError:
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)
        try:
            # By way of /proc: chmod by name would follow a link that took the folder's place.
            os.chmod(f"/proc/self/fd/{handle}", 0o700)  # noqa: PTH101 - `fchmod` takes no O_PATH
            return open_folder(".", handle)
        finally:
            os.close(handle)
    if os.fstat(fd).st_mode & 0o700 != 0o700:
        os.fchmod(fd, 0o700)
    return fd


def remove_tree(name: str, dir_fd: int) -> None:
    """Remove a folder and all below it, with links removed and not followed.

    Folders are lifted to the top before they are emptied, so that a program's ten
    thousand nested ones need neither recursion, nor as many fds, nor long paths.
    """
    with suppress(FileNotFoundError):  # another host finishes the same removal
        top = open_any_folder(name, dir_fd)
        try:
            waiting = _lift(top, top)
            while waiting:
                inner_name = waiting.pop()
                inner = open_any_folder(inner_name, top)
                try:
                    waiting += _lift(inner, top)
                finally:
                    os.close(inner)
                os.rmdir(inner_name, dir_fd=top)
        finally:
            os.close(top)
        os.rmdir(name, dir_fd=dir_fd)


def _lift(folder: int, top: int) -> list[str]:
    """Remove the files in *folder* and move its folders to *top*; their new names."""
    lifted = []
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            os.unlink(name, dir_fd=folder)
        elif folder == top:
            lifted.append(name)
        else:
            os.close(open_any_folder(name, folder))  # a folder without write permission cannot be moved
            lifted.append(str(secrets.token_hex(16)))
            os.rename(name, lifted[-1], src_dir_fd=folder, dst_dir_fd=top)
    return lifted
