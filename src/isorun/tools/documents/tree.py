"""The tree that readers make and writers take: of JSON's types alone, so that a writer can hand it on as data.

A node is a dict with its kind under "t". Blocks:

    heading {level, c}    par {c}    listing {text, lang}    quote {b}    rule {}    section {}
    list {ordered, start, items: [{b, task}]}             task: None, or whether it is done
    table {align, head: [c], rows: [[c]]}                 align: left, center or right for each column
    figure {src, alt, caption: c}                         a picture that stands alone

Inlines, in a list "c":

    text {s}    strong {c}    em {c}    strike {c}    sub {c}    sup {c}    code {s}    br {}
    link {href, c}    image {src, alt}    note {n}    cite {n, href}

`n` of a note counts from 1 into `Document.notes`, `n` of a cite into `Document.sources`. The walkers here know the
shape, and no format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

Node = dict[str, Any]
Nodes = list[Node]


@dataclass(slots=True)
class Source:
    """A source that the text cites: `number` as it is printed, an `href` only if a link may lead there."""

    number: int
    title: str
    url: str
    href: str

    def as_node(self) -> Node:
        """As JSON's types."""
        return {"n": self.number, "title": self.title, "url": self.url, "href": self.href}


@dataclass(slots=True)
class Document:
    """What was read: blocks, footnotes, and the cited sources in the order of their first citation."""

    blocks: Nodes
    notes: list[Nodes] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    title: str = ""

    def parts(self) -> Iterator[Nodes]:
        """The body, then each footnote."""
        yield self.blocks
        yield from self.notes


def text(value: str) -> Node:
    """A text."""
    return {"t": "text", "s": value}


def inline_lists(blocks: Nodes) -> Iterator[Nodes]:
    """Each list of inlines below *blocks* that stands in a block by itself."""
    for block in blocks:
        if block["t"] == "table":
            yield from block["head"]
            for row in block["rows"]:
                yield from row
        elif block["t"] == "figure":
            yield block["caption"]
        elif "c" in block:
            yield block["c"]
        for below in below_block(block):
            yield from inline_lists(below)


def below_block(block: Node) -> Iterator[Nodes]:
    """Each list of blocks that *block* holds."""
    if "b" in block:
        yield block["b"]
    for item in block.get("items", ()):
        yield item["b"]


def all_blocks(blocks: Nodes) -> Iterator[Node]:
    """Each block, at any depth."""
    for block in blocks:
        yield block
        for below in below_block(block):
            yield from all_blocks(below)


def all_inlines(inlines: Nodes) -> Iterator[Node]:
    """Each inline, at any depth."""
    for node in inlines:
        yield node
        yield from all_inlines(node.get("c", ()))


def change_texts(inlines: Nodes, change: Callable[[str], Nodes], *, links: bool = True) -> None:
    """Put *change*(text) in the place of each text below *inlines*; not in links if *links* is false."""
    made: Nodes = []
    for node in merged(inlines):
        if node["t"] == "text":
            made += change(node["s"])
            continue
        if "c" in node and (links or node["t"] != "link"):
            change_texts(node["c"], change, links=links)
        made.append(node)
    inlines[:] = made


def merged(inlines: Iterable[Node]) -> Nodes:
    """*inlines* with texts that stand side by side made one."""
    made: Nodes = []
    for node in inlines:
        if made and node["t"] == made[-1]["t"] == "text":
            made[-1] = text(made[-1]["s"] + node["s"])
        else:
            made.append(node)
    return made


def plain(inlines: Nodes) -> str:
    """The text of *inlines*, without formatting."""
    return "".join(map(_plain, inlines))


def _plain(node: Node) -> str:
    if "c" in node:
        return plain(node["c"])
    if node["t"] in ("cite", "note"):
        return f"[{node['n']}]" if node["t"] == "cite" else ""
    return str({"br": "\n", "image": node.get("alt", "")}.get(node["t"], node.get("s", "")))


def all_text(document: Document) -> Iterator[str]:
    """Every text that a writer draws."""
    yield document.title
    for blocks in document.parts():
        for block in all_blocks(blocks):
            yield block.get("text", "")
        for inlines in inline_lists(blocks):
            for node in all_inlines(inlines):
                yield node.get("s", "")
    for source in document.sources:
        yield source.title
        yield source.url
