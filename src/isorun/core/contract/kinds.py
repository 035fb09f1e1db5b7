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


def _boxes(mime: str) -> Kind:
    """What is made of QuickTime's boxes, whose lengths stand before their names."""
    return _start(mime, *((4, box) for box in (b"ftyp", b"styp", b"moov", b"free", b"skip", b"wide", b"mdat")))


def _zipped(mime: str) -> Kind:
    """A zip archive by another name that is read in its place; one without members is one."""
    return _start(mime, (0, b"PK\x03\x04"), (0, b"PK\x05\x06"))


def _ole(mime: str, *also: tuple[int, bytes]) -> Kind:
    return _start(mime, (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), *also)


def _packed(mime: str) -> Kind:
    return Kind(mime, "opened", "unpacks")


def _tar(mime: str) -> Kind:
    return Kind(mime, "opened", f"unpacks; {_SAFE}")


#: A zip archive by another name that is unpacked, as a .zip is.
_UNZIPPED = Kind("application/zip", "opened", f"unpacks; {_SAFE}")
KINDS: dict[str, Kind] = {
    ".7z": _start("application/x-7z-compressed", (0, b"7z\xbc\xaf\x27\x1c")),
    ".arrow": _start("application/vnd.apache.arrow.file", (0, b"ARROW1"), (0, b"\xff\xff\xff\xff")),
    ".avi": _start("video/x-msvideo", (8, b"AVI ")),
    ".avif": _start("image/avif", (4, b"ftypavif"), (4, b"ftypavis"), (4, b"ftypmif1")),
    ".avro": _start("application/vnd.apache.avro", (0, b"Obj\x01")),
    ".bib": _text("text/x-bibtex"),
    ".bmp": _image("image/bmp"),
    ".bz2": _packed("application/x-bzip2"),
    ".cfg": _text("text/plain"),
    ".css": _text("text/css"),
    ".csv": Kind("text/csv", "opened", "parses; every row as long as the header", ("application/csv", "text/plain")),
    ".doc": _ole("application/msword", (0, b"{\\rtf")),
    ".docx": Kind(_DOCX, "opened", f"opens, its XML parses; {_SAFE}", ("application/zip",)),
    ".epub": _UNZIPPED,
    ".feather": _start("application/vnd.apache.arrow.file", (0, b"ARROW1"), (0, b"FEA1")),
    ".flac": _start("audio/flac", (0, b"fLaC"), (0, b"ID3")),
    ".geojson": Kind("application/json", "opened", "parses", ("text/json",)),
    ".gif": _image("image/gif"),
    ".gpkg": _start("application/geopackage+sqlite3", (0, b"SQLite format 3\0")),
    ".gz": _packed("application/gzip"),
    ".h5": _start("application/x-hdf5", (0, b"\x89HDF\r\n\x1a\n")),
    ".hdf5": _start("application/x-hdf5", (0, b"\x89HDF\r\n\x1a\n")),
    ".htm": _text("text/html"),
    ".html": _text("text/html"),
    ".ico": _start("image/vnd.microsoft.icon", (0, b"\0\0\x01\0")),
    ".ini": _text("text/plain"),
    ".ipynb": Kind("application/x-ipynb+json", "opened", "parses", ("application/json", "text/json")),
    ".jar": _UNZIPPED,
    ".jpeg": _image("image/jpeg", "image/jpg"),
    ".jpg": _image("image/jpeg", "image/jpg"),
    ".js": _text("text/javascript"),
    ".json": Kind("application/json", "opened", "parses", ("text/json", "application/x-ipynb+json")),
    ".jsonl": Kind("application/jsonl", "opened", "every line parses", ("text/plain",)),
    ".jsx": _text("text/javascript"),
    ".log": _text("text/plain"),
    ".m4a": _boxes("audio/mp4"),
    ".md": _text("text/markdown"),
    ".mid": _start("audio/midi", (0, b"MThd")),
    ".mkv": _start("video/x-matroska", (0, b"\x1aE\xdf\xa3")),
    ".mov": _boxes("video/quicktime"),
    ".mp3": _start("audio/mpeg", (0, b"ID3"), *((0, bytes((0xFF, second))) for second in (0xFB, 0xFA, 0xF3, 0xF2))),
    ".mp4": _boxes("video/mp4"),
    ".nc": _start("application/x-netcdf", (0, b"CDF\x01"), (0, b"CDF\x02"), (0, b"CDF\x05"), (0, b"\x89HDF\r\n\x1a\n")),
    ".ndjson": Kind("application/jsonl", "opened", "every line parses", ("text/plain",)),
    ".npy": _start(UNKNOWN_MIME, (0, b"\x93NUMPY")),
    ".npz": _zipped("application/zip"),
    ".odp": _zipped("application/vnd.oasis.opendocument.presentation"),
    ".ods": _zipped("application/vnd.oasis.opendocument.spreadsheet"),
    ".odt": _zipped("application/vnd.oasis.opendocument.text"),
    ".ogg": _start("audio/ogg", (0, b"OggS")),
    ".opus": _start("audio/ogg", (0, b"OggS")),
    ".orc": _start("application/vnd.apache.orc", (0, b"ORC")),
    ".otf": _start("font/otf", (0, b"OTTO"), (0, b"\0\x01\0\0")),
    ".parquet": _start("application/vnd.apache.parquet", (0, b"PAR1")),
    ".pdf": Kind("application/pdf", "opened", "has a header and a page that can be reached"),
    ".png": _image("image/png"),
    ".ppt": _ole("application/vnd.ms-powerpoint"),
    ".pptx": Kind(_PPTX, "opened", f"opens, its XML parses, has a slide; {_SAFE}", ("application/zip",)),
    ".psd": _start("image/vnd.adobe.photoshop", (0, b"8BPS")),
    ".py": _text("text/x-python"),
    ".rar": _start("application/vnd.rar", (0, b"Rar!\x1a\x07")),
    ".rst": _text("text/x-rst"),
    ".rtf": _start("application/rtf", (0, b"{\\rtf")),
    ".sh": _text("text/x-shellscript"),
    ".sql": _text("text/x-sql"),
    ".sqlite": _start("application/vnd.sqlite3", (0, b"SQLite format 3\0")),
    ".sqlite3": _start("application/vnd.sqlite3", (0, b"SQLite format 3\0")),
    ".srt": _text("text/plain"),
    ".svg": Kind(
        "image/svg+xml", "opened", "parses, its root is svg, declares no entity", ("application/xml", "text/xml")
    ),
    ".tar": _tar("application/x-tar"),
    ".tar.bz2": _tar("application/x-bzip2"),
    ".tar.gz": _tar("application/gzip"),
    ".tar.xz": _tar("application/x-xz"),
    ".tex": _text("text/x-tex"),
    ".tgz": _tar("application/gzip"),
    ".tif": _image("image/tiff"),
    ".tiff": _image("image/tiff"),
    ".toml": Kind("application/toml", "opened", "parses", ("text/plain",)),
    ".tsv": Kind(
        "text/tab-separated-values",
        "opened",
        "parses; every row as long as the header",
        ("text/csv", "application/csv", "text/plain"),
    ),
    ".tsx": _text("text/typescript"),
    ".ttf": _start("font/ttf", (0, b"\0\x01\0\0"), (0, b"true")),
    ".txt": _text("text/plain"),
    ".vtt": _text("text/vtt"),
    ".wasm": _start("application/wasm", (0, b"\0asm")),
    ".wav": _start("audio/wav", (8, b"WAVE")),
    ".webm": _start("video/webm", (0, b"\x1aE\xdf\xa3")),
    ".webp": _image("image/webp"),
    ".whl": _UNZIPPED,
    ".woff": _start("font/woff", (0, b"wOFF")),
    ".woff2": _start("font/woff2", (0, b"wOF2")),
    ".xls": _ole("application/vnd.ms-excel"),
    ".xlsb": _zipped("application/vnd.ms-excel.sheet.binary.macroenabled.12"),
    ".xlsm": _zipped("application/vnd.ms-excel.sheet.macroenabled.12"),
    ".xlsx": Kind(_XLSX, "opened", f"opens, its XML parses, a cell has a value; {_SAFE}", ("application/zip",)),
    ".xml": Kind("application/xml", "opened", "parses, declares no entity", ("text/xml", "image/svg+xml")),
    ".xz": _packed("application/x-xz"),
    ".yaml": _text("application/yaml"),
    ".yml": _text("application/yaml"),
    ".zip": Kind("application/zip", "opened", f"unpacks; {_SAFE}", (_DOCX, _PPTX, _XLSX)),
    ".zst": _start("application/zstd", (0, b"\x28\xb5\x2f\xfd")),
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
