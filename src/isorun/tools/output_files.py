"""What the built-in tools read and write of a run: its out/, by the context and beneath that folder alone."""

from __future__ import annotations

import errno
import hashlib
import json
from typing import TYPE_CHECKING, Any

from isorun.supervisor.tool import ToolError
from isorun.tools.sources_pool import FILE as SOURCES
from isorun.tools.sources_pool import read_sources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isorun.supervisor.tool import ToolContext

_MAX_SOURCES = 8 << 20  # bytes
_FONTS = "ISORUN_FONT_PATH"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sources_of(context: ToolContext) -> tuple[Mapping[str, Any], ...]:
    """The sources that the run has found, mappings with sid, url and title; empty if there are none.

    They are read from out/, where the program may have written what it liked: of another shape, they are none.
    While a search writes the file, they are those of before it or of after it.
    """
    if pool := read_sources(context):
        return tuple({**source} for source in pool)
    try:
        with context.open_output(SOURCES, "rb") as file:
            read = json.loads(file.read(_MAX_SOURCES))
    except (OSError, ToolError, ValueError, RecursionError):
        return ()
    return tuple(each for each in read if isinstance(each, dict)) if isinstance(read, list) else ()


def options_of(context: ToolContext) -> dict[str, Any]:
    """What a document may show of the run: its sources and the pictures in out/; and which fonts there are."""

    def picture(path: str) -> bytes:
        from isorun.tools.documents.pictures import MAX_BYTES

        try:
            with context.open_output(path, "rb") as file:
                read: bytes = file.read(MAX_BYTES + 1)  # one more is refused
        except FileNotFoundError:
            raise ToolError(
                f"the output directory has no picture {path!r}: save it there before you write the document"
            ) from None
        return read

    return {"image": picture, "sources": sources_of(context), "font_path": context.env.get(_FONTS, "")}


def write_bytes(context: ToolContext, path: str, data: bytes, *, append: bool = False) -> dict[str, Any]:
    """Write *data* to *path*; path, bytes and sha256 of the whole file. Raises `ToolError`."""
    try:
        with context.open_output(path, "ab" if append else "wb") as file:
            file.write(data)
        digest, size = _read_back(context, path) if append else (hashlib.sha256(data), len(data))
    except OSError as error:
        if error.errno in _FULL:
            raise ToolError(f"{path!r} does not fit: the run's quota of files is used up ({error.strerror})") from None
        raise
    return {"path": path, "bytes": size, "sha256": digest.hexdigest()}


def _read_back(context: ToolContext, path: str) -> tuple[hashlib._Hash, int]:
    digest, size = hashlib.sha256(), 0
    with context.open_output(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
            size += len(part)
    return digest, size
