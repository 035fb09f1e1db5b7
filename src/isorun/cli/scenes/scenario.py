"""`isorun scenario`: the example bundle's scenarios, each with its expected verdict beside the real one.

The scenarios, and what counts as expected, are the bundle's own (`exec.py`,
`verdicts.py`); the same table is the test suite's. This module shows, and treats what
programs print as hostile text.
"""

import asyncio
import codecs
import signal
from collections.abc import Coroutine, Sequence
from types import ModuleType
from typing import Annotated, Any, TypeAlias

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from isorun.cli.show import print_json
from isorun.core.errors import InvalidRequest
from isorun.runtime.report import one_line
from isorun.settings import Settings
from isorun.tools.bundles import bundle_module, example_bundle
from isorun.tools.workspace import Workspaces

_Scenario: TypeAlias = Any  # a class of the bundle, which is imported by its path
_Report: TypeAlias = Any  # as well

_LINES = 12  # of a program's output that are shown
_MOST_ROUNDS = 1000
_OWN = "scenarios"  # our own user: what --all leaves there is removed by the next round, or it would fill up


def scenario(
    which: Annotated[str, typer.Argument(help="`list`, or the number of a scenario.", metavar="list|N")] = "",
    all_: Annotated[bool, typer.Option("--all", help="Run every scenario.")] = False,
    repeat: Annotated[int, typer.Option(help="With --all: so many rounds.", metavar="K", min=1)] = 1,
    user: Annotated[
        str | None, typer.Option(help=f"Whose workspace to use and keep (default: {_OWN}).", metavar="ID")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> int:
    """Run scenarios of the example bundle; exit 0 only if each ended as it must."""
    settings = Settings.load()
    bundle = example_bundle(settings=settings)
    table = bundle_module(bundle, "exec")
    if all_ and which:
        raise InvalidRequest("name one scenario, or --all, not both", code="invalid_scenario")
    if not all_ and which in ("", "list"):
        return _list(table, json_output)
    if repeat > 1 and (not all_ or repeat > _MOST_ROUNDS):
        raise InvalidRequest(f"--repeat goes with --all, up to {_MOST_ROUNDS}", code="invalid_scenario")
    chosen = list(table.SCENARIOS.values()) if all_ else [_picked(table, which)]
    stage = _Stage(Console(highlight=False, quiet=json_output), chosen, rounds=repeat, user=user)
    try:
        asyncio.run(_until_interrupted(stage.play(bundle_module(bundle, "workflow"), settings)))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    if json_output:
        print_json(stage.as_json())
    else:
        stage.close()
    return 0 if stage.as_expected else 1


async def _until_interrupted(work: Coroutine[Any, Any, None]) -> None:
    """Do *work*; a signal cancels it alone, so that what it waits for can still answer while it is taken down."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await work


def _picked(table: ModuleType, which: str) -> _Scenario:
    found = table.pick(which)
    if found is None:
        raise InvalidRequest(f"there is no scenario {which!r}; `isorun scenario list` shows them", code="no_scenario")
    return found


def _list(table: ModuleType, json_output: bool) -> int:
    scenarios = table.SCENARIOS.values()
    if json_output:
        print_json([_about(one) for one in scenarios])
        return 0
    rows = _table("", "scenario", "mode", "timeout", "expected")
    for one in scenarios:
        rows.add_row(str(one.number), one.title, one.mode, f"{one.timeout_s:g} s", str(one.expected))
    Console(highlight=False).print(rows)
    return 0


def _about(one: _Scenario) -> dict[str, Any]:
    facts = {"number": one.number, "title": one.title, "mode": one.mode, "timeout_s": one.timeout_s}
    return {**facts, "expected": str(one.expected), "program": one.program}


class _Screen:
    """The terminal as a workflow's `comm`: the first lines of the output as they come, and errors."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rest = {"stdout": "", "stderr": ""}
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in self._rest}
        self._shown = 0

    def say(self, text: str) -> None:
        """The report; it is shown from the object, with the verdicts."""

    def suggest(self, followups: Sequence[str]) -> None:
        """Nothing can be clicked here."""

    def output(self, stream: str, data: bytes) -> None:
        """Show whole lines; a last one without an end comes with `end_output`."""
        *lines, self._rest[stream] = (self._rest[stream] + self._decoders[stream].decode(data)).split("\n")
        self._show(lines)

    def _show(self, lines: Sequence[str]) -> None:
        for line in lines[: max(_LINES - self._shown, 0)]:
            text = Text.assemble(("  │ ", "dim"), one_line(line, 200))
            self._console.print(text, overflow="ellipsis", no_wrap=True)
        self._shown += len(lines)

    def error(self, *, message: str, **details: object) -> None:
        """Show the message."""
        self.end_output()
        self._console.print(Text.assemble(("  comm.error: ", "red"), message))

    def end_output(self) -> None:
        """Show a last line without an end, and say how much of the output was not shown."""
        self._show([rest for rest in self._rest.values() if rest])
        self._rest = dict.fromkeys(self._rest, "")
        if self._shown > _LINES:
            self._console.print(f"  [dim]│ … {self._shown - _LINES} more lines[/]")
        self._shown = 0


class _Stage:
    """Plays the chosen scenarios, and remembers how each ended."""

    def __init__(self, console: Console, chosen: Sequence[_Scenario], *, rounds: int, user: str | None) -> None:
        self._console, self._chosen, self._rounds, self._user = console, chosen, rounds, user
        self._reports: list[tuple[int, _Report]] = []

    @property
    def as_expected(self) -> bool:
        """Whether every scenario ended as it must, each time."""
        return all(not report.wrong for _, report in self._reports)

    async def play(self, workflow: ModuleType, settings: Settings) -> None:
        """Run them, one after the other, all in one Runtime."""
        async with workflow.new_subsystem(settings, pool_size=1) as subsystem:
            for round_ in range(1, self._rounds + 1):
                if self._user is None and len(self._chosen) > 1:
                    await Workspaces.of(settings).clear(_OWN)
                for one in self._chosen:
                    screen = _Screen(self._console if self._rounds == 1 else Console(quiet=True))
                    flow = workflow.Workflow(screen, user_id=self._user or _OWN, settings=settings, subsystem=subsystem)
                    self._announce(one)
                    report = await flow.run(str(one.number))
                    screen.end_output()
                    self._reports.append((round_, report))
                    self._show(round_, report)

    def _announce(self, one: _Scenario) -> None:
        if self._rounds == 1:
            self._console.print()
            self._console.rule(f"[bold]{escape(one.followup)}", align="left", style="dim")

    def _show(self, round_: int, report: _Report) -> None:
        if self._rounds > 1:
            line = f"{round_}/{self._rounds}  {report.scenario.followup}: {report.seen}"
            self._console.print(Text.from_markup(_mark(report) + " ").append(line), soft_wrap=True)
            for wrong in report.wrong:
                self._console.print(Text(f"    wrong: {wrong}", style="red"), soft_wrap=True)
            return
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=1)
        grid.add_column(width=8)
        grid.add_column(overflow="fold")
        real = Text.assemble((str(report.seen), "bold"), f" after {report.result.usage['wall_s']:.2f} s")
        grid.add_row(_mark(report), "expected", Text(str(report.scenario.expected), style="bold"))
        grid.add_row("", "real", real)
        for wrong in report.wrong:
            grid.add_row("", "wrong", Text(wrong, style="red"))
        self._console.print(Padding(grid, (0, 0, 0, 2)))
        self._console.print(Padding(Text(self._report_of(report), style="dim"), (0, 0, 0, 4)))

    def _report_of(self, report: _Report) -> str:
        if len(self._chosen) == 1:
            return str(report.text)
        # The log's lines were shown as they came; the tree and the tails are for one scenario at a time.
        lines = report.result.report_text.splitlines()
        return "\n".join(line for line in lines if not line.startswith(("  | ", "program log")))

    def close(self) -> None:
        """The closing table, where everything is, and the verdict on the verdicts."""
        rows = _table("", "scenario", "expected", "real", "time", "")
        for one in self._chosen:
            mine = [report for _, report in self._reports if report.scenario is one]
            real = sorted({str(report.seen) for report in mine})
            slowest = max(report.result.usage["wall_s"] for report in mine)
            good = sum(not report.wrong for report in mine)
            mark = _mark(mine[0]) if len(mine) == 1 else f"{good}/{len(mine)}"
            words = str(one.expected), " | ".join(real)
            rows.add_row(str(one.number), one.title, *words, f"{slowest:.2f} s", mark)
        self._console.print()
        self._console.rule("[bold]What was seen", align="left", style="dim")
        self._console.print(rows)
        space = self._reports[-1][1].space
        self._console.print(Text(f"workspace {space.workspace}"), soft_wrap=True)
        self._console.print(Text(f"sandbox   {space.sandbox}"), soft_wrap=True)
        good = sum(not report.wrong for _, report in self._reports)
        colour, told = ("green", "as expected") if self.as_expected else ("red", "as expected: NOT ALL")
        self._console.print(f"[bold {colour}]{good} of {len(self._reports)} verdicts {told}[/]")

    def as_json(self) -> dict[str, Any]:
        """Everything that was seen; each result is whole if there was one round."""
        return {
            "ok": self.as_expected,
            "rounds": self._rounds,
            "scenarios": [
                {
                    "round": round_,
                    **_about(report.scenario),
                    "real": str(report.seen),
                    "wrong": list(report.wrong),
                    "comm_error": report.seen.comm_error,
                    "notes": report.seen.notes,
                    "synced": report.seen.synced,
                    "workspace": str(report.space.workspace),
                    "sandbox": str(report.space.sandbox),
                    **({"result": report.result.to_dict()} if self._rounds == 1 else {}),
                }
                for round_, report in self._reports
            ],
        }


def _mark(report: _Report) -> str:
    return "[red]✘[/]" if report.wrong else "[green]✔[/]"


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        right = column in ("time", "timeout")
        table.add_column(column, justify="right" if right else "left", no_wrap=right or not column, overflow="fold")
    return table
