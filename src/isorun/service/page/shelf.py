"""The page's own files: style, modules and icons, each at an address that changes when any of them does.

So a browser may keep them for a year. The folder is read once; no name of a request reaches the disk.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

MIME = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_HEADERS = {
    "cache-control": "public, max-age=31536000, immutable",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Kept:
    """One file, with the tag by which a browser asks whether it has changed."""

    body: bytes
    mime: str
    etag: str


@cache
def shelf() -> dict[str, Kept]:
    """Every file by its name."""
    kept = {}
    for one in sorted(files(__package__).joinpath("static").iterdir(), key=lambda found: found.name):
        mime = MIME.get(f".{one.name.rpartition('.')[2]}")
        if mime is not None:
            body = one.read_bytes()
            kept[one.name] = Kept(body, mime, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return kept


@cache
def version() -> str:
    """A word that changes when a file does. Modules name each other by relative addresses, so all share it."""
    names = "\n".join(f"{name} {kept.etag}" for name, kept in shelf().items())
    return hashlib.sha256(names.encode()).hexdigest()[:12]


def address(name: str) -> str:
    """Where the page finds the file *name*. Raises KeyError for an unknown one."""
    if name not in shelf():
        raise KeyError(name)
    return f"/static/{version()}/{name}"


def answer(request: Request, name: str) -> Response | None:
    """The file *name*, or that it has not changed; None for an unknown one."""
    kept = shelf().get(name)
    if kept is None:
        return None
    headers = {**_HEADERS, "etag": kept.etag}
    if kept.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(kept.body, headers=headers, media_type=kept.mime)
