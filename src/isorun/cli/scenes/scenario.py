"""`isorun scenario`: the example bundle's scenarios, each with its expected verdict beside the real one.

The scenarios, and what counts as expected, are the bundle's own (`exec.py`,
`verdicts.py`); the same table is the test suite's. This module shows, and treats what
programs print as hostile text.
"""

import argparse
import asyncio
import signal
from collections.abc import Coroutine, Sequence
from types import ModuleType
from typing import Any, TypeAlias

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from isorun.cli.parsing import option
from isorun.cli.scenes.stage import Screen, mark, seconds, show_rule, show_verdict, table
from isorun.cli.show import print_json, print_table
from isorun.core.errors import InvalidRequest
from isorun.settings import Settings
from isorun.tools.bundles import bundle_module, example_bundle
from isorun.tools.workspace import Workspaces

_Scenario: TypeAlias = Any  # a class of the bundle, which is imported by its path
_Report: TypeAlias = Any  # as well

_MOST_ROUNDS = 1000
_INFRA = "infra.log, its end:"  # a heading of the bundle's report
_OWN = "scenarios"  # our own user: what --all leaves there is removed by the next round, or it would fill up


def _rounds(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds; give 1 or more")
    return int(text)


OPTIONS = {
    "scenario": (
        option("which list|N", "`list`, or the number of a scenario (default: list).", nargs="?"),
        option("--all", "Run every scenario.", dest="all_"),
        option("--repeat K", "With --all: so many rounds (default: 1).", type=_rounds),
        option("--user ID", f"Whose workspace to use and keep (default: {_OWN})."),
        option("--json", "Print one JSON object, and nothing else.", dest="json_output"),
    )
}


def scenario(
    which: str = "", all_: bool = False, repeat: int = 1, user: str | None = None, json_output: bool = False
) -> int:
    """Run scenarios of the example bundle; exit 0 only if each ended as it must."""
    settings = Settings.load()
    bundle = example_bundle(settings=settings)
    listed = bundle_module(bundle, "exec")
    if all_ and which:
        raise InvalidRequest("name one scenario, or --all, not both", code="invalid_scenario")
    if not all_ and which in ("", "list"):
        return _list(listed, json_output)
    if repeat > 1 and (not all_ or repeat > _MOST_ROUNDS):
        raise InvalidRequest(f"--repeat goes with --all, up to {_MOST_ROUNDS}", code="invalid_scenario")
    chosen = list(listed.SCENARIOS.values()) if all_ else [_picked(listed, which)]
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


def _picked(listed: ModuleType, which: str) -> _Scenario:
    found = listed.pick(which)
    if found is None:
        raise InvalidRequest(f"there is no scenario {which!r}; `isorun scenario list` shows them", code="no_scenario")
    return found


def _list(listed: ModuleType, json_output: bool) -> int:
    scenarios = listed.SCENARIOS.values()
    if json_output:
        print_json([_about(one) for one in scenarios])
        return 0
    rows = [(str(one.number), one.title, one.mode, f"{one.timeout_s:g} s", str(one.expected)) for one in scenarios]
    print_table(("", "scenario", "mode", "timeout", "expected"), rows, whole=("timeout",))
    return 0


def _about(one: _Scenario) -> dict[str, Any]:
    facts = {"number": one.number, "title": one.title, "mode": one.mode, "timeout_s": one.timeout_s}
    return {**facts, "expected": str(one.expected), "program": one.program}


def _without_infra(report: _Report) -> str:
    """The report of a run that ended well; what the host noted is only named: its words would alarm a reader."""
    before, _, rest = str(report.text).partition(f"\n{_INFRA}\n")
    after = [line for line in rest.splitlines() if not line.startswith(" ")]
    at = rest.find(f"\n{after[0]}") if after else -1
    where = f"what the host did:\n  {report.space.out / 'logs' / 'infra.log'}"
    return f"{before}\n{where}{rest[at:] if at >= 0 else ''}" if rest else before


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
                    expects = one.expected.comm_error is not False
                    screen = Screen(self._console if self._rounds == 1 else Console(quiet=True), expects_error=expects)
                    flow = workflow.Workflow(screen, user_id=self._user or _OWN, settings=settings, subsystem=subsystem)
                    self._announce(one)
                    report = await flow.run(str(one.number))
                    screen.end_output()
                    self._reports.append((round_, report))
                    self._show(round_, report)

    def _announce(self, one: _Scenario) -> None:
        if self._rounds == 1:
            show_rule(self._console, escape(one.followup))

    def _show(self, round_: int, report: _Report) -> None:
        if self._rounds > 1:
            line = f"{round_}/{self._rounds}  {report.scenario.followup}: {report.seen}"
            self._console.print(Text.from_markup(mark(report.wrong) + " ").append(line), soft_wrap=True)
            for wrong in report.wrong:
                self._console.print(Text(f"    wrong: {wrong}", style="red"), soft_wrap=True)
            return
        expected, real = str(report.scenario.expected), str(report.seen)
        show_verdict(self._console, report.result, report.wrong, expected=expected, real=real)
        self._console.print(Padding(Text(self._report_of(report), style="dim"), (0, 0, 0, 4)))

    def _report_of(self, report: _Report) -> str:
        if len(self._chosen) == 1:
            return str(report.text) if report.wrong else _without_infra(report)
        # The log's lines were shown as they came; the tree and the tails are for one scenario at a time.
        lines = report.result.report_text.splitlines()
        return "\n".join(line for line in lines if not line.startswith(("  | ", "program log")))

    def close(self) -> None:
        """The closing table, where everything is, and the verdict on the verdicts."""
        rows = table("", "scenario", "expected", "real", "time", "")
        for one in self._chosen:
            mine = [report for _, report in self._reports if report.scenario is one]
            real = sorted({str(report.seen) for report in mine})
            slowest = max((report.result for report in mine), key=lambda result: result.usage["wall_s"])
            good = sum(not report.wrong for report in mine)
            ending = mark(mine[0].wrong) if len(mine) == 1 else f"{good}/{len(mine)}"
            words = str(one.expected), " | ".join(real)
            rows.add_row(str(one.number), one.title, *words, seconds(slowest), ending)
        show_rule(self._console, "What was seen")
        self._console.print(rows)
        for number, why in sorted({(one.scenario.number, one.known) for _, one in self._reports if one.known}):
            self._console.print(Text(f"{number} ended otherwise, as it may here: {why}"), soft_wrap=True)
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
                    "known": report.known,
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
