"""The built-in tools, as the module that a bundle or a run names: what a model reads of each is its docstring here.

This module must stay light, as the supervisor imports it: the work is done in `tools.documents`, whose libraries are
imported at the first call. Every file is opened by the context, beneath the run's out/, and nothing else is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from isorun.supervisor.tool import ToolContext, ToolError, tool
from isorun.tools import documents
from isorun.tools.output_files import options_of, write_bytes
from isorun.tools.web import tools
from isorun.tools.web.tools import adopted

Format = Literal["markdown", "text", "html"]

MAX_FILE = 64 << 20  # bytes of one call of write_file


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """A file in the run's output directory; `sha256` is of all its bytes."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenDocument(WrittenFile):
    """`notices` say what the document does not show as it was given; read them, and mend what matters."""

    notices: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPages(WrittenDocument):
    """A document that has its pages already."""

    pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenSlides(WrittenDocument):
    """A presentation."""

    slides: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenSheets(WrittenDocument):
    """A workbook."""

    sheets: int


class Sheet(TypedDict, total=False):
    """One sheet of a workbook."""

    name: str
    columns: list[str]
    rows: list[list[Any]] | list[dict[str, Any]]


# ---- documents -------------------------------------------------------------------------------------------------------


@tool(network=False)
def write_pdf(
    path: str,
    content: str,
    context: ToolContext,
    format: Format = "markdown",
    title: str = "",
    include_sources_section: bool = True,
    landscape: bool = False,
) -> WrittenPages:
    """Write a PDF (A4, page numbers) from Markdown, HTML or plain text.

    Markdown may have headings, lists, task lists, tables, code blocks, quotes, footnotes ([^1]), links and pictures.
    A picture is a file of the output directory, PNG, JPEG, GIF, WebP or SVG: save a chart there first, then write
    ![what it shows](chart.png "its caption"). Cite a source of a search by its sid: [[S:2]] or [[S:1,2]].

    Args:
        path: Where to write, relative to the output directory, such as "report.pdf".
        content: The text, at most 1 MiB.
        format: How content is written.
        title: Printed above the text; a first heading with the same words is left out.
        include_sources_section: List the cited sources at the end.
        landscape: Turn the page.
    """
    made = documents.pdf(
        content,
        format=format,
        title=title,
        include_sources_section=include_sources_section,
        landscape=landscape,
        **options_of(context),
    )
    return WrittenPages(pages=made.pages, notices=made.notices, **write_bytes(context, path, made.data))


@tool(network=False)
def write_png(
    path: str,
    content: str,
    context: ToolContext,
    format: Format = "markdown",
    title: str = "",
    include_sources_section: bool = True,
    landscape: bool = False,
    ppi: int = 144,
) -> WrittenPages:
    """Draw Markdown, HTML or plain text as one PNG picture, as wide as a page and as high as the text needs.

    The content is that of write_pdf. For a chart use matplotlib instead.

    Args:
        path: Where to write, relative to the output directory, such as "summary.png".
        content: The text, at most 1 MiB.
        format: How content is written.
        title: Printed above the text.
        include_sources_section: List the cited sources at the end.
        landscape: As wide as a turned page.
        ppi: Pixels per inch, 36 to 600.
    """
    made = documents.png(
        content,
        ppi=ppi,
        format=format,
        title=title,
        include_sources_section=include_sources_section,
        landscape=landscape,
        **options_of(context),
    )
    return WrittenPages(pages=made.pages, notices=made.notices, **write_bytes(context, path, made.data))


@tool(network=False)
def write_docx(
    path: str,
    content: str,
    context: ToolContext,
    format: Format = "markdown",
    title: str = "",
    include_sources_section: bool = True,
    landscape: bool = False,
) -> WrittenDocument:
    """Write a Word document (DOCX) from Markdown, HTML or plain text.

    The content is that of write_pdf. Footnotes stand under "Notes" at the end.

    Args:
        path: Where to write, relative to the output directory, such as "report.docx".
        content: The text, at most 1 MiB.
        format: How content is written.
        title: Printed above the text.
        include_sources_section: List the cited sources at the end.
        landscape: Turn the page.
    """
    made = documents.docx(
        content,
        format=format,
        title=title,
        include_sources_section=include_sources_section,
        landscape=landscape,
        **options_of(context),
    )
    return WrittenDocument(notices=made.notices, **write_bytes(context, path, made.data))


@tool(network=False)
def write_pptx(
    path: str,
    content: str,
    context: ToolContext,
    format: Format = "markdown",
    title: str = "",
    include_sources_slide: bool = True,
) -> WrittenSlides:
    """Write slides (PPTX, 16:9) from Markdown, HTML or plain text.

    Each "#" or "##" heading begins a slide, and so does a line of "---"; in HTML each <section> is one. Keep a slide
    short: what does not fit goes on in a further slide, and a notice says so.

    Args:
        path: Where to write, relative to the output directory, such as "talk.pptx".
        content: The text, at most 1 MiB, as write_pdf takes it.
        format: How content is written.
        title: The words of a first slide.
        include_sources_slide: List the cited sources on a last slide.
    """
    made = documents.pptx(
        content, format=format, title=title, include_sources_slide=include_sources_slide, **options_of(context)
    )
    return WrittenSlides(slides=made.pages, notices=made.notices, **write_bytes(context, path, made.data))


@tool(network=False)
def write_html(
    path: str,
    content: str,
    context: ToolContext,
    format: Format = "markdown",
    title: str = "",
    include_sources_section: bool = True,
    landscape: bool = False,
) -> WrittenDocument:
    """Write one HTML file that needs nothing else: its pictures are inside, it has no script and loads nothing.

    The content is that of write_pdf. To keep a page's own HTML byte for byte, use write_file.

    Args:
        path: Where to write, relative to the output directory, such as "report.html".
        content: The text, at most 1 MiB.
        format: How content is written.
        title: Printed above the text, and the page's title.
        include_sources_section: List the cited sources at the end.
        landscape: A wider column of text.
    """
    made = documents.html(
        content,
        format=format,
        title=title,
        include_sources_section=include_sources_section,
        landscape=landscape,
        **options_of(context),
    )
    return WrittenDocument(notices=made.notices, **write_bytes(context, path, made.data))


@tool(network=False)
def write_xlsx(
    path: str,
    context: ToolContext,
    sheets: list[Sheet] | None = None,
    rows: list[list[Any]] | list[dict[str, Any]] | None = None,
    columns: list[str] | None = None,
    csv: str = "",
) -> WrittenSheets:
    """Write an Excel workbook (XLSX) from rows. Give either sheets, or rows, or csv.

    A cell holds a text, a number, true, false or null. A text such as "=1+1" stays a text. In csv, what Excel
    would show as it stands, such as 12.50, becomes a number; 007 stays a text.

    Args:
        path: Where to write, relative to the output directory, such as "data.xlsx".
        sheets: One or more sheets, each {"name": "2024", "columns": ["a", "b"], "rows": [[1, 2]]}.
        rows: The rows of a single sheet, each a list, or a dict by the names of the columns.
        columns: The names above rows.
        csv: CSV text with a head line, for a single sheet.
    """
    made = documents.xlsx(sheets, rows=rows, columns=columns, csv=csv)
    return WrittenSheets(sheets=made.pages, notices=made.notices, **write_bytes(context, path, made.data))


@tool(network=False)
def write_file(path: str, content: str | bytes, context: ToolContext, append: bool = False) -> WrittenFile:
    """Write a text (in UTF-8) or bytes to a file, as they are.

    Args:
        path: Where to write, relative to the output directory, such as "notes/list.csv".
        content: What to write, at most 64 MiB.
        append: Add it to the end of the file instead of replacing it.
    """
    try:
        data = content.encode() if isinstance(content, str) else content
    except UnicodeEncodeError as error:
        raise ToolError(
            f"content has half a character at {error.start} (a lone surrogate): give bytes, or take it out"
        ) from None
    if len(data) > MAX_FILE:
        raise ToolError(f"content has {len(data):,} bytes, more than {MAX_FILE:,}: write it in parts, with append=True")
    return WrittenFile(**write_bytes(context, path, data, append=append))


# ---- the web -----------------------------------------------------------------------------------------------------

web_search = tool(adopted(tools.web_search, __name__))
fetch_url_contents = tool(adopted(tools.fetch_url_contents, __name__))
web_fetch = tool(adopted(tools.fetch_url_contents, __name__, "web_fetch"))  # the same tool
