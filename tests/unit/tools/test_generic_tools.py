"""The built-in writers as a supervisor has them: their schemas, what they open, what they say."""

import hashlib
import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType

import openpyxl
import pypdf
import pytest

from isorun.supervisor import registry
from isorun.supervisor.output import OutputDirectory
from isorun.supervisor.tool import ToolContext, ToolError
from isorun.tools import generic_tools, output_files
from tests.unit.tools.documents.conftest import SOURCES, drawn

TEXTS = ("write_pdf", "write_png", "write_docx", "write_pptx", "write_html")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def context(out: Path) -> Iterator[ToolContext]:
    """What a supervisor hands to a tool, with an output directory of the test's own."""
    directory = OutputDirectory(os.open(out, os.O_RDONLY | os.O_DIRECTORY))
    yield ToolContext(
        output_dir=PurePosixPath("/workspace/out"),
        user_id="u",
        turn_id="t",
        exec_id="e",
        deadline=time.monotonic() + 60,
        log=logging.getLogger("test"),
        env={},
        opener=directory.open,
    )
    directory.close()


def tools(module: ModuleType) -> dict[str, registry.Tool]:
    return {
        name: registry.make_tool(f"generic_tools.{name}", f, marks, "here")
        for name, f, marks in registry.marked(module)
    }


def test_the_registry_takes_every_tool() -> None:
    """Each has a schema, a description of every parameter, and a result with its fields."""
    found = tools(generic_tools)
    assert [*TEXTS, "write_xlsx", "write_file"] == [name for name in found if name.startswith("write_")]
    for tool in found.values():
        assert all(each.get("description") for each in tool.schema["properties"].values()), tool.id
        if tool.id.startswith("generic_tools.write_"):
            assert {"path", "bytes", "sha256"} <= set(tool.result.schema["properties"])
    counted = {"write_pdf": "pages", "write_png": "pages", "write_pptx": "slides", "write_xlsx": "sheets"}
    assert all(count in found[name].result.schema["properties"] for name, count in counted.items())
    assert found["write_pdf"].schema["properties"]["format"]["enum"] == ["markdown", "text", "html"]


def test_a_call_is_checked_by_its_schema() -> None:
    """A format that there is not, and a number for a text, are refused before the tool runs."""
    found = tools(generic_tools)
    assert found["write_xlsx"].check({"path": "a", "sheets": [{"name": "b", "rows": [[1, "x", None]]}]})
    assert found["write_file"].check({"path": "a", "content": b"x"})
    for wrong in ({"path": "a", "content": "b", "format": "rtf"}, {"path": "a", "content": 1}, {"path": "a"}):
        with pytest.raises(registry.ArgumentsRefused):
            found["write_pdf"].check(wrong)


@pytest.mark.parametrize("name", TEXTS)
def test_a_document_is_written_beneath_out(name, context, out) -> None:
    """The result says path, size and digest of the file; its folders are made."""
    made = getattr(generic_tools, name)("a/b.bin", "# x\n\ny \x07", context, title="T")
    data = (out / "a" / "b.bin").read_bytes()
    assert (made.path, made.bytes, made.sha256) == ("a/b.bin", len(data), hashlib.sha256(data).hexdigest())
    assert made.notices == ["1 control characters or half characters were left out: U+0007"]


def test_every_option_reaches_its_writer(context, out) -> None:
    """Format, title, landscape, ppi, the list of sources."""
    (out / output_files.SOURCES).write_text(json.dumps(SOURCES))
    generic_tools.write_pdf("a.pdf", "<p>x [[S:2]]", context, "html", "T", landscape=True)
    page = pypdf.PdfReader(out / "a.pdf").pages[0]
    assert "Two" in page.extract_text()
    assert page.mediabox.width > page.mediabox.height
    generic_tools.write_pdf("b.pdf", "x [[S:2]]", context, include_sources_section=False)
    assert "Two" not in pypdf.PdfReader(out / "b.pdf").pages[0].extract_text()
    assert generic_tools.write_pptx("a.pptx", "# a\n\nx [[S:2]]", context).slides == 2
    assert generic_tools.write_pptx("a.pptx", "# a\n\nx [[S:2]]", context, include_sources_slide=False).slides == 1
    assert (
        generic_tools.write_png("a.png", "x", context, ppi=72).bytes
        < generic_tools.write_png("a.png", "x", context).bytes
    )
    assert generic_tools.write_xlsx("a.xlsx", context, csv="a\n1\n").sheets == 1
    assert openpyxl.load_workbook(out / "a.xlsx").active["A2"].value == 1


@pytest.mark.parametrize("path", ["../a", "/etc/a", "", "link/a", "link"])
@pytest.mark.parametrize("name", ["write_html", "write_file"])
def test_a_path_that_leads_out_is_refused(name, path, context, out) -> None:
    """Kept as given or refused: nothing is written anywhere."""
    (out.parent / "host").mkdir()
    (out / "link").symlink_to(out.parent / "host")
    with pytest.raises(ToolError):
        getattr(generic_tools, name)(path, "x", context)
    assert os.listdir(out) == ["link"]
    assert os.listdir(out.parent / "host") == []


def test_a_picture_comes_from_out_alone(context, out) -> None:
    """By its path there; a link that the program planted, and a file that is missing, are refused with what to do."""
    (out / "plot.png").write_bytes(drawn("PNG"))
    assert generic_tools.write_pdf("a.pdf", "![x](plot.png)", context).notices == []
    assert generic_tools.write_pdf("a.pdf", "![x](/workspace/out/plot.png)", context).notices == []
    (out.parent / "secret.png").write_bytes(drawn("PNG"))
    (out / "link.png").symlink_to(out.parent / "secret.png")
    with pytest.raises(ToolError, match=r"'link\.png' goes through a link"):
        generic_tools.write_pdf("b.pdf", "![x](link.png)", context)
    with pytest.raises(ToolError, match=r"has no picture 'none\.png': save it there before"):
        generic_tools.write_pdf("b.pdf", "![x](none.png)", context)
    with pytest.raises(ToolError, match="is not below out/"):
        generic_tools.write_pdf("b.pdf", "![x](../secret.png)", context)
    assert not (out / "b.pdf").exists()


@pytest.mark.parametrize("pool", ["[", "{}", "[1, null]", "[" * 100_000, "\udcff", '[{"sid": {}}]', '{"sources": 1}'])
def test_a_hostile_pool_of_sources_holds_none(pool, context, out) -> None:
    """The program may have written it; a citation then stays text, with a notice."""
    (out / output_files.SOURCES).write_bytes(pool.encode("utf-8", "surrogateescape"))
    made = generic_tools.write_html("a.html", "x [[S:2]]", context)
    assert "[[S:2]]" in (out / "a.html").read_text()
    assert made.notices[0].startswith("1 citations name a source")


def test_a_plain_file_is_written_as_it_is(context, out) -> None:
    """Text in UTF-8, bytes, and more behind it; the digest is of all that is there then."""
    assert generic_tools.write_file("a", "é\r\n", context).bytes == 4
    made = generic_tools.write_file("a", b"\x00", context, append=True)
    data = (out / "a").read_bytes()
    assert data == b"\xc3\xa9\r\n\x00"
    assert (made.bytes, made.sha256) == (5, hashlib.sha256(data).hexdigest())
    with pytest.raises(ToolError, match="half a character at 1"):
        generic_tools.write_file("a", "x\ud800", context)
    with pytest.raises(ToolError, match="more than 67,108,864: write it in parts"):
        generic_tools.write_file("a", b"x" * ((64 << 20) + 1), context)


def test_a_full_quota_is_said(context) -> None:
    """The program learns that its files are too large, and which did not fit."""

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    full = ToolContext(
        **{name: getattr(context, name) for name in ToolContext.__slots__ if name != "opener"},
        opener=lambda path, mode, encoding: Full(),
    )
    with pytest.raises(ToolError, match=r"'a' does not fit: the run's quota of files is used up"):
        generic_tools.write_file("a", "x", full)


def test_the_module_is_light_and_a_missing_library_says_what_to_install() -> None:
    """The supervisor imports it: no library of a format comes with it. Without one, the call says which and how."""
    program = (
        "import sys, isorun.tools.generic_tools\n"
        "heavy = {'typst', 'docx', 'pptx', 'PIL', 'lxml', 'markdown_it', 'nh3', 'selectolax', 'xlsxwriter'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "sys.modules['typst'] = None\n"
        "from isorun.tools import documents\n"
        "try: documents.pdf('x')\n"
        "except documents.Refused as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "[]",
        "this writer needs the package typst, which is not installed: pip install 'isorun[tools]'",
    ], done.stderr
