"""What an engine or an image says cannot steer a terminal, or hide in it."""

import sys
import unicodedata

from sandbox_runner.text import plain, plain_end, plain_line

UNSEEN = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
SHAPELESS = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0" + "".join(
    map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)


def test_no_character_that_nobody_sees_passes() -> None:
    """Every number of Unicode is tried: what is not seen becomes a blank, the rest stays."""
    chars = [chr(number) for number in range(sys.maxunicode + 1)]
    chars = [c for c in chars if unicodedata.category(c) != "Zs" and c not in "\n\t"]
    told = plain("".join(chars))
    wanted = (" " if unicodedata.category(c) in UNSEEN or c in SHAPELESS else c for c in chars)
    assert [ascii(c) for c, was, want in zip(chars, told, wanted, strict=True) if was != want] == []


def test_a_cell_of_a_table_is_one_line() -> None:
    """A newline in an engine's answer makes no row of its own."""
    assert plain_line("a\nb\tc\x1b") == "a b c "


def test_the_end_of_a_build_has_no_colours() -> None:
    """The last lines that say something, without what moves a cursor."""
    assert plain_end("\x1b[31mone\x1b[0m\n\n two\u200b\n\x9bthree\n", 2, 100) == " two \n three"
    assert plain_end("x" * 50, 5, 10) == "x" * 10
