"""PDF and PNG: what is drawn, what Typst may not reach, and what it would do without a word."""

import io
import json
import os
import re

import pypdf
import pytest
import typst
from PIL import Image

from isorun.tools import documents
from isorun.tools.documents import Refused, typeset
from tests.unit.tools.documents.conftest import SOURCES, drawn

TEXT = """# Report

A **bold** word, `code`[^n] and [[S:2]].

## Part

1. one
   - two

| a | b |
|---|--:|
| 1 | 2 |

```python
print(1)
```

[^n]: A note.
"""


def shown(data: bytes) -> str:
    return "\n".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(data)).pages)


def links(data: bytes) -> list[object]:
    pages = pypdf.PdfReader(io.BytesIO(data)).pages
    found = [each.get_object() for page in pages for each in page.get("/Annots") or ()]
    return [each["/A"]["/URI"] if "/A" in each and "/URI" in each["/A"] else "inside" for each in found]


def test_a_pdf_has_its_parts() -> None:
    """Title, headings, lists, a table, code, a footnote, a numbered source and the number of the page."""
    made = documents.pdf(TEXT, title="The title", sources=SOURCES)
    text = shown(made.data)
    for part in ("The title", "Report", "1. one", "• two", "print(1)", "A note.", "[1]", "Sources", "1 / 1"):
        assert part in text, part
    assert pypdf.PdfReader(io.BytesIO(made.data)).metadata.title == "The title"
    assert (made.pages, made.notices) == (1, [])


def test_pages_are_counted_and_turned() -> None:
    """A long text has more than one page, each as wide as told."""
    made = documents.pdf("word " * 3000, landscape=True)
    pages = pypdf.PdfReader(io.BytesIO(made.data)).pages
    assert made.pages == len(pages) > 1
    assert {round(float(page.mediabox.width)) for page in pages} == {842}


def test_a_citation_leads_to_its_source() -> None:
    """To the list in the document, and from there out; without the list, out at once; in code it is text."""
    with_list = documents.pdf("a [[S:2]] `[[S:2]]`", sources=SOURCES)
    assert links(with_list.data) == ["inside", "https://example.org/two"]
    assert "[[S:2]]" in shown(with_list.data)
    without = documents.pdf("a [[S:2]]", sources=SOURCES, include_sources_section=False)
    assert links(without.data) == ["https://example.org/two"]
    assert "Sources" not in shown(without.data)


def test_no_text_is_source_of_typst(tmp_path, monkeypatch) -> None:
    """What is code in Typst is printed as it stands, from text, title, table, code, link and source."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("SECRET")
    code = '#read("secret.txt") #panic("x") $x$ @ref #import "@preview/x:1.0.0"'
    content = f"{code}\n\n| {code} |\n|---|\n| {code} |\n\n`{code}`\n\n```typ\n{code}\n```\n[[S:1]]"
    made = documents.pdf(content, title=code, sources=[{"sid": 1, "url": "u", "title": code}])
    text = shown(made.data)
    assert "SECRET" not in text
    assert text.count("#panic") == 7


def test_typst_reads_the_current_folder_unless_it_has_another_root(tmp_path, monkeypatch) -> None:
    """The control: without a root, and with a link in it, Typst reads what it finds."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("SECRET")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "secret.txt")
    assert "SECRET" in shown(typst.compile(b'#read("secret.txt")', format="pdf"))
    assert "SECRET" in shown(typst.compile(b'#read("link")', root=str(tmp_path / "root"), format="pdf"))


def test_the_root_of_a_document_is_private_and_gone_afterwards(tmp_path, monkeypatch) -> None:
    """Mode 0700, with the pictures under our names and nothing else."""
    monkeypatch.setattr(typeset.tempfile, "tempdir", str(tmp_path))
    picture = typeset.Picture("p1.png", "../../x.png", "png", drawn("PNG"), 10, 10)
    with typeset._folder([picture]) as root:
        assert os.stat(root).st_mode & 0o777 == 0o700
        assert os.listdir(root) == ["p1.png"]
    documents.pdf("![x](x.png)", image=lambda _path: drawn("PNG"))
    assert os.listdir(tmp_path) == []


def test_each_kind_of_picture_is_drawn(image) -> None:
    """PNG, JPEG, GIF, WebP and SVG, alone and in a line of text."""
    names = ("a.png", "a.jpg", "a.gif", "a.webp", "a.svg")
    content = "\n\n".join(f"![x]({name})\n\ntext ![x]({name})" for name in names)
    assert documents.pdf(content, image=image).pages == 1


@pytest.mark.parametrize("write", [documents.pdf, documents.docx])
@pytest.mark.parametrize(
    ("inside", "said"),
    [
        (b'<image xlink:href="file:///etc/passwd" width="9" height="9"/>', "etc/passwd"),
        (b'<image href="../../../../etc/passwd" width="9" height="9"/>', "etc/passwd"),
        (
            b'<g id="g0"><rect/></g>'
            + b"".join(b'<g id="g%d">%s</g>' % (at, b'<use xlink:href="#g%d"/>' % (at - 1) * 10) for at in range(1, 9)),
            "nodes limit reached",
        ),
    ],
)
def test_a_hostile_svg_is_refused(write, inside, said) -> None:
    """It may not read files, and not grow; the refusal has the caller's name for it."""
    namespaces = b'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = b'<svg %s width="9" height="9">%s<use xlink:href="#g8"/></svg>' % (namespaces, inside)
    with pytest.raises(Refused, match=rf"the picture 'a\.svg' cannot be drawn .*{said}"):
        write("![x](a.svg)", image=lambda _path: svg)


def test_characters_without_a_font_are_a_notice() -> None:
    """Typst draws boxes and warns of nothing; the notice counts, shows and says what to install."""
    rare = "\U00012000\U00012001"  # cuneiform: no font of the tests has it
    assert typst.compile_with_warnings(rare.encode(), format="pdf")[1] == []
    made = documents.pdf(f"a {rare}{rare} é я € ✓ \u200b\u00ad")
    (notice,) = made.notices
    assert notice.startswith("2 characters have no font here and are drawn as boxes: \U00012000 \U00012001; install")


def test_the_fonts_that_come_along_have_latin() -> None:
    """Characters below U+0250 are not looked up, so each must be there."""
    fonts = typst.Fonts(include_system_fonts=False)
    characters = [chr(each) for each in range(0x20, 0x250) if not 0x7F <= each < 0xA0]
    source = re.sub(rb"doc\.fonts", b'"Libertinus Serif"', typeset._TRIAL)
    with pytest.raises(typst.TypstError) as caught:
        typst.compile(
            source,
            sys_inputs={"doc": json.dumps({"characters": characters})},
            format="pdf",
            font_paths=fonts,
            pdf_standards=["a-2b"],
            timestamp=0,
        )
    assert typeset._MISSING.findall(caught.value.diagnostic) in ([], ["\\u{ad}"])


def test_a_png_is_one_picture_as_high_as_its_text() -> None:
    """Also where a PDF has pages; twice the ppi is twice the width."""
    small, large = (
        Image.open(io.BytesIO(documents.png("word\n\n" * lines, ppi=ppi).data)) for lines, ppi in ((1, 72), (60, 144))
    )
    assert (small.width, large.width) == (595, 1191)
    assert large.height > 1684 > small.height


@pytest.mark.parametrize(("content", "ppi", "said"), [("x", 10, "ppi is 10; give"), ("word\n\n" * 2000, 144, "pixels")])
def test_a_png_that_would_be_too_large_is_refused(content, ppi, said) -> None:
    """Before it is drawn."""
    with pytest.raises(Refused, match=said):
        documents.png(content, ppi=ppi)
