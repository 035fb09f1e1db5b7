"""What the host itself sees of a promised file, and that no kind of file is let through unseen."""

import zipfile
from pathlib import Path

import pytest

from isorun.core.contract.items import Contract, ContractItem
from isorun.core.contract.kinds import KINDS, UNKNOWN_MIME, kind_of, mime_of, suffix_of
from isorun.runtime.glance import _PIECE, glance
from isorun.runtime.inspection import inspector
from isorun.store.collect import Collected, FileRecord

NONSENSE = b"hello, this is plain text\0"


def seen(folder: Path, name: str, data: bytes) -> list[str]:
    """The hints for *data* under *name*, each without the name."""
    (folder / name).write_bytes(data)
    contract = Contract(turn="t", items=(ContractItem(path=name, description="d"),))
    record = FileRecord(path=name, bytes=len(data), sha256="0", mime=mime_of(name))
    found = glance(contract, Collected(files={name: record}, refused=()), folder)
    assert all(finding.code == "artifact_invalid" for finding in found.get(name, ()))
    return [finding.hint.removeprefix(f"{name} ") for finding in found.get(name, ())]


@pytest.mark.parametrize("suffix", KINDS)
def test_nonsense_is_seen_by_somebody_whatever_its_suffix(tmp_path: Path, suffix: str) -> None:
    """Every suffix of the table is looked at in one place, and plain text with a NUL passes for none of them."""
    by_inspector = suffix in inspector.KINDS
    assert by_inspector == (KINDS[suffix].by == "opened")
    file = tmp_path / "0"
    file.write_bytes(NONSENSE)
    found = inspector.inspect(file, f"a{suffix}", {}) if by_inspector else seen(tmp_path, f"a{suffix}", NONSENSE)
    assert len(found) == 1


@pytest.mark.parametrize("suffix", [suffix for suffix, kind in KINDS.items() if kind.by == "start"])
def test_what_begins_as_its_type_passes(tmp_path: Path, suffix: str) -> None:
    """Each of the beginnings, and not one that is cut short or stands elsewhere."""
    for at, mark in KINDS[suffix].starts:
        assert seen(tmp_path, f"a{suffix}", b"\0" * at + mark + b"more") == []
        cut, moved = b"\0" * at + mark[:-1], b"\1" * (at + 1) + mark
        hint = f"does not begin as {suffix} does: it is not {KINDS[suffix].mime}"
        assert seen(tmp_path, f"a{suffix}", cut) == seen(tmp_path, f"a{suffix}", moved) == [hint]


PROMISED = """
.7z .arrow .avi .avif .avro .doc .epub .feather .flac .geojson .gpkg .h5 .hdf5 .ico .jar .m4a .mid .mkv .mov
.nc .ndjson .npz .odp .ods .odt .ogg .opus .orc .otf .ppt .psd .rar .sqlite3 .tif .ttf .wasm .webm .whl .woff
.woff2 .xlsb .xlsm .zst .bib .cfg .ini .jsx .rst .sh .sql .srt .tex .tsx .vtt
"""


@pytest.mark.parametrize("suffix", PROMISED.split())
def test_a_type_that_is_known_by_its_suffix_is_looked_at(suffix: str) -> None:
    """The two tests above try each of these: other types than the commonest are promised, too."""
    kind = kind_of(f"a{suffix}")
    assert kind is not None
    assert kind.mime != UNKNOWN_MIME


@pytest.mark.parametrize("suffix", [".npz", ".odp", ".ods", ".odt", ".xlsb", ".xlsm"])
def test_an_archive_by_another_name_passes(tmp_path: Path, suffix: str) -> None:
    """As it is written by the usual means, one without members as well: numpy can save no arrays."""
    for members in (["mimetype"], []):
        with zipfile.ZipFile(tmp_path / "made", "w") as archive:
            for member in members:
                archive.writestr(member, "x")
        assert seen(tmp_path, f"a{suffix}", (tmp_path / "made").read_bytes()) == []


@pytest.mark.parametrize(
    ("data", "hints"),
    [
        (b"text\n", []),
        ("é 東京 \u200b".encode(), []),
        (b"\xef\xbb\xbfwith a mark", []),
        (b"x" * (_PIECE - 1) + "é".encode(), []),
        (b"a\nb\xff", ["is not UTF-8 text: byte 0xff in line 2; write it as UTF-8"]),
        (b"\n" * _PIECE + b"\xff", [f"is not UTF-8 text: byte 0xff in line {_PIECE + 1}; write it as UTF-8"]),
        (b"cut \xc3", ["is not UTF-8 text: byte 0xc3 at its end; write it as UTF-8"]),
        ("text".encode("utf-16"), ["holds a NUL byte, so it is not text as .md promises"]),
        (b"x" * _PIECE + b"\0", ["holds a NUL byte, so it is not text as .md promises"]),
    ],
    ids=["ascii", "utf-8", "byte order mark", "a letter in two pieces", "latin-1", "late", "cut", "utf-16", "late NUL"],
)
def test_text_is_utf8_without_nul(tmp_path: Path, data: bytes, hints: list[str]) -> None:
    """Wherever the wrong byte stands, and however the file is read."""
    assert seen(tmp_path, "a.md", data) == hints


def test_a_suffix_that_promises_nothing_is_not_looked_at(tmp_path: Path) -> None:
    """Presence and size are all that is known of it."""
    for name in ("a.dat", "a", "a.", ".md", "Makefile"):
        assert kind_of(name) is None
        assert seen(tmp_path, name, NONSENSE) == []
        assert mime_of(name) == UNKNOWN_MIME


@pytest.mark.parametrize(
    ("path", "suffix"),
    [
        ("a/b.TAR.GZ", ".tar.gz"),
        ("a.tar.gz", ".tar.gz"),
        ("v1.2.zip", ".zip"),
        ("a.b.gz", ".gz"),
        (".tar.gz", ".gz"),
        ("a.tar/b", ""),
        ("x.md", ".md"),
    ],
)
def test_the_suffix_of_two_parts(path: str, suffix: str) -> None:
    """A packed tar is one, not any packed file; the inspector reads names the same way."""
    assert suffix_of(path) == suffix
