"""What a scenario looks like on the terminal, for `isorun scenario` and `isorun demo`.

What programs print is hostile text: it is bounded, and nothing of it acts on the terminal.
"""

import codecs
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from isorun.core.request import RunRequest
from isorun.core.result import RunResult
from isorun.core.text import one_line
from isorun.runtime.accepted.handle import Run

_LINES = 12  # of a program's output that are shown


class Screen:
    """The terminal as a workflow's `comm`: the first lines of the output as they come, and errors."""

    def __init__(self, console: Console, *, expects_error: bool = False) -> None:
        self._console, self._expects_error = console, expects_error
        self._rest = {"stdout": "", "stderr": ""}
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in self._rest}
        self._shown = 0

    def say(self, text: str) -> None:
        """The report; it is shown from the object, with the verdicts."""

    async def started(self, run: Run, request: RunRequest) -> None:
        """Its output is shown as it comes."""

    def suggest(self, followups: Sequence[str]) -> None:
        """Nothing can be clicked here."""

    def output(self, stream: str, data: bytes) -> None:
        """Show whole lines; a last one without an end comes with `end_output`."""
        *lines, self._rest[stream] = (self._rest[stream] + self._decoders[stream].decode(data)).split("\n")
        self._show(lines)

    def stdout(self, stream: str, data: bytes) -> None:
        """As `output`, without stderr: a traceback's last line comes as the message."""
        if stream == "stdout":
            self.output(stream, data)

    def _show(self, lines: Sequence[str]) -> None:
        for line in lines[: max(_LINES - self._shown, 0)]:
            text = Text.assemble(("  │ ", "dim"), one_line(line, 200))
            self._console.print(text, overflow="ellipsis", no_wrap=True)
        self._shown += len(lines)

    def error(self, *, message: str, **details: object) -> None:
        """Show the message; dimmed where it must come."""
        self.end_output()
        style, told = ("dim", " (as it must)") if self._expects_error else ("red", "")
        self._console.print(Text.assemble(("  comm.error: ", style), message, (told, "dim")))

    def end_output(self) -> None:
        """Show a last line without an end, and say how much of the output was not shown."""
        self._show([rest for rest in self._rest.values() if rest])
        self._rest = dict.fromkeys(self._rest, "")
        if self._shown > _LINES:
            self._console.print(f"  [dim]│ … {self._shown - _LINES} more lines[/]")
        self._shown = 0


def show_rule(console: Console, title: str) -> None:
    """A blank line, and a heading across the terminal; *title* is rich's markup."""
    console.print()
    console.rule(f"[bold]{title}", align="left", style="dim")


def show_verdict(
    console: Console,
    result: RunResult,
    wrong: Sequence[str],
    *,
    expected: str,
    real: str,
    more: Iterable[tuple[str, Text]] = (),
) -> None:
    """How a run had to end and did, then *more* rows, then what was wrong with it."""
    rows = (
        ("expected", Text(expected, style="bold")),
        ("real", Text.assemble((real, "bold"), f" after {seconds(result)}")),
    )
    show_rows(console, wrong, (*rows, *more))


def show_rows(console: Console, wrong: Sequence[str], rows: Iterable[tuple[str, Text]]) -> None:
    """*rows* of a name and a text, the first of them marked; then what was wrong."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(width=8)
    grid.add_column(overflow="fold")
    sign = mark(wrong)
    for name, text in (*rows, *(("wrong", Text(text, style="red")) for text in wrong)):
        grid.add_row(sign, name, text)
        sign = ""
    console.print(Padding(grid, (0, 0, 0, 2)))


def mark(wrong: Sequence[str]) -> str:
    """✔ if nothing was wrong, else ✘; in rich's markup."""
    return "[red]✘[/]" if wrong else "[green]✔[/]"


def seconds(result: RunResult) -> str:
    """How long the program ran."""
    return f"{result.usage['wall_s']:.2f} s"


def table(*columns: str, whole: bool = False) -> Table:
    """A table without rows; its times and sizes stand on the right, and if *whole* no column wraps."""
    made = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        right = column in ("time", "timeout", "size")
        made.add_column(
            column, justify="right" if right else "left", no_wrap=whole or right or not column, overflow="fold"
        )
    return made
