"""What to do about a program that cannot be compiled: the daily errors of programs that a model wrote.

Pure: from values to text. The claim is the program's word: it only chooses among the hints below.
"""

import re
from collections.abc import Collection

from isorun.core.sent.claim import Claim

_KINDS = ("SyntaxError", "IndentationError", "TabError")
NO_NOTEBOOK = "this is not a notebook: print the value, or write it to a file in OUTPUT_DIR"
NO_INSTALL = "nothing can be installed during a run"

_FENCE = re.compile(r"\s*(?:```|~~~)")
_PROMPT = re.compile(r"\s*(?:>>> ?|In \[[0-9]{0,6}\]:)")
_NOTEBOOK = re.compile(
    r"\s*(?:[\w, ]{1,100}= *)?(?:!{1,2} ?[\w./]|%{1,2}[a-z])|\s*\?{1,2}[a-zA-Z]|\s*[\w.]{1,100}(?:\(\))?\?{1,2}\s*$"
)
_INSTALL = re.compile(
    r"\s*[!%]{1,2} ?[^\n]{0,50}\b(?:pip3?|conda|mamba|apt|apt-get|uv|npm)\b[^\n]{0,50}\b(?:install|add)\b"
)
_ENTITY = re.compile(r"&(?:lt|gt|amp|quot|apos|#[0-9]{2,4});")
_PROSE = re.compile(
    r"\s*(?:[0-9]{1,3}[.)]|[-*#]{0,6}) ?[A-Z][\w'\u2019]{0,40}[,!:.]?(?: [\w'\u2019(\"*`]+[,.:;!?)\"*`]*){2,}"
)
_AWAITED = re.compile(r"\bawait (\w{1,100}\.\w{1,100})\(")
_ASYNC = re.compile(r"'(?:await|async for|async with)' outside|asynchronous comprehension outside")

# By the interpreter's own words; the first that fits.
_MESSAGES = (
    (r"null byte", "the program holds a NUL byte: send text only"),
    (r"Non-UTF-8 code|'utf-?8' codec can't decode", "the program is not UTF-8: encode it as UTF-8"),
    (r"'unicodeescape' codec", r'a backslash begins an escape: write the text as r"…", or the path with /'),
    (r"inconsistent use of tabs", "tabs and blanks are mixed in the indentation: use four blanks for each level"),
    (r"unindent does not match", "give every line of one block the same indentation: four blanks for each level"),
    (r"unexpected indent", "a line is indented without a block above it: remove what all lines are indented by"),
    (r"'return' outside", "`return` is for functions only: print the value, or end the program with sys.exit()"),
    (r"'yield(?: from)?' outside", "`yield` is for functions only: print the value, or collect it in a list"),
    (r"invalid character '[\u2018\u2019\u201c\u201d\u201e\xab\xbb]'", "write straight quotes, \" or ', around texts"),
    (r"invalid character|invalid non-printable character", "outside of texts, write ASCII characters and plain blanks"),
    (
        r"was never closed|unterminated |expected an indented block|unexpected EOF",
        "close what was opened there; if the program was cut, send all of it",
    ),
)
_BY_MESSAGE = tuple((re.compile(pattern), hint) for pattern, hint in _MESSAGES)


def form_hint(claim: Claim, program: str, tools: Collection[str]) -> str:
    """For an error of form; "" where the interpreter's message says it all. *program* is what was sent."""
    nul = claim.type == "ValueError" and "null bytes" in claim.message
    if claim.type not in _KINDS and not nul:
        return ""
    if _ASYNC.search(claim.message):
        return _await_hint(claim.source, tools)
    return _by_source(claim, program) or next(
        (hint for pattern, hint in _BY_MESSAGE if pattern.search(claim.message)), ""
    )


def _by_source(claim: Claim, program: str) -> str:
    lines = [line for line in program.split("\n", 200)[:200] if line.strip()]
    first = lines[0] if lines else ""
    if _FENCE.match(claim.source) or _FENCE.match(first):
        return "the program holds a markdown fence (```): send only the code between the fences"
    if _INSTALL.match(claim.source):
        return f"`!` and `%` are commands of a notebook, and {NO_INSTALL}: use what is there"
    if _NOTEBOOK.match(claim.source):
        return "`!`, `%` and `?` are commands of a notebook: use subprocess.run, or leave them out"
    if _PROMPT.match(claim.source):
        return "leave out the prompts (`>>>`, `In [1]:`) and what the program printed"
    if _ENTITY.search(claim.source):
        return "the program holds HTML entities (&lt; &gt; &amp;): send the characters themselves"
    if "line continuation character" in claim.message and "\\n" in claim.source:
        return r"the program holds \n as two characters: send line breaks"
    if _PROSE.match(claim.source) and "#" not in claim.source:
        return "that line is prose: send Python only, and prose as a comment (#)"
    return ""


def _await_hint(source: str, tools: Collection[str]) -> str:
    where = "`await` is allowed at the top level and in `async def` only"
    called = next((name for name in _AWAITED.findall(source) if name in tools), None)
    if called is not None:
        return f"{where}: use `{called}.sync(...)` there"
    more = ", and `<alias>.<tool>.sync(...)` calls a tool anywhere" if tools else ""
    return f"{where}: make the function around it `async def`{more}"
