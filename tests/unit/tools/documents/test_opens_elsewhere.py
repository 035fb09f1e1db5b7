"""The files open in a program that others use: LibreOffice reads each and prints it, all of them in one start.

A PDF is not among them: it is read by pypdf in `test_typeset`. LibreOffice prints no link of any DOCX.
"""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pypdf
import pytest
from PIL import Image

from isorun.tools import documents
from tests.conftest import Require
from tests.unit.tools.documents.conftest import SOURCES, SVG, drawn

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RED = (200, 30, 30)
TEXT = """# Head

body **bold** *slanted* ~~struck~~ `inline` [[S:2]] `[[S:1]]` and [away](https://example.org/away)[^n]

Ελληνικά Кириллица naïve café עברית العربية

3. third
   - inner
4. fourth

between

1. anew

- [x] done

| name | amount |
|:--|--:|
| cell | 12.50 |

> quoted

```
code = [[S:1]]
```

---

![alt](a.png "caption")

![alt](a.svg "in lines")

[^n]: of the note
"""
#: What stands on the pages of each format, a line of the page or a part of one, in this order.
LINES = (
    *("The title", "Head", "body bold slanted struck inline [1] [[S:1]] and away"),
    *("Ελληνικά Кириллица naïve café עברית العربية", "3. third", "inner", "4. fourth", "between", "1. anew"),
    *("☑", "done", "name amount", "cell 12.50", "quoted", "code = [[S:1]]", "caption", "in lines", "Sources"),
    *("Two", "https://example.org/two"),
)
SHEETS = [
    {"name": "Part", "columns": ["Name", "Amount"], "rows": [["cell", 12.5], ["=1+1", 3], ["Кириллица", None]]},
    {"name": "Other", "rows": [["second sheet"]]},
]
LONG = "|name|\n|--|\n" + "".join(f"|row {number}|\n" for number in range(1, 116))


def written() -> Mapping[str, bytes]:
    """The files, by their names."""
    pictures = {"a.png": drawn("PNG", color=RED), "a.svg": SVG}
    options = {"title": "The title", "sources": SOURCES, "image": pictures.__getitem__}
    return {
        "all.docx": documents.docx(TEXT, **options).data,
        "all.pptx": documents.pptx(TEXT, **options).data,
        "all.html": documents.html(TEXT, **options).data,
        "rows.xlsx": documents.xlsx(SHEETS).data,
        "long.docx": documents.docx(LONG, landscape=True).data,
    }


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory, require: Require) -> Mapping[str, pypdf.PdfReader]:
    """What LibreOffice printed of each, by the name of the file."""
    soffice = shutil.which("soffice")
    if soffice is None:
        require("libreoffice", "soffice is not on the path")
    folder = tmp_path_factory.mktemp("office")
    made = {}
    for name, data in written().items():
        form = name.partition(".")[2]
        (folder / f"{form}-{name}").write_bytes(data)  # the suffix goes: two of one stem would be one PDF
        made[name] = folder / "pdf" / f"{form}-{Path(name).stem}.pdf"
    home = f"-env:UserInstallation=file://{folder}/home"
    command = [soffice, home, "--headless", "--convert-to", "pdf", "--outdir", str(folder / "pdf")]
    environ = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    files = map(str, sorted(folder.glob("*-*.*")))
    done = subprocess.run([*command, *files], capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    assert sorted((folder / "pdf").iterdir()) == sorted(made.values()), done.stderr  # it returns 0 for what it refuses
    return {name: pypdf.PdfReader(path) for name, path in made.items()}


def said(pages: pypdf.PdfReader) -> str:
    """The text of the pages, with one blank where there are several."""
    return "\n".join(" ".join(line.split()) for page in pages.pages for line in page.extract_text().splitlines())


def links(pages: pypdf.PdfReader) -> set[str]:
    """The addresses that lead out."""
    found = [each.get_object().get("/A", {}) for page in pages.pages for each in page.get("/Annots", ())]
    return {action["/URI"] for action in found if "/URI" in action}


@pytest.mark.parametrize("name", ["all.docx", "all.pptx", "all.html"])
def test_everything_is_on_the_pages(printed: Mapping[str, pypdf.PdfReader], name: str) -> None:
    """Title, styles, citations, scripts, lists with their numbers, table, code, captions, sources: in this order."""
    text, at = said(printed[name]), 0
    for line in LINES:
        assert line in text[at:], f"{line!r} is not behind what stands before it in:\n{text}"
        at = text.index(line, at) + len(line)
    assert text.count("of the note") == 1
    assert "javascript" not in text
    assert "One" not in text  # cited in code alone, so it is no source of this document


@pytest.mark.parametrize("name", ["all.docx", "all.pptx", "all.html"])
def test_a_picture_is_drawn(printed: Mapping[str, pypdf.PdfReader], name: str) -> None:
    """In its colour, not as an empty frame."""
    pictures = [each.image for page in printed[name].pages for each in page.images]
    colors = {_color(picture) for picture in pictures if picture is not None}
    assert any(all(abs(one - other) < 12 for one, other in zip(color, RED, strict=True)) for color in colors), colors


def _color(picture: Image.Image) -> tuple[int, ...]:
    middle = picture.convert("RGB").getpixel((picture.width // 2, picture.height // 2))
    assert isinstance(middle, tuple)
    return middle


@pytest.mark.parametrize("name", ["all.pptx", "all.html"])
def test_links_lead_out(printed: Mapping[str, pypdf.PdfReader], name: str) -> None:
    """The author's, and each source's."""
    assert links(printed[name]) == {"https://example.org/away", "https://example.org/two"}


def test_slides_are_pages(printed: Mapping[str, pypdf.PdfReader]) -> None:
    """As wide as 16:9 asks for, the first with the title and the last with the sources."""
    pages = printed["all.pptx"].pages
    assert {round(float(page.mediabox.width / page.mediabox.height), 2) for page in pages} == {1.78}
    assert pages[0].extract_text().split() == ["The", "title"]
    assert pages[-1].extract_text().startswith("Sources")


def test_a_long_table_has_its_head_on_each_page(printed: Mapping[str, pypdf.PdfReader]) -> None:
    """Turned pages, which LibreOffice has counted in the footer; no row is lost."""
    pages = printed["long.docx"].pages
    assert {round(float(page.mediabox.width)) for page in pages} == {842}
    lines = [page.extract_text().split("\n") for page in pages]
    assert len(pages) > 2
    assert {page[0].strip() for page in lines} == {"name"}
    assert [page[-1].strip() for page in lines] == [f"{at} / {len(pages)}" for at in range(1, len(pages) + 1)]
    rows = [line.strip() for page in lines for line in page if line.startswith("row ")]
    assert rows == [f"row {number}" for number in range(1, 116)]


def test_cells_are_what_was_given(printed: Mapping[str, pypdf.PdfReader]) -> None:
    """Text that looks like a formula is not computed, and a second sheet is there."""
    text = said(printed["rows.xlsx"])
    for line in ("Name Amount", "cell 12.5", "=1+1 3", "Кириллица", "second sheet"):
        assert line in text, text
    assert len(printed["rows.xlsx"].pages) == 2
