"""From text to the tree: what is read, what is a notice, what is refused."""

import time

import pytest

from isorun.tools.documents.bounds import MAX_CONTENT, Refused
from isorun.tools.documents.reading import Read, read
from isorun.tools.documents.tree import plain
from tests.unit.tools.documents.conftest import SOURCES, SVG, drawn


def of(content: str, form: str = "markdown", title: str = "", image=None, sources=SOURCES) -> Read:
    return read(content, form=form, title=title, sources=sources, image=image)


def kinds(document: Read) -> list[str]:
    return [block["t"] for block in document.document.blocks]


def test_markdown_has_its_blocks() -> None:
    """Each kind of block that the page of the documentation names is one in the tree."""
    found = of("# h\n\np\n\n- a\n\n1. b\n\n> q\n\n```py\nc\n```\n\n---\n\n|a|b|\n|:-:|--:|\n|1|2|\n")
    assert kinds(found) == ["heading", "par", "list", "list", "quote", "listing", "rule", "table"]
    assert found.document.blocks[-1]["align"] == ["center", "right"]
    assert found.document.blocks[5] == {"t": "listing", "text": "c", "lang": "py"}
    assert found.notices.texts() == []


def test_a_list_keeps_its_start_its_depth_and_its_tasks() -> None:
    """`3.` counts from three, a list in an item is that item's, `[x]` is a task that is done."""
    (block,) = of("3. a\n   - [x] b\n   - [ ] c\n").document.blocks
    assert (block["ordered"], block["start"]) == (True, 3)
    inner = block["items"][0]["b"][1]
    assert [item["task"] for item in inner["items"]] == [True, False]
    assert [plain(item["b"][0]["c"]) for item in inner["items"]] == ["b", "c"]


def test_inlines_have_their_form() -> None:
    """Strong, em, strike, code, a line end, sub and sup."""
    (block,) = of("**a** *b* ~~c~~ `d`<br>H<sub>2</sub>O m<sup>2</sup>").document.blocks
    assert [node["t"] for node in block["c"] if node["t"] != "text"] == [
        "strong",
        "em",
        "strike",
        "code",
        "br",
        "sub",
        "sup",
    ]


def test_a_footnote_is_kept_with_its_blocks() -> None:
    """The text refers to it by number."""
    found = of("a[^x]\n\n[^x]: b\n\n    c\n")
    assert {"t": "note", "n": 1} in found.document.blocks[0]["c"]
    assert [plain(block["c"]) for block in found.document.notes[0]] == ["b", "c"]


def test_html_becomes_the_same_tree() -> None:
    """What Markdown can say, HTML says with other marks."""
    marked = of("# h *i*\n\na **b** [l](https://x.y)\n\n- c\n\n```python\nd\n```\n\n|e|\n|--:|\n|f|\n")
    page = of(
        "<h1>h <i>i</i></h1><p>a <b>b</b> <a href='https://x.y'>l</a></p><ul><li>c</ul>"
        "<pre><code class='language-python'>d</code></pre>"
        "<table><tr><th>e</th></tr><tr><td style='text-align: right'>f</td></tr></table>",
        "html",
    )
    assert page.document.blocks == marked.document.blocks


def test_what_has_no_place_in_a_document_is_a_notice() -> None:
    """Scripts, styles and forms are gone, counted and named; so are the cells that were merged."""
    found = of(
        "<style>p{}</style><p style='color:red'>a</p><script>b</script><form><input></form>"
        "<table><tr><td colspan=2>c</table>",
        "html",
    )
    assert [plain(block["c"]) for block in found.document.blocks if "c" in block] == ["a"]
    assert found.notices.texts() == [
        "the styles of elements were left out: only the alignment of table cells is kept",
        "what has no place in a document was left out (4 times: style, script, form, input)",
        "1 merged cells are written as a cell and empty ones: 'c'",
    ]


def test_plain_text_keeps_its_lines() -> None:
    """An empty line parts paragraphs, and nothing in them is a mark."""
    found = of("# a\n  *b*\n\nc", "text")
    assert [plain(block["c"]) for block in found.document.blocks] == ["# a\n  *b*", "c"]


def test_the_title_is_not_said_twice() -> None:
    """A first heading with the words of the title is left out; another stays."""
    assert kinds(of("# A  b\n\nc", title="A b")) == ["par"]
    assert kinds(of("# A\n\nc", title="B")) == ["heading", "par"]
    assert of("<title>A &amp; b</title><p>c", "html").document.title == "A & b"


def test_a_title_with_an_entity_of_no_character_is_read() -> None:
    """Its number has more digits than Python turns into one."""
    assert of(f"<title>A &#{'9' * 5000}; b</title><p>c", "html").document.title == "A \ufffd b"


def test_control_characters_and_half_characters_are_left_out() -> None:
    """Also those that an entity brings; the notice counts them."""
    found = of("a\x07b\ud800c&#12;d", title="e\x00")
    assert plain(found.document.blocks[0]["c"]) == "abcd"
    assert found.document.title == "e"
    (notice,) = found.notices.texts()
    assert notice.startswith("4 control characters or half characters were left out: U+0007, U+D800")


def test_html_in_markdown_is_text_with_a_notice() -> None:
    """Nothing of it is lost."""
    found = of("a <u>b</u>")
    assert plain(found.document.blocks[0]["c"]) == "a <u>b</u>"
    assert found.notices.texts()[0].startswith("HTML in Markdown is printed as text (2 times: <u>, </u>)")


def test_mermaid_is_its_code_with_a_notice() -> None:
    """The notice says what to do."""
    assert of("```mermaid\ngraph\n```").notices.texts() == [
        "a mermaid diagram is printed as its code: draw it with matplotlib, or give an SVG file, and show that"
    ]


def test_what_is_nested_too_deep_is_a_notice() -> None:
    """Nineteen lists are whole, twenty-five are cut, and the text says it."""

    def nested(depth: int) -> str:
        return "".join(f"{'  ' * at}- a{at}\n" for at in range(depth))

    assert of(nested(19)).notices.texts() == []
    (notice,) = of(nested(25)).notices.texts()
    assert notice.startswith("the text is nested deeper than 20 levels")


def test_a_link_leads_to_the_web_or_to_mail_only() -> None:
    """Others are their text, and the notice names them; a bare address becomes a link, without its full stop."""
    found = of("[a](javascript://x.y/%0aalert(1)) [b](ftp://x.y/z) [c](mailto:x@y.z) https://x.y/(z). `https://code`")
    links = [node["href"] for node in found.document.blocks[0]["c"] if node["t"] == "link"]
    assert links == ["mailto:x@y.z", "https://x.y/(z)"]
    assert plain(found.document.blocks[0]["c"]).startswith("a b c https://x.y/(z). ")
    (notice,) = found.notices.texts()
    assert notice.startswith("2 links are printed as text")
    assert "javascript://x.y/" in notice


def test_citations_are_numbered_by_their_first() -> None:
    """Only what is cited is a source; two in one place stand in order; in code they stay."""
    found = of("a [[S:2]] b [[S:1, 2]] `[[S:1]]`\n\n```\n[[S:1]]\n```")
    cites = [(node["n"], node["href"]) for node in found.document.blocks[0]["c"] if node["t"] == "cite"]
    two, one = "https://example.org/two", "https://example.org/one"
    assert cites == [(1, two), (1, two), (2, one)]
    assert [(source.number, source.title) for source in found.document.sources] == [(1, "Two"), (2, "One")]
    assert {"t": "code", "s": "[[S:1]]"} in found.document.blocks[0]["c"]
    assert found.document.blocks[1]["text"] == "[[S:1]]"


def test_a_source_that_is_not_there_stays_text() -> None:
    """The notice names it; a source without an address of the web has no link."""
    found = of("[[S:9]] [[S:1,8]] [[S:3]]")
    assert plain(found.document.blocks[0]["c"]) == "[[S:9]] [[S:1,8]] [1]"
    assert found.document.sources[0].href == ""
    (notice,) = found.notices.texts()
    assert notice == "2 citations name a source that is not in the sources pool and stay as text: S:9, S:8"


def test_hostile_sources_are_no_sources() -> None:
    """An id that is no number, and values of other types, break nothing."""
    hostile = ({"sid": "1"}, {"sid": True, "url": "x"}, {"sid": 2, "url": ["x"], "title": {"a": 1}}, {})
    found = of("[[S:1]] [[S:2]]", sources=hostile)
    assert [(source.title, source.href) for source in found.document.sources] == [("{'a': 1}", "")]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("https://x.y/a.png", "is not in out/: a document shows files of out/ only"),
        ("//x.y/a.png", "is not in out/"),
        ("file:///etc/passwd", "is not in out/"),
        ("data:image/png;base64,AAAA", "is given as a data: address: write it to a file in out/"),
        ("../../etc/passwd", "is not below out/: name it by its path there"),
        ("/etc/passwd", "is not below out/"),
    ],
)
@pytest.mark.parametrize("form", ["markdown", "html"])
def test_a_picture_from_elsewhere_is_refused(form, path, said) -> None:
    """The reader is not even asked."""

    def never(path: str) -> bytes:
        raise AssertionError(path)

    with pytest.raises(Refused, match=said):
        of(f"![x]({path})" if form == "markdown" else f"<p>x <img src='{path}' alt=x></p>", form, image=never)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"text", "is not PNG, JPEG, GIF, WebP or SVG"),
        (drawn("PNG")[:60], "is damaged"),
        (drawn("PNG", (8000, 5001), "1"), "has 8000 × 5001 pixels, more than 40,000,000"),
        # Pillow refuses it by itself, unless somebody in this process has told it not to.
        (drawn("PNG", (15000, 15000), "1"), "(has more pixels than|15000 pixels, more than) 40,000,000"),
        (b"<!DOCTYPE s [<!ENTITY a 'b'>]>" + SVG, "defines entities"),
        (SVG.decode().encode("utf-16"), "is not PNG"),
        (SVG + b" " * (2 << 20), "is an SVG of"),
        (b"x" * ((20 << 20) + 1), "more than 20,971,520"),
    ],
)
def test_a_picture_is_judged_before_it_is_decoded(data, said) -> None:
    """Too large, damaged or of another kind: the text names it and says what to do. 225 Mpx cost no memory."""
    with pytest.raises(Refused, match=said):
        of("![x](a.bin)", image=lambda _path: data)


def test_a_picture_is_read_once_and_shown_at_its_size() -> None:
    """96 pixels are an inch; one that stands alone is a figure with its title as caption."""
    asked = []

    def image(path: str) -> bytes:
        asked.append(path)
        return drawn("PNG", (96, 48))

    found = of('![a](my%20b.png "c")\n\nx ![a](<my b.png>)\n', image=image)
    assert asked == ["my b.png"]
    assert kinds(found) == ["figure", "par"]
    assert found.document.blocks[0]["caption"] == [{"t": "text", "s": "c"}]
    picture = found.pictures["p1.png"]
    assert (picture.width, picture.height) == (72, 36)
    assert picture.within(36, 100) == (36, 18)


@pytest.mark.parametrize(
    "page",
    [
        "<div>" * 200_000,
        "<div " + " ".join(f"a{at}=1" for at in range(100_000)) + ">x</div>",
        "<div " + " ".join(f"a{at}" for at in range(100_000)) + ">x</div>",
    ],
)
def test_html_that_would_hold_the_parsers_is_refused_at_once(page) -> None:
    """Each of these kept nh3 or selectolax busy for more than a minute."""
    began = time.process_time()
    with pytest.raises(Refused, match=r"nested deeper than 100|more than 200 attributes"):
        of(page[: MAX_CONTENT - 10], "html")
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("content", "form", "said"),
    [
        ("x" * (MAX_CONTENT + 1), "markdown", "content has 1,048,577 bytes, more than 1,048,576: shorten it"),
        ("é" * (MAX_CONTENT // 2 + 1), "text", "content has 1,048,578 bytes"),
        (b"x", "markdown", "content is of type bytes; give a text"),
        ("x", "rtf", "format is 'rtf'; give one of markdown, text, html"),
    ],
)
def test_content_that_cannot_be_taken_is_refused(content, form, said) -> None:
    """The text says what was given and what to give."""
    with pytest.raises(Refused, match=said):
        of(content, form)
