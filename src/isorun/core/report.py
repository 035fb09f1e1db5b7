"""What people and models read about a run: error lines, tracebacks, a tree, the report.

Pure: from values to text. Everything that comes from the program (its log, its
file names, its exception) is hostile: it is bounded here, its control characters
are made visible, and it can start no line of a report. Nothing in this module
decides how a run ended; `core.outcome` did that from the exit, never from a log.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from heapq import nsmallest
from itertools import islice

from isorun.core.outcome import Status
from isorun.core.pace import rest
from isorun.core.result import RunResult
from isorun.core.text import one_line, printable

MAX_ERROR_LINES = 100
MAX_TRACEBACKS = 20
MAX_LINE = 500  # characters of one line
MAX_BLOCK_LINES = 200  # of one traceback; the middle is left out, the exception is at the end
MAX_SCANNED = 1 << 20  # characters of the log's end that are searched for tracebacks
MAX_SEARCHED = 32 << 10  # characters that one search goes through, to the end of a line
MAX_SCANNED_LINES = 50_000  # of that end; a mebibyte may be a million blank lines
MAX_TRACEBACK_CHARS = 256 << 10  # of all tracebacks together
MAX_REPORT_CHARS = 256 << 10
MAX_HINTS = 10  # of one file
MAX_TREE_LINES = 500
MAX_TREE_INDENT = 20  # levels; a thousand nested folders would be a megabyte of spaces
MAX_LISTED = 200  # entries of one list of a report
LOG_LINES, LOG_CHARS = 60, 8000  # of the end of a log, in a result
MAX_REDRAWN = 256 << 10  # characters of its end in which a progress bar is told from what it replaced
TAIL_LINES = 100
TAIL_CHARS = 16_384

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
_MARKS = (_PLAIN, _FATAL, '  File "')  # every block has one of them
_GROUP_LINE = re.compile(r"\s+[|+]")
_FATAL_LINE = re.compile(r"\s|$|Current thread|Thread 0x|Stack \(most|Python runtime state|Extension modules|<")

_line = partial(one_line, most=MAX_LINE)


def tail(text: str, lines: int, chars: int) -> str:
    """The end of *text*: at most so many lines and characters. A last newline is not a line."""
    if lines <= 0 or chars <= 0:
        return ""
    end = len(text) - text.endswith("\n")
    return "\n".join(text[max(0, end - chars) : end].split("\n")[-lines:])


def log_tail(log: str) -> str:
    """What a result holds of *log*: its end; of a line that was drawn again and again, the last state."""
    end = log[-MAX_REDRAWN:]
    left = "\n".join(map(_last_state, end.split("\n"))) if "\r" in end else log
    return printable(tail(left, LOG_LINES, LOG_CHARS))


def _last_state(line: str) -> str:
    """*line* without what a terminal would have written over. A pattern would look at a long line once a character."""
    body = line.rstrip("\r")
    return body.rpartition("\r")[2] + line[len(body) :]


def error_lines(user_log: str) -> tuple[str, ...]:
    """The first lines of *user_log* whose level is ERROR or CRITICAL, or that start with ERROR.

    A level is a field of a log line: "no error found" and "0 ERROR" are none.
    """
    found = (
        match.start()
        for start, end in _pieces(user_log)
        if user_log.find("ERROR", start, end) >= 0 or user_log.find("CRITICAL", start, end) >= 0
        for match in _ERROR_LINE.finditer(user_log, start, end)
    )
    return tuple(_line_at(user_log, start) for start in islice(found, MAX_ERROR_LINES))


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """*text* as spans of whole lines: one search holds every other thread up, and a mebibyte may be a million lines."""
    start = 0
    while start < len(text):
        rest()
        end = text.find("\n", start + MAX_SEARCHED) + 1 or len(text)
        yield start, end
        start = end


def _line_at(text: str, start: int) -> str:
    end = text.find("\n", start)
    return _line((text[start:] if end < 0 else text[start:end]).removesuffix("\r"))


def tracebacks(user_log: str) -> tuple[str, ...]:
    """The last tracebacks in *user_log*, each from its header to the exception's line.

    Chained exceptions are one block, and so is a group; a syntax error of the program
    has no header. Of a message of several lines the first is kept: nothing says
    where the rest would end.
    """
    scanned = user_log[-MAX_SCANNED:]
    if not any(mark in scanned for mark in _MARKS):
        return ()
    end = scanned.rsplit("\n", MAX_SCANNED_LINES)
    lines = [line.removesuffix("\r") for line in (end[1:] if len(end) > MAX_SCANNED_LINES else end)]
    found: deque[tuple[int, int]] = deque(maxlen=MAX_TRACEBACKS)
    at = 0
    while at < len(lines):
        end_at = _block_end(lines, at) if lines[at] else at
        if end_at > at:
            found.append((at, end_at))
        at = max(end_at, at + 1)
    blocks = [_block(lines, *span) for span in found]
    room, kept = MAX_TRACEBACK_CHARS, 0
    for block in reversed(blocks):
        room -= len(block)
        kept += room >= 0
    return tuple(blocks)[len(blocks) - kept :]


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
    return "\n".join(printable(line[:MAX_LINE])[:MAX_LINE] for line in kept)


def tree(paths: Iterable[str]) -> str:
    """The files *paths* (POSIX, relative) as an indented tree; the run's own `logs/` is left out."""
    # As if the parts were compared one by one, and split only where a line is made of them.
    first = nsmallest(MAX_TREE_LINES + 1, {path for path in paths if not _is_log(path)}, key=_by_parts)
    files = (tuple(part for part in path.split("/") if part) for path in first)
    lines = list(islice(_tree_lines(files), MAX_TREE_LINES + 1))
    if len(lines) > MAX_TREE_LINES:
        lines[MAX_TREE_LINES:] = ["…"]
    return "\n".join(lines)


def _by_parts(path: str) -> str:
    return path.replace("/", "\0")


def _is_log(path: str) -> bool:
    # The folder of that name below turn_<id>/files/ is the program's own.
    return f"{path}/".startswith(("logs/", "out/logs/"))


def _tree_lines(files: Iterable[tuple[str, ...]]) -> Iterator[str]:
    above: tuple[str, ...] = ()
    for *folders, name in files:
        same = 0
        while same < min(len(folders), len(above)) and folders[same] == above[same]:
            same += 1
        for depth in range(same, len(folders)):
            yield f"{'  ' * min(depth, MAX_TREE_INDENT)}{_line(folders[depth])}/"
        yield f"{'  ' * min(len(folders), MAX_TREE_INDENT)}{_line(name)}"
        above = tuple(folders)


def report_text(
    result: RunResult, *, infra_errors: tuple[str, ...] = (), left_out: tuple[int, int, int] = (0, 0, 0)
) -> str:
    """The report on *result*, in a fixed order; a part that has nothing to say is left out.

    *left_out*: how many created, modified and deleted files are not in its `workspace_diff`. Only our own headings
    begin at the margin, so no text of the program can pass for one.
    """
    return _whole(
        (
            *_status(result),
            *_failure(result),
            *_section("file errors", list(_file_errors(result))),
            *_section("missing outputs", _bullets(result.missing)),
            *_section("succeeded", _bullets(result.succeeded)),
            *_section("infra errors", _bullets(infra_errors)),
            *_section("program log, its end", _quoted(result.user_log_tail)),
            *_side_effects(result, left_out),
            *_section("notices", _bullets(result.notices)),
        )
    )


def _whole(lines: Sequence[str]) -> str:
    room = MAX_REPORT_CHARS
    for at, line in enumerate(lines):
        room -= len(line) + 1
        if room < 0:
            lines = (*lines[:at], f"… {len(lines) - at} more lines")
            break
    return "\n".join((*lines, ""))


def _status(result: RunResult) -> Iterator[str]:
    yield f"status: {result.status}"
    name = f" ({_line(result.prog_name)})" if result.prog_name else ""
    yield f"run: {_line(result.exec_id)}{name}"


def _failure(result: RunResult) -> Iterator[str]:
    if result.status is Status.OK:
        return
    title, error = "contract failure" if result.status is Status.CONTRACT_FAILED else "runtime failure", result.error
    yield ": ".join(part for part in (title, *((error.code, _line(error.message)) if error else ())) if part)
    if error and error.where:
        source = _line(str(error.details.get("source", "")))
        yield f"  where: {_line(error.where)}{': ' if source else ''}{source}"
    if error and error.hint:
        yield f"  hint: {_line(error.hint)}"


def _file_errors(result: RunResult) -> Iterator[str]:
    invalid = [item for item in result.items if item.state == "invalid"]
    for item in invalid[:MAX_LISTED]:
        yield f"  - {_line(item.path)}: {_line(', '.join(item.codes))}"
        yield from (f"    hint: {_line(hint)}" for hint in item.hints[:MAX_HINTS])
    if len(invalid) > MAX_LISTED:
        yield f"  … {len(invalid) - MAX_LISTED} more"


def _side_effects(result: RunResult, left_out: tuple[int, int, int]) -> Iterator[str]:
    if result.workspace_diff is None:
        return
    if not any(result.workspace_diff.values()):
        yield "side effects: none"
    for title, more in zip(("created", "modified", "deleted"), left_out, strict=True):
        yield from _section(title, _bullets(result.workspace_diff[title], more))


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"{title}:", *lines] if lines else []


def _bullets(texts: tuple[str, ...], more: int = 0) -> list[str]:
    """A line for each of *texts*; *more* says how many others there were."""
    lines = [f"  - {_line(text)}" for text in texts[:MAX_LISTED]]
    more += len(texts) - len(lines)
    return [*lines, f"  … {more} more"] if more else lines


def _quoted(text: str) -> list[str]:
    end = tail(text, TAIL_LINES, TAIL_CHARS)
    return [f"  | {line}" for line in printable(end).split("\n")] if end else []
