"""Characters that a figure's font has not: which they are, and what helps."""

import pytest

from isorun.runtime.hints.glyphs import missing_glyphs

WARNING = "/workspace/work/user_code.py:2: UserWarning: Glyph {} (\\N{{X}}) missing from font(s) DejaVu Sans.\n"


@pytest.mark.parametrize(
    ("text", "kinds", "packages"),
    [
        ("北京", "Chinese, Japanese or Korean", "fonts-noto-cjk, or the small fonts-wqy-microhei"),
        ("한カ", "Chinese, Japanese or Korean", "fonts-noto-cjk, or the small fonts-wqy-microhei"),
        ("🚀", "emoji", "fonts-symbola"),
        ("ไ", "Thai", "fonts-noto-core"),
        ("ไह", "Devanagari and Thai", "fonts-noto-core"),
        ("\ue000", "others", "fonts-noto-core"),
        (
            "北🚀",
            "Chinese, Japanese or Korean and emoji",
            "fonts-noto-cjk, or the small fonts-wqy-microhei; fonts-symbola",
        ),
    ],
)
def test_the_notice_names_the_characters_and_a_package(text: str, kinds: str, packages: str) -> None:
    """By the number of each, which is all that is believed of the warning."""
    (notice,) = missing_glyphs("".join(WARNING.format(ord(character)) for character in text))
    assert f"({kinds}), so empty squares are drawn" in notice
    assert notice.endswith(f"(Debian: {packages})")


@pytest.mark.parametrize("stderr", ["", "Glyph x missing", "Glyph missing from font\n"])
def test_nothing_is_said_without_a_missing_character(stderr: str) -> None:
    """A text of other words is none of the warning's."""
    assert missing_glyphs(stderr) == ()


def test_a_number_that_is_no_character_is_no_trouble() -> None:
    """The program can print the warning itself."""
    (notice,) = missing_glyphs(WARNING.format(9_999_999))
    assert "(others)" in notice
