"""How a DOCX looks: its styles, and the parts of Word's XML that python-docx has no words for."""

from __future__ import annotations

import re
from typing import Any

ACCENT = "1F4E79"
_FAINT = "5C6670"
_FONT, _MONO, _EAST = "Calibri", "Consolas", "Microsoft YaHei"
_STEP = 18.0  # points that a level of a list or quote goes in
_BULLETS = "•–▪"
_SIZES = {1: 17.0, 2: 14.0, 3: 12.0, 4: 11.0, 5: 11.0, 6: 11.0}
_UNFIT_FOR_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")


def prepare(word: Any, *, landscape: bool) -> None:
    """Page, styles and footer. A4 with 2.2 cm around."""
    from docx.enum.section import WD_ORIENT
    from docx.shared import Mm

    section = word.sections[0]
    section.page_width, section.page_height = (Mm(297), Mm(210)) if landscape else (Mm(210), Mm(297))
    section.orientation = WD_ORIENT.LANDSCAPE if landscape else WD_ORIENT.PORTRAIT
    section.left_margin = section.right_margin = section.top_margin = section.bottom_margin = Mm(22)
    _styles(word.styles)
    footer = section.footer.paragraphs[0]
    align(footer, "center")
    for part in ("PAGE", " / ", "NUMPAGES"):
        _field(footer, part) if part.isalpha() else run(footer, None, part, {"faint": True})


def _styles(styles: Any) -> None:
    from docx.enum.style import WD_STYLE_TYPE
    from docx.shared import Pt

    _style(styles["Normal"], 11, after=7, line=1.12)
    for level, size in _SIZES.items():
        _style(styles[f"Heading {level}"], size, color=ACCENT, bold=level < 5, before=20 - 2 * level, after=5)
        styles[f"Heading {level}"].font.italic = level >= 5
    _style(styles["Title"], 25, color=ACCENT, bold=True, after=14)
    _border(styles["Title"].element.get_or_add_pPr(), "bottom", ACCENT, 10, space=4)
    _style(styles["Quote"], 11, color="3C4650", after=6)
    styles["Quote"].font.italic = False
    _border(styles["Quote"].element.get_or_add_pPr(), "left", "B9C8D8", 18, space=8)
    _style(styles["Caption"], 9.5, color=_FAINT, after=14)
    styles["Caption"].font.bold = False
    _style(styles["List Paragraph"], 11, after=3, line=1.12)
    for name, size in (("Code", 9), ("Figure", 11), ("Note", 9.5), ("Source", 10)):
        _style(styles.add_style(name, WD_STYLE_TYPE.PARAGRAPH), size, after=4)
    for name in ("Figure", "Caption"):
        styles[name].paragraph_format.alignment = 1
    styles["Figure"].paragraph_format.space_before = Pt(8)
    for name in ("Source", "Note"):
        styles[name].paragraph_format.left_indent = Pt(22)
        styles[name].paragraph_format.first_line_indent = Pt(-22)
        styles[name].paragraph_format.tab_stops.add_tab_stop(Pt(22))
    _style_fonts(styles["Code"], _MONO)
    code = styles["Code"]
    code.paragraph_format.left_indent = code.paragraph_format.right_indent = Pt(6)
    code.paragraph_format.space_before, code.paragraph_format.space_after = Pt(6), Pt(12)
    properties = code.element.get_or_add_pPr()
    for side in ("top", "left", "bottom", "right"):
        _border(properties, side, "DFE4E9", 4, space=5)
    _shade(properties, "F4F6F8")


def _style(style: Any, size: float, *, color: str = "", bold: bool = False, **spaces: float) -> None:
    from docx.shared import Pt, RGBColor

    style.font.size, style.font.bold = Pt(size), bold
    style.font.color.rgb = RGBColor.from_string(color or "1B1F23")
    _style_fonts(style, _FONT)
    form = style.paragraph_format
    form.space_before, form.space_after = Pt(spaces.get("before", 0)), Pt(spaces["after"])
    if "line" in spaces:
        form.line_spacing = spaces["line"]


def _style_fonts(style: Any, name: str) -> None:
    properties = style.element.get_or_add_rPr()
    fonts = properties.find(_q("w:rFonts"))
    if fonts is not None:
        properties.remove(fonts)
    properties.insert(0, _element("w:rFonts", **_fonts(name)))
    for border in style.element.get_or_add_pPr().findall(_q("w:pBdr")):
        border.getparent().remove(border)


def _fonts(name: str) -> dict[str, str]:
    return {"w:ascii": name, "w:hAnsi": name, "w:cs": name, "w:eastAsia": _EAST}


def room(word: Any) -> tuple[float, float]:
    """Width and height in points that a picture may have."""
    section = word.sections[0]
    width = section.page_width - section.left_margin - section.right_margin
    return width.pt if hasattr(width, "pt") else width / 12700, section.page_height / 12700 - 190


def run(paragraph: Any, into: Any, said: str, form: dict[str, Any]) -> None:
    """One run with *said*; a line end in it is one in Word. *into* is a hyperlink of the paragraph, or None."""
    from docx.shared import Pt, RGBColor

    made = paragraph.add_run(_UNFIT_FOR_XML.sub("", said))
    font = made.font
    for key, value in {
        "strong": "bold",
        "em": "italic",
        "strike": "strike",
        "sub": "subscript",
        "sup": "superscript",
    }.items():
        if form.get(key):
            setattr(font, value, True)
    if form.get("size"):
        font.size = Pt(form["size"])
    if form.get("code"):
        properties = made._element.get_or_add_rPr()
        properties.insert(0, _element("w:rFonts", **_fonts(_MONO)))
        font.size = Pt(form.get("size", 11) - 1.5)
        _shade(properties, "EEF1F4")
    if form.get("link"):
        font.color.rgb = RGBColor.from_string("0563C1")
    if form.get("faint"):
        font.size, font.color.rgb = Pt(9), RGBColor.from_string(_FAINT)
    if into is not None:
        into.append(made._element)


def paragraph(word: Any, style: str | None = None) -> Any:
    """A new paragraph at the end. *style* is an id: by its name python-docx looks through every style."""
    made = word.add_paragraph()
    if style:
        made._p.style = style
    return made


def listing(paragraph: Any, said: str, depth: int) -> None:
    """Code, each line as it is."""
    if depth:
        indent(paragraph, depth)
    run(paragraph, None, said, {})


def link(paragraph: Any, *, url: str = "", anchor: str = "") -> Any:
    """A hyperlink at the end of *paragraph*, to the outside or to a bookmark; runs are appended to it."""
    if url:
        relation = paragraph.part.relate_to(
            url, "http://schemas.openxmlformats.org/officeDocument/2006/relationships/hyperlink", is_external=True
        )
        made = _element("w:hyperlink", **{"r:id": relation, "w:history": "1"})
    else:
        made = _element("w:hyperlink", **{"w:anchor": anchor, "w:history": "1"})
    paragraph._p.append(made)
    return made


def bookmark(paragraph: Any, name: str, number: int, said: str) -> None:
    """*said* as a place that links may lead to."""
    paragraph._p.append(_element("w:bookmarkStart", **{"w:id": str(number), "w:name": name}))
    run(paragraph, None, said, {})
    paragraph._p.append(_element("w:bookmarkEnd", **{"w:id": str(number)}))


def align(paragraph: Any, side: str) -> None:
    """left, center or right."""
    paragraph.alignment = {"left": 0, "center": 1, "right": 2}[side]


def indent(paragraph: Any, depth: int) -> None:
    """*depth* levels in."""
    from docx.shared import Pt

    paragraph.paragraph_format.left_indent = Pt(_STEP * min(depth, 12))


def hang(paragraph: Any, depth: int) -> None:
    """*depth* levels in, and the first line one less, for a mark and a tab."""
    from docx.shared import Pt

    indent(paragraph, depth)
    paragraph.paragraph_format.first_line_indent = Pt(-_STEP)
    paragraph.paragraph_format.tab_stops.add_tab_stop(Pt(_STEP * min(depth, 12)))


def end_list(paragraph: Any) -> None:
    """The usual gap under the last item."""
    from docx.shared import Pt

    paragraph.paragraph_format.space_after = Pt(8)


def rule(paragraph: Any) -> None:
    """A line across the page."""
    _border(paragraph._p.get_or_add_pPr(), "bottom", "C9D1D9", 6, space=1)


def _border(properties: Any, side: str, color: str, size: int, space: int = 0) -> None:
    borders = properties.find(_q("w:pBdr"))
    if borders is None:
        borders = _element("w:pBdr")
        properties.insert_element_before(
            borders,
            *("w:shd", "w:tabs", "w:suppressAutoHyphens", "w:spacing", "w:ind", "w:contextualSpacing", "w:jc"),
            *("w:outlineLvl", "w:rPr"),
        )
    kind = {"w:val": "single", "w:sz": str(size), "w:space": str(space), "w:color": color}
    borders.append(_element(f"w:{side}", **kind))


def _shade(properties: Any, color: str) -> None:
    shade = _element("w:shd", **{"w:val": "clear", "w:color": "auto", "w:fill": color})
    properties.insert_element_before(
        shade, *("w:tabs", "w:spacing", "w:ind", "w:jc", "w:outlineLvl", "w:rPr", "w:vertAlign", "w:lang")
    )


def _field(paragraph: Any, code: str) -> None:
    for kind, said in (("begin", ""), ("", code), ("separate", ""), ("shown", "1"), ("end", "")):
        run(paragraph, None, "", {"faint": True})
        element = paragraph.runs[-1]._element
        if kind in ("", "shown"):
            made = _element("w:instrText" if not kind else "w:t")
            made.text = said
        else:
            made = _element("w:fldChar", **{"w:fldCharType": kind})
        element.append(made)


def table(word: Any, rows: int, columns: int, *, headed: bool) -> Any:
    """An empty table with lines above, below and under the head, which is repeated on each page."""
    made = word.add_table(rows, columns)
    properties = made._tbl.tblPr
    borders = _element("w:tblBorders")
    for side, color, size in (("top", ACCENT, 8), ("bottom", ACCENT, 8), ("insideH", "DFE4E9", 4)):
        kind = {"w:val": "single", "w:sz": str(size), "w:space": "0", "w:color": color}
        borders.append(_element(f"w:{side}", **kind))
    margins = _element("w:tblCellMar")
    for side, size in (("top", 50), ("left", 100), ("bottom", 50), ("right", 100)):
        margins.append(_element(f"w:{side}", **{"w:w": str(size), "w:type": "dxa"}))
    layout = properties.find(_q("w:tblLayout"))
    inset = _element("w:tblInd", **{"w:w": "100", "w:type": "dxa"})  # its texts stand where those around it do
    for each in (inset, borders, margins):
        properties.insert_element_before(each, "w:tblLook")
    if layout is not None:
        borders.addnext(layout)
    if headed:
        row = made.rows[0]
        row._tr.get_or_add_trPr().append(_element("w:tblHeader", **{"w:val": "true"}))
        for cell in row.cells:
            cell._tc.get_or_add_tcPr().append(
                _element("w:shd", **{"w:val": "clear", "w:color": "auto", "w:fill": "E8EEF4"})
            )
    for paragraph in made._tbl.iter(_q("w:p")):
        spacing = _element("w:spacing", **{"w:before": "0", "w:after": "0"})
        paragraph.get_or_add_pPr().append(spacing)
    return made


def table_size(columns: int) -> float:
    """The size of the text of a table with that many columns, in points."""
    return 7.0 if columns > 14 else 8.0 if columns > 9 else 9.0 if columns > 6 else 10.0


def fit(made: Any, widths: list[list[int]], points: float) -> None:
    """Give each column its part of *points* by the longest of its *widths*, in characters."""
    longest = [min(max(column), 60) for column in zip(*widths, strict=True)]
    # Where Calibri is missing the font is wider: a short word of a narrow column must not break in the middle.
    wanted = [7.2 * each + 14 for each in longest]
    by = min(1.0, points / sum(wanted))
    sizes = [round(each * by * 20) for each in wanted]
    for column, size in zip(made._tbl.tblGrid.gridCol_lst, sizes, strict=True):
        column.set(_q("w:w"), str(size))
    for row in made._tbl.tr_lst:
        for cell, size in zip(row.tc_lst, sizes, strict=True):
            width = cell.get_or_add_tcPr().get_or_add_tcW()
            width.set(_q("w:w"), str(size))
            width.set(_q("w:type"), "dxa")


def after_table(paragraph: Any) -> None:
    """A small gap: tables that touch would become one."""
    from docx.shared import Pt

    paragraph.paragraph_format.space_after = Pt(4)
    paragraph.paragraph_format.line_spacing = Pt(8)


def mark(paragraph: Any, number: int, level: int) -> None:
    """Make *paragraph* an item of the list *number*."""
    properties = paragraph._p.get_or_add_pPr()
    wanted = properties.get_or_add_numPr()
    wanted.get_or_add_ilvl().val, wanted.get_or_add_numId().val = level, number


class Lists:
    """The lists of a document: two forms, and a number of its own for each list, so that each counts from its start."""

    def __init__(self, word: Any) -> None:
        self._numbering = word.part.numbering_part.element
        for each in list(self._numbering):
            self._numbering.remove(each)
        self._next = 1
        for form in (0, 1):
            abstract = _element("w:abstractNum", **{"w:abstractNumId": str(form)})
            abstract.append(_element("w:multiLevelType", **{"w:val": "multilevel"}))
            for level in range(9):
                abstract.append(_level(level, ordered=bool(form)))
            self._numbering.append(abstract)

    def begin(self, *, ordered: bool, level: int, start: int) -> int:
        """The number of a new list that counts from *start* at *level*."""
        made = _element("w:num", **{"w:numId": str(self._next)})
        made.append(_element("w:abstractNumId", **{"w:val": str(int(ordered))}))
        if ordered:
            override = _element("w:lvlOverride", **{"w:ilvl": str(level)})
            override.append(_element("w:startOverride", **{"w:val": str(start)}))
            made.append(override)
        self._numbering.append(made)
        self._next += 1
        return self._next - 1


def _level(level: int, *, ordered: bool) -> Any:
    made = _element("w:lvl", **{"w:ilvl": str(level)})
    said = f"%{level + 1}." if ordered else _BULLETS[level % len(_BULLETS)]
    for tag, value in (
        ("start", "1"),
        ("numFmt", "decimal" if ordered else "bullet"),
        ("lvlText", said),
        ("lvlJc", "left"),
    ):
        made.append(_element(f"w:{tag}", **{"w:val": value}))
    properties = _element("w:pPr")
    size = {"w:left": str(int(_STEP * 20 * (level + 1))), "w:hanging": str(int(_STEP * 20))}
    properties.append(_element("w:ind", **size))
    made.append(properties)
    return made


def _element(tag: str, **attributes: str) -> Any:
    from docx.oxml import OxmlElement

    made = OxmlElement(tag)
    for name, value in attributes.items():
        made.set(_q(name), value)
    return made


def _q(name: str) -> str:
    from docx.oxml.ns import qn

    return str(qn(name))
