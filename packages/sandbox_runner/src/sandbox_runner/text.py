"""A stranger's text, fit for a terminal: one alphabet for all that an engine, an image or a command says.

What can be seen stays, and newline and tab. A blank stands for every other character: control characters, marks
of direction, separators, lone surrogates, and what has no width or no shape, which hides text from a reader.
"""

import re

_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # colours and movements of the cursor
# Printable by category and without a shape: fillers, joiners, variation selectors.
_SHAPELESS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def plain(text: str) -> str:
    """*text* with a blank for every character, but newline and tab, that is not seen or would steer a terminal."""
    return "".join(one if one.isprintable() or one in "\n\t" else " " for one in _SHAPELESS.sub(" ", text))


def plain_line(text: str) -> str:
    """As `plain`, on one line."""
    return plain(text).replace("\n", " ").replace("\t", " ")


def plain_end(text: str, lines: int, chars: int) -> str:
    """The last *lines* of *text* that are not blank, at most *chars* characters of them, plain and without colours."""
    told = [plain(line) for line in _ESCAPE.sub("", text).splitlines()]
    return "\n".join([line for line in told if line.strip()][-lines:])[-chars:]
