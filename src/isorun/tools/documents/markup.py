"""HTML to the tree. What has no place in a document (styles, scripts, forms) is left out with a notice.

nh3 removes what is dangerous, selectolax parses the rest into nodes. Their time grows with the square of the depth and
of the number of attributes, so both numbers are bounded before either library sees the text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from isorun.core.text import unescaped
from isorun.tools.documents.bounds import Notices, Refused
from isorun.tools.documents.tree import Document, Node, Nodes, merged, text

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_NESTED = 100  # open elements; a page of a newspaper has 30
_MAX_ATTRIBUTES = 200  # of one element
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_INLINE = {
    **dict.fromkeys(("strong", "b"), "strong"),
    **dict.fromkeys(("em", "i", "cite", "dfn", "var"), "em"),
    **dict.fromkeys(("s", "del", "strike"), "strike"),
    "sub": "sub",
    "sup": "sup",
}
_CODE = ("code", "kbd", "samp", "tt")
_TRANSPARENT = ("span", "u", "mark", "small", "abbr", "time", "q", "ins", "label", "font", "a")
_BLOCKS = ("div", "section", "article", "main", "header", "footer", "aside", "nav", "center", "address", "details")
_TABLE = ("table", "thead", "tbody", "tfoot", "tr", "th", "td", "caption")
_OTHER = ("p", "summary", "ul", "ol", "li", "dl", "dt", "dd", "pre", "blockquote", "hr", "br", "img", "figure")
_KEPT = {*_HEADINGS, *_INLINE, *_CODE, *_TRANSPARENT, *_BLOCKS, *_TABLE, *_OTHER, "figcaption"}
_ATTRIBUTES = {
    "a": {"href"},
    "img": {"src", "alt", "title"},
    "ol": {"start"},
    "code": {"class"},
    "pre": {"class"},
    "td": {"align", "colspan", "rowspan", "style"},
    "th": {"align", "colspan", "rowspan", "style"},
}
_DROPPED = re.compile(
    r"<(script|style|form|input|button|select|textarea|iframe|object|embed|video|audio|canvas|svg|math|template|link)\b",
    re.IGNORECASE,
)
_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)([^>]*)>")
#: Elements without an end tag, or with an optional one: their start tags do not count as depth.
_UNCOUNTED = {"p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "option", "colgroup"} | {
    *("br", "hr", "img", "input", "meta", "link", "col", "area", "base", "embed", "source", "track", "wbr")
}
_LEFT_OUT = "what has no place in a document was left out ({count} times: {examples})"
_MERGED = "{count} merged cells are written as a cell and empty ones: {examples}"


def read_html(content: str, notices: Notices) -> Document:
    """Parse *content*. Raises `Refused` for text that would keep the parsers busy for minutes."""
    import nh3
    from selectolax.lexbor import LexborHTMLParser

    _bound(content)
    for found in _DROPPED.finditer(content):
        notices.count(_LEFT_OUT, found[1].lower())
    if re.search(r"<[^>]*\sstyle\s*=(?!\s*[\"']?\s*text-align)", content, re.IGNORECASE):
        notices.say("the styles of elements were left out: only the alignment of table cells is kept")
    title = re.search(r"<title[^>]*>(.*?)</title>", content[:100_000], re.IGNORECASE | re.DOTALL)
    clean = nh3.clean(
        content,
        tags=_KEPT,
        clean_content_tags={"script", "style", "title", "template", "textarea", "select", "svg", "math"},
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto", "data", "file", "ftp", "javascript"},  # `links` checks them
        link_rel=None,
    )
    tree: Any = LexborHTMLParser(clean)
    document = Document(_Reader(notices).blocks(tree.body) if tree.body else [])
    if title:
        document.title = " ".join(unescaped(title[1]).split())[:1000]
    return document


def _bound(content: str) -> None:
    depth = 0
    for found in _TAG.finditer(content):
        if found[3].count("=") + len(found[3].split()) > 2 * _MAX_ATTRIBUTES:
            raise Refused(f"an element <{found[2][:20]}> has more than {_MAX_ATTRIBUTES} attributes: write it plainly")
        if found[2].lower() not in _UNCOUNTED and not found[3].endswith("/"):
            depth = max(depth - 1, 0) if found[1] else depth + 1
        if depth > _MAX_NESTED:
            raise Refused(f"elements are nested deeper than {_MAX_NESTED}: close each, and write the page flatter")


class _Reader:
    """Inlines are collected in a run. A block ends the run before it, which becomes a paragraph."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices

    def blocks(self, element: Any) -> Nodes:
        """The contents of *element*, as blocks."""
        made: Nodes = []
        run: Nodes = []
        for child in element.iter(include_text=True):
            if self._is_inline(child):
                run += self._inlines(child)
                continue
            _end_run(run, made)
            made += self._block(child)
        _end_run(run, made)
        return made

    def _is_inline(self, node: Any) -> bool:
        if node.tag in _TRANSPARENT or node.tag in _INLINE:
            return not any(child.tag in (*_BLOCKS, *_OTHER[:-2], *_HEADINGS, "table", "figure") for child in _all(node))
        return node.tag in ("-text", "br", "img", *_CODE)

    def _block(self, node: Any) -> Nodes:
        tag = node.tag
        if tag in _HEADINGS:
            return [{"t": "heading", "level": _HEADINGS[tag], "c": _trimmed(self._run(node))}]
        if tag in ("ul", "ol"):
            made = self._list(node)
            return [made] if made["items"] else self.blocks(node)
        if tag == "pre":
            return [_code(node)]
        if tag == "hr":
            return [{"t": "rule"}]
        if tag == "table":
            return self._table(node)
        if tag == "blockquote":
            return [{"t": "quote", "b": self.blocks(node)}]
        if tag == "figure":
            return self._figure(node)
        inside = self.blocks(node)
        if tag == "section":
            return [{"t": "section"}, *inside, {"t": "section"}]
        if tag in ("dt", "summary"):
            return [
                {"t": "par", "c": [{"t": "strong", "c": block["c"]}]} if "c" in block else block for block in inside
            ]
        return [{"t": "quote", "b": inside}] if tag == "dd" else inside

    def _list(self, node: Any) -> Node:
        start = str(node.attributes.get("start") or "1")
        items = [{"b": self.blocks(child), "task": None} for child in node.iter() if child.tag == "li"]
        number = int(start) if re.fullmatch(r"\d{1,9}", start) else 1
        return {"t": "list", "ordered": node.tag == "ol", "start": number, "items": items}

    def _figure(self, node: Any) -> Nodes:
        captions = [child for child in _all(node) if child.tag == "figcaption"]
        caption = _trimmed(self._run(captions[0])) if captions else []
        made = [block for child in node.iter() if child.tag != "figcaption" for block in self._figured(child, caption)]
        return (
            made
            if any(block["t"] == "figure" for block in made) or not caption
            else [*made, {"t": "par", "c": caption}]
        )

    def _figured(self, node: Any, caption: Nodes) -> Nodes:
        if node.tag == "img":
            (image,) = self._inlines(node)
            return [{"t": "figure", "src": image["src"], "alt": image["alt"], "caption": caption}]
        return self._block(node) if not self._is_inline(node) else [{"t": "par", "c": self._inlines(node)}]

    def _table(self, node: Any) -> Nodes:
        rows = [child for child in _all(node) if child.tag == "tr"]
        cells = [[cell for cell in row.iter() if cell.tag in ("th", "td")] for row in rows]
        written = [[each for cell in row for each in self._cell(cell)] for row in cells]
        width = max(map(len, written), default=0)
        if not width:
            return []
        written = [row + [[] for _ in range(width - len(row))] for row in written]
        headed = all(cell.tag == "th" for cell in cells[0]) or rows[0].parent.tag == "thead"
        align = [_alignment(cell) for cell in next((row for row in cells[1:] if len(row) == width), cells[0])]
        align += ["left"] * (width - len(align))
        caption = [child for child in node.iter() if child.tag == "caption"]
        above: Nodes = [{"t": "par", "c": [{"t": "em", "c": _trimmed(self._run(caption[0]))}]}] if caption else []
        head = written[0] if headed else [[] for _ in range(width)]
        return [*above, {"t": "table", "align": align, "head": head, "rows": written[headed:]}]

    def _cell(self, node: Any) -> list[Nodes]:
        across = str(node.attributes.get("colspan") or "1")
        if across != "1" or str(node.attributes.get("rowspan") or "1") != "1":
            self._notices.count(_MERGED, repr(node.text()[:20]))
        empty = min(int(across), 50) - 1 if re.fullmatch(r"\d{1,4}", across) else 0
        return [_trimmed(self._run(node)), *([] for _ in range(empty))]

    def _run(self, node: Any) -> Nodes:
        """The contents of *node*, as inlines: a block in it ends a line."""
        made: Nodes = []
        for child in node.iter(include_text=True):
            if made and child.tag in ("p", "li", "div", "tr") and made[-1]["t"] != "br":
                made.append({"t": "br"})
            made += self._inlines(child)
        return made

    def _inlines(self, node: Any) -> Nodes:
        tag = node.tag
        if tag == "-text":
            return [text(re.sub(r"[ \t\n\r\f]+", " ", node.text_content or ""))]
        if tag == "br":
            return [{"t": "br"}]
        if tag in _CODE:
            return [{"t": "code", "s": node.text()}]
        if tag == "img":
            attributes = {key: str(node.attributes.get(key) or "") for key in ("src", "alt", "title")}
            return [{"t": "image", **attributes}]
        if tag in _INLINE:
            return [{"t": _INLINE[tag], "c": merged(self._run(node))}]
        if tag == "a" and node.attributes.get("href"):
            return [{"t": "link", "href": str(node.attributes["href"]).strip(), "c": merged(self._run(node))}]
        return self._run(node)


def _all(node: Any) -> Iterator[Any]:
    for child in node.iter():
        yield child
        yield from _all(child)


def _end_run(run: Nodes, made: Nodes) -> None:
    trimmed = _trimmed(run)
    if trimmed:
        made.append({"t": "par", "c": trimmed})
    run.clear()


def _trimmed(run: Nodes) -> Nodes:
    """*run* without blanks and line ends around it, and with one blank where texts meet with two."""
    kept = merged(run)
    for node in kept:
        if node["t"] == "text":
            node["s"] = re.sub(" +", " ", node["s"])
    for end in (0, -1):
        while kept and (kept[end]["t"] == "br" or (kept[end]["t"] == "text" and not kept[end]["s"].strip(" "))):
            kept.pop(end)
    if kept and kept[0]["t"] == "text":
        kept[0]["s"] = kept[0]["s"].lstrip(" ")
    if kept and kept[-1]["t"] == "text":
        kept[-1]["s"] = kept[-1]["s"].rstrip(" ")
    return kept


def _code(node: Any) -> Node:
    classes = [str(each.attributes.get("class") or "") for each in (node, *_all(node))]
    lang = re.search(r"\blang(?:uage)?-([\w+#-]+)", " ".join(classes))
    return {"t": "listing", "text": node.text().strip("\n"), "lang": lang[1] if lang else ""}


def _alignment(cell: Any) -> str:
    style = re.search(r"text-align\s*:\s*(left|center|right)", str(cell.attributes.get("style") or ""))
    said = style[1] if style else str(cell.attributes.get("align") or "left").lower()
    return said if said in ("left", "center", "right") else "left"
