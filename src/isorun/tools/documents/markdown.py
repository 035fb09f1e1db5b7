"""Markdown to the tree: CommonMark with tables, strikethrough, footnotes, task lists. `links` checks links later."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from isorun.tools.documents.bounds import MAX_DEPTH, Notices
from isorun.tools.documents.tree import Document, Node, Nodes, merged, plain, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_TASK = re.compile(r"\[([ xX])\][ \u00a0]")
_WRAPPING = {"strong_open": "strong", "em_open": "em", "s_open": "strike"}
_HTML_WRAPPING = {"<sub>": "sub", "<sup>": "sup", "<b>": "strong", "<strong>": "strong", "<i>": "em", "<em>": "em"}
_DEEP = "the text is nested deeper than {limit} levels: what lies deeper was left out; make the lists or quotes flatter"
_HTML = "HTML in Markdown is printed as text ({count} times: {examples}); give format='html' for a document in HTML"
_MERMAID = "a mermaid diagram is printed as its code: draw it with matplotlib, or give an SVG file, and show that"


def read_markdown(content: str, notices: Notices) -> Document:
    """Parse *content*."""
    tokens = _parser().parse(content)
    reader = _Reader(notices)
    return Document(reader.blocks(tokens), reader.notes)


def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.footnote import footnote_plugin

    parser = MarkdownIt("commonmark", {"maxNesting": 2 * MAX_DEPTH}).enable(["table", "strikethrough"])
    setattr(parser, "validateLink", lambda _url: True)  # noqa: B010 - a method; `links` checks them, with a notice
    return parser.use(footnote_plugin)


class _Reader:
    """Tokens are a flat list with an opening and a closing token for each block; open blocks are on a stack."""

    def __init__(self, notices: Notices) -> None:
        self.notes: list[Nodes] = []
        self._notices = notices

    def blocks(self, tokens: Sequence[Token]) -> Nodes:
        """The blocks of *tokens*; footnotes go to `notes`."""
        top: Nodes = []
        open_: list[Nodes] = [top]  # where the next block goes
        holders: list[Node] = []  # the node of each beginning, for its inlines
        for at, token in enumerate(tokens):
            self._look(token, tokens[at + 1 : at + 2])
            if token.nesting == 1:
                node, inside = self._begin(token, open_[-1], holders)
                holders.append(node)
                open_.append(inside)
            elif token.nesting == -1:
                holders.pop()
                open_.pop()
            elif token.type == "inline":
                holders[-1].setdefault("c", []).extend(self._inlines(token, holders, open_))
            else:
                self._leaf(token, open_[-1])
        return top

    def _look(self, token: Token, after: Sequence[Token]) -> None:
        if token.nesting == 1 and token.level >= 2 * MAX_DEPTH - 2 and after and after[0].nesting == -1:
            self._notices.say(_DEEP.format(limit=MAX_DEPTH))

    def _begin(self, token: Token, into: Nodes, holders: list[Node]) -> tuple[Node, Nodes]:
        kind = token.type.removesuffix("_open")
        if kind == "heading":
            node: Node = {"t": "heading", "level": int(token.tag[1]), "c": []}
        elif kind == "paragraph":
            node = {"t": "par", "c": []}
        elif kind in ("bullet_list", "ordered_list"):
            start = int(token.attrs.get("start", 1))
            node = {"t": "list", "ordered": kind == "ordered_list", "start": start, "items": []}
        elif kind == "blockquote":
            node = {"t": "quote", "b": []}
        elif kind == "table":
            node = {"t": "table", "align": [], "head": [], "rows": []}
        else:
            return self._within(kind, token, into, holders)
        into.append(node)
        return node, node.get("b", into)

    def _within(self, kind: str, token: Token, into: Nodes, holders: list[Node]) -> tuple[Node, Nodes]:
        """The parts of a list, a table and the block of footnotes."""
        if kind == "list_item":
            item: Node = {"b": [], "task": None}
            holders[-1]["items"].append(item)
            return item, item["b"]
        if kind == "footnote":
            blocks: Nodes = []
            self.notes.append(blocks)
            return {}, blocks
        table = next((holder for holder in reversed(holders) if holder.get("t") == "table"), {})
        if kind == "tr" and table["align"] and len(holders) > 1 and holders[-1].get("part") == "tbody":
            table["rows"].append([])
        if kind in ("th", "td"):
            cell: Node = {"c": []}
            style = str(token.attrs.get("style", ""))
            if kind == "th":
                table["align"].append(style.removeprefix("text-align:") or "left")
            (table["head"] if kind == "th" else table["rows"][-1]).append(cell["c"])
            return cell, into
        return {"part": kind}, into

    def _leaf(self, token: Token, into: Nodes) -> None:
        if token.type in ("fence", "code_block"):
            lang = (token.info.split() or [""])[0]
            if lang.lower() == "mermaid":
                self._notices.say(_MERMAID)
            into.append({"t": "listing", "text": token.content.rstrip("\n"), "lang": lang})
        elif token.type == "hr":
            into.append({"t": "rule"})
        elif token.type == "html_block" and not token.content.lstrip().startswith("<!--"):
            self._notices.count(_HTML, _shown(token.content))
            into.append({"t": "par", "c": [text(token.content.strip())]})

    def _inlines(self, token: Token, holders: list[Node], open_: list[Nodes]) -> Nodes:
        made = self._run(token.children or [])
        item = holders[-2] if len(holders) > 1 else {}
        if made and made[0]["t"] == "text" and "task" in item and len(item["b"]) == 1:
            mark = _TASK.match(made[0]["s"])
            if mark:
                item["task"] = mark[1] != " "
                made[0] = text(made[0]["s"][mark.end() :])
        return made

    def _run(self, tokens: Sequence[Token]) -> Nodes:
        """Inline tokens as inlines; open ones are on a stack, as blocks are."""
        stack: list[Nodes] = [[]]
        kinds: list[str] = []
        for token in tokens:
            kind = _WRAPPING.get(token.type) or _HTML_WRAPPING.get(token.content if token.type == "html_inline" else "")
            if kind or token.type == "link_open":
                node: Node = {"t": kind or "link", "c": []}
                if not kind:
                    node["href"] = str(token.attrs.get("href", ""))
                stack[-1].append(node)
                stack.append(node["c"])
                kinds.append(token.tag or token.content.strip("<>"))
            elif len(stack) > 1 and _ends(token, kinds[-1]):
                stack.pop()
                kinds.pop()
            elif token.nesting != -1:
                stack[-1].extend(self._inline(token))
        return merged(stack[0])

    def _inline(self, token: Token) -> Nodes:
        if token.type in ("softbreak", "text"):
            return [text(token.content if token.type == "text" else " ")]
        if token.type == "hardbreak":
            return [{"t": "br"}]
        if token.type == "code_inline":
            return [{"t": "code", "s": token.content}]
        if token.type == "image":
            src, title = (str(token.attrs.get(key, "")) for key in ("src", "title"))
            return [{"t": "image", "src": unquote(src), "title": title, "alt": plain(self._run(token.children or []))}]
        if token.type == "footnote_ref":
            return [{"t": "note", "n": int(token.meta["id"]) + 1}]
        if token.type == "html_inline":
            if re.fullmatch(r"<br\s*/?>", token.content, re.IGNORECASE):
                return [{"t": "br"}]
            if token.content.startswith("<!--"):
                return []
            self._notices.count(_HTML, _shown(token.content))
            return [text(token.content)]
        return [] if token.type == "footnote_anchor" else [text(token.content)]


def _ends(token: Token, tag: str) -> bool:
    return (token.nesting == -1 and token.tag == tag) or (token.type == "html_inline" and token.content == f"</{tag}>")


def _shown(markup: str) -> str:
    first = markup.strip().split("\n")[0]
    return first if len(first) <= 30 else f"{first[:29]}…"
