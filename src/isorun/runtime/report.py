"""What people and models read about a run: error lines, tracebacks, a tree, the report.

Pure: from values to text. Everything that comes from the program (its log, its
file names, its exception) is hostile: it is bounded here, its control characters
are made visible, and it can start no line of a report. Nothing in this module
decides how a run ended; `core.outcome` did that from the exit, never from a log.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from isorun.core.outcome import Code, Status

MAX_ERROR_LINES = 100
MAX_TRACEBACKS = 20
MAX_LINE = 500  # characters of one line
MAX_BLOCK_LINES = 200  # of one traceback; the middle is left out, the exception is at the end
MAX_SCANNED = 2 << 20  # characters of the log's end that are searched for tracebacks
MAX_TREE_LINES = 500
MAX_TREE_INDENT = 20  # levels; a thousand nested folders would be a megabyte of spaces
MAX_LISTED = 200  # entries of one list of a report
TAIL_LINES = 100
TAIL_CHARS = 16_384

# C0 without tab and newline, DEL, C1; what reorders or breaks lines; what cannot be encoded.
_UNPRINTABLE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
_TIME = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[^\s]{0,12}"
_LEVEL = "(?:ERROR|CRITICAL)"
_ERROR_LINE = re.compile(
    rf"^(?:{_TIME} {_LEVEL}[ \r\n]|{_TIME} - [^\s]{{1,200}} - {_LEVEL} - |{_LEVEL}:|ERROR\b)", re.MULTILINE
)
_PLAIN = "Traceback (most recent call last):"
_GROUP = "  + Exception Group Traceback (most recent call last):"
_FATAL = "Fatal Python error: "
_CHAINS = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_SYNTAX = re.compile(r'  File "[^"]{1,4096}", line [0-9]{1,9}$')  # the program's own: no frame is left to show
_SYNTAX_END = re.compile(r"(?:SyntaxError|IndentationError|TabError): ")
_GROUP_LINE = re.compile(r"\s+[|+]")
_FATAL_LINE = re.compile(r"\s|$|Current thread|Thread 0x|Stack \(most|Python runtime state|Extension modules|<")


def printable(text: str) -> str:
    r"""*text* with every control character but newline and tab made visible: ESC becomes `\x1b`.

    So are direction marks, line separators and lone surrogates: the result can be
    written to a terminal and encoded, and shows its letters in the order they have.
    """
    return _UNPRINTABLE.sub(_visible, text)


def _visible(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def one_line(text: str, most: int = MAX_LINE) -> str:
    """*text* printable and on one line, at most *most* characters."""
    shown = printable(text[:most]).replace("\n", "\\n").replace("\t", "\\t")
    return shown if len(text) <= most and len(shown) <= most else f"{shown[: most - 1]}…"


def tail(text: str, lines: int, chars: int) -> str:
    """The end of *text*: at most so many lines and characters. A last newline is not a line."""
    if lines <= 0 or chars <= 0:
        return ""
    end = len(text) - text.endswith("\n")
    return "\n".join(text[max(0, end - chars) : end].split("\n")[-lines:])


def error_lines(user_log: str) -> tuple[str, ...]:
    """The first lines of *user_log* whose level is ERROR or CRITICAL, or that start with ERROR.

    A level is a field of a log line: "no error found" and "0 ERROR" are none.
    """
    found = islice(_ERROR_LINE.finditer(user_log), MAX_ERROR_LINES)
    return tuple(_line_at(user_log, match.start()) for match in found)


def _line_at(text: str, start: int) -> str:
    end = text.find("\n", start)
    return one_line((text[start:] if end < 0 else text[start:end]).removesuffix("\r"))


def tracebacks(user_log: str) -> tuple[str, ...]:
    """The last tracebacks in *user_log*, each from its header to the exception's line.

    Chained exceptions are one block, and so is a group; a syntax error of the program
    has no header. Of a message of several lines the first is kept: nothing says
    where the rest would end.
    """
    lines = [line.removesuffix("\r") for line in user_log[-MAX_SCANNED:].split("\n")]
    blocks: list[str] = []
    at = 0
    while at < len(lines):
        end = _block_end(lines, at)
        if end > at:
            blocks.append(_block(lines, at, end))
            del blocks[:-MAX_TRACEBACKS]
        at = max(end, at + 1)
    return tuple(blocks)


def _block_end(lines: list[str], at: int) -> int:
    """The index behind the block that starts at *at*; *at* itself if none does."""
    end = _single_end(lines, at)
    while end > at and end + 3 < len(lines) and lines[end] == "" and lines[end + 1] in _CHAINS:
        following = _single_end(lines, end + 3)
        if following == end + 3:
            break
        end = following
    return end


def _single_end(lines: list[str], at: int) -> int:
    """As `_block_end`, without what it is chained to."""
    first = lines[at]
    end = at + 1
    if first == _GROUP:
        while end < len(lines) and _GROUP_LINE.match(lines[end]):
            end += 1
    elif first.startswith(_FATAL):
        while end < len(lines) and _FATAL_LINE.match(lines[end]):
            end += 1
        while lines[end - 1].strip() == "":
            end -= 1
    elif first.endswith(_PLAIN):  # behind a print without a newline, perhaps
        while end < len(lines) and lines[end].startswith((" ", "\t")) and lines[end] != _GROUP:
            end += 1
        if end < len(lines) and lines[end] != "" and not _starts_block(lines[end]):
            end += 1  # the exception's own line
    elif _SYNTAX.match(first):
        while end < len(lines) and lines[end].startswith("    "):
            end += 1
        return end + 1 if end < len(lines) and _SYNTAX_END.match(lines[end]) else at
    else:
        return at
    return end


def _starts_block(line: str) -> bool:
    return line.endswith(_PLAIN) or line.startswith(_FATAL)


def _block(lines: list[str], at: int, end: int) -> str:
    first = lines[at]
    if first.endswith(_PLAIN) and first != _GROUP:
        first = _PLAIN
    kept = [first, *lines[at + 1 : end]]
    if len(kept) > MAX_BLOCK_LINES:
        half = MAX_BLOCK_LINES // 2
        left_out = f"  … {len(kept) - 2 * half + 1} lines left out …"
        kept = [*kept[:half], left_out, *kept[-half + 1 :]]
    return "\n".join(printable(line[:MAX_LINE]) for line in kept)


def tree(paths: Iterable[str]) -> str:
    """The files *paths* (POSIX, relative) as an indented tree; the run's own `logs/` is left out."""
    files = sorted({tuple(part for part in path.split("/") if part) for path in paths})
    lines = list(islice(_tree_lines(parts for parts in files if not _is_log(parts)), MAX_TREE_LINES + 1))
    if len(lines) > MAX_TREE_LINES:
        lines[MAX_TREE_LINES:] = ["…"]
    return "\n".join(lines)


def _is_log(parts: tuple[str, ...]) -> bool:
    # The folder of that name below turn_<id>/files/ is the program's own.
    return parts[:1] in ((), ("logs",)) or parts[:2] == ("out", "logs")


def _tree_lines(files: Iterable[tuple[str, ...]]) -> Iterator[str]:
    above: tuple[str, ...] = ()
    for *folders, name in files:
        same = 0
        while same < min(len(folders), len(above)) and folders[same] == above[same]:
            same += 1
        for depth in range(same, len(folders)):
            yield f"{'  ' * min(depth, MAX_TREE_INDENT)}{one_line(folders[depth])}/"
        yield f"{'  ' * min(len(folders), MAX_TREE_INDENT)}{one_line(name)}"
        above = tuple(folders)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """All that a report says. Texts may be raw: `report_text` bounds them and makes them printable."""

    exec_id: str
    prog_name: str
    status: Status
    code: Code | None = None
    message: str = ""
    hint: str = ""
    file_errors: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = ()  # path, codes, hints
    missing: tuple[str, ...] = ()
    succeeded: tuple[str, ...] = ()
    infra_errors: tuple[str, ...] = ()
    user_log_tail: str = ""
    diff: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] | None = None  # created, modified, deleted
    notices: tuple[str, ...] = ()


def report_text(facts: ReportFacts) -> str:
    """The report, in a fixed order; a part that has nothing to say is left out.

    Only our own headings begin at the margin, so no text of the program can pass
    for one.
    """
    return "\n".join(
        (
            *_status(facts),
            *_failure(facts),
            *_section("file errors", list(_file_errors(facts))),
            *_section("missing outputs", _bullets(facts.missing)),
            *_section("succeeded", _bullets(facts.succeeded)),
            *_section("infra errors", _bullets(facts.infra_errors)),
            *_section("program log, its end", _quoted(facts.user_log_tail)),
            *_side_effects(facts),
            *_section("notices", _bullets(facts.notices)),
            "",
        )
    )


def _status(facts: ReportFacts) -> Iterator[str]:
    yield f"status: {facts.status}"
    name = f" ({one_line(facts.prog_name)})" if facts.prog_name else ""
    yield f"run: {one_line(facts.exec_id)}{name}"


def _failure(facts: ReportFacts) -> Iterator[str]:
    if facts.status is Status.OK:
        return
    title = "contract failure" if facts.status is Status.CONTRACT_FAILED else "runtime failure"
    yield ": ".join(part for part in (title, facts.code or "", one_line(facts.message)) if part)
    if facts.hint:
        yield f"  hint: {one_line(facts.hint)}"


def _file_errors(facts: ReportFacts) -> Iterator[str]:
    for path, codes, hints in facts.file_errors[:MAX_LISTED]:
        yield f"  - {one_line(path)}: {one_line(', '.join(codes))}"
        yield from (f"    hint: {one_line(hint)}" for hint in hints[:MAX_LISTED])
    if len(facts.file_errors) > MAX_LISTED:
        yield f"  … {len(facts.file_errors) - MAX_LISTED} more"


def _side_effects(facts: ReportFacts) -> Iterator[str]:
    if facts.diff is None:
        return
    if not any(facts.diff):
        yield "side effects: none"
    for title, paths in zip(("created", "modified", "deleted"), facts.diff, strict=True):
        yield from _section(title, _bullets(paths))


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"{title}:", *lines] if lines else []


def _bullets(texts: tuple[str, ...]) -> list[str]:
    lines = [f"  - {one_line(text)}" for text in texts[:MAX_LISTED]]
    return lines if len(texts) <= MAX_LISTED else [*lines, f"  … {len(texts) - MAX_LISTED} more"]


def _quoted(text: str) -> list[str]:
    end = tail(text, TAIL_LINES, TAIL_CHARS)
    return [f"  | {line}" for line in printable(end).split("\n")] if end else []
