"""Where a document's links may lead, and how `[[S:2]]` becomes a numbered link to a source. Code stays as it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from isorun.tools.documents.bounds import Notices, cleaned
from isorun.tools.documents.tree import Document, Node, Nodes, Source, all_inlines, change_texts, inline_lists, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SCHEMES = ("http", "https", "mailto")
MAX_URL = 2000  # characters: Word and Excel keep about as many
_CITED = re.compile(r"\[\[S:\s*(\d{1,9}(?:\s*,\s*\d{1,9})*)\s*\]\]")
_BARE = re.compile(r"https?://[^\s<>\"'`{}|\\^\[\]]+")
_NO_LINK = "{count} links are printed as text, as a document links to http, https and mailto only: {examples}"
_NO_SOURCE = "{count} citations name a source that is not in the sources pool and stay as text: {examples}"


def resolve_links(document: Document, notices: Notices) -> None:
    """Keep the links that may lead out, print the others as text, and make links of bare addresses."""
    for blocks in document.parts():
        for inlines in inline_lists(blocks):
            change_texts(inlines, _linked, links=False)
            for node in list(all_inlines(inlines)):
                if node["t"] == "link" and not may_lead(node["href"]):
                    notices.count(_NO_LINK, repr(node["href"][:60]))
                    node["t"] = "span"
            inlines[:] = _flat(inlines)


def may_lead(url: str) -> bool:
    """Whether a link of a document may lead to *url*."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    named = bool(parts.netloc if parts.scheme != "mailto" else parts.path)
    return parts.scheme in SCHEMES and named and len(url) <= MAX_URL and not re.search(r"\s", url)


def resolve_citations(document: Document, sources: Iterable[Mapping[str, object]], notices: Notices) -> None:
    """Number the cited sources by their first citation, and put a `cite` for each number."""
    known = {source["sid"]: source for source in sources if type(source.get("sid")) is int}
    numbers: dict[int, Source] = {}

    def cited(said: str) -> Nodes:
        made: Nodes = []
        end = 0
        for found in _CITED.finditer(said):
            sids = [int(each) for each in found[1].split(",")]
            unknown = [sid for sid in sids if sid not in known]
            for sid in unknown:
                notices.count(_NO_SOURCE, f"S:{sid}")
            if unknown:
                continue
            made.append(text(said[end : found.start()]))
            end = found.end()
            for sid in sids:
                if sid not in numbers:
                    numbers[sid] = _source(known[sid], len(numbers) + 1, notices)
            shown = sorted((numbers[sid] for sid in set(sids)), key=lambda source: source.number)
            made += [{"t": "cite", "n": source.number, "href": source.href} for source in shown]
        return [node for node in [*made, text(said[end:])] if node != text("")]

    for blocks in document.parts():
        for inlines in inline_lists(blocks):
            change_texts(inlines, cited, links=False)
    document.sources = list(numbers.values())


def _source(given: Mapping[str, object], number: int, notices: Notices) -> Source:
    url, title = (" ".join(cleaned(str(given.get(key) or ""), notices).split())[:MAX_URL] for key in ("url", "title"))
    return Source(number, title or url or f"Source {given['sid']}", url, url if may_lead(url) else "")


def _linked(said: str) -> Nodes:
    """*said* with a link for each bare address in it."""
    made: Nodes = []
    end = 0
    for found in _BARE.finditer(said):
        url = found[0].rstrip(".,;:!?*_~")
        while url.endswith(")") and url.count(")") > url.count("("):
            url = url[:-1].rstrip(".,;:!?")
        if not may_lead(url):
            continue
        made += [text(said[end : found.start()]), {"t": "link", "href": url, "c": [text(url)]}]
        end = found.start() + len(url)
    return [node for node in [*made, text(said[end:])] if node != text("")]


def _flat(inlines: Nodes) -> Nodes:
    """*inlines* without spans: their contents stand in their place."""
    made: Nodes = []
    for node in inlines:
        kept: list[Node] = [node]
        if "c" in node:
            node["c"] = _flat(node["c"])
            kept = node["c"] if node["t"] == "span" else kept
        made += kept
    return made
