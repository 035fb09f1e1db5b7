"""Files of stored runs for a client: by descriptors from the root down, so that no link leads out of the run's out/.

A run's folder holds what a program wrote. Its host's own records lie there, too: of these only the log of what
was printed is read, as the others name paths of this machine.
"""

import os
from pathlib import Path

from isorun.core.errors import InvalidRequest
from isorun.core.ids import check_exec_id
from isorun.core.text import shown
from isorun.service.mcp.backend import Piece
from isorun.service.mcp.uris import check_path
from isorun.store.folder import RunFolder
from isorun.store.recovery import open_stored

USER_LOG = "logs/user.log"


def read_piece(root: Path, exec_id: str, path: str, *, offset: int, most: int) -> Piece:
    """At most *most* bytes of the file *path* below out/ of the run *exec_id*, from *offset* on.

    Raises `InvalidRequest`: no_such_run, no_such_file, unreadable (for a link, a folder, a special file).
    """
    check_exec_id(exec_id)
    path = check_path(path)
    if path != USER_LOG and RunFolder.reserved(path):
        raise InvalidRequest(f"{shown(path)} is a record of the sandbox, not a file of the run", code="unreadable")
    try:
        file = open_stored(root, exec_id, path)
    except InvalidRequest as error:
        if error.code == "no_such_run":  # whose text names the root
            raise no_such_run(exec_id) from None
        raise
    if file is None:
        text = f"run {exec_id} has no file {shown(path)}; its answer and list_runs name those that it has"
        raise InvalidRequest(text, code="no_such_file")
    try:
        return Piece(data=_read(file, offset, most), offset=offset, total=os.fstat(file).st_size)
    finally:
        os.close(file)


def _read(file: int, offset: int, most: int) -> bytes:
    parts: list[bytes] = []
    while most > 0 and (part := os.pread(file, most, offset)):
        parts.append(part)
        offset, most = offset + len(part), most - len(part)
    return b"".join(parts)


def no_such_run(exec_id: str) -> InvalidRequest:
    """For an id that the caller has no run of."""
    text = f"run {shown(exec_id)} is not there: give the exec_id of an earlier answer, or see list_runs"
    return InvalidRequest(text, code="no_such_run")
