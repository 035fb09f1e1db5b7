"""What of a run is shown: the value of its last expression, its figures, its crash, and which files are tools' own.

The program may have written all of it: it is bounded, decoded and never parsed.
"""

import base64
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field

from isorun.executor import rules
from isorun.executor.shown.value import FORMS, MOST_FORM, MOST_TEXT, TEXT
from isorun.store.kept import read_kept

_TRACE = 128 << 10  # bytes; faulthandler writes 100 frames of at most 1 KB
_FATAL = "Fatal Python error: "
# Our frames and what called them, to the end of the stack; with a top-level await, asyncio's between them.
_BELOW = re.compile(
    r'^  File "[^"\n]{1,1000}/executor/loader\.py", line [0-9]{1,7} in (?:_execute|_awaited)\n'
    r'(?:  File "[^\n]{1,2000}\n|  \.\.\.\n)*',
    re.MULTILINE,
)

_FIGURES_BYTES = _LEFT_BYTES = 4096
_PLAIN = re.compile(r"/tmp/[\w./-]{1,100}", re.ASCII)  # noqa: S108 - a name to compare with, of the slot's own
_SCRATCH = frozenset(
    (
        *(".cache", ".git", ".hg", ".hypothesis", ".ipynb_checkpoints", ".mypy_cache", ".nox", ".pytest_cache"),
        *(".ruff_cache", ".svn", ".tox", ".venv", "__pycache__", "node_modules"),
    )
)


def is_scratch(path: str) -> bool:
    """Whether *path*, below out/, lies in a folder that a tool keeps for itself."""
    return not _SCRATCH.isdisjoint(path.split("/")[:-1])


@dataclass(frozen=True, slots=True)
class Shown:
    """The text of a value, and its other forms by MIME type."""

    value: str | None = None
    rich: Mapping[str, str] = field(default_factory=dict)


def read_shown(work: int) -> Shown:
    """The value of the program's last expression, as its loader left it beside it. A program can forge it."""
    text = read_kept(work, f"{rules.VALUE}.{TEXT}", MOST_TEXT)
    if text is None:
        return Shown()
    rich = {}
    for _, ending, mime in FORMS:
        data = read_kept(work, f"{rules.VALUE}.{ending}", MOST_FORM + 1)
        if data is not None and len(data) <= MOST_FORM:
            rich[mime] = base64.b64encode(data).decode() if mime == "image/png" else data.decode("utf-8", "replace")
    return Shown(text.decode("utf-8", "replace"), rich)


def read_left(work: int) -> tuple[str, ...]:
    """The names of files in /tmp that the program seems to have meant to keep, as its loader noted them."""
    noted = read_kept(work, rules.LEFT, _LEFT_BYTES) or b""
    return tuple(name for name in noted.decode("utf-8", "replace").split("\n") if _PLAIN.fullmatch(name))


def left_in_tmp(names: tuple[str, ...]) -> Iterator[str]:
    """A notice on files that are gone."""
    if names:
        yield f"left in /tmp, of which nothing comes back: {', '.join(names)}; write to OUTPUT_DIR instead"


def unsaved_figures(work: int, files: Container[str]) -> Iterator[str]:
    """A notice that names the figures among *files* which the loader has saved."""
    named = (read_kept(work, rules.FIGURES, _FIGURES_BYTES) or b"").decode("utf-8", "replace").splitlines()
    figures = [name for name in named if re.fullmatch(r"figure-[0-9]+\.png", name) and name in files]
    if figures:
        yield f"figures that were shown or left open are saved as {', '.join(figures)}"


def crash_dumps(trace: str) -> str:
    """The dumps of crashes in what faulthandler wrote, without the frames that lie below the program's; often "".

    The program may have written all of *trace*: it is printed as anything else that the program prints.
    """
    at = trace.find(_FATAL)
    return _BELOW.sub("", trace[at:]) if at >= 0 else ""


def read_trace(work: int) -> str:
    """What faulthandler wrote at a crash and at SIGTERM; the program could have put anything in its place."""
    written = read_kept(work, rules.LAST_TRACE, _TRACE) or b""
    return written.rstrip(b"\0").decode("utf-8", "replace")  # the loader has made room with them
