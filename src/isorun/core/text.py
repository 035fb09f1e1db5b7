r"""How a stranger's text is shown: one alphabet, for terminals, logs, reports and errors.

What can be seen stays: what Unicode calls printable, and every blank. Everything else is written as an escape
(`\x1b`, `\u200b`, `\U000e0041`): control characters, which drive a terminal; marks of direction and line
separators, which move letters; lone surrogates and unassigned numbers, which cannot be encoded or may become
any of these; and all that nobody sees (zero width, soft hyphens, tags, byte order marks, fillers, runs of
variation selectors). A person does not notice those, and a model reads them.

The price: a joined emoji is shown as its parts, `👩\u200d💻`, and so is a word of Persian that has a zero width
non-joiner. A selector that only gives a symbol its colour stays. What is stored as a file, or written into a
pipe, is not touched.
"""

import re
import unicodedata
from functools import lru_cache

_BLANKS = "\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"  # category Zs: they show as the blanks they are
# Letters and marks that are printable by name and have no shape (Default_Ignorable_Code_Point).
_SHAPELESS = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef"
# Colour or black and white: seen behind a symbol or within a keycap, hidden anywhere else.
_SELECTOR = f"(?<![^\\w\\s\x00-\xa8\ufe0e\ufe0f{_SHAPELESS}])[\ufe0e\ufe0f](?!\u20e3)"
_UNSEEN = re.compile(f"[{_SHAPELESS}]|{_SELECTOR}")
_RUNS = re.compile(f"[^\x20-\x7e\n\t{_BLANKS}]+")
_RUNS_AND_BREAKS = re.compile(f"[^\x20-\x7e{_BLANKS}]+")
_NAME = re.compile(r"[^\x20-\x7e]+|\\")
_JSON = re.compile(r"[^\x20-\x7e]+")
_WORD_BREAKS = re.compile(r"\s")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LONG_NUMBER = re.compile(r"&#\d{100,};?")  # as an entity: no character has it


def unescaped(text: str) -> str:
    """*text* of HTML with a character for each entity; never raises, as `html` does for a number of 4,301 digits."""
    import html  # not at the top: nearly nobody needs it

    return html.unescape(_LONG_NUMBER.sub("\ufffd", text))


def printable(text: str) -> str:
    r"""*text* with every character but newline and tab that cannot be seen made visible: ESC becomes `\x1b`."""
    return _RUNS.sub(_run, _UNSEEN.sub(_escaped, text))


def one_line(text: str, most: int | None = None) -> str:
    """As `printable`, with newline and tab made visible, too; at most *most* characters."""
    shown = _RUNS_AND_BREAKS.sub(_run, _UNSEEN.sub(_escaped, text if most is None else text[:most]))
    if most is None or (len(text) <= most and len(shown) <= most):
        return shown
    return f"{shown[: most - 1]}…"


def visible_json(document: str) -> str:
    """A JSON *document* of one line with all that cannot be seen as JSON's own escapes; its values stay the same."""
    return document if document.isascii() and document.isprintable() else _JSON.sub(_json_run, document)


def is_visible(text: str) -> bool:
    """Whether *text* is shown as it is, on one line."""
    return one_line(text) == text


def has_control(text: str) -> bool:
    """Whether *text* holds a control character or a line separator, each of which can end or erase a line."""
    return _CONTROL.search(text) is not None


def one_word(text: str) -> str:
    """As `one_line`, with every blank made visible: it cannot pass for several fields of a line."""
    return one_line(_WORD_BREAKS.sub(_escaped, text))


def file_name(name: bytes | str) -> str:
    r"""A file's name or path, on one line. Two that differ are shown differently, and only an escaped one has a `\`."""
    text = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
    return _NAME.sub(_name_run, text)


def composed(text: str) -> str:
    """*text* in normal form C: a letter and its accent are one character where there is one."""
    return unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """Equal for names that people, and some disks, take for one: case and normal form do not count."""
    return composed(composed(text).casefold())


def shown(value: object) -> str:
    """*value* for an error text: escaped, and short for every value."""
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and -_BIG < value < _BIG):
        return repr(value)
    if not isinstance(value, str):
        return f"a value of type {type(value).__name__}"
    return one_line(repr(value) if len(value) <= 80 else f"{value[:60]!r}… ({len(value)} characters)")


_BIG = 10**20  # a number that is shown in an error text is shorter than the text


def _run(match: re.Match[str]) -> str:
    run = match[0]
    return run if run.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in run)


def _json_run(match: re.Match[str]) -> str:
    run = match[0]
    if run.isprintable() and not _UNSEEN.search(run):
        return run
    return "".join(c if c.isprintable() and not _UNSEEN.match(c) else _json_escape(c) for c in run)


@lru_cache(maxsize=4096)
def _json_escape(c: str) -> str:
    units = c.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _name_run(match: re.Match[str]) -> str:
    return "".join(c if _is_plain(c) else _escape(c) for c in match[0])


def _is_plain(c: str) -> bool:
    return c.isprintable() and c != "\\" and not _UNSEEN.match(c)  # alone, a selector is unseen


def _escaped(match: re.Match[str]) -> str:
    return _escape(match[0])


@lru_cache(maxsize=4096)  # a mebibyte of ESC costs 0.3 s with it, 2.7 s without
def _escape(c: str) -> str:
    if c == " ":
        return "\\x20"
    if "\udc80" <= c <= "\udcff":
        return f"\\x{ord(c) - 0xDC00:02x}"  # a byte that is not UTF-8
    return c.encode("unicode_escape").decode()
