"""Documents from text: one tree, read from Markdown, HTML or plain text, and a writer for each format.

Theory of operation. `reading` makes the tree: text cleaned, links checked, citations numbered, pictures read by the
caller's reader and checked by their first bytes. `typeset` (PDF, PNG), `page` (HTML) and `office` (DOCX, PPTX) write
the tree, and `office.sheets` writes rows as XLSX. A notice says what a format cannot show, and `Refused` what may not
be written.
Equal input gives equal bytes, on one machine and with the same libraries.

The functions here open no path and no socket. Their libraries are imported at the first call. Parsers and renderers may
take long over hostile text: run them where they can be killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isorun.tools.documents.bounds import Notices, Refused, libraries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import TypedDict, Unpack

    from isorun.tools.documents.pictures import Reader
    from isorun.tools.documents.reading import Read

    class Options(TypedDict, total=False):
        """The options of every writer of text.

        `sources` are mappings with sid, url and title, for citations such as [[S:2]]. `image` returns the bytes of a
        picture by its path; without it a picture is refused. `font_path` names folders with fonts, colons between.
        """

        format: str
        title: str
        landscape: bool
        sources: Iterable[Mapping[str, object]]
        include_sources_section: bool
        image: Reader | None
        font_path: str


__all__ = ["Refused", "Written", "docx", "html", "pdf", "png", "pptx", "xlsx"]

MIN_PPI, MAX_PPI = 36, 600


@dataclass(frozen=True, slots=True)
class Written:
    """A file's bytes, notices of what it does not show as given, and the number of pages, slides or sheets."""

    data: bytes
    notices: list[str]
    pages: int


def pdf(content: str, **options: Unpack[Options]) -> Written:
    """*content* as PDF, on A4. Raises `Refused`, and what the reader of pictures raises."""
    with libraries():
        from isorun.tools.documents.typeset import typeset_pdf

        read, listed, landscape = _read(content, options)
        font_path = options.get("font_path", "")
        data, pages = typeset_pdf(read, landscape=landscape, listed=listed, font_path=font_path)
    return Written(data, read.notices.texts(), pages)


def png(content: str, *, ppi: int = 144, **options: Unpack[Options]) -> Written:
    """*content* as one picture, as wide as A4 and as high as it needs. Raises as `pdf` does."""
    if not MIN_PPI <= ppi <= MAX_PPI:
        raise Refused(f"ppi is {ppi}; give a number from {MIN_PPI} to {MAX_PPI}")
    with libraries():
        from isorun.tools.documents.typeset import typeset_png

        read, listed, landscape = _read(content, options)
        font_path = options.get("font_path", "")
        data = typeset_png(read, ppi=ppi, landscape=landscape, listed=listed, font_path=font_path)
    return Written(data, read.notices.texts(), 1)


def docx(content: str, **options: Unpack[Options]) -> Written:
    """*content* as DOCX. Word counts the pages, so `pages` is 0. Raises as `pdf` does."""
    with libraries():
        from isorun.tools.documents.office.word import write_docx

        read, listed, landscape = _read(content, options)
        data = write_docx(read, landscape=landscape, listed=listed)
    return Written(data, read.notices.texts(), 0)


def pptx(content: str, *, include_sources_slide: bool = True, **options: Unpack[Options]) -> Written:
    """*content* as PPTX: a slide for each `#` and `##`, each rule, each `<section>`. Raises as `pdf` does."""
    with libraries():
        from isorun.tools.documents.office.slides import write_pptx

        read, _, _ = _read(content, options)
        data, slides = write_pptx(read, listed=include_sources_slide)
    return Written(data, read.notices.texts(), slides)


def html(content: str, **options: Unpack[Options]) -> Written:
    """*content* as one HTML file that loads nothing and has no script. Raises as `pdf` does."""
    with libraries():
        from isorun.tools.documents.page import write_page

        read, listed, landscape = _read(content, options)
        data = write_page(read, landscape=landscape, listed=listed)
    return Written(data, read.notices.texts(), 1)


def xlsx(sheets: object = None, *, rows: object = None, columns: object = None, csv: str = "") -> Written:
    """Rows as XLSX: *sheets* is a list of {name, columns, rows}; or give *rows* and *columns*, or *csv* text.

    A row is a list, or a dict by the names of the columns. Raises `Refused`, naming the cell.
    """
    with libraries():
        from isorun.tools.documents.office.sheets import sheets_of, write_xlsx

        notices = Notices()
        made = sheets_of(sheets, rows, columns, csv, notices)
        data = write_xlsx(made, notices)
    return Written(data, notices.texts(), len(made))


def _read(content: str, options: Options) -> tuple[Read, bool, bool]:
    """The document, whether its sources are listed, and whether the page is landscape."""
    from isorun.tools.documents.reading import read

    document = read(
        content,
        form=options.get("format", "markdown"),
        title=options.get("title", ""),
        sources=options.get("sources", ()),
        image=options.get("image"),
    )
    return document, options.get("include_sources_section", True), options.get("landscape", False)
