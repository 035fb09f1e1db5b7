"""What to say of a program that ended well, wrote nothing, and whose last words are of an error that a wall explains.

Pure: from values to text. A program may catch an error, print it and end: the status is ok, and nothing is there. Only
texts are recognised that the sandbox itself brings about, and only among the last lines: who handles an exception says
what is done instead, or goes on to a result, which mostly has a digit.
"""

import re

from isorun.core.sent.claim import Claim
from isorun.runtime.hints.daily import claim_hint, waited_hint
from isorun.runtime.hints.met import said
from isorun.runtime.hints.seen import MAX_TEXT, Seen

_LAST = 4  # lines of each stream, without the empty ones: an error, and what is said for good-bye
_LONGEST = 2000  # characters of a line that are looked at
_INSTEAD = re.compile(
    r"fall(?:ing|s)?[ -]?back|instead|default|skipp|optional|ignor|cache|recover|\busing\b|continu|as expected|handled",
    re.IGNORECASE,
)
_RESULT = re.compile(r"[0-9]")
_FRAME = re.compile(r"\s|Traceback \(|During handling|The above exception")
# What Python and the walls say, and the exception that says it; the first that fits.
_TEXTS = (
    (re.compile(r"\[Errno ([0-9]{1,3})\][^\n]*"), "OSError"),
    (re.compile(r"(?:No module named|Missing optional dependency|`Import [\w.-]{1,99}`) [^\n]*"), "ImportError"),
    (re.compile(r"Cannot save file into a non-existent directory: [^\n]*|attempt to write a readonly"), "OSError"),
    (re.compile(r"unable to open database file"), "OperationalError"),
    (re.compile(r"EOF when reading a line"), "EOFError"),
    (re.compile(r"'[\w-]{1,30}' codec can't decode byte[^\n]*"), "UnicodeDecodeError"),
    (re.compile(r"unsupported locale setting"), "Error"),
    (re.compile(r"no display name and no \$DISPLAY[^\n]*|cannot open resource"), "OSError"),
)  # fmt: skip


def last_words(seen: Seen) -> str:
    """What to do about the error that the program's last words are of; "" if they are of none that is known here."""
    return next((hint for printed in (seen.stdout, seen.stderr) if (hint := _of_stream(printed, seen))), "")


def _of_stream(printed: str, seen: Seen) -> str:
    lines = [line for line in printed[-MAX_TEXT:].splitlines() if line.strip() and not _FRAME.match(line)]
    for line in reversed(lines[-_LAST:]):
        if _INSTEAD.search(line):
            return ""
        if hint := _of_line(line[:_LONGEST], seen):
            return hint
        if _RESULT.search(line):
            return ""
    return ""


def _of_line(line: str, seen: Seen) -> str:
    if hint := waited_hint(line, seen):
        return hint
    for text, kind in _TEXTS:
        if found := text.search(line):
            number = int(found[1]) if text.groups else None
            return claim_hint(Claim(type=kind, message=found[0], errno=number), seen) or said(line)
    return said(line)
