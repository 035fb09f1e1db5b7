"""Files of stored runs, read by descriptors from the root down, so that no link leads out of the run's out/.

A run's folder holds what a program wrote. Its host's own records lie there, too: of these only the log of what
was printed is read, as the others name paths of this machine.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from isorun.core.errors import InvalidRequest
from isorun.core.ids import check_exec_id
from isorun.core.text import shown
from isorun.service.mcp.backend import Piece
from isorun.service.mcp.uris import check_path
from isorun.store.folder import PREFIX, RunFolder
from sandbox_runner.linux.trees import open_folder

USER_LOG = "logs/user.log"
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO would wait for a writer


def read_piece(root: Path, exec_id: str, path: str, *, offset: int, most: int) -> Piece:
    """At most *most* bytes of the file *path* below out/ of the run *exec_id*, from *offset* on.

    Raises `InvalidRequest`: no_such_run, no_such_file, unreadable (for a link, a folder, a special file).
    """
    path = check_path(path)
    if path != USER_LOG and RunFolder.reserved(path):
        raise InvalidRequest(f"{shown(path)} is a record of the sandbox, not a file of the run", code="unreadable")
    with _opened(root, exec_id, path) as file:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
            raise InvalidRequest(f"{shown(path)} of run {exec_id} is {kind}", code="unreadable")
        return Piece(data=_read(file, offset, most), offset=offset, total=found.st_size)


def read_record(root: Path, exec_id: str, name: str, *, most: int) -> bytes | None:
    """At most *most* bytes of a record of the host's in out/; None while it is not there. For our eyes only."""
    try:
        with _opened(root, exec_id, name) as file:
            return _read(file, 0, most)
    except InvalidRequest:
        return None


def _read(file: int, offset: int, most: int) -> bytes:
    parts: list[bytes] = []
    while most > 0 and (part := os.pread(file, most, offset)):
        parts.append(part)
        offset, most = offset + len(part), most - len(part)
    return b"".join(parts)


@contextmanager
def _opened(root: Path, exec_id: str, path: str) -> Iterator[int]:
    """A descriptor of the file. Each folder on the way is opened from the one above it, and none may be a link."""
    *folders, name = path.split("/")
    with ExitStack() as fds:
        fd = run_folder(root, exec_id, fds)
        try:
            for part in ("out", *folders):
                fd = open_folder(part, fd)
                fds.callback(os.close, fd)
            file = os.open(name, _FILE, dir_fd=fd)
        except FileNotFoundError:
            text = f"run {exec_id} has no file {shown(path)}; its answer and list_runs name those that it has"
            raise InvalidRequest(text, code="no_such_file") from None
        except OSError as error:
            reason = "a link" if error.errno in (errno.ELOOP, errno.ENOTDIR) else "not to be opened"
            raise InvalidRequest(f"{shown(path)} of run {exec_id} is {reason}", code="unreadable") from None
        fds.callback(os.close, file)
        yield file


def run_folder(root: Path, exec_id: str, fds: ExitStack) -> int:
    """A descriptor of the run's folder, which *fds* closes. Another user's folder of that name does not count."""
    try:
        above = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fds.callback(os.close, above)
        fd = open_folder(PREFIX + check_exec_id(exec_id), above)
    except OSError:
        raise no_such_run(exec_id) from None
    fds.callback(os.close, fd)
    if os.fstat(fd).st_uid != os.geteuid():
        raise no_such_run(exec_id)
    return fd


def no_such_run(exec_id: str) -> InvalidRequest:
    """For an id that the caller has no run of."""
    text = f"run {shown(exec_id)} is not there: give the exec_id of an earlier answer, or see list_runs"
    return InvalidRequest(text, code="no_such_run")
