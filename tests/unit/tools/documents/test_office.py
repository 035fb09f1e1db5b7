"""DOCX and PPTX, read back by the libraries that others read them with."""

import io

import docx
import pptx
import pytest
from PIL import Image

from isorun.tools import documents
from isorun.tools.documents import Refused
from tests.unit.tools.documents.conftest import SOURCES

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
TEXT = """# One

a **b** [[S:2]] `[[S:2]]` [l](https://x.y)[^n]

1. x
   - y
2. z

between

1. anew

- [x] done

| h | i |
|:--|--:|
| 1 | 2 |

> quoted

```
c1
c2
```

---

![alt](a.svg "caption")

[^n]: note text
"""


def word(content: str, **options: object) -> docx.document.Document:
    return docx.Document(io.BytesIO(documents.docx(content, **options).data))


def shown(content: str, **options: object) -> tuple[pptx.presentation.Presentation, documents.Written]:
    made = documents.pptx(content, **options)
    return pptx.Presentation(io.BytesIO(made.data)), made


def texts(slide) -> str:
    return "\n".join(shape.text_frame.text for shape in slide.shapes if shape.has_text_frame)


def test_a_docx_has_its_parts(image) -> None:
    """Title, styles, lists, table, code, picture with its text, notes and sources."""
    document = word(TEXT, title="T", sources=SOURCES, image=image)
    styles = {paragraph.text: paragraph.style.name for paragraph in document.paragraphs}
    expected = {"T": "Title", "One": "Heading 1", "y": "List Paragraph", "quoted": "Quote", "c1\nc2": "Code"}
    expected |= {"caption": "Caption", "Notes": "Heading 2", "1\tnote text": "Note", "Sources": "Heading 2"}
    assert expected.items() <= styles.items()
    assert [[cell.text for cell in row.cells] for row in document.tables[0].rows] == [["h", "i"], ["1", "2"]]
    assert document.tables[0].rows[1].cells[1].paragraphs[0].alignment == 2
    assert document.element.body.find(f".//{W}tblHeader") is not None
    (picture,) = document.inline_shapes
    assert picture._inline.docPr.get("descr") == "alt"
    assert "☑\tdone" in styles


def test_each_list_of_a_docx_counts_from_its_start() -> None:
    """Word would go on from the list before: each has a number of its own, and one that starts at 3 says so."""
    document = word("1. a\n\nx\n\n1. b\n   1. c\n\ny\n\n3. d\n")
    numbers = {
        p.text: (p._p.pPr.numPr.numId.val, p._p.pPr.numPr.ilvl.val)
        for p in document.paragraphs
        if p._p.pPr is not None and p._p.pPr.numPr is not None
    }
    assert len({numbers[each][0] for each in "abcd"}) == 4
    assert [numbers[each][1] for each in "abcd"] == [0, 0, 1, 0]
    numbering = document.part.numbering_part.element
    starts = {
        num.get(f"{W}numId"): num.find(f".//{W}startOverride").get(f"{W}val") for num in numbering.iter(f"{W}num")
    }
    assert [starts[str(numbers[each][0])] for each in "abcd"] == ["1", "1", "1", "3"]


def test_a_citation_of_a_docx_leads_to_its_source() -> None:
    """Inside to the list, from there out; without a list out at once; in code it stays."""
    document = word("a [[S:2]] `[[S:2]]`", sources=SOURCES)
    body = document.element.body
    assert [each.get(f"{W}anchor") for each in body.iter(f"{W}hyperlink")] == ["source_1", None]
    assert [each.get(f"{W}name") for each in body.iter(f"{W}bookmarkStart")] == ["source_1"]
    assert "https://example.org/two" in {each._target for each in document.part.rels.values()}
    assert "a [1] [[S:2]]" in [paragraph.text for paragraph in document.paragraphs]
    bare = word("a [[S:2]]", sources=SOURCES, include_sources_section=False)
    assert [paragraph.text for paragraph in bare.paragraphs] == ["a [1]"]
    assert "https://example.org/two" in {each._target for each in bare.part.rels.values()}


def test_a_docx_numbers_its_pages_names_a_font_for_east_asia_and_turns() -> None:
    """Without one Word takes a Western font for 你好, and draws boxes."""
    document = word("你好", landscape=True)
    section = document.sections[0]
    assert section.page_width > section.page_height
    fields = [each.text for each in section.footer._element.iter(f"{W}instrText")]
    assert fields == ["PAGE", "NUMPAGES"]
    assert document.styles["Normal"].element.rPr.find(f"{W}rFonts").get(f"{W}eastAsia")


def test_control_characters_break_no_office_format() -> None:
    """python-docx raises for them, python-pptx writes _x0007_."""
    content, title = "a\x07\ud800b\x0b &#12;c", "t\x01"
    assert [p.text for p in word(content, title=title).paragraphs] == ["t", "ab c"]
    slides, made = shown(content, title=title)
    assert "_x00" not in "".join(map(texts, slides.slides))
    assert made.notices[0].startswith("5 control characters")


def test_slides_begin_at_headings_rules_and_sections() -> None:
    """In a room of 16:9, with the title as the first, a heading alone as a cover, the sources as the last."""
    slides, made = shown("lead\n\n# A\n\na [[S:2]]\n\n### a2\n\n---\n\nb\n\n# C\n", title="T", sources=SOURCES)
    assert (slides.slide_width, slides.slide_height) == (12191695, 6858000)
    titles = [slide.shapes.title.text if slide.shapes.title else None for slide in slides.slides]
    assert titles == ["T", "T", "A", None, "C", "Sources"]
    assert made.pages == 6
    assert made.notices == []
    page = "<section><h2>A</h2><p>a</section><section><p>b</section>"
    slides, made = shown(page, format="html")
    assert [slide.shapes.title.text if slide.shapes.title else None for slide in slides.slides] == ["A", None]


def test_a_slide_has_its_parts(image) -> None:
    """Lines with their marks, a table, code, a picture with its text, a note, and links."""
    slides, _ = shown(TEXT.replace("---\n", ""), sources=SOURCES, image=image)
    everything = "\n".join(map(texts, slides.slides))
    for part in ("1.\tx", "y", "2.\tz", "1.\tanew", "☑\tdone", "quoted", "c1", "caption", "1 note text", "[1]"):
        assert part in everything, part
    shapes = [shape for slide in slides.slides for shape in slide.shapes]
    (table,) = (shape.table for shape in shapes if shape.has_table)
    assert [[cell.text for cell in row.cells] for row in table.rows] == [["h", "i"], ["1", "2"]]
    (picture,) = (shape for shape in shapes if shape.shape_type == 13)
    assert picture._element.nvPicPr.cNvPr.get("descr") == "alt"
    runs = [run for shape in shapes if shape.has_text_frame for p in shape.text_frame.paragraphs for run in p.runs]
    linked = [(run.text, run.hyperlink.address) for run in runs if run.hyperlink.address]
    assert linked == [("[1]", "https://example.org/two"), ("l", "https://x.y"), ("Two", "https://example.org/two")]


@pytest.mark.parametrize(
    "content",
    [
        "# A\n\n" + "- item\n" * 60,
        "# A\n\n" + "word " * 3000,
        "# A\n\n|h|\n|-|\n" + "|x|\n" * 90,
        "# A\n\n```\n" + "line\n" * 90 + "```\n",
        "word " * 3000,
    ],
)
def test_a_slide_that_is_too_full_goes_on_in_the_next(content) -> None:
    """Nothing is lost, no shape stands over the edge, the notice says it, and a table has its head on each."""
    slides, made = shown(content)
    assert made.pages > 2
    assert len(made.notices) == 1
    assert made.notices[0].startswith("1 slides were too full and go on in slides behind them")
    for slide in slides.slides:
        assert max(shape.top + shape.height for shape in slide.shapes) <= slides.slide_height
    everything = "\n".join(map(texts, slides.slides))
    tables = [shape.table for slide in slides.slides for shape in slide.shapes if shape.has_table]
    rows = [[cell.text for cell in row.cells] for table in tables for row in table.rows]
    counts = [everything.count(each) for each in ("item", "word", "line")] + [rows.count(["x"])]
    assert sorted(counts)[-1] == max(content.count(each) for each in ("- item", "word ", "line\n", "|x|"))
    assert rows.count(["h"]) == len(tables)


@pytest.mark.slow
def test_too_many_slides_are_refused() -> None:
    """The text says what to do."""
    with pytest.raises(Refused, match="301 slides, more than 300: use fewer headings"):
        documents.pptx("# a\n" * 301)
    with pytest.raises(Refused, match="fills more than 300 slides: shorten it"):
        documents.pptx("|a|\n|-|\n" + "|x|\n" * 6000)


@pytest.mark.parametrize("root", ['<!-- <svg width="200" height="200"> --><svg width="4000"', '<svg width="4e3"'])
def test_an_svg_is_drawn_as_large_as_it_was_judged_to_be(root) -> None:
    """A size that is read otherwise than it is drawn would get around the bound: 900,000 points were 7 TB."""
    svg = f'{root} height="200" viewBox="0 0 200 200" xmlns="http://www.w3.org/2000/svg"/>'.encode()
    made = documents.docx("![x](a.svg)", image=lambda _path: svg).data
    (picture,) = (part.blob for part in docx.Document(io.BytesIO(made)).part.package.iter_parts() if is_png(part.blob))
    with Image.open(io.BytesIO(picture)) as drawn:
        assert drawn.size == (300, 300)


def is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG")
