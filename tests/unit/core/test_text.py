"""A stranger's text is shown in one alphabet, and nobody has another."""

import re
import sys
import unicodedata
from pathlib import Path

import pytest

import isorun
from isorun.core.text import file_name, has_control, is_visible, one_line, one_word, printable, shown
from isorun.wire.values import brief

UNSEEN = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
# Printable by category, and without a shape: Unicode's Default_Ignorable_Code_Point beyond Cf and Cn.
SHAPELESS = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0" + "".join(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)
SHOWERS = {"printable": printable, "one_line": one_line, "one_word": one_word, "file_name": file_name}


@pytest.mark.slow
@pytest.mark.parametrize("show", SHOWERS.values(), ids=SHOWERS)
def test_no_character_that_nobody_sees_passes(show) -> None:
    """Every number of Unicode is tried: what is not seen comes out as an escape of its own, the rest as it is."""
    # Planes 2 to 13 are letters of one kind or unassigned; one of the four, which share their parts, goes through all.
    numbers = range(sys.maxunicode + 1) if show is printable else (*range(0x20000), *range(0xE0000, 0xE1000))
    chars = [chr(number) for number in numbers if chr(number) not in "\n\t\\"]
    kinds = [(c, unicodedata.category(c)) for c in chars]
    unseen = [c for c, category in kinds if category in UNSEEN or c in SHAPELESS]
    seen = "".join(c for c, category in kinds if category not in (*UNSEEN, "Zs") and c not in SHAPELESS)
    # All together, which is many times faster than one by one.
    told = show("".join(unseen))
    assert told.isascii()
    assert told.isprintable()
    assert show(seen) == seen
    # A byte of a file's name that is not UTF-8 is shown as that byte, as a control character is.
    assert told.count("\\") == len(unseen)
    escapes = [escape for escape in told.split("\\")[1:] if not escape.startswith("x")]
    assert len(set(escapes)) == len(escapes)


def test_newline_and_tab_are_kept_where_lines_are_wanted() -> None:
    """A program's output keeps its lines and columns; a line of ours cannot be broken."""
    assert printable("a\n\tb\r\x1b[0m") == "a\n\tb\\r\\x1b[0m"
    assert one_line("a\n\tb") == "a\\n\\tb"
    assert one_word("a b\xa0c\nd") == "a\\x20b\\xa0c\\nd"


@pytest.mark.parametrize(
    "text",
    [
        "Ärger, naïve, Ελλάδα, 日本語, हिन्दी, עברית, العربية",
        "1 234,56 €".replace(" ", "\xa0"),
        "東京\u3000タワー",
        "❤️ ☀️ 1️⃣ 🎉 ▶️ ©️",
        "█▓▒░ ┌─┐ ⠋⠙⠹",
        "e\u0301",
    ],
)
def test_ordinary_text_stays_as_it_is(text) -> None:
    """Letters of every script, blanks, symbols in colour, bars and frames are not escaped."""
    assert printable(text) == one_line(text) == text
    assert is_visible(text)


def test_the_price_is_paid_by_joined_emoji() -> None:
    """A joiner and a flag's tags are not seen, so they are written out; so is a selector that hides in a word."""
    assert printable("👩\u200d💻") == "👩\\u200d💻"
    assert printable("क\u200dष") == "क\\u200dष"
    assert printable("report\ufe0f.md") == "report\\ufe0f.md"
    assert printable("❤️\ufe0f\ufe0e") == "❤️\\ufe0f\\ufe0e"


def test_two_names_of_files_are_never_shown_alike() -> None:
    """Three names that look the same on a screen, a byte that is not UTF-8, and a name that imitates an escape."""
    names = [b"report.md", "rep\u200bort.md".encode(), "report\U000e0041.md".encode(), b"report\\u200b.md", b"r\xff.md"]
    assert [file_name(name) for name in names] == [
        "report.md",
        r"rep\u200bort.md",
        r"report\U000e0041.md",
        r"report\\u200b.md",
        r"r\xff.md",
    ]
    assert file_name("a\xa0b") == r"a\xa0b" != file_name("a b")


def test_a_long_text_is_cut() -> None:
    """At most so many characters come out, however long the escapes are."""
    assert one_line("x" * 600, 500) == "x" * 499 + "…"
    assert len(one_line("\U000e0041" * 500, 500)) == 500
    assert one_line("x" * 500, 500) == "x" * 500


def test_values_in_errors_are_short_and_visible() -> None:
    """Whatever was sent, an error's text stays one short line; of a peer's it is ASCII."""
    assert shown("a\u200b\u3164\n") == r"'a\u200b\u3164\n'"
    assert shown("x" * 100).endswith("… (100 characters)")
    assert shown([1]) == "a value of type list"
    assert brief("é\x1b") == r"'\xe9\x1b'"
    assert len(brief("é" * 1000)) <= 80
    assert brief({}) == "a dict"


def test_what_can_end_a_line_is_control() -> None:
    """Exactly the control characters and the two separators."""
    found = {chr(n) for n in range(sys.maxunicode + 1) if has_control(chr(n))}
    assert found == {chr(n) for n in range(sys.maxunicode + 1) if unicodedata.category(chr(n)) in ("Cc", "Zl", "Zp")}


#: Who may ask what can be printed, and why it is no second alphabet.
ALLOWED = {
    "isorun/core/text.py": "the alphabet",
    "isorun/runtime/inspection/verdict.py": "a hint names the function that a program should call",
    "isorun/runtime/inspection/inspector.py": "sent as one text, it judges the names in an archive and shows none",
    "isorun/tools/documents/typeset.py": "asks which characters a font must have",
    "isorun/tools/documents/office/planned.py": "asks how wide a character is",
    "isorun/tools/documents/bounds.py": "takes out of a document what XML cannot hold",
    "isorun/tools/web/extract.py": "takes out of a page what is no text",
    "isorun/runtime/hints/glyphs.py": "asks a character's script, of a number, and shows no character",
    "sandbox_runner/text.py": "the alphabet of a package that stands alone",
}


def test_nobody_has_an_alphabet_of_their_own() -> None:
    """No other module asks what is printable, escapes characters itself, or reads Unicode's tables."""
    own = re.compile(r"isprintable|unicode_escape|unicodedata|\\x9f|\\u202|\\u200b")
    places = [
        Path(isorun.__file__).parent,
        Path(isorun.__file__).parents[2] / "packages/sandbox_runner/src/sandbox_runner",
    ]
    found = {}
    for place in places:
        for file in place.rglob("*.py"):
            source = file.read_text()
            if own.search(source):
                found[file.relative_to(place.parent).as_posix()] = own.findall(source)
    assert set(found) == set(ALLOWED)
