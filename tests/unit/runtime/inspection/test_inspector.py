"""SPEC B3, B4: what the inspector says of a file. Its functions are called here; isorun itself never imports them."""

import bz2
import gzip
import io
import json
import logging
import lzma
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import warnings
import wave as wave_files
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from isorun.core.contract import checks
from isorun.runtime.inspection import inspector
from isorun.runtime.inspection.inspection import ANSWER_BYTES, decode_answer
from tests import artifacts as made

TABLE: dict[str, list[list[object]]] = {"Data": [["a", "b"], [1, 2.5], [3, "x"]]}
INVALID, TOO_LARGE = "artifact_invalid", "artifact_too_large"


#: What takes long to make is made once a test needs it, and not by each process that collects tests.
Data = bytes | Callable[[], bytes]


@cache
def _made(make: Callable[[], bytes]) -> bytes:
    return make()


def bytes_of(data: Data) -> bytes:
    return data if isinstance(data, bytes) else _made(data)


def found(folder: Path, name: str, data: Data, **promised: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - JSON
    """What is wrong with *data* under *name*."""
    file = folder / "0"
    file.write_bytes(bytes_of(data))
    return inspector.inspect(file, name, promised)


def drawn(kind: str) -> bytes:
    """A chart as programs make them."""
    out, figure = io.BytesIO(), Figure()
    figure.subplots().plot([1, 2, 3])
    figure.savefig(out, format=kind)
    return out.getvalue()


def picture(kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 3)).save(out, kind)
    return out.getvalue()


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return out.getvalue()


GOOD: dict[str, tuple[str, Data, dict[str, object]]] = {
    "csv": ("a.csv", b"a,b\n1,2\n", {"columns": ["b", "a"], "min_rows": 1, "mime": "text/csv"}),
    "csv, semicolons": ("a.csv", b"a;b\n1,5;2\n", {"columns": ["b"]}),
    "csv, quotes and blank lines": ("a.CSV", b'a,b\r\n"x\r\ny","q""q"\r\n\r\n1,2', {"min_rows": 2}),
    "csv, byte order mark": ("a.csv", b"\xef\xbb\xbfa,b\n1,2\n", {"columns": ["a"]}),
    "csv, one column": ("a.csv", b"name\nAnn\n", {"columns": ["name"], "must_contain": "Ann"}),
    "tsv": ("a.tsv", b"a,1\tb\n1\t2\n", {"columns": ["a,1", "b"], "mime": "text/tab-separated-values"}),
    "json": (
        "a.json",
        b'{"x": [1, null, "\\u00e9"]}',
        {"must_contain": ["\u00e9", "null"], "mime": "application/json"},
    ),
    "json, schema": ("a.json", b"[1, 2]", {"json_schema": {"items": {"type": "integer"}}}),
    "notebook": ("a.ipynb", b'{"nbformat": 4, "cells": []}', {"mime": "application/x-ipynb+json"}),
    "zip": ("a.zip", made.zipped({"x.txt": b"text", "d/": b""}), {"mime": "application/zip"}),
    "zip of zips": ("a.zip", lambda: made.nested_zip(3), {}),
    "docx": ("a.docx", made.docx("First part", "second part"), {"must_contain": "part second"}),
    "docx is a zip": ("a.docx", made.docx("x"), {"mime": "application/zip"}),
    "pptx": ("a.pptx", made.pptx("One", "Two"), {"pages": 2, "must_contain": ["One", "Two"]}),
    "xlsx": ("a.xlsx", made.xlsx(TABLE), {"columns": ["b"], "min_rows": 2, "must_contain": ["2.5", "x"]}),
    "xlsx, second sheet": ("a.xlsx", made.xlsx({"Summary": [["t"]], **TABLE}), {"columns": ["a", "b"], "min_rows": 2}),
    "xlsx, header not in the first row": (
        "a.xlsx",
        made.xlsx({"s": [[], [None, None], ["a"], [1]]}),
        {"columns": ["a"]},
    ),
    "pdf": ("a.pdf", made.pdf(2), {"pages": 2, "mime": "application/pdf"}),
    "pdf with text": ("a.pdf", made.pdf_saying("Total 42"), {"pages": 1, "must_contain": "Total 42"}),
    "pdf by matplotlib": ("a.pdf", lambda: drawn("pdf"), {"pages": 1}),
    "png": ("a.png", made.png(), {"mime": "image/png"}),
    "png by matplotlib": ("a.png", lambda: drawn("png"), {}),
    "jpeg": ("a.jpg", made.jpeg(), {"mime": "image/jpeg"}),
    "jpeg, the other name": ("a.JPEG", made.jpeg(), {"mime": "image/jpg"}),
    "text": ("a.md", b"# Title\n\nWords in\nlines", {"mime": "text/markdown", "must_contain": "Words in lines"}),
    "text like an image": ("a.txt", b"BMW and GIF8", {"mime": "text/plain"}),
    "svg by matplotlib": ("a.svg", lambda: drawn("svg"), {"mime": "image/svg+xml"}),
    "xml": ("a.xml", b"<a><b/></a>", {"mime": "application/xml"}),
    "png by another name": ("a.dat", made.png(), {"mime": "image/png"}),
    "xlsx by another name": ("a.dat", made.xlsx(TABLE), {"mime": checks.OPENED[".xlsx"][0]}),
    "json by another name": ("a.dat", b"{}", {"mime": "application/json"}),
    "gif": ("a.gif", picture("GIF"), {"mime": "image/gif"}),
    "bmp": ("a.bmp", picture("BMP"), {}),
    "tiff": ("a.tiff", picture("TIFF"), {"mime": "image/tiff"}),
    "webp": ("a.webp", picture("WEBP"), {"mime": "image/webp"}),
    "xml, a letter": (
        "a.xml",
        "<?xml version='1.0' encoding='utf-8'?><a>\u00e9</a>".encode(),
        {"must_contain": "\u00e9"},
    ),
    "jsonl": ("a.jsonl", b'{"a": 1}\n\n[2]\n', {"mime": "application/jsonl", "must_contain": "2"}),
    "toml": ("a.toml", b"a = 1\n[b]\nc = 2\n", {"mime": "application/toml"}),
    "gz": ("a.gz", gzip.compress(b"x"), {"mime": "application/gzip"}),
    "xz": ("a.csv.xz", lzma.compress(b"x"), {}),
    "tar": ("a.tar", tar(), {"mime": "application/x-tar"}),
    "tar.gz": ("v1.2.tar.gz", gzip.compress(tar()), {"mime": "application/gzip"}),
    "tif": ("a.tif", picture("TIFF"), {"mime": "image/tiff"}),
    "ndjson": ("a.ndjson", b'{"a": 1}\n[2]\n', {"mime": "application/jsonl"}),
    "geojson": ("a.geojson", b'{"type": "Point"}', {"mime": "application/json", "json_schema": {"type": "object"}}),
    "epub": ("a.epub", made.zipped({"mimetype": b"x"}), {}),
    "jar": ("a.jar", made.zipped({"META-INF/": b"", "A.class": b"x"}), {}),
    "wheel": ("a-1-py3-none-any.whl", made.zipped({"a.py": b"x"}), {"mime": "application/zip"}),
    "zip, of a project": (
        "a.zip",
        made.zipped({"./": b"", "src/": b"", "src/a.py": b"x", "logs/app.log": b"x", "results/result.json": b"{}"}),
        {},
    ),
}


def wave() -> bytes:
    out = io.BytesIO()
    with wave_files.open(out, "wb") as sound:
        sound.setparams((1, 1, 8000, 8, "NONE", ""))
        sound.writeframes(bytes(8))
    return out.getvalue()


def database() -> bytes:
    with closing(sqlite3.connect(":memory:")) as base:
        base.execute("create table t (a)")
        return base.serialize()


#: One file of each media type that a contract may ask of any file, made by what makes them where that is at hand.
TOLD: dict[str, Data] = {
    "application/csv": b"a,b\n1,2\n",
    "application/gzip": gzip.compress(b"x"),
    "application/json": b"[1]",
    "application/jsonl": b"[1]\n[2]\n",
    "application/pdf": made.pdf(),
    "application/rtf": b"{\\rtf1 text}",
    "application/toml": b"a = 1",
    "application/vnd.apache.parquet": b"PAR1...PAR1",
    "application/vnd.ms-excel": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "application/vnd.sqlite3": database(),
    "application/x-bzip2": bz2.compress(b"x"),
    "application/x-ipynb+json": b'{"nbformat": 4}',
    "application/x-tar": tar(),
    "application/x-xz": lzma.compress(b"x"),
    "application/xml": b"<a/>",
    "application/yaml": b"a: 1",
    "application/zip": made.zipped({"x": b"x"}),
    "audio/mpeg": b"ID3\x04",
    "audio/wav": wave(),
    "image/bmp": picture("BMP"),
    "image/gif": picture("GIF"),
    "image/jpeg": made.jpeg(),
    "image/jpg": made.jpeg(),
    "image/png": made.png(),
    "image/svg+xml": lambda: drawn("svg"),
    "image/tiff": picture("TIFF"),
    "image/webp": picture("WEBP"),
    "text/csv": b"a,b\n1,2\n",
    "text/json": b"{}",
    "text/plain": b"text",
    "text/tab-separated-values": b"a\tb\n",
    "text/xml": b"<a/>",
    "video/mp4": b"\0\0\0\x18ftypmp42",
    checks.OPENED[".docx"][0]: made.docx("x"),
    checks.OPENED[".pptx"][0]: made.pptx("x"),
    checks.OPENED[".xlsx"][0]: made.xlsx(TABLE),
}


def test_every_media_type_that_may_be_promised_can_be_kept_and_broken(tmp_path: Path) -> None:
    """Under a name that says nothing, a file of the type passes, and bytes of no type do not."""
    assert set(TOLD) == checks.TOLD
    for mime, data in TOLD.items():
        assert found(tmp_path, "a", data, mime=mime) == [], mime
        assert found(tmp_path, "a", data, mime=mime.upper()) == [], mime
        assert len(found(tmp_path, "a", b"\xff\0\0", mime=mime)) == 1, mime


@pytest.mark.slow
@pytest.mark.parametrize("case", GOOD)
def test_a_good_file_has_no_finding(tmp_path: Path, case: str) -> None:
    """What real programs write opens, and kept promises are found kept."""
    name, data, promised = GOOD[case]
    assert found(tmp_path, name, data, **promised) == []


def damaged_zip() -> bytes:
    data = made.zipped({"x.txt": b"some text"}, zipfile.ZIP_STORED)
    return data.replace(b"some text", b"same text", 1)


BAD: dict[str, tuple[str, bytes, str]] = {
    "json: rest": ("a.json", b'{"a": 1} x', "is not JSON: Extra data in line 1, column 10"),
    "json: NaN": ("a.json", b"[NaN]", "is not JSON: NaN is not a JSON value; write null or a string"),
    "json: infinity": ("a.json", b"-Infinity", "is not JSON: -Infinity is not a JSON value; write null or a string"),
    "json: repr": (
        "a.json",
        b"{'a': 1}",
        "is not JSON: Expecting property name enclosed in double quotes in line 1, column 2",
    ),
    "json: bom": (
        "a.json",
        b"\xef\xbb\xbf{}",
        "begins with a byte order mark, which JSON does not allow; write it as plain UTF-8",
    ),
    "json: utf-16": ("a.json", "[1]".encode("utf-16"), "is not UTF-8 text: byte 0xff in line 1; write it as UTF-8"),
    "csv: ragged": ("a.csv", b"a,b,c\n1,2,3\n1,2,3,4\n", "is not a table: line 3 has 4 fields, the header 3"),
    "csv: ragged after a long cell": (
        "a.csv",
        b'a,b\n"x\ny",1\n1\n',
        "is not a table: line 4 has 1 field, the header 2",
    ),
    "csv: latin-1": ("a.csv", b"a\nb\xe9\n", "is not UTF-8 text: byte 0xe9 in line 2; write it as UTF-8"),
    "csv: quote": ("a.csv", b'a,b\n"x,2\n', "is not CSV: unexpected end of data"),
    "csv: NUL": ("a.csv", b"a,b\n\0,2\n", "holds a NUL byte, so it is not CSV"),
    "csv: blank": ("a.csv", b"\n\n", "has no row"),
    "zip: text": ("a.zip", b"text", "is not a zip archive: File is not a zip file"),
    "zip: damaged": ("a.zip", damaged_zip(), "holds a damaged file: Bad CRC-32 for file 'x.txt'"),
    "docx: text": ("a.docx", b"text", "is not a zip archive: File is not a zip file"),
    "docx: plain zip": (
        "a.docx",
        made.zipped({"x": b""}),
        "is a zip archive but not a .docx document: it has no [Content_Types].xml or no _rels/.rels",
    ),
    "docx: a workbook": (
        "a.docx",
        made.xlsx(TABLE),
        "is not a .docx document: its main part is a workbook, not a document",
    ),
    "docx: not XML": (
        "a.docx",
        made.zipped(made.package("word/document.xml", "<a><b></a>")),
        "holds word/document.xml, which is not XML: mismatched tag: line 1, column 8",
    ),
    "docx: document type": (
        "a.docx",
        made.docx("x", prolog='<!DOCTYPE d SYSTEM "http://example.org/d.dtd">'),
        "declares entities or a document type in word/document.xml; write it without",
    ),
    "docx: no main part": (
        "a.docx",
        lambda: made.zipped({**made.package("word/document.xml", "<a/>"), "_rels/.rels": b"<Relationships/>"}),
        "is a zip archive but not a .docx document: its main part is missing",
    ),
    "pptx: no slide": ("a.pptx", made.pptx(), "has no slide"),
    "xlsx: no value": (
        "a.xlsx",
        made.xlsx({"One": [], "Two": [[]]}),
        "has no value in any cell; its sheets are One, Two",
    ),
    "pdf: text": ("a.pdf", b"# Report", "is not a PDF: it does not begin with %PDF-"),
    "pdf: encrypted": ("a.pdf", made.pdf(1, "secret"), "is encrypted; write it without a password"),
    "pdf: no page": ("a.pdf", made.pdf(0), "has no page"),
    "png: a jpeg": ("a.png", made.jpeg(), "is not a PNG that can be decoded: it begins as image/jpeg does"),
    "jpeg: a png": ("a.jpg", made.png(), "is not a JPEG that can be decoded: it begins as image/png does"),
    "gif: a pdf": ("a.gif", made.pdf(1), "is not a GIF that can be decoded: it begins as application/pdf does"),
    "webp: text": ("a.webp", b"no picture", "is not a WEBP that can be decoded: it does not begin as an image does"),
    "svg: not XML": ("a.svg", b"<svg", "holds its XML, which is not XML: unclosed token: line 1, column 0"),
}
ASKED: dict[str, dict[str, object]] = {"svg: not XML": {"mime": "image/svg+xml"}}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_not_what_its_suffix_promises_says_why(tmp_path: Path, case: str) -> None:
    """Each is one finding, `artifact_invalid`, whose text goes on from the file's name."""
    name, data, hint = BAD[case]
    assert found(tmp_path, name, data, **ASKED.get(case, {})) == [(INVALID, hint)]


@pytest.mark.parametrize("cut", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("case", ["pdf by matplotlib", "png by matplotlib", "jpeg", "xlsx", "docx", "pptx", "zip"])
def test_a_file_that_was_cut_short_is_invalid(tmp_path: Path, case: str, cut: float) -> None:
    """A program that died while it wrote leaves half a file, which must not pass."""
    name, data = GOOD[case][0], bytes_of(GOOD[case][1])
    ((code, _hint),) = found(tmp_path, name, data[: int(len(data) * cut)])
    assert code == INVALID


BROKEN: dict[str, tuple[str, bytes, dict[str, object], list[str]]] = {
    "columns": ("a.csv", b"a,b\n", {"columns": ["a", "c", "d"]}, ["columns are a, b; promised also c, d"]),
    "columns of the nearest sheet": (
        "a.xlsx",
        made.xlsx({"Notes": [["x"]], "Data": [["a", "b"]]}),
        {"columns": ["a", "c"]},
        ["columns of sheet Data are a, b; promised also c"],
    ),
    "columns of a blank sheet": (
        "a.xlsx",
        made.xlsx({"One": [[], [1]]}),
        {"columns": ["a"]},
        ["columns of sheet One are 1; promised also a"],
    ),
    "min_rows": ("a.csv", b"a,b\n1,2\n,\n", {"min_rows": 2}, ["has 1 row below its header, promised at least 2"]),
    "min_rows of the longest sheet": (
        "a.xlsx",
        made.xlsx({"One": [["a"], [1]], **TABLE}),
        {"min_rows": 3},
        ["has 2 rows below its header, promised at least 3"],
    ),
    "pages": ("a.pdf", made.pdf(1), {"pages": 2}, ["has 1 page, promised 2"]),
    "pages, too many": ("a.pdf", made.pdf(3), {"pages": 2}, ["has 3 pages, promised 2"]),
    "slides": ("a.pptx", made.pptx("x"), {"pages": 2}, ["has 1 slide, promised 2"]),
    "must_contain": (
        "a.md",
        b"abc",
        {"must_contain": ["b", "d", "e"]},
        ["does not contain 'd'", "does not contain 'e'"],
    ),
    "must_contain in a document": (
        "a.docx",
        made.docx("abc"),
        {"must_contain": "w:document"},
        ["does not contain 'w:document'"],
    ),
    "json_schema": (
        "a.json",
        b'{"rows": [1, "x"]}',
        {"json_schema": {"properties": {"rows": {"items": {"type": "integer"}}}, "required": ["total"]}},
        [
            "does not fit json_schema at $['rows'][1]: 'x' is not of type 'integer'",
            "does not fit json_schema at $: 'total' is a required property",
        ],
    ),
    "mime": ("a.dat", made.png(), {"mime": "image/gif"}, ["is image/png, promised image/gif"]),
    "mime, another that opens": (
        "a.dat",
        made.png(),
        {"mime": "application/pdf"},
        ["is image/png, promised application/pdf"],
    ),
    "mime, a zip": (
        "a.dat",
        made.zipped({"x": b"x"}),
        {"mime": checks.OPENED[".docx"][0]},
        ["is a zip archive but not a .docx document: it has no [Content_Types].xml or no _rels/.rels"],
    ),
    "mime, unknown": ("a.dat", b"\0\1\2", {"mime": "image/gif"}, ["is of no known type, promised image/gif"]),
    "mime, not text": ("a.txt", b"a\0b", {"mime": "text/plain"}, ["holds a NUL byte, so it is not text/plain"]),
    "mime, not svg": ("a.svg", b"<html/>", {"mime": "image/svg+xml"}, ["is not SVG: its root is html, not svg"]),
    "two checks": (
        "a.csv",
        b"a\n1\n",
        {"columns": ["b"], "min_rows": 2},
        ["columns are a; promised also b", "has 1 row below its header, promised at least 2"],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_check_says_what_is_there_and_what_was_promised(tmp_path: Path, case: str) -> None:
    """The hint has both sides, so that a model knows what to change."""
    name, data, promised, hints = BROKEN[case]
    assert sorted(found(tmp_path, name, data, **promised)) == sorted((INVALID, hint) for hint in hints)


def encrypted_zip() -> bytes:
    data = bytearray(made.zipped({"x": b"text"}))
    data[6] |= 1  # in the local header
    data[data.index(b"PK\x01\x02") + 8] |= 1  # in the directory
    return bytes(data)


BOUNDS: dict[str, tuple[str, Data, str, str]] = {
    "zip bomb": ("a.zip", lambda: made.zip_bomb(513), TOO_LARGE, "unpacks to 537919488 bytes, the limit is 536870912"),
    "zip bomb, smaller": (
        "a.zip",
        lambda: made.zip_bomb(64),
        TOO_LARGE,
        "unpacks to 67108864 bytes, more than 200 times its size",
    ),
    "docx bomb": (
        "a.docx",
        lambda: made.zipped({**made.package("word/document.xml", "<a/>"), "word/media/x": bytes(64 << 20)}),
        TOO_LARGE,
        "unpacks to ",
    ),
    "entries": ("a.zip", lambda: made.many_entries(10_001), TOO_LARGE, "holds 10001 files, the limit is 10000"),
    "encrypted": ("a.zip", encrypted_zip(), INVALID, "is encrypted; write it without a password"),
    "entities": ("a.docx", made.laughing_docx(), INVALID, "declares entities or a document type in word/document.xml"),
    "svg entities": ("a.svg", f"{made.LAUGHS}<svg>&l9;</svg>".encode(), INVALID, "declares entities"),
    "deep XML": (
        "a.docx",
        lambda: made.zipped(made.package("word/document.xml", "<a>" * 100_000 + "</a>" * 100_000)),
        INVALID,
        "is not a .docx document: its main part is a a, not a document",
    ),
    "pixels": (
        "a.png",
        lambda: made.png_bomb(10_000, 6_000),
        TOO_LARGE,
        "has 10000 x 6000 pixels, the limit is 50000000 in all",
    ),
    "deep JSON": ("a.json", made.deep_json(100_000), INVALID, "is nested too deep"),
    "long number": ("a.json", b"1" * 10_000, INVALID, "is not JSON that can be read: Exceeds the limit (4300 digits)"),
    "long field": ("a.csv", b"a" * (1 << 21), INVALID, "is not CSV: field larger than field limit (1048576)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BOUNDS)
def test_a_bomb_is_refused_by_its_declared_size(tmp_path: Path, case: str) -> None:
    """None of them is unpacked, decoded or expanded."""
    name, data, code, hint = BOUNDS[case]
    promised = {"mime": "image/svg+xml"} if name == "a.svg" else {}
    ((got, text),) = found(tmp_path, name, data, **promised)
    assert (got, text[: len(hint)]) == (code, hint)


def test_an_archive_that_lies_about_its_sizes_is_not_unpacked_beyond_them(tmp_path: Path) -> None:
    """64 MiB behind a directory that says one byte: reading stops at what was declared."""
    ((code, hint),) = found(tmp_path, "a.zip", made.lying_zip(64))
    assert code in (INVALID, TOO_LARGE)
    assert hint.startswith(("holds a damaged file", "holds zeros, which is larger"))


def test_a_reference_out_of_the_schema_is_looked_up_nowhere(tmp_path: Path) -> None:
    """Even if such a schema were let in: there is nothing behind the name."""
    secret = tmp_path / "secret.json"
    secret.write_text('{"type": "string"}')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in the slot: jsonschema only warns of what it retrieves
        ((code, hint),) = found(tmp_path, "a.json", b"1", json_schema={"$ref": secret.as_uri()})
    assert (code, "Unresolvable" in hint) == (INVALID, True)


def test_hints_are_few_and_short_whatever_a_file_holds(tmp_path: Path) -> None:
    """A name of a megabyte in a file does not become a megabyte of report."""
    wide = ",".join("x" * 5000 for _ in range(100)).encode() + b"\n"
    findings = found(tmp_path, "a.csv", wide, columns=["c" * 3000], must_contain=[str(n) * 70 for n in range(50)])
    assert len(findings) == 10
    assert max(len(hint) for _, hint in findings) <= 600


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
PROMISES: dict[str, st.SearchStrategy[Any]] = {
    "columns": st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3),
    "min_rows": st.integers(1, 9),
    "pages": st.integers(1, 9),
    "must_contain": st.text(min_size=1, max_size=3),
    "mime": st.sampled_from(sorted(checks.TOLD)),
    "json_schema": st.dictionaries(st.sampled_from(["type", "items", "$ref", "pattern", "enum"]), any_json, max_size=2),
}
good_bytes = st.deferred(
    lambda: st.sampled_from([data for one in GOOD.values() if len(data := bytes_of(one[1])) < 100_000])
)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A good file with some bytes changed, cut or doubled: it gets further than noise does."""
    data = bytearray(draw(good_bytes))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        data[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(data)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    data=st.binary(max_size=300) | spoilt(),
    suffix=st.sampled_from([*checks.OPENED, ".svg", ".txt", ""]),
    promised=st.fixed_dictionaries({}, optional=PROMISES),
)
def test_any_bytes_under_any_name_give_findings_and_no_exception(data: bytes, suffix: str, promised: Any) -> None:  # noqa: ANN401 - any value will do
    """Whatever a file holds and whatever is asked of it, the answer is one that the host takes."""
    with tempfile.TemporaryDirectory() as folder:
        for code, hint in found(Path(folder), f"a{suffix}", data, **promised):
            assert code in (INVALID, TOO_LARGE)
            assert 0 < len(hint) <= 600


@pytest.fixture
def own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What main() does to the process that it thinks is its own is undone."""
    monkeypatch.setitem(sys.modules, "numpy", sys.modules.get("numpy"))
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("own_process")
def test_main_answers_each_file_in_one_line(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """In the order of the job; a file that is fine gives an empty list, and the host takes the longest answer too."""
    (tmp_path / "0").write_bytes(b"{}")
    (tmp_path / "1").write_bytes(b"{")
    (tmp_path / "2").write_bytes(b"[]")
    widest = {"must_contain": [f"{n}" + "\U0010ffff\udfff\x01" * 300 for n in range(20)]}
    job = [{"file": str(n), "name": f"{n}.json", "checks": widest if n == 2 else {}} for n in range(3)]
    (tmp_path / "job.json").write_text(json.dumps(job))
    inspector.main(tmp_path)
    lines = capfdbinary.readouterr().out.splitlines()
    reason = "is not JSON: Expecting property name enclosed in double quotes in line 1, column 2"
    assert [decode_answer(line) for line in lines[:2]] == [[], [(INVALID, reason)]]
    assert len(decode_answer(lines[2]) or ()) == 10


def test_the_widest_hint_fits_the_answer() -> None:
    """Ten hints of the worst characters are within what the host reads of one line."""
    worst = json.dumps([[TOO_LARGE, "\x01" * inspector.MAX_HINT]] * inspector.MAX_FINDINGS, ensure_ascii=False)
    assert len(worst.encode()) < ANSWER_BYTES


@pytest.mark.parametrize(
    ("library", "name", "data", "promised"),
    [
        ("pypdf", "a.pdf", made.pdf(), {}),
        ("PIL", "a.png", made.png(), {}),
        ("openpyxl", "a.xlsx", made.xlsx(TABLE), {}),
        ("jsonschema", "a.json", b"{}", {"json_schema": {}}),
    ],
)
def test_without_its_library_a_file_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, name: str, data: bytes, promised: dict[str, object]
) -> None:
    """The finding names what is missing, for the operator; the file is not called fine."""
    for module in [m for m in sys.modules if m.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    ((code, hint),) = found(tmp_path, name, data, **promised)
    assert (code, hint.partition(".")[0]) == ("missing_library", library)


def test_the_tables_of_the_contract_and_of_the_inspector_agree() -> None:
    """What the contract lets in, the inspector can decide, and by the same names."""
    assert set(checks.OPENED) == set(inspector.KINDS)
    assert not {*checks._ONLY_FOR, "mime", "must_contain"} ^ set(inspector._CHECKS)
    for suffix, (_, mime, _, _) in inspector._OFFICE.items():
        assert checks.OPENED[suffix][0] == mime
    told = {mime for _, _, mime in inspector._MAGIC} | set(inspector.KINDS_BY_MIME)
    assert told <= checks.TOLD


def entry(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name
    info.create_system, info.external_attr = 3, mode << 16
    return info


def zipped(*entries: zipfile.ZipInfo) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for one in entries:
            archive.writestr(one, b"" if one.filename.endswith("/") else b"x")
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, 1 if kind == tarfile.REGTYPE else 0
    return info


def tarred(*members: tarfile.TarInfo, mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]  # any mode
        for one in members:
            archive.addfile(one, io.BytesIO(b"x"))
    return out.getvalue()


#: Names that harm whoever unpacks them, and the hint's beginning.
BAD_NAMES = {
    "up": (["../../evil.txt"], "holds '../../evil.txt', which leads out"),
    "up, later": (["a/../../evil.txt"], "holds 'a/../../evil.txt', which leads out"),
    "up, by backslash": (["a\\..\\..\\evil.txt"], "holds 'a\\\\..\\\\..\\\\evil.txt', which leads out"),
    "absolute": (["/etc/cron.d/x"], "holds '/etc/cron.d/x', an absolute name"),
    "absolute, by backslash": (["\\windows\\x"], "holds '\\\\windows\\\\x', an absolute name"),
    "share": (["\\\\server\\share\\x"], "holds '\\\\\\\\server\\\\share\\\\x', an absolute name"),
    "drive": (["C:\\x"], "holds 'C:\\\\x', an absolute name"),
    "drive without a separator": (["c:x"], "holds 'c:x', an absolute name"),
    "twice": (["a.txt", "a.txt"], "holds 'a.txt' twice"),
    "twice, by another way": (["a.txt", "./a.txt"], "holds './a.txt' twice"),
    "twice, by case": (["a.txt", "A.TXT"], "holds 'A.TXT' twice, or beside one that differs only in case"),
    "twice, by normal form": (["\u00e9", "e\u0301"], "holds 'e\u0301' twice"),
    "up, on Windows": (["a/.. /.. /evil.txt"], "holds 'a/.. /.. /evil.txt', which leads out"),
    "dots alone": (["a/.../evil.txt"], "holds 'a/.../evil.txt', which leads out"),
    "below a file": (["a", "a/b"], "holds 'a/b' below something that is a file"),
    "a file above": (["a/b", "a"], "holds 'a' twice"),
    "unseen": (["rep\u200bort.txt"], "holds 'rep\\u200bort.txt', a name with characters that cannot be seen"),
    "newline": (["a\nb"], "holds 'a\\nb', a name with characters that cannot be seen"),
    "the host's log": (["logs/infra.log"], "holds 'logs/infra.log', a name that isorun itself writes"),
    "the host's log, by case": (["./LOGS/User.log"], "holds './LOGS/User.log', a name that isorun itself writes"),
    "the host's record": (["executed_programs/x/main.py"], "holds 'executed_programs/x/main.py', a name that isorun"),
}
PACKED = {"a.tar": "w", "a.tar.gz": "w:gz", "a.tgz": "w:gz", "a.tar.bz2": "w:bz2", "a.TAR.XZ": "w:xz"}


@pytest.mark.parametrize("case", BAD_NAMES)
def test_an_archive_with_a_name_that_harms_is_invalid(tmp_path: Path, case: str) -> None:
    """Whoever unpacks what was handed out gets files beneath one folder, each once; zip and every tar alike."""
    names, hint = BAD_NAMES[case]
    archives = dict.fromkeys(("a.zip", "a.epub", "a.jar", "a.whl"), zipped(*map(entry, names)))
    archives |= {name: tarred(*map(member, names), mode=mode) for name, mode in PACKED.items()}
    for name, data in archives.items():
        ((code, said),) = found(tmp_path, name, data)
        assert code == INVALID
        assert said.startswith(hint), name


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o7000])
def test_a_file_in_a_tar_runs_as_who_starts_it(tmp_path: Path, mode: int) -> None:
    """Root who unpacks a setuid file makes a program of the run's run as root; the other bits harm nobody."""
    one = member("a")
    one.mode = mode
    hint = "holds 'a', which runs as its owner; remove its setuid and setgid bits"
    assert found(tmp_path, "a.tar", tarred(one)) == [(INVALID, hint)]
    one.mode = 0o1777
    assert found(tmp_path, "a.tar", tarred(one)) == []


@pytest.mark.parametrize("before", [b"", b"\x55\x54\x01\0\0"], ids=["alone", "behind another"])
def test_a_file_in_a_zip_has_one_name(tmp_path: Path, before: bytes) -> None:
    """What Info-ZIP unpacks an entry under is looked at, too; the same name twice is one."""
    for name, wanted in (
        ("../../evil.txt", [(INVALID, "holds 'fine.txt' under a second name; write it under one")]),
        ("fine.txt", []),
    ):
        one = entry("fine.txt")
        field = b"\1" + zlib.crc32(b"fine.txt").to_bytes(4, "little") + name.encode()
        one.extra = before + b"\x75\x70" + len(field).to_bytes(2, "little") + field
        assert found(tmp_path, "a.zip", zipped(one)) == wanted


@pytest.mark.parametrize("suffix", [".docx", ".xlsx", ".pptx"])
def test_a_document_is_an_archive_too(tmp_path: Path, suffix: str) -> None:
    """A name that leads out is refused in a document, which is a zip."""
    good = {".docx": made.docx("x"), ".xlsx": made.xlsx(TABLE), ".pptx": made.pptx("x")}[suffix]
    assert found(tmp_path, f"a{suffix}", good) == []
    out = io.BytesIO(good)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(entry("../evil"), b"x")
    ((code, said),) = found(tmp_path, f"a{suffix}", out.getvalue())
    assert (code, said.partition(",")[0]) == (INVALID, "holds '../evil'")


@pytest.mark.parametrize(
    ("bad", "hint"),
    [
        (zipped(entry("l", 0o120777)), "holds 'l', a link"),
        (zipped(entry("p", 0o010644)), "holds 'p', which is neither"),
        (zipped(entry("d", 0o020644)), "holds 'd', which is neither"),
        (zipped(), "holds no file"),
        (zipped(entry("only/", 0o040755)), "holds no file"),
    ],
    ids=["link", "fifo", "device", "empty", "a folder alone"],
)
def test_a_zip_holds_files(tmp_path: Path, bad: bytes, hint: str) -> None:
    """No link, no special file, and at least one file."""
    ((code, said),) = found(tmp_path, "a.zip", bad)
    assert code == INVALID
    assert said.startswith(hint)


@pytest.mark.parametrize(
    ("members", "hint"),
    [
        ([member("l", tarfile.SYMTYPE, "/etc/passwd")], "holds 'l', a link"),
        ([member("a"), member("l", tarfile.LNKTYPE, "a")], "holds 'l', a link"),
        ([member("p", tarfile.FIFOTYPE)], "holds 'p', which is neither"),
        ([member("d", tarfile.CHRTYPE)], "holds 'd', which is neither"),
        ([member("d", tarfile.BLKTYPE)], "holds 'd', which is neither"),
        ([], "holds no file"),
        ([member("only", tarfile.DIRTYPE)], "holds no file"),
    ],
    ids=["symlink", "hard link", "fifo", "character device", "block device", "empty", "a folder alone"],
)
def test_a_tar_holds_files(tmp_path: Path, members: list[tarfile.TarInfo], hint: str) -> None:
    """The same of every kind of tar."""
    for name, mode in PACKED.items():
        ((code, said),) = found(tmp_path, name, tarred(*members, mode=mode))
        assert code == INVALID
        assert said.startswith(hint), name


BOMBS: dict[str, Data] = {
    "a.gz": lambda: gzip.compress(bytes(64 << 20), 9),
    "a.bz2": lambda: bz2.compress(bytes(64 << 20)),
    "a.xz": lambda: lzma.compress(bytes(64 << 20)),
    "a.tar.gz": lambda: gzip.compress(bytes(64 << 20), 9),
    "a.tgz": lambda: gzip.compress(tarred(member("a")) + bytes(64 << 20), 9),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_what_unpacks_to_much_more_is_too_large(tmp_path: Path, name: str) -> None:
    """It is read up to a bound, not whole; what claims to be larger than it is, too."""
    ((code, said),) = found(tmp_path, name, BOMBS[name])
    assert code == TOO_LARGE
    assert said.startswith("unpacks to more than isorun checks")


def test_a_tar_that_says_it_is_large_is_too_large(tmp_path: Path) -> None:
    """A sparse file, or a size that is a lie, is not read."""
    huge = member("a")
    huge.size = 1 << 40
    assert found(tmp_path, "a.tar", huge.tobuf() + bytes(10240)) == [
        (TOO_LARGE, f"unpacks to more than {inspector.MAX_UNPACKED} bytes")
    ]


NONSENSE = b"hello, this is plain text\0"


@pytest.mark.parametrize("suffix", inspector.KINDS)
def test_no_suffix_that_is_opened_lets_nonsense_through(tmp_path: Path, suffix: str) -> None:
    """Plain text with a NUL is no file of any kind that is opened."""
    ((code, _),) = found(tmp_path, f"a{suffix}", NONSENSE)
    assert code == INVALID


ENTITIES = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><svg>&b;</svg>'
OUTSIDE = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><svg>&e;</svg>'


@pytest.mark.parametrize("data", [ENTITIES, OUTSIDE], ids=["entities", "an entity of another file"])
@pytest.mark.parametrize("name", ["a.svg", "a.xml"])
def test_xml_declares_no_entities(tmp_path: Path, name: str, data: bytes) -> None:
    """None that grow, and none that name a file."""
    hint = "declares entities or a document type in its XML; write it without"
    assert found(tmp_path, name, data) == [(INVALID, hint)]


_LOADS = """
import runpy, sys
from pathlib import Path
inspect = runpy.run_path(sys.argv[1])["inspect"]
assert inspect(Path(sys.argv[2]), sys.argv[3], {}) == []
print(*sorted({"bz2", "gzip", "lzma", "tarfile", "tomllib", "xml.parsers.expat", "zipfile"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("name", "data", "wanted"),
    [
        ("a.csv", b"a,b\n1,2\n", []),
        ("a.json", b"[1]", []),
        ("a.toml", b"a = 1\n", ["tomllib"]),
        ("a.svg", b"<svg/>", ["xml.parsers.expat"]),
    ],
)
def test_a_slot_loads_what_its_files_need(tmp_path: Path, name: str, data: bytes, wanted: list[str]) -> None:
    """A run waits for its inspector, and the libraries of archives take longer to load than a table to check."""
    file = tmp_path / "0"
    file.write_bytes(data)
    argv = [sys.executable, "-I", "-S", "-c", _LOADS, inspector.__file__, str(file), name]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split() == wanted
