"""The planned slides as PPTX, by python-pptx, 13.333 × 7.5 in. Titles are placeholders, so that an outline has them."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from isorun.tools.documents.archive import DAY, same_bytes
from isorun.tools.documents.bounds import Refused
from isorun.tools.documents.office import planned as plan
from isorun.tools.documents.office.planned import Line, Part, Slide
from isorun.tools.documents.office.shown import shown_picture
from isorun.tools.documents.tree import Node, Nodes, merged, text

if TYPE_CHECKING:
    from isorun.tools.documents.reading import Read

_ACCENT, _INK, _FAINT, _LINK = "1F4E79", "1B1F23", "5C6670", "0563C1"
_FONT, _MONO = "Calibri", "Consolas"
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_HYPERLINK = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/hyperlink"
_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_KEPT = ("Title Slide", "Title Only", "Title and Content", "Blank")  # layouts; each costs time and bytes
_COVER, _CONTENT = "Title Slide", "Title Only"


def write_pptx(read: Read, *, listed: bool) -> tuple[bytes, int]:
    """The PPTX of *read*, and its number of slides."""
    import pptx

    document = read.document
    slides = plan.planned(document, read.pictures, read.notices)
    if len(slides) > plan.MAX_SLIDES:
        raise Refused(
            f"the content makes {len(slides)} slides, more than {plan.MAX_SLIDES}: use fewer headings and rules"
        )
    if document.title:
        slides.insert(0, Slide(document.title, cover=True))
    if listed and document.sources:
        slides += plan.filled_sources([_source(source.as_node()) for source in document.sources], read.notices)
    shown = pptx.Presentation(io.BytesIO(_template()))
    core = shown.core_properties
    core.title, core.author, core.last_modified_by = document.title, "", ""
    core.created = core.modified = DAY
    writer = _Writer(shown, read)
    for number, slide in enumerate(slides or [Slide("")], 1):
        writer.write(slide, number)
    made = io.BytesIO()
    shown.save(made)
    return same_bytes(made.getvalue()), max(len(slides), 1)


def _source(source: Node) -> Line:
    title: Node = text(source["title"])
    if source["href"]:
        title = {"t": "link", "href": source["href"], "c": [title]}
    address = [text(f"  {source['url']}")] if source["url"] != source["title"] else []
    return Line([title, *address], mark=f"[{source['n']}]", kind="source")


@lru_cache(maxsize=1)
def _template() -> bytes:
    """python-pptx's own, made wide: it is 4:3. Titles stand left, in our colour."""
    import pptx
    from pptx.util import Pt

    shown = pptx.Presentation()
    shown.slide_width, shown.slide_height = Pt(plan.WIDTH), Pt(plan.HEIGHT)
    for layout in list(shown.slide_layouts):
        if layout.name not in _KEPT:
            shown.slide_layouts.remove(layout)
    for layout in (shown.slide_master, *shown.slide_layouts):
        for shape in layout.placeholders:
            if shape._element.spPr.find(_q("a:xfrm")) is not None:
                shape.left, shape.width = shape.left * 4 // 3, shape.width * 4 // 3
    made = io.BytesIO()
    shown.save(made)
    return made.getvalue()


class _Writer:
    """One slide after another; each part below the one before it."""

    def __init__(self, shown: Any, read: Read) -> None:
        self._shown = shown
        self._read = read

    def write(self, planned: Slide, number: int) -> None:
        """Add *planned* as the slide *number*."""
        layout = self._shown.slide_layouts.get_by_name(_COVER if planned.cover else _CONTENT)
        slide = self._shown.slides.add_slide(layout)
        for shape in list(slide.placeholders):
            if shape.placeholder_format.idx:
                shape._element.getparent().remove(shape._element)
        self._title(slide, planned)
        top = plan.TOP if planned.title else plan.TOP_WITHOUT_TITLE
        for part in planned.parts:
            {"text": self._text, "code": self._code, "table": self._table, "picture": self._picture}[part.kind](
                slide, part, top
            )
            top += part.height
        if number > 1:
            self._box(
                slide, plan.HEIGHT - 34, 20, [Line([text(str(number))], kind="note")], align="right", color=_FAINT
            )

    def _title(self, slide: Any, planned: Slide) -> None:
        from pptx.enum.text import MSO_ANCHOR
        from pptx.util import Pt

        title = slide.shapes.title
        if not planned.title:
            title._element.getparent().remove(title._element)
            return
        top, height = (170, 150) if planned.cover else (26, 66)
        title.left, title.top, title.width, title.height = map(Pt, (plan.LEFT, top, plan.ACROSS, height))
        frame = title.text_frame
        frame.word_wrap, frame.vertical_anchor = True, MSO_ANCHOR.BOTTOM
        _no_margins(frame)
        size = 44 if planned.cover else 30
        longest = plan._lines(planned.title, plan.ACROSS, size)
        _align(frame.paragraphs[0], "left")
        small = size / (1 if longest == 1 else 1.4 if longest == 2 else 1.9)
        _run(frame.paragraphs[0], planned.title, {"strong": True, "size": small, "color": _ACCENT})
        rule = slide.shapes.add_shape(1, Pt(plan.LEFT), Pt(top + height + 5), Pt(plan.ACROSS), Pt(1.5))
        _fill(rule, _ACCENT)
        rule._element.remove(rule._element.find(_q("p:style")))  # it has a shadow

    def _text(self, slide: Any, part: Part, top: float) -> None:
        self._box(slide, top, part.height, part.lines)

    def _box(self, slide: Any, top: float, height: float, lines: list[Line], **form: str) -> None:
        from pptx.util import Pt

        box = slide.shapes.add_textbox(Pt(plan.LEFT), Pt(top), Pt(plan.ACROSS), Pt(height))
        frame = box.text_frame
        frame.word_wrap = True
        _no_margins(frame)
        for at, line in enumerate(lines):
            paragraph = frame.paragraphs[0] if at == 0 else frame.add_paragraph()
            paragraph.space_after = Pt(plan.GAP * (0.5 if line.kind in ("note", "source") else 1))
            _indent(paragraph, line)
            _align(paragraph, form.get("align", "left"))
            color = form.get("color") or (_FAINT if line.kind in ("quote", "note") else _INK)
            color = _ACCENT if line.kind == "heading" else color
            mark = [text(f"{line.mark}\t")] if line.mark and line.mark not in plan.BULLETS else []
            self._inlines(paragraph, mark + line.inlines, {"size": line.size, "color": color})

    def _code(self, slide: Any, part: Part, top: float) -> None:
        from pptx.util import Pt

        height = part.height - plan.GAP
        box = slide.shapes.add_textbox(Pt(plan.LEFT), Pt(top), Pt(plan.ACROSS), Pt(height))
        _fill(box, "F1F4F7")
        frame = box.text_frame
        frame.word_wrap = True
        frame.margin_left = frame.margin_right = Pt(12)
        frame.margin_top = frame.margin_bottom = Pt(9)
        for at, line in enumerate(part.node["text"].split("\n")):
            paragraph = frame.paragraphs[0] if at == 0 else frame.add_paragraph()
            _run(paragraph, line, {"size": plan.CODE, "font": _MONO, "color": _INK})

    def _table(self, slide: Any, part: Part, top: float) -> None:
        from pptx.enum.text import MSO_ANCHOR
        from pptx.util import Pt

        node = part.node
        headed = any(node["head"])
        rows = [node["head"], *node["rows"]] if headed else node["rows"]
        if not rows:
            return
        width, height = sum(part.widths), part.height - plan.GAP
        shape = slide.shapes.add_table(len(rows), len(node["align"]), Pt(plan.LEFT), Pt(top), Pt(width), Pt(height))
        shape.table.first_row = headed
        for column, wide in zip(shape.table.columns, part.widths, strict=True):
            column.width = Pt(wide)
        for at, row in enumerate(rows):
            shape.table.rows[at].height = Pt(part.heights[at])
            for cell, inlines, align in zip(shape.table.rows[at].cells, row, node["align"], strict=True):
                head = headed and at == 0
                _fill(cell, _ACCENT if head else "F4F7FA" if at % 2 == 0 else "FFFFFF")
                cell.margin_top = cell.margin_bottom = Pt(3)
                cell.vertical_anchor = MSO_ANCHOR.MIDDLE
                _align(cell.text_frame.paragraphs[0], align)
                form = {"size": plan.cell_size(len(node["align"])), "color": "FFFFFF" if head else _INK, "strong": head}
                self._inlines(cell.text_frame.paragraphs[0], inlines, form)

    def _picture(self, slide: Any, part: Part, top: float) -> None:
        from pptx.util import Pt

        picture = self._read.pictures[part.node["src"]]
        caption = sum(line.height(plan.ACROSS) for line in part.lines)
        width, height = picture.within(plan.ACROSS, part.height - caption - plan.GAP)
        left = plan.LEFT + (plan.ACROSS - width) / 2
        shape = slide.shapes.add_picture(io.BytesIO(shown_picture(picture)), Pt(left), Pt(top), Pt(width), Pt(height))
        shape._element.nvPicPr.cNvPr.set("descr", part.node["alt"])
        if part.lines:
            self._box(slide, top + height + 4, caption, part.lines, align="center")

    def _inlines(self, paragraph: Any, inlines: Nodes, form: dict[str, Any]) -> None:
        for node in merged(inlines):
            kind = node["t"]
            if kind == "text":
                _run(paragraph, node["s"], form)
            elif kind == "code":
                _run(paragraph, node["s"], {**form, "font": _MONO, "size": form["size"] - 2})
            elif kind == "br":
                paragraph.add_line_break()
            elif kind == "link":
                self._inlines(paragraph, node["c"], {**form, "href": node["href"]})
            elif kind == "note":
                _run(paragraph, str(node["n"]), {**form, "sup": True})
            elif kind == "cite":
                _run(paragraph, f"[{node['n']}]", {**form, "href": node["href"]})
            elif kind == "image":
                _run(paragraph, node["alt"], {**form, "em": True})
            else:
                self._inlines(paragraph, node["c"], {**form, kind: True})


def _run(paragraph: Any, said: str, form: dict[str, Any]) -> None:
    """One run of *said*. Its element is made here: python-pptx looks through the whole of it at each property."""
    form_of_run = {"sz": str(round(form["size"] * 100)), "b": str(int(bool(form.get("strong"))))}
    form_of_run["i"] = str(int(bool(form.get("em"))))
    if form.get("strike"):
        form_of_run["strike"] = "sngStrike"
    if form.get("sub") or form.get("sup"):
        form_of_run["baseline"] = "30000" if form.get("sup") else "-25000"
    element = paragraph._p.makeelement(_A + "r")
    properties = _under(element, "rPr", **form_of_run)
    color = _LINK if form.get("href") else form["color"]
    _under(_under(properties, "solidFill"), "srgbClr", val=color)
    _under(properties, "latin", typeface=form.get("font", _FONT))
    if form.get("href"):
        _under(properties, "hlinkClick").set(_ID, paragraph.part.relate_to(form["href"], _HYPERLINK, is_external=True))
    _under(element, "t").text = said
    paragraph._p.append(element)


def _under(element: Any, tag: str, **attributes: str) -> Any:
    made = element.makeelement(_A + tag, attributes)
    element.append(made)
    return made


def _indent(paragraph: Any, line: Line) -> None:
    """Let lines behind the first hang below its beginning, behind the mark.

    A bullet is PowerPoint's own. Its automatic numbers go on from the list before, so a number is text with a tab.
    """
    from pptx.oxml.xmlchemy import OxmlElement

    properties = paragraph._p.get_or_add_pPr()
    hang = plan.hang(line)
    properties.set("marL", str(int((plan.STEP * line.depth + hang) * 12700)))
    properties.set("indent", str(int(-hang * 12700)))
    if line.mark in plan.BULLETS:
        bullet = OxmlElement("a:buChar")
        bullet.set("char", line.mark)
    else:
        bullet = OxmlElement("a:buNone")
    properties.append(bullet)


def _align(paragraph: Any, side: str) -> None:
    paragraph._p.get_or_add_pPr().set("algn", {"left": "l", "center": "ctr", "right": "r"}[side])


def _fill(shape: Any, color: str) -> None:

    shape.fill.solid()
    shape.fill.fore_color.rgb = _rgb(color)
    if hasattr(shape, "line"):
        shape.line.fill.background()


def _rgb(color: str) -> Any:
    from pptx.dml.color import RGBColor

    made: Any = RGBColor
    return made.from_string(color)


def _no_margins(frame: Any) -> None:
    frame.margin_left = frame.margin_right = frame.margin_top = frame.margin_bottom = 0


def _q(name: str) -> str:
    from pptx.oxml.ns import qn

    return str(qn(name))
