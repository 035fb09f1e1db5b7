"""From a caller's text to the tree that every writer takes: text cleaned; links, citations and pictures resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isorun.tools.documents.bounds import Notices, Refused, bounded, cleaned, titled
from isorun.tools.documents.links import resolve_citations, resolve_links
from isorun.tools.documents.markdown import read_markdown
from isorun.tools.documents.markup import read_html
from isorun.tools.documents.pictures import Pictures
from isorun.tools.documents.tree import Document, Node, Nodes, below_block, plain, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from isorun.tools.documents.pictures import Reader

FORMATS = ("markdown", "text", "html")


@dataclass(slots=True)
class Read:
    """A document that is ready to be written."""

    document: Document
    pictures: Pictures
    notices: Notices


def read(content: str, *, form: str, title: str, sources: Iterable[Mapping[str, object]], image: Reader | None) -> Read:
    """Read *content*. Raises `Refused`, and what *image* raises."""
    notices = Notices()
    content = cleaned(bounded(content), notices)
    if form == "markdown":
        document = read_markdown(content, notices)
    elif form == "html":
        document = read_html(content, notices)
    elif form == "text":
        document = _read_text(content)
    else:
        raise Refused(f"format is {form!r}; give one of {', '.join(FORMATS)}")
    document.title = titled(title, notices) or document.title
    document.blocks, document.notes = _scrubbed([document.blocks, document.notes], notices)
    for blocks in document.parts():
        _make_figures(blocks)
    _drop_repeated_title(document)
    resolve_links(document, notices)
    resolve_citations(document, sources, notices)
    pictures = Pictures(image)
    pictures.take_all(document, notices)
    return Read(document, pictures, notices)


def _read_text(content: str) -> Document:
    """Plain text: empty lines separate paragraphs, and line ends are kept."""
    blocks: Nodes = []
    for part in content.split("\n\n"):
        inlines: Nodes = []
        for line in part.strip("\n").split("\n"):
            inlines += [{"t": "br"}] * bool(inlines) + [text(line.expandtabs(4))]
        if any(node.get("s", "").strip() for node in inlines):
            blocks.append({"t": "par", "c": inlines})
    return Document(blocks)


def _scrubbed(value: Any, notices: Notices) -> Any:
    """*value* with every text cleaned: an entity may stand for a character that the source does not have."""
    if isinstance(value, str):
        return cleaned(value, notices)
    if isinstance(value, list):
        return [_scrubbed(each, notices) for each in value]
    if isinstance(value, dict):
        return {key: _scrubbed(each, notices) for key, each in value.items()}
    return value


def _make_figures(blocks: Nodes) -> None:
    """A paragraph that is one picture becomes a figure; its caption is the picture's title, else its text."""
    for at, block in enumerate(blocks):
        inner = [node for node in block.get("c", ()) if node != text(" ")]
        if block["t"] == "par" and len(inner) == 1 and inner[0]["t"] == "image":
            blocks[at] = _figure(inner[0])
        for below in below_block(block):
            _make_figures(below)


def _figure(image: Node) -> Node:
    caption = image.get("title") or image["alt"]
    return {"t": "figure", "src": image["src"], "alt": image["alt"], "caption": [text(caption)] if caption else []}


def _drop_repeated_title(document: Document) -> None:
    """Leave out a first heading that repeats the title, which the title block shows already."""
    first = next((block for block in document.blocks if block["t"] != "section"), None)
    if first and first["t"] == "heading" and " ".join(plain(first["c"]).split()) == document.title:
        document.blocks.remove(first)
