"""Which slide shows what: the tree cut into slides, none fuller than its height. It knows no PPTX.

Text does not shrink in a slide and nothing scrolls, so heights are estimated from the number of characters, and a slide
that is full goes on in the next.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING

from isorun.tools.documents.bounds import Refused
from isorun.tools.documents.tree import Document, Node, Nodes, plain, text

if TYPE_CHECKING:
    from isorun.tools.documents.bounds import Notices
    from isorun.tools.documents.pictures import Pictures

MAX_SLIDES = 300
WIDTH, HEIGHT = 13.333 * 72, 7.5 * 72  # points
LEFT, TOP, ROOM = 46.0, 112.0, 386.0  # where the content is, and how high it may be
TOP_WITHOUT_TITLE = 40.0
ACROSS = WIDTH - 2 * LEFT
SIZES = {0: 20.0, 1: 18.0, 2: 16.0}  # of a text, by its depth
CODE, CELL, SMALL = 13.0, 14.0, 12.0
LINE = 1.2  # the height of a line, in its size
GAP = 9.0  # points between paragraphs
STEP = 22.0  # points that a level goes in
BULLETS = "•–"
_SPLIT = "{count} slides were too full and go on in slides behind them: {examples}"
_CUT = "{count} words or rows are higher than a slide and run over its edge: {examples}"


@dataclass(slots=True)
class Line:
    """One paragraph of a text box. `mark` stands before it: a bullet, a number, a box of a task."""

    inlines: Nodes
    depth: int = 0
    mark: str = ""
    kind: str = "par"  # par, heading, quote, note or source

    @property
    def size(self) -> float:
        """The size of its text, in points."""
        if self.kind in ("note", "source"):
            return SMALL if self.kind == "note" else 15.0
        return SIZES.get(self.depth, 14.0)

    def height(self, width: float) -> float:
        """How high it is in a box of that width, in points."""
        room = width - STEP * self.depth - hang(self)
        lines = sum(_lines(part, room, self.size) for part in plain(self.inlines).split("\n"))
        return lines * self.size * LINE + GAP * (0.5 if self.kind in ("note", "source") else 1)


def hang(line: Line) -> float:
    """How far the text of *line* stands behind its mark, in points."""
    return max(STEP, len(line.mark) * line.size * 0.55 + 6) if line.mark else 0.0


@dataclass(slots=True)
class Part:
    """What stands below what in a slide: lines of text, a code block, a table or a picture."""

    kind: str  # text, code, table or picture
    height: float
    lines: list[Line] = field(default_factory=list)
    node: Node = field(default_factory=dict)
    widths: list[float] = field(default_factory=list)  # of a table's columns
    heights: list[float] = field(default_factory=list)  # of its rows


@dataclass(slots=True)
class Slide:
    """One slide. A heading with nothing under it is a `cover`."""

    title: str
    parts: list[Part] = field(default_factory=list)
    cover: bool = False

    @property
    def left(self) -> float:
        """How much room is left below its parts, in points."""
        room = ROOM if self.title else ROOM + TOP - TOP_WITHOUT_TITLE
        return room - sum(part.height for part in self.parts)


def planned(document: Document, pictures: Pictures, notices: Notices) -> list[Slide]:
    """The slides of *document*: one for each `#`, `##`, rule and section; what is too full is split, with a notice."""
    slides: list[Slide] = []
    for title, held in _cut(document.blocks, document.title):
        parts = _Parts(pictures, notices).of(held)
        parts += _notes_of(held, document.notes)
        slides += _filled(title, parts, notices)
    return slides


def filled_sources(lines: list[Line], notices: Notices) -> list[Slide]:
    """The slides of the sources."""
    return _filled("Sources", [_text(line) for line in lines], notices)


def _cut(blocks: Nodes, title: str) -> list[tuple[str, Nodes]]:
    """Titles, and what stands below each; what stands before the first heading has that of the document."""
    made: list[tuple[str, Nodes]] = []
    begin = True
    for block in blocks:
        if block["t"] in ("rule", "section"):
            begin = True
        elif block["t"] == "heading" and block["level"] <= 2:
            made.append((" ".join(plain(block["c"]).split()), []))
            begin = False
        else:
            if begin:
                made.append(("" if made else title, []))
                begin = False
            made[-1][1].append(block)
    return made


def _filled(title: str, parts: list[Part], notices: Notices) -> list[Slide]:
    slides = [Slide(title, cover=not parts)]
    waiting = deque(parts)
    while waiting:
        part = waiting.popleft()
        left = slides[-1].left
        if part.height > left:
            whole = Slide(title).left
            part, rest = _halves(part, left if left > whole / 2 or not slides[-1].parts else whole)
            if rest is not None:
                waiting.appendleft(rest)
        if slides[-1].parts and part.height > left:
            slides.append(Slide(f"{title} ({len(slides) + 1})" if title else ""))
        if len(slides) > MAX_SLIDES:
            raise Refused(f"the content fills more than {MAX_SLIDES} slides: shorten it, or write a document")
        if part.height > slides[-1].left:
            notices.count(_CUT, repr(title or "a slide"))
        _add(slides[-1], part)
    if len(slides) > 1:
        notices.count(_SPLIT, repr(title or "a slide without a title"))
    return slides


def _add(slide: Slide, part: Part) -> None:
    """Lines of text that follow each other share a box."""
    if part.kind == "text" and slide.parts and slide.parts[-1].kind == "text":
        slide.parts[-1].lines += part.lines
        slide.parts[-1].height += part.height
    else:
        slide.parts.append(part)


def _halves(part: Part, room: float) -> tuple[Part, Part | None]:
    """What of a listing or a table fits, and the rest; a table's head stands in both. Other parts stay whole."""
    if part.kind == "code":
        lines = part.node["text"].split("\n")
        fitting = max(1, int((room - 22 - GAP) / (CODE * LINE)))
        if fitting >= len(lines):
            return part, None
        first, rest = ("\n".join(each) for each in (lines[:fitting], lines[fitting:]))
        return _code({**part.node, "text": first}), _code({**part.node, "text": rest})
    if part.kind == "table":
        return _halves_of_table(part, room)
    return part, None


def _halves_of_table(part: Part, room: float) -> tuple[Part, Part | None]:
    headed = int(any(part.node["head"]))
    room -= sum(part.heights[:headed]) + GAP
    fitting = 0
    for height in part.heights[headed:]:
        room -= height
        if room < 0 and fitting:
            break
        fitting += 1
    rows = part.node["rows"]
    if fitting >= len(rows):
        return part, None
    head, body = part.heights[:headed], part.heights[headed:]
    first, rest = (
        Part(
            "table",
            sum(head + heights) + GAP,
            node={**part.node, "rows": held},
            widths=part.widths,
            heights=head + heights,
        )
        for held, heights in ((rows[:fitting], body[:fitting]), (rows[fitting:], body[fitting:]))
    )
    return first, rest


def _pieces(line: Line) -> list[Line]:
    """*line*, or where it is higher than a slide, lines that are not, cut where a word of its text ends."""
    most = int(ROOM / (line.size * LINE)) * int(ACROSS / (line.size * 0.6))
    pieces: list[Nodes] = [[]]
    left = most
    for node in line.inlines:
        said = plain([node])
        while node["t"] == "text" and len(said) > left:
            cut = said.rfind(" ", 0, left)
            pieces[-1].append(text(said[: max(cut, 0)]))
            said, left = said[cut + 1 :], most
            pieces.append([])
            if cut < 0:
                break  # one word that is longer than a slide
        pieces[-1].append(text(said) if node["t"] == "text" else node)
        left -= len(said)
    first, *rest = (inlines for inlines in pieces if plain(inlines) or len(pieces) == 1)
    return [replace(line, inlines=first), *(replace(line, inlines=inlines, mark="") for inlines in rest)]


class _Parts:
    """Blocks as parts; lists and quotes become lines with a depth."""

    def __init__(self, pictures: Pictures, notices: Notices) -> None:
        self._pictures = pictures
        self._notices = notices

    def of(self, blocks: Nodes, depth: int = 0, kind: str = "par") -> list[Part]:
        """The parts of *blocks*, one for each line of text."""
        made: list[Part] = []
        for block in blocks:
            if block["t"] == "par":
                made += self._par(block["c"], depth, kind)
            elif block["t"] == "heading":
                made.append(_text(Line([{"t": "strong", "c": block["c"]}], depth, kind="heading")))
            elif block["t"] == "quote":
                made += self.of(block["b"], depth + 1, "quote")
            elif block["t"] == "list":
                made += self._list(block, depth, kind)
            elif block["t"] == "listing":
                made.append(_code({**block, "text": _wrapped(block["text"])}))
            elif block["t"] == "table":
                made.append(_table(block))
            elif block["t"] == "figure":
                made.append(self._picture(block))
        return made

    def _par(self, inlines: Nodes, depth: int, kind: str, mark: str = "") -> list[Part]:
        """A text, and the pictures that stood in it below it: a text box holds none."""
        pictures = [node for node in inlines if node["t"] == "image"]
        words = [node for node in inlines if node["t"] != "image"]
        lines = _pieces(Line(words, depth, mark, kind)) if plain(words).strip() or mark else []
        made = [_text(line) for line in lines]
        return made + [self._picture({**node, "caption": []}) for node in pictures]

    def _list(self, block: Node, depth: int, kind: str) -> list[Part]:
        made: list[Part] = []
        for number, item in enumerate(block["items"], block["start"]):
            mark = f"{number}." if block["ordered"] else "•" if depth % 2 == 0 else "–"
            mark = {True: "☑", False: "☐"}.get(item["task"], mark)
            first, *rest = item["b"] or [{"t": "par", "c": []}]
            if first["t"] != "par":
                first, rest = {"t": "par", "c": []}, item["b"]
            made += self._par(first["c"], depth, kind, mark)
            made += self.of(rest, depth + 1, kind)
        return made

    def _picture(self, block: Node) -> Part:
        caption = [Line(block["caption"], kind="note")] if block["caption"] else []
        below = sum(line.height(ACROSS) for line in caption)
        _, height = self._pictures[block["src"]].within(ACROSS, ROOM - below - GAP)
        return Part("picture", height + below + GAP, caption, block)


def _text(line: Line) -> Part:
    return Part("text", line.height(ACROSS), [line])


def _code(node: Node) -> Part:
    return Part("code", (node["text"].count("\n") + 1) * CODE * LINE + 22 + GAP, node=node)


def _wrapped(code: str) -> str:
    """*code* with no line longer than the box: what does not fit goes on in the next."""
    most = int((ACROSS - 24) / (CODE * 0.602))
    return "\n".join(line[at : at + most] for line in code.split("\n") for at in range(0, max(len(line), 1), most))


def _table(node: Node) -> Part:
    """A table with its columns as wide as their texts ask for, and as high as its cells then are."""
    rows = [row for row in [node["head"], *node["rows"]] if any(row)]
    columns = len(node["align"])
    wanted = [min(max((_wide(plain(row[at])) for row in rows), default=1), 50) for at in range(columns)]
    size = cell_size(columns)
    asked = [each * size * 0.72 + 22 for each in wanted]  # as wide as where Calibri is missing
    by = min(1.0, ACROSS / sum(asked)) if columns else 1.0
    widths = [each * by for each in asked]
    heights = [
        max(sum(_lines(part, widths[at] - 14, size) for part in plain(cell).split("\n")) for at, cell in enumerate(row))
        * size
        * LINE
        + 10
        for row in rows
    ]
    return Part("table", sum(heights) + GAP, node=node, widths=widths, heights=heights)


def cell_size(columns: int) -> float:
    """The size of the text of a table with that many columns, in points."""
    return CELL if columns <= 6 else 11.0 if columns <= 10 else 8.0


def _notes_of(blocks: Nodes, notes: list[Nodes]) -> list[Part]:
    from isorun.tools.documents.tree import all_inlines, inline_lists

    seen = {node["n"]: None for inlines in inline_lists(blocks) for node in all_inlines(inlines) if node["t"] == "note"}
    made = []
    for number in seen:
        words: Nodes = [{"t": "sup", "c": [text(str(number))]}, text(" ")]
        for inlines in inline_lists(notes[number - 1]):
            words += [*inlines, text(" ")]
        made.append(_text(Line(words, kind="note")))
    return made


def _wide(said: str) -> float:
    """How many usual letters *said* is wide; those of East Asia count for two."""
    return max(
        sum(1.9 if unicodedata.east_asian_width(each) in "WF" else 1.0 for each in part) for part in said.split("\n")
    )


def _lines(said: str, width: float, size: float) -> int:
    """How many lines *said*, without a line end, takes in *width* points: by words, as text is broken."""
    most = max(width, 20) / (size * 0.5)
    lines, used = 1, 0.0
    for word in said.split(" "):
        wide = _wide(word) + 1
        if used + wide - 1 > most and used:
            lines, used = lines + 1, 0.0
        if wide > most:
            lines, wide = lines + ceil(wide / most) - 1, wide % most
        used += wide
    return lines
