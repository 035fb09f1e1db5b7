"""What a file's suffix promises: its media type, who looks whether it is kept, and what is looked at. One table.

- `opened`: `runtime.inspection.inspector` opens the file in a slot of its own; `KINDS` there has the same suffixes.
- `text`: UTF-8 without NUL, found out by `runtime.glance` in the host, which decodes and parses nothing else.
- `start`: the first bytes are those of the type, as well.

Of a file with another suffix, or none, only its presence and size are known. Nothing here looks at a file.
"""

from dataclasses import dataclass
from typing import Literal

_OOXML = "application/vnd.openxmlformats-officedocument"
_DOCX = f"{_OOXML}.wordprocessingml.document"
_PPTX = f"{_OOXML}.presentationml.presentation"
_XLSX = f"{_OOXML}.spreadsheetml.sheet"
UNKNOWN_MIME = "application/octet-stream"
_SAFE = "holds a file; no name that leads out, no link, no special file, none twice, none of isorun's own logs"


@dataclass(frozen=True, slots=True)
class Kind:
    """One suffix. `also`: what else such a file may be called. `starts`: offset and bytes, any of which it has."""

    mime: str
    by: Literal["opened", "text", "start"]
    looked_at: str
    also: tuple[str, ...] = ()
    starts: tuple[tuple[int, bytes], ...] = ()


def _image(mime: str, *also: str) -> Kind:
    return Kind(mime, "opened", "decodes", also)


def _text(mime: str) -> Kind:
    return Kind(mime, "text", "UTF-8 without NUL")


def _start(mime: str, *starts: tuple[int, bytes]) -> Kind:
    return Kind(mime, "start", "begins as its type does", starts=starts)


def _packed(mime: str) -> Kind:
    return Kind(mime, "opened", "unpacks")


def _tar(mime: str) -> Kind:
    return Kind(mime, "opened", f"unpacks; {_SAFE}")


KINDS: dict[str, Kind] = {
    ".bmp": _image("image/bmp"),
    ".bz2": _packed("application/x-bzip2"),
    ".css": _text("text/css"),
    ".csv": Kind("text/csv", "opened", "parses; every row as long as the header", ("application/csv", "text/plain")),
    ".docx": Kind(_DOCX, "opened", f"opens, its XML parses; {_SAFE}", ("application/zip",)),
    ".gif": _image("image/gif"),
    ".gz": _packed("application/gzip"),
    ".htm": _text("text/html"),
    ".html": _text("text/html"),
    ".ipynb": Kind("application/x-ipynb+json", "opened", "parses", ("application/json", "text/json")),
    ".jpeg": _image("image/jpeg", "image/jpg"),
    ".jpg": _image("image/jpeg", "image/jpg"),
    ".js": _text("text/javascript"),
    ".json": Kind("application/json", "opened", "parses", ("text/json", "application/x-ipynb+json")),
    ".jsonl": Kind("application/jsonl", "opened", "every line parses", ("text/plain",)),
    ".log": _text("text/plain"),
    ".md": _text("text/markdown"),
    ".mp3": _start("audio/mpeg", (0, b"ID3"), *((0, bytes((0xFF, second))) for second in (0xFB, 0xFA, 0xF3, 0xF2))),
    ".mp4": _start("video/mp4", *((4, box) for box in (b"ftyp", b"styp", b"moov", b"free", b"skip", b"wide", b"mdat"))),
    ".npy": _start(UNKNOWN_MIME, (0, b"\x93NUMPY")),
    ".parquet": _start("application/vnd.apache.parquet", (0, b"PAR1")),
    ".pdf": Kind("application/pdf", "opened", "has a header and a page that can be reached"),
    ".png": _image("image/png"),
    ".pptx": Kind(_PPTX, "opened", f"opens, its XML parses, has a slide; {_SAFE}", ("application/zip",)),
    ".py": _text("text/x-python"),
    ".rtf": _start("application/rtf", (0, b"{\\rtf")),
    ".sqlite": _start("application/vnd.sqlite3", (0, b"SQLite format 3\0")),
    ".svg": Kind(
        "image/svg+xml", "opened", "parses, its root is svg, declares no entity", ("application/xml", "text/xml")
    ),
    ".tar": _tar("application/x-tar"),
    ".tar.bz2": _tar("application/x-bzip2"),
    ".tar.gz": _tar("application/gzip"),
    ".tar.xz": _tar("application/x-xz"),
    ".tgz": _tar("application/gzip"),
    ".tiff": _image("image/tiff"),
    ".toml": Kind("application/toml", "opened", "parses", ("text/plain",)),
    ".tsv": Kind(
        "text/tab-separated-values",
        "opened",
        "parses; every row as long as the header",
        ("text/csv", "application/csv", "text/plain"),
    ),
    ".txt": _text("text/plain"),
    ".wav": _start("audio/wav", (8, b"WAVE")),
    ".webp": _image("image/webp"),
    ".xls": _start("application/vnd.ms-excel", (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")),
    ".xlsx": Kind(_XLSX, "opened", f"opens, its XML parses, a cell has a value; {_SAFE}", ("application/zip",)),
    ".xml": Kind("application/xml", "opened", "parses, declares no entity", ("text/xml", "image/svg+xml")),
    ".xz": _packed("application/x-xz"),
    ".yaml": _text("application/yaml"),
    ".yml": _text("application/yaml"),
    ".zip": Kind("application/zip", "opened", f"unpacks; {_SAFE}", (_DOCX, _PPTX, _XLSX)),
}


def suffix_of(path: str) -> str:
    """The suffix that promises a type, in small letters; "" without one."""
    name = path.rpartition("/")[2].lower()  # not by PurePosixPath, which splits a path of a program's into 500 parts
    at = name.rfind(".")
    if not 0 < at < len(name) - 1:
        return ""
    before = name.rfind(".", 0, at)
    return name[before:] if before > 0 and name[before:] in KINDS else name[at:]


def kind_of(path: str) -> Kind | None:
    """What the suffix of *path* promises; None for a suffix that promises nothing."""
    return KINDS.get(suffix_of(path))


def mime_of(path: str) -> str:
    """The type that the suffix of *path* promises."""
    kind = kind_of(path)
    return kind.mime if kind else UNKNOWN_MIME
