"""Texts out of hostile bytes: bounded, clean, and never an exception but `NoText`."""

from __future__ import annotations

import codecs
import io
import time

import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isorun.tools.web.charset import decoded
from isorun.tools.web.extract import (
    MAX_PARSED,
    NoText,
    Page,
    clean,
    has_text,
    media_type,
    page_of,
    sniffed,
    split_text,
)

MARK = "\N{EURO SIGN} ä 中文"


def page(data: bytes | str, mime: str = "text/html", charset: str | None = None, max_chars: int = 20_000) -> Page:
    """What is taken of *data*."""
    body = data.encode() if isinstance(data, str) else data
    return page_of(body, mime, charset, url="http://example.org/", form="markdown", max_chars=max_chars)


def test_markdown_keeps_what_a_reader_needs() -> None:
    """Title, date, headings, links and tables are there; scripts and styles are not."""
    words = "Words that make a paragraph which is long enough to count as one. " * 5
    found = page(
        "<html><head><title>A title</title><meta property='article:published_time' content='2024-05-06T07:08:09Z'>"
        f"<style>p {{}}</style></head><body><article><h2>Part</h2><p>{words}<a href='/x'>a link</a></p>"
        f"<p>{words}</p><table><tr><th>a</th></tr><tr><td>1</td></tr></table></article>"
        "<script>alert('script')</script></body></html>"
    )
    assert (found.title, found.published, found.cut) == ("A title", "2024-05-06", False)
    assert "## Part" in found.text
    assert "[a link](http://example.org/x)" in found.text
    assert "| a |" in found.text
    assert "script" not in found.text


#: Each ran for a minute or more when it was handed to the parser as it is.
HOSTILE = {
    "depth": "<div>" * 200_000,
    "attributes": "<div " + " ".join(f"a{i}=1" for i in range(200_000)) + ">x</div>",
    "links": "<html><body>" + "<a href=x>" * 200_000,
    "rows": "<html><body><table>" + "<tr><td>a<td>b" * 40_000,
    "many tags with many attributes": "<html><body>" + ("<div " + " ".join(f"a{i}=1" for i in range(2000)) + ">x") * 80,
    "open scripts": "<html><body>" + "<script>" * 100_000,
    "open comments": "<html><body>" + "<!--" * 100_000,
    "less than": "<" * 1_000_000,
    "one long tag": "<a" * 1 + "b" * 1_000_000,
    "an entity of many digits": "&#" + "9" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_page_takes_seconds_at_most(name) -> None:
    """The bounds before the parser hold what is known to keep it busy; a minute without them, half a second with."""
    started = time.process_time()
    page(HOSTILE[name])
    assert time.process_time() - started < 20


def test_a_page_of_very_many_tags_keeps_its_text() -> None:
    """It is taken without structure, and the row says so."""
    found = page("<html><title>Long &amp; flat</title><body>" + "<p>a &lt; b</p>" * 20_000)
    assert found.title == "Long & flat"
    assert found.text.startswith("Long & flat\na < b\na < b")
    assert found.detail == "the page has more than 30000 tags: its text is given without structure"


def test_a_very_long_page_is_cut_before_it_is_parsed() -> None:
    """2 MiB are looked at; the row says that there was more."""
    found = page("<html><body><p>begin</p>" + " " * MAX_PARSED + "<p>end</p>")
    assert ("begin" in found.text, "end" in found.text, found.cut) == (True, False, True)
    assert found.detail == f"only the first {MAX_PARSED} bytes of the page were read"


def test_a_page_without_an_article_still_has_its_words() -> None:
    """Where the extraction finds nothing, the text between the tags is given."""
    assert page("<html><body><b>short</b></body></html>").text == "**short**"
    assert page("<html></html>") == Page(detail="no text was found")
    assert page("") == Page(detail="no text was found")


def test_split_text_leaves_scripts_out() -> None:
    """What is not shown to a reader of the page is not text."""
    text = split_text("a<script>b<p>c</script >d<style>e</style><p>f<br>g<svg><text>h</text></svg>")
    assert text == "ad\nf\ng"


@given(st.binary(max_size=2000), st.sampled_from(["text/html", "text/plain", "application/pdf", ""]))
def test_any_bytes_are_a_page_or_no_text(data, mime) -> None:
    """Nothing else is raised, and the text can be sent as UTF-8."""
    try:
        found = page(data, sniffed(data, mime), max_chars=50)
    except NoText:
        return
    assert len(found.text.encode()) <= 200
    assert clean(found.text) == found.text


@given(st.text())
def test_clean_text_can_be_written_anywhere(text) -> None:
    """No control character but tab and newline, no lone surrogate; cleaning twice changes nothing."""
    cleaned = clean(text)
    cleaned.encode()
    assert clean(cleaned) == cleaned
    assert not any(c < " " and c not in "\t\n\r" for c in cleaned)


def _pdf(*pages: str, password: str = "") -> bytes:
    """A PDF with a line on each page."""
    writer = pypdf.PdfWriter()
    for text in pages:
        sheet = writer.add_blank_page(300, 300)
        content = pypdf.generic.DecodedStreamObject()
        content.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
        font = pypdf.generic.DictionaryObject(
            {
                pypdf.generic.NameObject(key): pypdf.generic.NameObject(value)
                for key, value in {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}.items()
            }
        )
        fonts = pypdf.generic.DictionaryObject({pypdf.generic.NameObject("/F1"): font})
        sheet[pypdf.generic.NameObject("/Resources")] = pypdf.generic.DictionaryObject(
            {pypdf.generic.NameObject("/Font"): fonts}
        )
        sheet[pypdf.generic.NameObject("/Contents")] = writer._add_object(content)
    writer.add_metadata({"/Title": "Of pages", "/CreationDate": "D:20240506070809Z"})
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_a_pdf_gives_its_text() -> None:
    """Text, title and date; a type that lies about it is not believed."""
    data = _pdf("first page", "second page")
    found = page(data, sniffed(data, "text/html"))
    assert (found.text, found.title, found.published) == ("first page\n\nsecond page", "Of pages", "2024-05-06")


def test_a_long_pdf_is_read_as_far_as_is_wanted() -> None:
    """The pages behind the bound are not looked at."""
    found = page(_pdf(*["a page"] * 50), "application/pdf", max_chars=20)
    assert (found.cut, found.detail) == (True, "4 of 50 pages were read")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"%PDF-1.7\nnot a pdf", "the PDF cannot be read"),
        (_pdf("secret", password="x"), "the PDF is encrypted"),
    ],
)
def test_a_pdf_that_cannot_be_read_says_why(data, said) -> None:
    """`NoText`, and nothing of the parser's own."""
    with pytest.raises(NoText, match=said):
        page(data, "application/pdf")


@pytest.mark.parametrize(
    ("data", "said", "text"),
    [
        (MARK.encode(), None, MARK),
        (MARK.encode(), "utf-8", MARK),
        (codecs.BOM_UTF8 + MARK.encode(), "iso-8859-1", MARK),
        (codecs.BOM_UTF16_LE + MARK.encode("utf-16-le"), "utf-8", MARK),
        (MARK.encode("utf-16-le"), "utf-16-le", MARK),
        (MARK.encode(), "utf-16", MARK),
        ("\N{EURO SIGN}uro".encode("cp1252"), "iso-8859-1", "\N{EURO SIGN}uro"),
        ("Grüße".encode("cp1252"), None, "Grüße"),
        ("中文".encode("gb18030"), "GB18030", "中文"),
        ("こんにちは".encode("shift_jis"), "Shift_JIS", "こんにちは"),
        ("Привет".encode("koi8-r"), "'koi8-r'", "Привет"),
        (b"+ADw-script+AD4-", "utf-7", "+ADw-script+AD4-"),
        (b"\\u0041", "unicode_escape", "\\u0041"),
        (b"abc", "rot13", "abc"),
        (b"abc", "zlib", "abc"),
        (b"abc", "hex", "abc"),
        (b"abc", "no such encoding", "abc"),
        (b"abc", "x" * 10_000, "abc"),
        (b"abc", "a\0b", "abc"),
        (b"caf\xe9", "utf-8", "caf\N{REPLACEMENT CHARACTER}"),
        ("ä".encode() * 50 + b"\xe4", None, "ä" * 50 + "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_a_charset_that_lies_is_not_believed(data, said, text) -> None:
    """A mark in the bytes counts first; a codec that is no encoding of the web is never run."""
    assert decoded(data, said) == text


def test_a_page_may_name_its_own_charset() -> None:
    """If the header does not; the header counts more."""
    data = '<meta charset="windows-1251"><p>Привет'.encode("cp1251")
    assert "Привет" in decoded(data, None, is_html=True)
    assert "Привет" not in decoded(data, "koi8-r", is_html=True)


@given(st.binary(max_size=200), st.text(max_size=20) | st.none(), st.booleans())
def test_decoding_raises_nothing(data, said, is_html) -> None:
    """Whatever the header says."""
    assert isinstance(decoded(data, said, is_html=is_html), str)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", ("", None)),
        ("text/html", ("text/html", None)),
        ("Text/HTML ; Charset=UTF-8", ("text/html", "UTF-8")),
        ("text/html;;charset", ("text/html", "")),
        ("text/plain; a=b; charset=x; charset=y", ("text/plain", "x")),
    ],
)
def test_a_content_type_is_split(header, found) -> None:
    """Type in lower case, charset as it is."""
    assert media_type(header) == found


def test_types_with_text_are_known() -> None:
    """A picture made of text is none of them: what it shows is not its text."""
    assert [has_text(mime) for mime in ("text/x-unknown", "application/geo+json", "image/svg+xml", "image/png")] == [
        True,
        True,
        False,
        False,
    ]
