"""The tree as DOCX, by python-docx. Its styles are in `look`, this module says where each node goes."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from isorun.tools.documents.archive import DAY, same_bytes
from isorun.tools.documents.office import look
from isorun.tools.documents.office.shown import shown_picture
from isorun.tools.documents.tree import Node, Nodes, merged, text

if TYPE_CHECKING:
    from isorun.tools.documents.reading import Read

_LEVELS = 9  # of a list in Word
_TASKS = {True: "☑\t", False: "☐\t"}


def write_docx(read: Read, *, landscape: bool, listed: bool) -> bytes:
    """The DOCX of *read*."""
    import docx

    word = docx.Document(io.BytesIO(_template(landscape)))
    core = word.core_properties
    core.title, core.author, core.comments, core.last_modified_by = read.document.title, "", "", ""
    core.created = core.modified = DAY
    _Writer(word, read, listed=listed).write()
    made = io.BytesIO()
    word.save(made)
    return same_bytes(made.getvalue())


@lru_cache(maxsize=2)
def _template(landscape: bool) -> bytes:
    """An empty document with our styles: making them takes longer than reading them."""
    import docx

    word = docx.Document()
    look.prepare(word, landscape=landscape)
    made = io.BytesIO()
    word.save(made)
    return made.getvalue()


class _Writer:
    """Blocks become paragraphs; how deep they stand in lists and quotes goes down with them."""

    def __init__(self, word: Any, read: Read, *, listed: bool) -> None:
        self._word = word
        self._read = read
        self._listed = listed and bool(read.document.sources)
        self._lists = look.Lists(word)
        self._bookmarks = 0

    def write(self) -> None:
        """The title, the body, the notes and the sources."""
        document = self._read.document
        if document.title:
            look.run(look.paragraph(self._word, "Title"), None, document.title, {})
        self._blocks(document.blocks, 0)
        if document.notes:
            look.run(look.paragraph(self._word, "Heading2"), None, "Notes", {})
        for number, blocks in enumerate(document.notes, 1):
            first = blocks[0] if blocks and "c" in blocks[0] else {"t": "par", "c": []}
            lead = {"t": "anchor", "name": f"note_{number}", "s": f"{number}"}
            self._paragraph({**first, "c": [lead, text("\t"), *first["c"]]}, 0, style="Note")
            self._blocks(blocks[1:] if blocks and first is blocks[0] else blocks, 0)
        if self._listed:
            self._sources()

    def _sources(self) -> None:
        look.run(look.paragraph(self._word, "Heading2"), None, "Sources", {})
        for source in self._read.document.sources:
            title: Node = text(source.title)
            if source.href:
                title = {"t": "link", "href": source.href, "c": [title]}
            inlines = [{"t": "anchor", "name": f"source_{source.number}", "s": f"[{source.number}]"}, text("\t"), title]
            if source.url and source.url != source.title:
                inlines += [{"t": "br"}, {"t": "faint", "s": source.url}]
            self._paragraph({"t": "par", "c": inlines}, 0, style="Source")

    def _blocks(self, blocks: Nodes, depth: int, style: str | None = None) -> None:
        for block in blocks:
            kind = block["t"]
            if kind == "heading":
                self._inlines(look.paragraph(self._word, f"Heading{block['level']}"), block["c"])
            elif kind == "par":
                self._paragraph(block, depth, style)
            elif kind == "listing":
                look.listing(look.paragraph(self._word, "Code"), block["text"], depth)
            elif kind == "quote":
                self._blocks(block["b"], depth + 1, "Quote")
            elif kind == "list":
                self._list(block, depth, style)
            elif kind == "table":
                self._table(block)
            elif kind == "figure":
                self._figure(block)
            elif kind == "rule":
                look.rule(look.paragraph(self._word))

    def _paragraph(self, block: Node, depth: int, style: str | None = None) -> Any:
        paragraph = look.paragraph(self._word, style)
        if depth:
            look.indent(paragraph, depth)
        self._inlines(paragraph, block["c"])
        return paragraph

    def _list(self, block: Node, depth: int, style: str | None) -> None:
        number = self._lists.begin(ordered=block["ordered"], level=min(depth, _LEVELS - 1), start=block["start"])
        for item in block["items"]:
            blocks = item["b"] or [{"t": "par", "c": []}]
            first: Node = blocks[0] if blocks[0]["t"] == "par" else {"t": "par", "c": []}
            task: Nodes = [text(_TASKS[item["task"]])] if item["task"] is not None else []
            paragraph = self._paragraph({"t": "par", "c": task + first["c"]}, 0, style or "ListParagraph")
            if task:
                look.hang(paragraph, depth + 1)
            else:
                look.mark(paragraph, number, min(depth, _LEVELS - 1))
            self._blocks(blocks[1:] if first is blocks[0] else blocks, depth + 1, style)
        if not depth:
            look.end_list(paragraph)

    def _table(self, block: Node) -> None:
        headed = any(block["head"])
        rows = [block["head"], *block["rows"]] if headed else block["rows"]
        if not rows:
            return
        table = look.table(self._word, len(rows), len(block["align"]), headed=headed)
        size = look.table_size(len(block["align"]))
        every = list(table._cells)  # each look at table.cell() builds all of them anew
        for at, row in enumerate(rows):
            for column, inlines in enumerate(row):
                cell = every[at * len(block["align"]) + column]
                paragraph = cell.paragraphs[0]
                look.align(paragraph, block["align"][column])
                head = headed and at == 0
                self._inlines(paragraph, [{"t": "strong", "c": inlines}] if head else inlines, size=size)
        look.fit(table, [[_width(cell) for cell in row] for row in rows], look.room(self._word)[0])
        look.after_table(look.paragraph(self._word))

    def _figure(self, block: Node) -> None:
        paragraph = look.paragraph(self._word, "Figure")
        self._picture(paragraph, block)
        if block["caption"]:
            paragraph.paragraph_format.keep_with_next = True
            self._inlines(look.paragraph(self._word, "Caption"), block["caption"])

    def _picture(self, paragraph: Any, node: Node) -> None:
        from docx.shared import Pt

        picture = self._read.pictures[node["src"]]
        width, height = picture.within(*look.room(self._word))
        shape = paragraph.add_run().add_picture(io.BytesIO(shown_picture(picture)), Pt(width), Pt(height))
        shape._inline.docPr.set("descr", node["alt"])
        shape._inline.docPr.set("name", node["src"])

    def _inlines(self, paragraph: Any, inlines: Nodes, into: Any = None, **form: Any) -> None:
        """Write *inlines* into *paragraph*, or into its hyperlink *into*, with the form of those around them."""
        for node in merged(inlines):
            kind = node["t"]
            if kind in ("text", "code", "faint", "br"):
                look.run(paragraph, into, node.get("s", "\n"), {**form, **({kind: True} if kind != "text" else {})})
            elif kind == "image":
                self._picture(paragraph, node)
            elif kind == "link":
                self._inlines(paragraph, node["c"], look.link(paragraph, url=node["href"]), **{**form, "link": True})
            elif kind == "note":
                look.run(
                    paragraph, look.link(paragraph, anchor=f"note_{node['n']}"), str(node["n"]), {**form, "sup": True}
                )
            elif kind == "cite":
                self._cite(paragraph, node, form)
            elif kind == "anchor":
                self._bookmarks += 1
                look.bookmark(paragraph, node["name"], self._bookmarks, node["s"])
            else:
                self._inlines(paragraph, node["c"], into, **{**form, kind: True})

    def _cite(self, paragraph: Any, node: Node, form: dict[str, Any]) -> None:
        into = None
        if self._listed:
            into = look.link(paragraph, anchor=f"source_{node['n']}")
        elif node["href"]:
            into = look.link(paragraph, url=node["href"])
        look.run(paragraph, into, f"[{node['n']}]", {**form, "link": into is not None})


def _width(inlines: Nodes) -> int:
    from isorun.tools.documents.tree import plain

    return max(map(len, plain(inlines).split("\n")))
