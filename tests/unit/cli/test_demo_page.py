"""The demo's report.html: what programs wrote is text on it, and it is written to a new file only."""

import re
from pathlib import Path

import pytest

from isorun.cli.scenes.acts import acts
from isorun.cli.scenes.page import Row, page, write_page
from isorun.cli.scenes.words import WORDS
from isorun.core.outcome import Code, Status
from isorun.core.result import Artifact
from tests.unit.results import result

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=y>', "a\x1b[31mb\x00", "\u202eevil", "</pre></html>"]
PNG = b"\x89PNG\r\n\x1a\n"


def row(text: str = "", useful: bool = True, **fields: object) -> Row:
    """A program that printed, was named and ended with *text*."""
    usage = {"wall_s": 0.5, "cpu_s": 0.1, "max_rss_bytes": 1, "output_bytes": 1}
    isolation = {"level": "full", "limits": "cgroup", "walls": {"network": text, "namespaces": ("pid", text)}}
    about = {"stdout": text, "usage": usage, "isolation": isolation, **fields}
    ended = result(status=Status.FAILED, code=Code.PROGRAM_ERROR, message=text, hint=text, **about)
    return Row(title=text, tried=text, ending=text, held=True, useful=useful, source=text, result=ended)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_program_wrote_is_text(text) -> None:
    """No element, attribute or control character of a program's gets into the page, wherever it stands."""
    plain, made = (
        page([row(word), row(word, useful=False)], held=True, credit=word, left_out=word) for word in ("harmless", text)
    )
    assert re.findall("<[^>]*>", made) == re.findall("<[^>]*>", plain)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", made)


def picture(tmp_path: Path, data: bytes, mime: str = "image/png", name: str = "chart.png") -> Artifact:
    file = tmp_path / "chart.png"
    file.write_bytes(data)
    return Artifact(path=name, bytes=len(data), sha256="", mime=mime, file=file)


@pytest.mark.parametrize(
    ("data", "mime", "shown"),
    [
        (PNG + b"1", "image/png", True),
        (b"<svg onload=x>", "image/png", False),
        (PNG + b"1", "text/html", False),
        (PNG + bytes(3 << 20), "image/png", False),
    ],
)
def test_a_chart_is_shown_if_it_is_a_png_of_a_decent_size(tmp_path, data, mime, shown) -> None:
    """Nothing else of a program's becomes a picture of the page."""
    made = page([row(artifacts=(picture(tmp_path, data, mime),))], held=True, credit="")
    assert ("<img" in made) == shown


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_program_named_a_file_is_text(tmp_path, text) -> None:
    """No name of a file gets an element or a control character into the page."""
    names = ("harmless", text.replace("/", ""))
    plain, made = (page([row(artifacts=(picture(tmp_path, PNG, name=name),))], held=True, credit="") for name in names)
    assert made.count("<") == plain.count("<")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", made)


@pytest.mark.parametrize(("wide", "high", "shown"), [(1191, 1487, True), (1200, 750, False)])
def test_a_page_of_a_document_looks_like_one(tmp_path, wide, high, shown) -> None:
    """A picture that is higher than wide is shown as a sheet of paper."""
    head = PNG + b"\0\0\0\rIHDR" + wide.to_bytes(4) + high.to_bytes(4)
    made = page([row(artifacts=(picture(tmp_path, head),))], held=True, credit="")
    assert ('<img class="sheet"' in made) == shown


def test_useful_programs_are_shown_at_length_and_the_others_in_a_table() -> None:
    """Each useful one has a heading of its own; the page counts all."""
    made = page([row("one"), row("two"), row("three", useful=False)], held=True, credit="")
    assert re.findall("<h2>(one|two|three)</h2>", made) == ["one", "two"]
    assert re.findall("<tr><td>(one|two|three)</td>", made) == ["three"]
    assert "<p>3 programs were run" in made


def test_long_texts_are_cut() -> None:
    """A program that prints much, or raises a long message, does not make a large page."""
    assert len(page([row("x" * 100_000), row("y" * 100_000, useful=False)], held=True, credit="")) < 80_000


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("/dev/null")])
def test_the_page_is_a_new_file(tmp_path, make) -> None:
    """A file or a link of that name that is there is not written to."""
    make(tmp_path / "report.html")
    with pytest.raises(FileExistsError):
        write_page(tmp_path / "report.html", [row()], held=True, credit="")


def test_a_fallen_wall_is_shown() -> None:
    """A page of a demo that was not as expected does not say that every wall held."""
    made = page([row()], held=False, credit="")
    assert "every wall held" not in made
    assert "not as expected" in made


def test_every_program_of_the_demo_has_its_words() -> None:
    """The table of words is total, and each fits into the closing table in 80 columns."""
    assert set(WORDS) == {act.title for act in acts()}
    assert max(len(words.ending) for words in WORDS.values()) <= 42
