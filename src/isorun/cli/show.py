"""Tables and JSON on stdout, for the commands that only tell something."""

import io
import json
import sys
from collections.abc import Callable, Collection, Iterable, Sequence

from isorun.core.text import printable

_PIPE_WIDTH = 200  # of a table that no terminal bounds


def print_json(value: object, other: Callable[[object], object] | None = None) -> None:
    """*value* as one line of JSON; *other* says what stands for what JSON does not have."""
    sys.stdout.write(json.dumps(value, default=other) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, whole: Collection[str] = ()) -> None:
    """A table; its cells are shown as they are, control characters made visible, markup not obeyed.

    The columns *whole* stay on one line however narrow the terminal is.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in whole)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    if sys.stdout.isatty():
        Console(file=sys.stdout).print(table)
        return
    console = Console(file=io.StringIO(), width=_PIPE_WIDTH)
    with console.capture() as captured:
        console.print(table)
    # Without the padding, which wraps in a pager and is noise in a diff.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    sys.stdout.flush()


def say(text: str) -> None:
    """One line on stdout."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()
