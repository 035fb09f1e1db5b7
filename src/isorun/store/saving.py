"""Files of a run, copied into a folder of the caller's that may hold other files already.

The folder is opened once and left by no link. A file is written beside its place and renamed there, so that a
reader has the old one or the new one. It must not decide which files those are, and it removes none.
"""

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from isorun.core.pace import rest
from isorun.core.text import file_name
from isorun.store.cursor import FILE, FOLDER, Cursor, enter, enter_made

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_IN_THE_WAY = {
    errno.ELOOP: "a folder on its way is a link, which is not followed",
    errno.ENOTDIR: "a folder on its way is a link or a file, which is not followed",
    errno.EISDIR: "there is a folder of that name",
}


def save(out: Path, to: Path, *, passed_over: Callable[[str], bool], before: Mapping[str, str]) -> list[str]:
    """Copy the files beneath *out*, a folder of the host's own, to the same places in *to*, made if it is missing.

    *passed_over* is asked about every file and folder by its path; a file that still has the sha256 that *before*
    names for its path is passed over too. A file of that name is replaced, a link of that name as well, and a link
    on the way is not followed. Gives a line for each file that could not be saved; the others are. Files are 0644 and
    folders 0755, less the umask. Raises `OSError` if one of the two folders cannot be opened.
    """
    to.mkdir(parents=True, exist_ok=True)
    faults: list[str] = []
    # A link that the caller names is the caller's wish; one inside the folder may be anybody's.
    target_fd = os.open(to, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with Cursor(target_fd, enter_made) as target, Cursor(os.open(out, FOLDER), enter) as source:
        pending = [b""]
        while pending:
            folder = pending.pop()
            source.go(folder)
            for name in source.names():
                rest()
                path = folder + b"/" + name if folder else name
                if passed_over(os.fsdecode(path)):
                    continue
                if stat.S_ISDIR(os.stat(name, dir_fd=source.fd, follow_symlinks=False).st_mode):
                    pending.append(path)
                    continue
                try:
                    _save_one(source, target, folder, name, before.get(os.fsdecode(path)))
                except OSError as error:
                    reason = _IN_THE_WAY.get(error.errno or 0, error.strerror or str(error))
                    faults.append(f"{file_name(path)}: {reason}")
    return faults


def _save_one(source: Cursor, target: Cursor, folder: bytes, name: bytes, before: str | None) -> None:
    with os.fdopen(os.open(name, FILE, dir_fd=source.fd), "rb", buffering=0) as file:
        if before is not None and hashlib.file_digest(file, "sha256").hexdigest() == before:
            return
        rest()
        file.seek(0)
        target.go(folder)
        new = f".isorun-{secrets.token_hex(16)}.new"
        try:
            with os.fdopen(os.open(new, _CREATE, 0o644, dir_fd=target.fd), "wb", buffering=0) as writer:
                _copy(file, writer)
            os.rename(new, name, src_dir_fd=target.fd, dst_dir_fd=target.fd)
        except BaseException:
            with suppress(OSError):
                os.unlink(new, dir_fd=target.fd)
            raise


def _copy(reader: IO[bytes], writer: IO[bytes]) -> None:
    while chunk := reader.read(_CHUNK):
        left = memoryview(chunk)
        while left:
            left = left[writer.write(left) :]
        rest()
