"""Tables and JSON on stdout, for the commands that only tell something."""

import io
import json
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TextIO

from isorun.core.text import printable
from isorun.settings import process_environment

_PIPE_WIDTH = 200  # of a table that no terminal and no COLUMNS bounds
_GAP = 3  # between two columns
_READABLE = 8  # letters: a word that is cut into shorter pieces cannot be read


def print_json(value: object, other: Callable[[object], object] | None = None) -> None:
    """*value* as one line of JSON; *other* says what stands for what JSON does not have."""
    sys.stdout.write(json.dumps(value, default=other) + "\n")
    sys.stdout.flush()


def print_json_list(values: Iterable[object]) -> None:
    """*values* as `print_json` prints a list of them, each when it is there."""
    sys.stdout.write("[")
    for at, value in enumerate(values):
        sys.stdout.write((", " if at else "") + json.dumps(value))
    sys.stdout.write("]\n")
    sys.stdout.flush()


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    whole: Collection[str] = (),
    styles: Mapping[str, str] | None = None,
) -> None:
    """A table; its cells are shown as they are, control characters made visible, markup not obeyed.

    The columns *whole* stay on one line. Where the terminal is too narrow for columns that can be read, each row
    is a few lines, one for each cell. A cell that is a key of *styles* has that style on a terminal, unless NO_COLOR
    or TERM=dumb is set. COLUMNS is the width, else the terminal's is.
    """
    shown = [[printable(cell) for cell in row] for row in rows]
    width = shutil.get_terminal_size((_PIPE_WIDTH, 24)).columns
    widths = _widths(columns, shown, whole, width - _GAP * (len(columns) - 1))
    if widths is None:
        sys.stdout.write("".join(_lines(columns, shown, width)))
    elif sys.stdout.isatty() and _may_have_colour():
        _print(columns, shown, widths, sys.stdout, width, styles or {})
    else:
        made = io.StringIO()
        _print(columns, shown, widths, made, width, {})
        # Without the padding, which wraps in a pager and is noise in a diff.
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in made.getvalue().splitlines()))
    sys.stdout.flush()


def _may_have_colour() -> bool:
    environment = process_environment()
    return not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def _widths(
    columns: Sequence[str], rows: Sequence[Sequence[str]], whole: Collection[str], room: int
) -> list[int] | None:
    """The width of each column: first so that it can be read, then its longest word, then its longest line."""
    cells = [[name, *(row[at] for row in rows)] for at, name in enumerate(columns)]
    lines = [max((len(line) for cell in column for line in cell.split("\n")), default=0) for column in cells]
    words = [max((len(word) for cell in column for word in cell.split()), default=0) for column in cells]
    words = [line if name in whole else word for name, word, line in zip(columns, words, lines, strict=True)]
    widths = [word if name in whole else min(word, _READABLE) for name, word in zip(columns, words, strict=True)]
    if sum(widths) > room:
        return None
    for goals in (words, lines):
        for at in sorted(range(len(columns)), key=lambda at: goals[at] - widths[at]):
            widths[at] += max(min(goals[at] - widths[at], room - sum(widths)), 0)
    return widths


def _print(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    widths: Sequence[int],
    to: TextIO,
    width: int,
    styles: Mapping[str, str],
) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    for column, most in zip(columns, widths, strict=True):
        table.add_column(column, overflow="fold", width=most)
    for row in rows:
        table.add_row(*(Text(cell, style=styles.get(cell, "")) for cell in row))
    Console(file=to, width=width).print(table)


def _lines(columns: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> Iterator[str]:
    """Each row as lines: its first cells, then `name: value` for each other cell."""
    from textwrap import TextWrapper

    # A word is never cut: somebody may want to copy it.
    wrapper = TextWrapper(
        width, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    head = 1 if columns[0] else 2  # a column without a name is a mark before the next one
    for row in rows:
        yield f"{' '.join(row[:head])}\n"
        for name, cell in zip(columns[head:], row[head:], strict=True):
            yield from (f"{line}\n" for line in wrapper.wrap(f"{name}: {cell}"))


def say(text: str) -> None:
    """One line on stdout."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()
