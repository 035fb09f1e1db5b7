"""Where a client finds a run's file: `isorun://runs/{exec_id}/out/{path}`, made and read. It opens nothing."""

import re
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from isorun.core.errors import InvalidRequest
from isorun.core.ids import check_exec_id
from isorun.core.text import shown

TEMPLATE = "isorun://runs/{exec_id}/out/{+path}"
_URI = re.compile(r"isorun://runs/([^/?#]+)/out/([^?#]+)")
_FORM = "isorun://runs/<exec_id>/out/<path>"
_MAX_PATH = 4096


class Place(NamedTuple):
    """A file of a run: `path` is relative to its out/, and neither leaves it nor names it twice."""

    exec_id: str
    path: str


def uri_of(exec_id: str, path: str) -> str:
    """The address of the file *path* of the run *exec_id*."""
    return f"isorun://runs/{exec_id}/out/{quote(path, safe='/', errors='surrogateescape')}"


def place_of(uri: str) -> Place:
    """What *uri* names. Raises `InvalidRequest` (invalid_uri, invalid_exec_id, invalid_path)."""
    found = _URI.fullmatch(uri) if len(uri) <= 4 * _MAX_PATH else None
    if found is None:
        raise InvalidRequest(f"the address of a file has the form {_FORM}, got {shown(uri)}", code="invalid_uri")
    try:
        path = unquote_to_bytes(found[2]).decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"the path in {shown(uri)} is not UTF-8", code="invalid_uri") from None
    return Place(check_exec_id(found[1]), check_path(path))


def check_path(path: object) -> str:
    """*path* if it can name a file below out/. Raises `InvalidRequest` (invalid_path)."""
    parts = path.split("/") if isinstance(path, str) and len(path) <= _MAX_PATH and "\0" not in path else [""]
    if any(part in ("", ".", "..") for part in parts):
        raise InvalidRequest(
            "path must be relative to the run's out folder, as data/a.csv: without '..', and as the list of files "
            f"has it; got {shown(path)}",
            code="invalid_path",
        )
    return str(path)
