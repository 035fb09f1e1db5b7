"""Decodes text that a server sent, also if the server names no charset or a wrong one.

The order: a byte order mark, the header, the charset that an HTML page declares, UTF-8.
A name is ignored if it names another kind of codec, or if the bytes contradict it. Nothing here raises.
"""

from __future__ import annotations

import codecs
import re

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: Python has more codecs than the web has encodings: some run long, some write other characters than are there.
_USABLE = re.compile(
    r"utf-?(8|16|32)(-?[lb]e)?|iso8859-\d+|cp\d+|koi8-[rtu]|mac-\w+|ascii|"
    r"(gb2312|gbk|gb18030|big5|big5hkscs|euc_jp|euc_kr|shift_jis|johab|iso2022_(jp|kr)|tis-620|hz|kz1048|ptcp154)\w*"
)
_META = re.compile(rb"""<meta[^<>]{0,200}charset\s{0,10}=\s{0,10}["']?\s{0,10}([\w.:-]{2,40})""", re.IGNORECASE)
_LOOKED_AT = 2048  # bytes of a page in which it may name its encoding


def decoded(data: bytes, said: str | None, *, is_html: bool = False) -> str:
    """*data* as text. *said* is the charset of the header. What is not text in that encoding becomes U+FFFD."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    named = [said or ""]
    if is_html and (found := _META.search(data[:_LOOKED_AT])):
        named.append(found[1].decode("ascii", "replace"))
    for name in named:
        codec = _codec(name)
        if codec and not (codec.startswith(("utf-16", "utf-32")) and b"\0" not in data[:_LOOKED_AT]):
            return data.decode(codec, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        # The most common of those that name nothing; it has a character for nearly each byte.
        return data.decode("utf-8" if _is_nearly_utf8(data) else "cp1252", "replace")


def _codec(name: str) -> str | None:
    try:
        found = codecs.lookup(name.strip().strip("\"'")).name if name else ""
    except (LookupError, ValueError):
        return None
    if not _USABLE.fullmatch(found):
        return None
    # What calls itself Latin-1 or ASCII on the web is Windows' superset of it.
    return "cp1252" if found in ("iso8859-1", "ascii") else found


def _is_nearly_utf8(data: bytes) -> bool:
    """Whether a few bad bytes are all that is wrong: most of what is beyond ASCII is made of good ones."""
    sample = data[: 1 << 16].decode("utf-8", "replace")
    bad = sample.count("\ufffd")
    return sum(not character.isascii() for character in sample) > 2 * bad
