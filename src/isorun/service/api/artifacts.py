"""What a run has left: its files and its logs.

A program wrote them, so nothing in them may act in our page: what a browser would run is sent so that it runs nothing.
"""

import mimetypes
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from isorun.core.errors import InvalidRequest
from isorun.service.api.runs import Open, RunId
from isorun.service.auth import CurrentUser
from isorun.service.context import Service
from isorun.service.problems import Problem, not_found
from isorun.store.recovery import open_stored

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["files"])
_SEALED = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
_PDF = "default-src 'none'; object-src 'self'; frame-ancestors 'self'"
_SHOWN = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf", "text/plain", "text/html")
_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")
_PIECE = 256 << 10
_ANY: dict[str, Any] = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"description": "All of it.", "content": _ANY},
    206: {"description": "The part that was asked for.", "content": _ANY},
    304: {"description": "It has not changed."},
}
_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"description": "All of it.", "content": {"text/plain": {"schema": {"type": "string"}}}},
    206: {"description": "The part that was asked for.", "content": {"text/plain": {"schema": {"type": "string"}}}},
}


@router.get("/files")
async def files(run_id: RunId, user: CurrentUser, service: Open) -> dict[str, Any]:
    """The files that the run handed out."""
    view = await service.runs.view(user, run_id)
    return {"files": view["files"]}


@router.get("/files/{path:path}", response_class=Response, responses=_BYTES)
async def file(
    run_id: RunId,
    path: str,
    user: CurrentUser,
    service: Open,
    download: Annotated[bool, Query()] = False,
    wanted: Annotated[str, Header(alias="Range", max_length=100)] = "",
    if_none_match: Annotated[str, Header(max_length=200)] = "",
) -> Response:
    """One of them; a part of it for a Range."""
    view = await service.runs.view(user, run_id)
    known = next((one for one in view["files"] if one["path"] == path), None)
    if known is None:
        raise not_found("file")
    mime = known.get("mime") or mimetypes.guess_type(path)[0] or "application/octet-stream"
    headers = {"ETag": f'"{known["sha256"]}"', "Cache-Control": "private, no-cache"}
    if headers["ETag"] in if_none_match:
        # A browser puts the headers of this answer in place of those it keeps with the file: its policy is among them.
        return Response(status_code=304, headers={**headers, "Content-Security-Policy": _policy(mime)})
    descriptor = await _opened(service, run_id, path)
    return _sent(descriptor, path, mime, wanted, headers, download=download)


@router.get("/logs/{name}", response_class=Response, responses=_TEXT)
async def log(
    run_id: RunId,
    name: Literal["user", "infra"],
    user: CurrentUser,
    service: Open,
    wanted: Annotated[str, Header(alias="Range", max_length=100)] = "",
) -> Response:
    """`user`: what the program printed and logged. `infra`: what the host did for it."""
    await service.runs.row(user, run_id)
    descriptor = await _opened(service, run_id, f"logs/{name}.log")
    return _sent(descriptor, f"{name}.log", "text/plain", wanted, {}, download=False)


async def _opened(service: Service, run_id: str, path: str) -> int:
    try:
        descriptor = await service.runs.in_thread(open_stored, service.runtime.root, run_id, path)
    except InvalidRequest:
        raise not_found("file") from None
    if descriptor is None:
        raise not_found("file")
    return descriptor


def _sent(
    descriptor: int, path: str, mime: str, wanted: str, headers: dict[str, str], *, download: bool
) -> StreamingResponse:
    size = os.fstat(descriptor).st_size
    try:
        part = _part(wanted, size)
    except BaseException:
        os.close(descriptor)
        raise
    first, last = part or (0, size - 1)
    shown = mime in _SHOWN or mime == "image/svg+xml"
    name = quote(path.rpartition("/")[2], safe="")
    headers |= {
        "Accept-Ranges": "bytes",
        "Content-Length": str(last - first + 1),
        "Content-Disposition": f"{'inline' if shown and not download else 'attachment'}; filename*=UTF-8''{name}",
        "Content-Security-Policy": _policy(mime),
    }
    if part:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    kind = f"{mime}; charset=utf-8" if mime.startswith("text/") else mime
    body = _pieces(descriptor, first, last - first + 1)
    return StreamingResponse(body, 206 if part else 200, headers, kind)


def _policy(mime: str) -> str:
    # A browser's own viewer of PDF does not start in a sandbox. It runs no script of a document.
    return _PDF if mime == "application/pdf" else _SEALED


def sent(place: Path, name: str, mime: str) -> Response:
    """A file of this service's own folders, as an attachment."""
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    return _sent(descriptor, name, mime, "", {}, download=True)


def _pieces(descriptor: int, first: int, left: int) -> Iterator[bytes]:
    with os.fdopen(descriptor, "rb") as content:
        content.seek(first)
        while left > 0 and (piece := content.read(min(left, _PIECE))):
            left -= len(piece)
            yield piece


def _part(wanted: str, size: int) -> tuple[int, int] | None:
    """First and last byte; None for the whole file, also if the header is not understood. Raises `Problem` 416."""
    found = _RANGE.fullmatch(wanted.strip())
    if found is None or found[0] == "bytes=-":
        return None
    if not found[1]:
        first, last = max(size - int(found[2]), 0), size - 1
    else:
        first, last = int(found[1]), min(int(found[2] or size), size - 1)
    if first >= size or first > last:
        whole = {"Content-Range": f"bytes */{size}"}
        raise Problem(416, "range_not_satisfiable", f"the file has {size} bytes", headers=whole)
    return first, last
