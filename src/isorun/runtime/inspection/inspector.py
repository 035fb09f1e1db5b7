"""Looks into the files that a run promised: the program that a slot runs for `inspection`.

Its text is sent into a fresh slot and run there. It is never imported by isorun's own
code: it parses bytes that an attacker chose, with libraries that were not written for that,
so it may be killed, hang or be taken over. It answers one line a file, in the order of
`job.json`, as soon as it has it: a JSON list of `[code, hint]`, empty for a file that is fine.

It must not need anything but the standard library, pypdf, Pillow, openpyxl and jsonschema,
and must not unpack to a disk, follow a name inside a file, or open a nested archive. It is
long because it is sent as one text and can import nothing of ours. What only some kinds of
file need is imported where they are opened: a slot looks at one run's files, once, and the
libraries of archives, TOML and XML take longer to import than most tables to check.
"""

import codecs
import csv
import io
import json
import logging
import re
import stat
import struct
import sys
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import tarfile
    import zipfile

INVALID = "artifact_invalid"
TOO_LARGE = "artifact_too_large"
MISSING_LIBRARY = "missing_library"  # told to the operator; its hint is the name to install

MIB = 1 << 20
MAX_PIXELS = 50_000_000  # 200 MB decoded, 500 MB while a progressive JPEG is; a page of A4 at 600 dpi has 35 million
MAX_UNPACKED = 512 * MIB  # of one archive, all its files together
MAX_ENTRIES = 10_000  # of one archive
MAX_RATIO, RATIO_FROM = 200, 32 * MIB  # zeros are packed 1:1000, sheets of equal cells 1:100
MAX_FIELD = MIB  # characters of one CSV field
MAX_SHOWN = 60  # characters of a name in a hint
MAX_LISTED = 20  # names in a hint
MAX_FINDINGS = 10
MAX_HINT = 600  # characters

Checks = dict[str, Any]
Finding = tuple[str, str]


class Bad(Exception):
    """The file is not what it promises to be; the text is the hint."""

    code = INVALID


class TooLarge(Bad):
    """Unpacked, decoded or counted, the file is more than is looked at."""

    code = TOO_LARGE


def inspect(file: Path, name: str, checks: Checks) -> list[Finding]:
    """What is wrong with *file*, which was promised as *name* with *checks*; never raises for any bytes.

    A hint goes on from the file's name: "has 1 page, promised 2".
    """
    suffixes = PurePosixPath(name.lower()).suffixes[-2:]
    suffix = next((both for both in ("".join(suffixes), *suffixes[-1:]) if both in KINDS), "".join(suffixes[-1:]))
    findings: list[Finding] = []
    try:
        facts = KINDS.get(suffix, _other)(file, checks)
        for key, value in checks.items():
            findings += [(INVALID, hint) for hint in _CHECKS[key](facts, value)] if key in _CHECKS else []
    except Bad as bad:
        findings.append((bad.code, str(bad)))
    except ImportError as missing:
        return [(MISSING_LIBRARY, (missing.name or str(missing))[:MAX_HINT])]
    except MemoryError:
        findings.append((TOO_LARGE, "needs more memory to open than it may have"))
    except RecursionError:
        findings.append((INVALID, "is nested too deep"))
    except Exception as error:  # noqa: BLE001 - the parsers raise anything at all for hostile bytes
        findings.append((INVALID, f"cannot be read as {suffix or 'text'}: {type(error).__name__}: {error}"))
    return [(code, hint[:MAX_HINT]) for code, hint in findings[:MAX_FINDINGS]]


class Facts:
    """What is known of a file once it was opened; what a check needs more is found when it asks."""

    def __init__(
        self,
        *,
        mimes: Iterable[str],
        value: object = None,
        pages: int = 0,
        unit: str = "page",
        tables: Callable[[], Iterable["Table"]] = tuple,
        texts: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.mimes = tuple(mimes)  # what it may be called, the usual name first
        self.value = value
        self.pages, self.unit = pages, unit
        self.tables = tables
        self.texts = texts


class Table:
    """A sheet, or a whole CSV file: the first row that is not blank names the columns."""

    def __init__(self, name: str, rows: Iterator[list[str]]) -> None:
        self.name = name
        self.rows = (row for row in rows if any(row))
        self.columns = [column.strip() for column in next(self.rows, [])]


def _shown(names: Iterable[str]) -> str:
    """Names from a file or a promise, shortened for a hint."""
    listed = list(islice(names, MAX_LISTED + 1))
    text = ", ".join(name[:MAX_SHOWN] + "..." * (len(name) > MAX_SHOWN) for name in listed[:MAX_LISTED])
    return f"{text} and more" if len(listed) > MAX_LISTED else text or "(none)"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


# --- Text, JSON, CSV


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Bad(f"is not UTF-8 text: byte 0x{data[error.start]:02x} in line {line}; write it as UTF-8") from None


def _no_constant(name: str) -> NoReturn:
    raise Bad(f"is not JSON: {name} is not a JSON value; write null or a string")


def _parse_json(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise Bad(f"is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except ValueError as error:  # a number of more digits than int() takes
        raise Bad(f"is not JSON that can be read: {error}") from None


def _json(file: Path, checks: Checks) -> Facts:
    data = file.read_bytes()
    if data.startswith(codecs.BOM_UTF8):
        raise Bad("begins with a byte order mark, which JSON does not allow; write it as plain UTF-8")
    text = _utf8(data)
    value = _parse_json(text)

    def texts() -> Iterator[str]:
        yield text
        yield json.dumps(value, ensure_ascii=False)  # the same with its \u escapes resolved

    mimes = ["application/json", "text/json"]
    if isinstance(value, dict) and "nbformat" in value:
        mimes.append("application/x-ipynb+json")
    return Facts(mimes=mimes, value=value, texts=texts)


def _csv_rows(file: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with the number of its last line."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        header = lines.readline(MAX_FIELD)
        lines.seek(0)
        marks = delimiter or next((mark for mark in ",;\t|" if mark in header), ",")
        reader = csv.reader(lines, delimiter=marks, strict=True)
        for row in reader:
            if row:
                yield reader.line_num, row


def _csv(file: Path, checks: Checks, mime: str = "text/csv", delimiter: str = "") -> Facts:
    csv.field_size_limit(MAX_FIELD)
    if "\0" in _utf8(file.read_bytes()):
        raise Bad("holds a NUL byte, so it is not CSV")
    columns = 0
    try:
        for line, row in _csv_rows(file, delimiter):
            columns = columns or len(row)
            if len(row) != columns:
                raise Bad(f"is not a table: line {line} has {_count(len(row), 'field')}, the header {columns}")
    except csv.Error as error:
        raise Bad(f"is not CSV: {error}") from None
    if not columns:
        raise Bad("has no row")
    return Facts(
        mimes=[mime, "text/csv", "application/csv", "text/plain"],
        tables=lambda: [Table("", (row for _, row in _csv_rows(file, delimiter)))],
        texts=lambda: [_utf8(file.read_bytes())],
    )


def _jsonl(file: Path, checks: Checks) -> Facts:
    text = _utf8(file.read_bytes())
    if "\0" in text:
        raise Bad("holds a NUL byte, so it is not JSON")
    lines = 0
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            lines += 1
            try:
                _parse_json(line)
            except Bad as bad:
                raise Bad(f"line {number} {bad}") from None
    if not lines:
        raise Bad("has no line")
    return Facts(mimes=["application/jsonl", "text/plain"], texts=lambda: [text])


def _toml(file: Path, checks: Checks) -> Facts:
    import tomllib

    text = _utf8(file.read_bytes())
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Bad(f"is not TOML: {error}") from None
    return Facts(mimes=["application/toml", "text/plain"], texts=lambda: [text])


def _xml(file: Path, checks: Checks, wanted: str = "") -> Facts:
    with file.open("rb") as stream:
        root = parse_xml(iter(lambda: stream.read(MIB), b""), "its XML", doctype=True)
    if wanted and root != wanted:
        raise Bad(f"is not {wanted.upper()}: its root is {root[:MAX_SHOWN]}, not {wanted}")
    svg = ["image/svg+xml"] * (root == "svg")
    mimes = [*svg, "application/xml", "text/xml"] if wanted else ["application/xml", "text/xml", *svg]
    return Facts(mimes=mimes, texts=lambda: [_utf8(file.read_bytes())])


# --- What an archive may hold: names that stay where they are unpacked, files and folders, each once


class Names:
    """The names of one archive, as they come; `add` raises `Bad` for a name that would harm its reader."""

    def __init__(self) -> None:
        self._seen: dict[str, bool] = {}  # by how a disk may take it: whether it is a folder
        self.files = 0

    def add(self, name: str, *, folder: bool = False) -> None:
        """Take the next entry. A backslash and a drive count: it may be unpacked where they mean something."""
        shown = f"{name[:MAX_SHOWN]!r}"
        parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
        if name[:1] in ("/", "\\") or re.match(r"[A-Za-z]:", name):
            raise Bad(f"holds {shown}, an absolute name; write it relative to the archive")
        # Windows takes blanks and dots from the end of a name, so that `.. ` becomes `..`.
        if ".." in parts or not all(part.rstrip(" .") for part in parts):
            raise Bad(f"holds {shown}, which leads out of the folder it is unpacked in")
        if not name.isprintable() and not _is_plain(name):
            raise Bad(f"holds {shown}, a name with characters that cannot be seen")
        if not parts:
            if folder:
                return  # ./ stands first in many archives
            raise Bad(f"holds {shown}, which is not a file name")
        self._place([unicodedata.normalize("NFC", part).casefold() for part in parts], shown, folder)

    def _place(self, parts: list[str], shown: str, folder: bool) -> None:
        if parts[0] in _OWN_FILES or "/".join(parts[:2]) in _OWN_FILES:
            raise Bad(f"holds {shown}, a name that isorun itself writes beside the files of a run")
        path = "/".join(parts)
        if (not folder and path in self._seen) or self._seen.get(path) is False:
            raise Bad(f"holds {shown} twice, or beside one that differs only in case")
        for depth in range(1, len(parts)):
            if self._seen.setdefault("/".join(parts[:depth]), True) is False:
                raise Bad(f"holds {shown} below something that is a file")
        self._seen[path] = folder
        self.files += not folder

    def check_not_empty(self) -> None:
        if not self.files:
            raise Bad("holds no file")


#: Logs and records of a run: an archive that brings its own would replace them where it is unpacked.
_OWN_FILES = frozenset(
    (
        *("logs/user.log", "logs/infra.log", "runtime.out.log", "runtime.err.log"),
        *("tool_calls_index.json", "executed_programs"),
    )
)


def _is_plain(name: str) -> bool:
    """Whether all that is not printable in *name* are blanks of another width."""
    return all(c.isprintable() or unicodedata.category(c) == "Zs" for c in name)


class _Unpacked(io.RawIOBase):
    """A packed stream, read as what it unpacks to, up to a bound."""

    def __init__(self, stream: Any, packed: int) -> None:  # noqa: ANN401 - of gzip, bz2 or lzma
        self._stream = stream
        self._left = MAX_UNPACKED
        self._most = max(RATIO_FROM, MAX_RATIO * packed)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        data = self._stream.read(min(len(buffer), MIB))
        buffer[: len(data)] = data
        self._left -= len(data)
        self._most -= len(data)
        if self._left < 0 or self._most < 0:
            raise TooLarge(f"unpacks to more than isorun checks: {MAX_UNPACKED} bytes, or {MAX_RATIO} times its size")
        return len(data)


def _unpacked(file: Path, packer: str) -> Any:  # noqa: ANN401 - a readable file
    size = file.stat().st_size
    # A tar that is not packed has what it says, and no ratio.
    return _Unpacked(import_module(packer).open(file, "rb"), size) if packer else file.open("rb")


def _damaged() -> tuple[type[Exception], ...]:
    from lzma import LZMAError

    return OSError, EOFError, zlib.error, LZMAError


def _packed(file: Path, checks: Checks, packer: str = "gzip", mime: str = "") -> Facts:
    try:
        with _unpacked(file, packer) as stream:
            while stream.read(MIB):
                pass
    except _damaged() as error:
        raise Bad(f"does not unpack: {_without_path(error, file)}") from None
    return Facts(mimes=[mime])


def _tar(file: Path, checks: Checks, packer: str = "", mime: str = "") -> Facts:
    import tarfile

    names, left = Names(), MAX_UNPACKED
    try:
        with _unpacked(file, packer) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for number, member in enumerate(archive):
                if number >= MAX_ENTRIES:
                    raise TooLarge(f"holds more than {MAX_ENTRIES} files")
                left -= max(member.size, 0)
                if left < 0:
                    raise TooLarge(f"unpacks to more than {MAX_UNPACKED} bytes")
                _check_member(member)
                names.add(member.name, folder=member.isdir())
            while stream.read(MIB):  # the checksum of what is packed stands at its end
                pass
    except tarfile.TarError as error:
        raise Bad(f"is not a tar archive: {error}") from None
    except _damaged() as error:
        raise Bad(f"does not unpack: {_without_path(error, file)}") from None
    names.check_not_empty()
    return Facts(mimes=[mime])


def _check_member(member: "tarfile.TarInfo") -> None:
    shown = f"{member.name[:MAX_SHOWN]!r}"
    if member.issym() or member.islnk():
        raise Bad(f"holds {shown}, a link; write the file itself")
    if not (member.isreg() or member.isdir()):
        raise Bad(f"holds {shown}, which is neither a file nor a folder")
    if member.isreg() and member.mode & (stat.S_ISUID | stat.S_ISGID):
        # Root unpacks it as a file of root's that anybody may run, with what the program wrote in it.
        raise Bad(f"holds {shown}, which runs as its owner; remove its setuid and setgid bits")


# --- Zip archives and the documents in them


def _other_name(extra: bytes) -> bytes | None:
    """The name that Info-ZIP and others unpack an entry under, whatever its own is (extra field 0x7075)."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == 0x7075:
            return extra[9 : 4 + size]
        extra = extra[4 + size :]
    return None


class Archive:
    """A zip file whose declared sizes are within bounds, read in pieces that are."""

    def __init__(self, file: "zipfile.ZipFile") -> None:
        self.file = file
        self.entries = {entry.filename: entry for entry in file.infolist() if not entry.is_dir()}

    def check_names(self) -> None:
        """Raise `Bad` for an entry that would harm its reader, and for an archive without any file."""
        names = Names()
        for entry in self.file.infolist():
            # As it is written: `filename` ends before a NUL.
            names.add(entry.orig_filename, folder=entry.is_dir())
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind == stat.S_IFLNK:
                raise Bad(f"holds {entry.filename[:MAX_SHOWN]!r}, a link; write the file itself")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise Bad(f"holds {entry.filename[:MAX_SHOWN]!r}, which is neither a file nor a folder")
            if _other_name(entry.extra) not in (None, entry.orig_filename.encode()):
                raise Bad(f"holds {entry.filename[:MAX_SHOWN]!r} under a second name; write it under one")
        names.check_not_empty()

    def check_bounds(self) -> None:
        entries = self.file.infolist()
        if len(entries) > MAX_ENTRIES:
            raise TooLarge(f"holds {len(entries)} files, the limit is {MAX_ENTRIES}")
        if any(entry.flag_bits & 1 for entry in entries):
            raise Bad("is encrypted; write it without a password")
        unpacked, packed = sum(e.file_size for e in entries), sum(e.compress_size for e in entries)
        if unpacked > MAX_UNPACKED:
            raise TooLarge(f"unpacks to {unpacked} bytes, the limit is {MAX_UNPACKED}")
        if unpacked > RATIO_FROM and unpacked > MAX_RATIO * packed:
            raise TooLarge(f"unpacks to {unpacked} bytes, more than {MAX_RATIO} times its size")

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of one entry; the checksum is checked at its end."""
        entry = self.entries[name]
        left = entry.file_size
        with self.file.open(entry) as stream:
            while piece := stream.read(MIB):
                left -= len(piece)
                if left < 0:  # its header lies; the sums above are worth nothing then
                    raise TooLarge(f"holds {name[:MAX_SHOWN]}, which is larger than it says")
                yield piece

    def read_all(self) -> None:
        for name in self.entries:
            for _ in self.pieces(name):
                pass


def _archive(file: Path) -> Archive:
    import zipfile

    try:
        archive = Archive(zipfile.ZipFile(file))
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError) as error:
        raise Bad(f"is not a zip archive: {error}") from None
    archive.check_bounds()
    archive.check_names()
    return archive


def _zip(file: Path, checks: Checks) -> Facts:
    from zipfile import BadZipFile

    archive = _archive(file)
    with archive.file:
        try:
            archive.read_all()
        except (BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise Bad(f"holds a damaged file: {error}") from None
        return Facts(mimes=["application/zip", *_office_mimes(archive)])


def _office_mimes(archive: Archive) -> list[str]:
    return [mime for _, mime, part, _ in _OFFICE.values() if part in archive.entries]


def parse_xml(
    pieces: Iterable[bytes],
    where: str,
    on_start: Callable[[str, dict[str, str]], object] | None = None,
    on_text: Callable[[str], object] | None = None,
    *,
    doctype: bool = False,
) -> str:
    """The name of the root. Nothing is looked up: entities are refused, and a document type unless *doctype*."""
    from xml.parsers import expat

    parser = expat.ParserCreate(namespace_separator=" ")
    root = ""

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal root
        root = root or _local(name)
        if on_start is not None:
            on_start(_local(name), attributes)
        else:
            parser.StartElementHandler = None  # a call for each cell of a sheet would take most of the time

    def declared(*_: object) -> NoReturn:
        raise Bad(f"declares entities or a document type in {where}; write it without")

    parser.StartElementHandler = start
    parser.EntityDeclHandler = declared
    parser.StartDoctypeDeclHandler = None if doctype else declared
    parser.CharacterDataHandler = on_text
    try:
        for piece in pieces:
            parser.Parse(piece, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise Bad(f"holds {where}, which is not XML: {error}") from None
    return root


def _local(name: str) -> str:
    """A name without its namespace."""
    return name.rpartition(" ")[2]


def _attribute(attributes: dict[str, str], name: str) -> str:
    return next((value for key, value in attributes.items() if _local(key) == name), "")


def _main_part(archive: Archive, wanted: str) -> str:
    """The part that the package itself names as its document."""
    if "[Content_Types].xml" not in archive.entries or "_rels/.rels" not in archive.entries:
        raise Bad(f"is a zip archive but not a {wanted} document: it has no [Content_Types].xml or no _rels/.rels")
    found: list[str] = []

    def relationship(_: str, attributes: dict[str, str]) -> None:
        if _attribute(attributes, "Type").endswith("/officeDocument"):
            found.append(_attribute(attributes, "Target").lstrip("/"))

    parse_xml(archive.pieces("_rels/.rels"), "_rels/.rels", relationship)
    if not found or found[0] not in archive.entries:
        raise Bad(f"is a zip archive but not a {wanted} document: its main part is missing")
    return found[0]


def _office(file: Path, suffix: str) -> tuple[Archive, str]:
    """The archive, every XML part of it well-formed, and its main part's name."""
    from zipfile import BadZipFile

    archive = _archive(file)
    try:
        main = _main_part(archive, suffix)
        roots: dict[str, str] = {}
        for name in archive.entries:
            if name.lower().endswith((".xml", ".rels", ".vml")):
                roots[name] = parse_xml(archive.pieces(name), name[:MAX_SHOWN])
            else:
                for _ in archive.pieces(name):
                    pass
    except (BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise Bad(f"is damaged: {error}") from None
    root = _OFFICE[suffix][0]
    if roots.get(main) != root:
        found = roots.get(main, "thing")[:MAX_SHOWN]
        raise Bad(f"is not a {suffix} document: its main part is a {found}, not a {root}")
    return archive, main


def _break_lines(said: list[str], tag: str, _: dict[str, str]) -> None:
    if tag in ("p", "br", "tab"):
        said.append("\n")


def _part_texts(archive: Archive, prefix: str) -> Iterator[str]:
    """The text of each XML part beneath *prefix*, a paragraph a line."""
    for name in archive.entries:
        if name.startswith(prefix) and name.endswith(".xml"):
            said: list[str] = []
            parse_xml(archive.pieces(name), name[:MAX_SHOWN], partial(_break_lines, said), said.append)
            yield "".join(said)


def _docx(file: Path, checks: Checks) -> Facts:
    archive, _ = _office(file, ".docx")
    return Facts(mimes=[_OFFICE[".docx"][1], "application/zip"], texts=lambda: _part_texts(archive, "word/"))


def _pptx(file: Path, checks: Checks) -> Facts:
    archive, main = _office(file, ".pptx")
    slides = 0

    def count(tag: str, _: dict[str, str]) -> None:
        nonlocal slides
        slides += tag == "sldId"

    parse_xml(archive.pieces(main), main, count)
    if not slides:
        raise Bad("has no slide")
    return Facts(
        mimes=[_OFFICE[".pptx"][1], "application/zip"],
        pages=slides,
        unit="slide",
        texts=lambda: _part_texts(archive, "ppt/"),
    )


def _sheets(file: Path) -> dict[str, Callable[[], Iterator[list[str]]]]:
    """By name, what reads the rows of each worksheet anew."""
    from openpyxl import load_workbook

    # From memory and once: without a file to close, and opening one reads every sheet for its size.
    book = load_workbook(io.BytesIO(file.read_bytes()), read_only=True, data_only=True)
    return {str(sheet.title): partial(_rows, sheet) for sheet in book.worksheets}


def _rows(sheet: Any) -> Iterator[list[str]]:  # noqa: ANN401 - openpyxl has no types
    sheet.reset_dimensions()  # what the sheet says of its own size may be a lie
    for row in sheet.iter_rows(values_only=True):
        yield ["" if value is None else str(value) for value in row]


def _xlsx(file: Path, checks: Checks) -> Facts:
    archive, _ = _office(file, ".xlsx")
    drawn = any(name.startswith(("xl/drawings/", "xl/charts/", "xl/media/")) for name in archive.entries)
    sheets = _sheets(file)
    if not sheets:
        raise Bad("has no sheet")
    if not drawn and not any(any(row) for rows in sheets.values() for row in rows()):
        raise Bad(f"has no value in any cell; its sheets are {_shown(sheets)}")
    return Facts(
        mimes=[_OFFICE[".xlsx"][1], "application/zip"],
        tables=lambda: (Table(name, rows()) for name, rows in sheets.items()),
        texts=lambda: ("\n".join(row) for rows in sheets.values() for row in rows()),
    )


# --- PDF and images


def _pdf(file: Path, checks: Checks) -> Facts:
    with file.open("rb") as start:
        if b"%PDF-" not in start.read(1024):
            raise Bad("is not a PDF: it does not begin with %PDF-")
    import pypdf

    try:
        reader = pypdf.PdfReader(file)
        if reader.is_encrypted:
            raise Bad("is encrypted; write it without a password")
        pages = sum(1 for _ in reader.pages)
    except (pypdf.errors.PyPdfError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise Bad(f"is not a PDF that can be read: {error}") from None
    if not pages:
        raise Bad("has no page")
    return Facts(
        mimes=["application/pdf"], pages=pages, texts=lambda: ["\n".join(p.extract_text() for p in reader.pages)]
    )


def _image(kind: str, mime: str) -> Callable[[Path, Checks], Facts]:
    def decode(file: Path, checks: Checks) -> Facts:
        from PIL import Image, ImageFile, UnidentifiedImageError

        Image.MAX_IMAGE_PIXELS = None  # our own bound is checked below, before a pixel is decoded
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            with Image.open(file, formats=[kind]) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise TooLarge(f"has {width} x {height} pixels, the limit is {MAX_PIXELS} in all")
                image.load()
        except UnidentifiedImageError:
            raise Bad(f"is not a {kind} that can be decoded: {_begins_as(file)}") from None
        except (OSError, SyntaxError, ValueError, zlib.error) as error:
            raise Bad(f"is not a {kind} that can be decoded: {_without_path(error, file)}") from None
        return Facts(mimes=[mime])

    return decode


def _begins_as(file: Path) -> str:
    """What a file that is not the promised image looks like."""
    with file.open("rb") as stream:
        start = stream.read(512)
    mime = next((mime for at, mark, mime in _MAGIC if start[at : at + len(mark)] == mark), "")
    return f"it begins as {mime} does" if mime else "it does not begin as an image does"


def _without_path(error: Exception, file: Path) -> str:
    return str(error).replace(repr(str(file)), "it")


# --- Everything else: told by its first bytes, or it is text

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF-", "application/pdf"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"PK\x05\x06", "application/zip"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"{\\rtf", "application/rtf"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\0", "application/x-xz"),
    (257, b"ustar", "application/x-tar"),
    (0, b"SQLite format 3\0", "application/vnd.sqlite3"),
    (0, b"PAR1", "application/vnd.apache.parquet"),
    (8, b"WAVE", "audio/wav"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\xd0\xcf\x11\xe0", "application/vnd.ms-excel"),
)


def _other(file: Path, checks: Checks) -> Facts:
    """A file of a type that nothing here opens: enough is found out for the checks that can be asked of it."""
    with file.open("rb") as stream:
        start = stream.read(512)
    mimes = [mime for at, mark, mime in _MAGIC if start[at : at + len(mark)] == mark]
    wanted = str(checks.get("mime", "")).lower()
    if wanted in ("image/svg+xml", "application/xml", "text/xml"):
        mimes += _xml(file, checks).mimes
    elif wanted in KINDS_BY_MIME and (not mimes or {wanted, "application/zip"} & set(mimes) or is_text_type(wanted)):
        mimes = list(KINDS_BY_MIME[wanted](file, checks).mimes)
    elif is_text_type(wanted):
        if "\0" in _utf8(file.read_bytes()):
            raise Bad(f"holds a NUL byte, so it is not {wanted}")
        mimes.insert(0, wanted)  # a text may begin with BM or GIF8
    return Facts(mimes=mimes, texts=lambda: [_utf8(file.read_bytes())])


def is_text_type(mime: str) -> bool:
    """Whether all that can be told of *mime* is that it is text."""
    return mime.startswith("text/") or mime in ("application/yaml", "application/toml", "application/jsonl")


# --- The checks: each gives the hints for what is not kept


def _mime(facts: Facts, wanted: str) -> Iterator[str]:
    wanted = wanted.lower()
    wanted = {"image/jpg": "image/jpeg", "text/xml": "application/xml"}.get(wanted, wanted)
    named = [{"text/xml": "application/xml"}.get(mime, mime) for mime in facts.mimes]
    if wanted not in named:
        yield f"is {named[0] if named else 'of no known type'}, promised {wanted}"


def _json_schema(facts: Facts, schema: dict[str, Any]) -> Iterator[str]:
    import jsonschema
    from referencing import Registry

    validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    # An empty registry: a $ref that leads out of the schema is looked up nowhere.
    for error in islice(validator(schema, registry=Registry()).iter_errors(facts.value), 3):
        where = "".join(f"[{step!r}]" for step in error.absolute_path)
        yield f"does not fit json_schema at ${where}: {error.message[:200]}"


def _columns(facts: Facts, wanted: list[str]) -> Iterator[str]:
    missing: tuple[list[str], Table] | None = None
    for table in facts.tables():
        lacking = [column for column in wanted if column.strip() not in table.columns]
        if not lacking:
            return
        if missing is None or len(lacking) < len(missing[0]):
            missing = lacking, table
    if missing is None:
        yield f"has no sheet; promised the columns {_shown(wanted)}"
        return
    lacking, table = missing
    of = f" of sheet {table.name[:MAX_SHOWN]}" if table.name else ""
    yield f"columns{of} are {_shown(table.columns)}; promised also {_shown(lacking)}"


def _min_rows(facts: Facts, least: int) -> Iterator[str]:
    most = 0
    for table in facts.tables():
        most = max(most, sum(1 for _ in islice(table.rows, least)))
        if most >= least:
            return
    yield f"has {_count(most, 'row')} below its header, promised at least {least}"


def _pages(facts: Facts, wanted: int) -> Iterator[str]:
    if facts.pages != wanted:
        yield f"has {_count(facts.pages, facts.unit)}, promised {wanted}"


def _must_contain(facts: Facts, wanted: str | list[str]) -> Iterator[str]:
    # Runs of white space count as one blank: where lines break in a document is nobody's promise.
    left = {text: " ".join(text.split()) for text in ([wanted] if isinstance(wanted, str) else wanted)}
    for text in facts.texts():
        flat = " ".join(text.split())
        left = {given: words for given, words in left.items() if given not in text and words not in flat}
        if not left:
            return
    for given in left:
        yield f"does not contain {given[:MAX_SHOWN]!r}"


#: By suffix: what opens the file and says what it is, or raises `Bad`.
KINDS: dict[str, Callable[[Path, Checks], Facts]] = {
    ".bmp": _image("BMP", "image/bmp"),
    ".bz2": partial(_packed, packer="bz2", mime="application/x-bzip2"),
    ".csv": _csv,
    ".docx": _docx,
    ".epub": _zip,
    ".geojson": _json,
    ".gif": _image("GIF", "image/gif"),
    ".gz": partial(_packed, packer="gzip", mime="application/gzip"),
    ".ipynb": _json,
    ".jar": _zip,
    ".jpeg": _image("JPEG", "image/jpeg"),
    ".jpg": _image("JPEG", "image/jpeg"),
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".pdf": _pdf,
    ".png": _image("PNG", "image/png"),
    ".pptx": _pptx,
    ".svg": partial(_xml, wanted="svg"),
    ".tar": partial(_tar, mime="application/x-tar"),
    ".tar.bz2": partial(_tar, packer="bz2", mime="application/x-bzip2"),
    ".tar.gz": partial(_tar, packer="gzip", mime="application/gzip"),
    ".tar.xz": partial(_tar, packer="lzma", mime="application/x-xz"),
    ".tgz": partial(_tar, packer="gzip", mime="application/gzip"),
    ".tif": _image("TIFF", "image/tiff"),
    ".tiff": _image("TIFF", "image/tiff"),
    ".toml": _toml,
    ".tsv": partial(_csv, mime="text/tab-separated-values", delimiter="\t"),
    ".webp": _image("WEBP", "image/webp"),
    ".whl": _zip,
    ".xlsx": _xlsx,
    ".xml": _xml,
    ".xz": partial(_packed, packer="lzma", mime="application/x-xz"),
    ".zip": _zip,
}

_OOXML = "application/vnd.openxmlformats-officedocument"
#: By suffix: the root of the main part, the media type, where the main part usually is, and the opener.
_OFFICE: dict[str, tuple[str, str, str, Callable[[Path, Checks], Facts]]] = {
    ".docx": ("document", f"{_OOXML}.wordprocessingml.document", "word/document.xml", _docx),
    ".pptx": ("presentation", f"{_OOXML}.presentationml.presentation", "ppt/presentation.xml", _pptx),
    ".xlsx": ("workbook", f"{_OOXML}.spreadsheetml.sheet", "xl/workbook.xml", _xlsx),
}
KINDS_BY_MIME: dict[str, Callable[[Path, Checks], Facts]] = {
    **{mime: opener for _, mime, _, opener in _OFFICE.values()},
    "application/csv": _csv,
    "application/json": _json,
    "application/pdf": _pdf,
    "application/x-ipynb+json": _json,
    "application/zip": _zip,
    "image/jpeg": KINDS[".jpeg"],
    "image/jpg": KINDS[".jpeg"],
    "image/png": KINDS[".png"],
    "text/csv": _csv,
    "text/json": _json,
}
_CHECKS: dict[str, Callable[[Facts, Any], Iterator[str]]] = {
    "columns": _columns,
    "json_schema": _json_schema,
    "mime": _mime,
    "min_rows": _min_rows,
    "must_contain": _must_contain,
    "pages": _pages,
}


def main(work: Path) -> None:
    """Answer every file of *work*/job.json on stdout."""
    logging.disable()
    warnings.simplefilter("ignore")
    if "numpy" not in sys.modules:
        sys.modules["numpy"] = None  # type: ignore[assignment]  # openpyxl would import it for nothing: 0.2 s
    answers = io.TextIOWrapper(
        io.FileIO(sys.stdout.fileno(), "wb", closefd=False), encoding="utf-8", errors="backslashreplace"
    )
    for task in json.loads((work / "job.json").read_bytes()):
        found = inspect(work / task["file"], task["name"], task["checks"])
        answers.write(json.dumps(found, ensure_ascii=False) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(Path(__file__).parent)
