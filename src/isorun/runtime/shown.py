"""What of a run is shown: the value of its last expression, its figures, and which files are only tools' own.

The program may have written all of it: it is bounded, decoded and never parsed.
"""

import base64
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field

from isorun.executor import rules
from isorun.executor.shown.value import FORMS, MOST_FORM, MOST_TEXT, TEXT
from isorun.store.kept import read_kept

_FIGURES_BYTES = 4096
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


def unsaved_figures(work: int, files: Container[str]) -> Iterator[str]:
    """A notice that names the figures among *files* which the loader has saved."""
    named = (read_kept(work, rules.FIGURES, _FIGURES_BYTES) or b"").decode("utf-8", "replace").splitlines()
    figures = [name for name in named if re.fullmatch(r"figure-[0-9]+\.png", name) and name in files]
    if figures:
        yield f"figures that were shown or left open are saved as {', '.join(figures)}"
