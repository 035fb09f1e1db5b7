"""A run card: everything that a program wrote or named is text on it, and every ending has its word and its hint."""

from html.parser import HTMLParser
from typing import Any

import pytest

from isorun.core.outcome import Status
from isorun.service.page import render, words
from isorun.service.page.card import card

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=y>',
    "' onclick='x",
    "a\x1b[31mred\x00",
    "\u202eevil",
    "</pre></article></html>",
    "{{ 7 * 7 }}{% raw %}",
]
RUN = "20261130-211945-982980-e876672c3c3b"
#: What a card has of its own, at most: nothing a program wrote adds an element or an attribute to it.
ELEMENTS = {
    *("article", "header", "h2", "h3", "h4", "a", "span", "button", "div", "p", "details", "summary", "small", "pre"),
    *("code", "section", "ol", "ul", "li", "b", "img", "svg", "path", "strong", "footer", "time", "table", "tbody"),
    *("tr", "th", "td", "noscript"),
}


class Read(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def view(status: str = "ok", text: str = "x", **result: object) -> dict[str, Any]:
    """A RunView in which *text* stands wherever a program or a caller can put one."""
    item = {"path": f"out/{text}", "state": "missing", "codes": [text], "hints": [text], "description": text}
    file = {"path": f"turn_1/files/{text}", "bytes": 12, "mime": "text/plain", "sha256": "0", "promised": True}
    whole = {
        "error": None if status == "ok" else {"code": "program_error", "message": text, "where": text, "hint": text},
        "stdout": text,
        "stderr": text,
        "value": text,
        "items": [item],
        "notices": [text],
        "user_error_lines": [text],
        "usage": {"wall_s": 1.5, "cpu_s": 0.25, "max_rss_bytes": 3_000_000},
        "isolation": {"level": "full", "backend": text, "limits": text, "walls": {text: {text: text}, "uid": 1001}},
        "workspace_diff": None,
    }
    call = {"tool_id": text, "reason": text, "status": text, "ms": 2.5, "params": {text: text}, "result": text}
    ended = None if words.is_open(status) else {**whole, **result}
    return {
        "id": RUN,
        "status": status,
        "created": "2026-11-30T21:19:45.985Z",
        "scenario": None,
        "prog_name": text,
        "code": text,
        "contract": [{"filename": text, "description": text}],
        "inputs": [{"name": text}],
        "calls": [call],
        "files": [file],
        "cost": None,
        "result": ended,
    }


def html(seen: dict[str, Any], **about: Any) -> str:  # noqa: ANN401 - keywords of `card`
    """The card's HTML."""
    return render.html("one_card.html", {"card": card(seen, **about)})


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("status", ["running", "failed"])
def test_what_a_program_wrote_is_text(status, text) -> None:
    """Code, output, names, hints, parameters, walls: no element, attribute or address comes from them."""
    plain, read = Read(html(view(status), banners=("x",))), Read(html(view(status, text), banners=(text,)))
    assert set(read.elements) <= ELEMENTS
    assert read.elements == plain.elements
    assert [name for name, _ in read.attributes] == [name for name, _ in plain.attributes]
    assert not [name for name, _ in read.attributes if name.startswith("on") or name in ("style", "srcdoc")]
    for name, value in read.attributes:
        if name in ("href", "src"):
            assert value.startswith((f"/v1/runs/{RUN}/", f"/runs/{RUN}", "data:image/png;base64,"))
    assert not set(read.text) & set("\x1b\x00\u202e")


def test_what_cannot_be_seen_is_an_escape() -> None:
    """ESC, NUL and a mark of direction are shown; the program's card says how many there are."""
    read = Read(html(view("ok", "a\x1b[31mred\x00\u202e")))
    assert r"a\x1b[31mred\x00\u202e" in read.text
    assert "3 hidden characters shown as escapes" in read.text


def test_a_program_is_shown_byte_for_byte() -> None:
    """Its first empty line, its tabs and its last newline are there; a browser drops none of them."""
    code = "\n\tprint('a')\n\n# b\n"
    text = html(view("ok") | {"code": code})
    assert f"<code>{code.replace(chr(39), '&#39;')}</code>" in text
    assert "4 lines" in text


@pytest.mark.parametrize("status", [*words.OPEN, *Status])
def test_every_status_has_a_word_a_tone_and_a_place_for_its_hint(status) -> None:
    """The word is the library's own, twice: beside the title, and before the reason."""
    text = html(view(status, error={"code": "c", "message": "", "hint": "do this"}, items=[]))
    read = Read(text)
    assert text.count(f">{status}</span>") == 1
    assert f"<strong>{status}</strong>" in text
    assert words.sentence(status) in read.text
    assert words.tone(status) in ("good", "bad", "warn", "live", "quiet")
    assert ("Hint: do this" in read.text) is not words.is_open(status)


def test_the_table_of_endings_is_total() -> None:
    """No ending of the library is without its tone and its sentence here."""
    assert set(words.ENDINGS) == set(Status)


def test_a_run_that_kept_its_promises_says_so() -> None:
    """Their number, where a contract was judged; a comparison of files is no promise."""
    kept = [{"path": "a", "state": "ok"}, {"path": "b", "state": "ok"}]
    assert card(view("ok", items=kept)).sentence == "It ended well and kept its 2 promises."
    assert card(view("ok", items=kept, workspace_diff={})).sentence == "It ended well."


def test_a_run_that_waits_shows_what_it_promised() -> None:
    """Before there is a result, each promise stands in the list, not kept and not broken."""
    made = card(view("running", "a.txt"))
    assert [(check.name, check.state) for check in made.checks] == [("a.txt", "promised")]


def test_a_long_output_is_cut_and_says_where_the_rest_is() -> None:
    """The end is shown, the address of the whole log beside it."""
    read = Read(html(view("ok", stdout="a" * 100_000 + "the end")))
    assert "The first 34,471 characters are not shown" in read.text
    assert ("href", f"/v1/runs/{RUN}/logs/user") in read.attributes
    assert "the end" in read.text


def test_a_lost_run_shows_what_its_events_say() -> None:
    """There is no result that knows what was printed."""
    assert "kept line" in Read(html(view("lost", stdout=""), printed="kept line\n")).text


def test_a_picture_of_the_last_value_is_shown_only_as_base64() -> None:
    """What is no base64 could leave the attribute, so it is left out."""
    assert 'src="data:image/png;base64,iVBORw0KGgo="' in html(view("ok", rich={"image/png": "iVBORw0KGgo="}))
    assert "data:image" not in html(view("ok", rich={"image/png": 'x" onerror="y'}))


@pytest.mark.parametrize(
    ("about", "title"),
    [
        ({"scenario": 3}, "3. Raise"),
        ({"scenario": 99}, "Scenario 99"),
        ({"prog_name": "mine"}, "mine"),
        ({"code": '"""Says hello."""\nprint(1)'}, "Says hello."),
        ({"code": "# adds numbers\nprint(1)"}, "adds numbers"),
        ({"code": "\n\nprint(1)\nprint(2)"}, "print(1)"),
        ({"code": "  \n"}, "A program"),
    ],
)
def test_a_run_has_a_title(about, title) -> None:
    """Of its scenario, else its name, else the first words of its program."""
    assert card({"id": RUN, "status": "ok", **about}, titles={3: "Raise"}).title == title


def test_an_error_of_the_log_is_a_banner_once() -> None:
    """Told by the service or found in the result: a card has it one time."""
    assert card(view("ok", user_error_lines=["ERROR boom"])).banners == (
        "Program error detected in user.log: ERROR boom",
    )
    assert card(view("ok"), banners=("told", "told")).banners == ("told",)
    assert card(view("ok", user_error_lines=[])).banners == ()


@pytest.mark.parametrize(
    ("mime", "kind"),
    [
        ("image/png", "picture"),
        ("image/svg+xml", "frame"),
        ("text/html", "frame"),
        ("application/pdf", "pdf"),
        ("text/csv", "csv"),
        ("text/markdown", "markdown"),
        ("application/json", "json"),
        ("text/x-python", "text"),
        ("application/zip", "none"),
    ],
)
def test_a_file_is_looked_into_by_its_kind(mime, kind) -> None:
    """What a browser would run is put into a frame; what it cannot show is only downloaded."""
    file = {"path": "a", "bytes": 1, "mime": mime, "promised": False}
    assert card(view() | {"files": [file]}).files[0].kind == kind


def test_an_address_of_a_file_cannot_leave_its_run() -> None:
    """A name with a question mark, a hash, a percent sign or a space stays a name."""
    file = {"path": "a b/#?%2e.txt", "bytes": 1, "mime": "text/plain", "promised": False}
    assert card(view() | {"files": [file]}).files[0].url == f"/v1/runs/{RUN}/files/a%20b/%23%3F%252e.txt"


@pytest.mark.parametrize(("count", "text"), [(None, ""), (0, "0 B"), (999, "999 B"), (1500, "1.5 KB"), (3e9, "3.0 GB")])
def test_a_size_is_short(count, text) -> None:
    """In steps of 1,000 bytes."""
    assert words.size(count) == text


@pytest.mark.parametrize(("duration", "text"), [(None, ""), (0.0184, "18 ms"), (3, "3.00 s"), (125.4, "2 min 5 s")])
def test_a_duration_is_short(duration, text) -> None:
    """In the unit that it is read in."""
    assert words.seconds(duration) == text


def test_a_time_that_is_none_is_left_out() -> None:
    """As a lost run may have it."""
    assert words.moment(None) == words.moment("yesterday") == ""
    assert words.moment("2026-11-30T21:19:45.985Z") == "30 Nov 2026, 21:19:45 UTC"
