"""What to say of a picture whose text cannot be read: which characters its font has not, and what helps.

Pure: from values to text. matplotlib warns of each character on stderr, which a program can forge: of it only the
numbers of characters are read.
"""

import re
import unicodedata

from isorun.runtime.hints.seen import MAX_TEXT

_GLYPH = re.compile(r"Glyph ([0-9]{1,7}) ")
_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "IDEOGRAPHIC", "FULLWIDTH", "BOPOMOFO")
_KINDS = {
    "asian": ("Chinese, Japanese or Korean", "fonts-noto-cjk, or the small fonts-wqy-microhei"),
    "emoji": ("emoji", "fonts-symbola"),
}
_EMOJI = (range(0x2190, 0x2C00), range(0x1F000, 0x1FC00))
_PACKAGE = "fonts-noto-core"


def missing_glyphs(stderr: str) -> tuple[str, ...]:
    """One notice that names the kinds of characters and, for each, a Debian package; none if nothing is missing."""
    kinds = dict.fromkeys(map(_kind, _GLYPH.findall(stderr[-MAX_TEXT:])))
    if not kinds:
        return ()
    names = " and ".join(sorted({name for name, _ in kinds}))
    packages = "; ".join(sorted({package for _, package in kinds}))
    return (
        f"a figure's font has no signs for some of its characters ({names}), so empty squares are drawn: write Latin "
        f"letters, or have a font installed where programs run (Debian: {packages})",
    )


def _kind(number: str) -> tuple[str, str]:
    code = int(number)
    name = unicodedata.name(chr(code), "") if code <= 0x10FFFF else ""
    if name.startswith(_ASIAN):
        return _KINDS["asian"]
    if any(code in some for some in _EMOJI):
        return _KINDS["emoji"]
    first = name.partition(" ")[0]
    return (first.capitalize() if first.isalpha() else "others", _PACKAGE)
