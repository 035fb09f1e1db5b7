"""One HTML file: it loads nothing, has no script, and what was text stays text."""

import re

import pytest
from selectolax.lexbor import LexborHTMLParser

from isorun.tools import documents
from tests.unit.tools.documents.conftest import SOURCES


def made(content: str, **options: object) -> str:
    return documents.html(content, **options).data.decode()


def test_a_page_has_its_parts(image) -> None:
    """Title, headings, lists, a table with alignment, code, a picture inside, notes and sources."""
    content = "## a\n\n3. b\n\n|c|d|\n|--|--:|\n|1|2|\n\n```\ne<\n```\n\n![f](a.png 'g')\n\nh[^n] [[S:2]]\n\n[^n]: i\n"
    tree = LexborHTMLParser(made(content, title="T", sources=SOURCES, image=image))
    expected = {"title": "T", "header h1": "T", "h2": "a", "ol[start='3'] li": "b", "td.right": "2", "pre code": "e<"}
    expected |= {"figcaption": "g", "#note-1 p": "i", "#source-1 a": "Two", "a[href='#source-1']": "[1]"}
    assert {selector: tree.css_first(selector).text().strip() for selector in expected} == expected
    assert tree.css_first("img").attributes["src"].startswith("data:image/png;base64,")
    assert tree.css_first("img").attributes["alt"] == "f"


def test_a_page_lets_the_browser_load_nothing() -> None:
    """The policy stands before everything that could load, and allows our style alone, by its digest."""
    page = made("a")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert page.index("Content-Security-Policy") < page.index("<style>")


@pytest.mark.parametrize("form", ["markdown", "html", "text"])
@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<b onclick=alert(1)>x</b>",
        "[x](javascript:alert(1)) <a href='javascript:alert(1)'>y</a>",
        '[x](https://a.b/"onmouseover="alert(1))',
        "`</code><script>alert(1)</script>`",
        "</style></title><script>alert(1)</script>",
        "[[S:3]] [[S:4]]",
    ],
)
def test_no_script_comes_into_a_page(form, hostile) -> None:
    """From text, title, address, code and source; in each way of writing."""
    sources = (*SOURCES, {"sid": 4, "url": "https://x.y/'><script>", "title": "<script>alert(1)</script>"})
    tree = LexborHTMLParser(made(f"a {hostile} b", format=form, title=hostile, sources=sources))
    assert tree.css("script, iframe, form, object, link, base") == []
    for node in tree.css("*"):
        assert not [name for name in node.attributes if name.startswith("on") or name == "style"], node.html
        assert (node.attributes.get("href") or "https").startswith(("https", "#", "mailto")), node.html
