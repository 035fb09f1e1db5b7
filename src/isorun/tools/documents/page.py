"""The tree as one HTML file: it loads nothing, has no script, and says so to the browser."""

from __future__ import annotations

import base64
import hashlib
import pkgutil
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING

from isorun.tools.documents.tree import Node, Nodes, plain

if TYPE_CHECKING:
    from isorun.tools.documents.reading import Read

_WRAPPING = {"strong": "strong", "em": "em", "strike": "s", "sub": "sub", "sup": "sup"}
_TASKS = {True: "☑", False: "☐"}


def write_page(read: Read, *, landscape: bool, listed: bool) -> bytes:
    """The page of *read*, in UTF-8."""
    document, style = read.document, _style()
    writer = _Writer(read, listed=listed)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    first = next((plain(block["c"]) for block in document.blocks if block["t"] == "heading"), "Document")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{escape(document.title or first)}</title>\n<style>{style}</style>\n</head>",
            '<body class="wide">' if landscape else "<body>",
            f"<header><h1>{escape(document.title)}</h1></header>" if document.title else "",
            f"<main>\n{writer.blocks(document.blocks)}\n</main>",
            writer.notes(document.notes),
            writer.sources(),
            "</body>\n</html>\n",
        ]
    ).encode("utf-8")


@lru_cache(maxsize=1)
def _style() -> str:
    return (pkgutil.get_data(__package__, "page.css") or b"").decode()


class _Writer:
    """Every text and every attribute goes through `escape`."""

    def __init__(self, read: Read, *, listed: bool) -> None:
        self._read = read
        self._listed = listed and bool(read.document.sources)
        self._referred: set[int] = set()

    def blocks(self, blocks: Nodes) -> str:
        """*blocks*, one below the other."""
        return "\n".join(filter(None, map(self._block, blocks)))

    def notes(self, notes: list[Nodes]) -> str:
        """The footnotes, each with a way back."""
        if not notes:
            return ""
        back = '<a href="#ref-{0}" aria-label="back to the text">↩</a>'
        items = []
        for number, blocks in enumerate(notes, 1):
            way = back.format(number) if number in self._referred else ""
            items.append(f'<li id="note-{number}">{self.blocks(blocks)}{way}</li>')
        return f'<section class="notes"><h2>Notes</h2>\n<ol>\n{"".join(items)}\n</ol></section>'

    def sources(self) -> str:
        """The cited sources, in the order of their numbers."""
        if not self._listed:
            return ""
        items = []
        for source in self._read.document.sources:
            title = escape(source.title)
            shown = f'<a href="{escape(source.href)}" rel="noopener noreferrer">{title}</a>' if source.href else title
            address = f'<span class="address">{escape(source.url)}</span>' if source.url != source.title else ""
            items.append(f'<li id="source-{source.number}">{shown}{address}</li>')
        return f'<section class="sources"><h2>Sources</h2>\n<ol>\n{"".join(items)}\n</ol></section>'

    def _block(self, block: Node) -> str:
        kind = block["t"]
        if kind == "heading":
            return f"<h{block['level']}>{self._inlines(block['c'])}</h{block['level']}>"
        if kind == "par":
            return f"<p>{self._inlines(block['c'])}</p>"
        if kind == "listing":
            return f"<pre><code>{escape(block['text'])}</code></pre>"
        if kind == "quote":
            return f"<blockquote>{self.blocks(block['b'])}</blockquote>"
        if kind == "list":
            return self._list(block)
        if kind == "table":
            return self._table(block)
        if kind == "figure":
            caption = f"<figcaption>{self._inlines(block['caption'])}</figcaption>" if block["caption"] else ""
            return f"<figure>{self._image(block)}{caption}</figure>"
        return "<hr>" if kind == "rule" else ""

    def _list(self, block: Node) -> str:
        if any(item["task"] is not None for item in block["items"]):
            items = [
                f"<li><span>{_TASKS.get(item['task'], '•')}</span><div>{self._item(item)}</div></li>"
                for item in block["items"]
            ]
            return f'<ul class="tasks">{"".join(items)}</ul>'
        tag = "ol" if block["ordered"] else "ul"
        start = f' start="{block["start"]}"' if block["ordered"] and block["start"] != 1 else ""
        return f"<{tag}{start}>{''.join(f'<li>{self._item(item)}</li>' for item in block['items'])}</{tag}>"

    def _item(self, item: Node) -> str:
        return self.blocks(item["b"])

    def _table(self, block: Node) -> str:
        def row(cells: list[Nodes], tag: str) -> str:
            kinds = ["" if each == "left" else f' class="{escape(each)}"' for each in block["align"]]
            made = [f"<{tag}{kind}>{self._inlines(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)]
            return f"<tr>{''.join(made)}</tr>"

        head = f"<thead>{row(block['head'], 'th')}</thead>" if any(block["head"]) else ""
        body = "\n".join(row(cells, "td") for cells in block["rows"])
        return f'<div class="scroll"><table>{head}<tbody>\n{body}\n</tbody></table></div>'

    def _image(self, node: Node) -> str:
        picture = self._read.pictures[node["src"]]
        data = base64.b64encode(picture.data).decode()
        mime = "image/svg+xml" if picture.kind == "svg" else f"image/{picture.kind}"
        size = f'width="{round(picture.width / 0.75)}" height="{round(picture.height / 0.75)}"'
        return f'<img src="data:{mime};base64,{data}" alt="{escape(node["alt"])}" {size}>'

    def _inlines(self, inlines: Nodes) -> str:
        return "".join(map(self._inline, inlines))

    def _inline(self, node: Node) -> str:
        kind = node["t"]
        if kind in ("text", "code"):
            said = escape(node["s"])
            return f"<code>{said}</code>" if kind == "code" else said
        if kind == "br":
            return "<br>"
        if kind == "image":
            return self._image(node)
        if kind == "link":
            return f'<a href="{escape(node["href"])}" rel="noopener noreferrer">{self._inlines(node["c"])}</a>'
        if kind == "note":
            number = node["n"]
            place = "" if number in self._referred else f' id="ref-{number}"'
            self._referred.add(number)
            return f'<sup><a href="#note-{number}"{place}>{number}</a></sup>'
        if kind == "cite":
            target = f"#source-{node['n']}" if self._listed else node["href"]
            return f'<a href="{escape(target)}">[{node["n"]}]</a>' if target else f"[{node['n']}]"
        return f"<{_WRAPPING[kind]}>{self._inlines(node['c'])}</{_WRAPPING[kind]}>"
