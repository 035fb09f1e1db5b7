"""One message of a user, from its text to the report: pick, bootstrap, run, sync, report.

The workflow talks through `comm` and knows nothing of who listens: a terminal, a page,
a test. It must not judge a run; `verdicts` compares, and the Runtime decided.
"""

import asyncio
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from isorun.core.ids import new_exec_id
from isorun.core.outcome import Code
from isorun.core.report import error_lines, one_line, printable, tail, tracebacks, tree
from isorun.core.request import RunRequest
from isorun.core.result import RunResult
from isorun.runtime.accepted.handle import Run
from isorun.settings import Settings
from isorun.tools.subsystem import ToolSubsystem
from isorun.tools.workspace import Synced, Workspace, Workspaces

from . import exec_contract, exec_side_effects
from .exec import SCENARIOS, pick
from .verdicts import Scenario, Seen, known_ending, wrong_with

PROGRAM_ERROR = "Program error detected in user.log"
_LOG_BYTES = 1 << 20  # of user.log's end that is searched and shown
_TAIL = (20, 4000)  # lines and characters of each log in a report


class Comm(Protocol):
    """Whoever talks to the user."""

    def say(self, text: str) -> None:
        """Something to read."""

    def suggest(self, followups: Sequence[str]) -> None:
        """What the user may send next, to be clicked."""

    def output(self, stream: str, data: bytes) -> None:
        """What the program prints, as it comes; must return at once."""

    async def started(self, run: Run, request: RunRequest) -> None:
        """A program has begun; what this raises ends it."""

    def error(self, *, message: str, **details: Any) -> None:
        """Something that the user must not overlook."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of one message. `wrong` is empty if the scenario ended as it must."""

    scenario: Scenario
    seen: Seen
    wrong: tuple[str, ...]
    known: str  # why it ended otherwise than expected and is not wrong; "" if it ended as expected
    text: str  # the execution report
    space: Workspace
    synced: Synced | None

    @property
    def result(self) -> RunResult:
        """The run's own result."""
        return self.seen.result


class Workflow:
    """Runs scenarios for one user. *subsystem*: an open one to use; else each run opens its own."""

    def __init__(
        self,
        comm: Comm,
        *,
        user_id: str = "local",
        settings: Settings | None = None,
        subsystem: ToolSubsystem | None = None,
        workspaces: Workspaces | None = None,
    ) -> None:
        self.comm = comm
        self.user_id = user_id
        self.settings = settings or Settings.load()
        self.workspaces = workspaces or Workspaces.of(self.settings)
        self._subsystem = subsystem

    async def run(self, text: str) -> Report | None:
        """Answer *text*: run the scenario that it names, or say which there are. None for the latter."""
        scenario = pick(text)
        if scenario is None:
            self.comm.say("There is no such scenario. There are:\n" + "\n".join(followups()))
            self.comm.suggest(followups())
            return None
        if self._subsystem is not None:
            report = await self._run(scenario, self._subsystem)
        else:
            async with new_subsystem(self.settings, pool_size=0) as subsystem:
                report = await self._run(scenario, subsystem)
        self.comm.say(report.text)
        self.comm.suggest(followups())
        return report

    async def _run(self, scenario: Scenario, subsystem: ToolSubsystem) -> Report:
        if subsystem.runtime.backend.name == "docker":
            await asyncio.to_thread(self.workspaces.check_shared, self.settings)
        exec_id = new_exec_id()
        turn = f"turn_{exec_id}"  # of its own, so that no run finds the files of another where its own belong
        path = exec_contract if scenario.mode == "contract" else exec_side_effects
        async with self.workspaces.open(self.user_id) as space:
            notes = _notes(space)
            result = await path.run(
                scenario,
                space,
                turn,
                exec_id=exec_id,
                prog_name=f"scenario-{scenario.number}",
                user_id=self.user_id,
                tools=scenario.tools,
                runtime=subsystem.runtime,
                on_output=self.comm.output,
                on_start=self.comm.started,
            )
            synced = await self._sync(space, result)
            log = _end_of(space.out / "logs" / "user.log")
            erred = self._tell_errors(result, log)
            new_notes = len(_notes(space) - notes)
            seen = Seen(result=result, user_log=log, notes=new_notes, comm_error=erred, synced=synced is not None)
            return Report(
                scenario=scenario,
                seen=seen,
                wrong=wrong_with(scenario, seen),
                known=known_ending(scenario, seen),
                text=_report(space, result, log, synced),
                space=space,
                synced=synced,
            )

    async def _sync(self, space: Workspace, result: RunResult) -> Synced | None:
        """Bring out/ back, whatever the ending: partial output counts too.

        But not what a run left that filled its disk: it would fill the user's next run
        too, before that has written a byte. It stays in the sandbox and the run's folder.
        """
        if result.error and result.error.code in (Code.WORKSPACE_LIMIT, Code.INODE_LIMIT):
            return None
        return await space.sync(without=[str(call["record"]) for call in result.tool_calls if call.get("record")])

    def _tell_errors(self, result: RunResult, log: str) -> bool:
        lines, blocks = error_lines(log), tracebacks(log)
        if lines or blocks:
            self.comm.error(
                message=PROGRAM_ERROR,
                exec_id=result.exec_id,
                status=str(result.status),
                lines=list(lines),
                tracebacks=list(blocks),
            )
        return bool(lines or blocks)


def followups() -> list[str]:
    """Every scenario as a text that picks it."""
    return [scenario.followup for scenario in SCENARIOS.values()]


def new_subsystem(settings: Settings, **options: Any) -> ToolSubsystem:
    """The tools of this bundle, in a supervisor that holds a canary for scenario 14 to look for.

    Raises `InvalidRequest` (invalid_root) where the users' folders would go with a container: nothing is started.
    """
    if settings.backend == "docker":
        Workspaces.of(settings).check_shared(settings)
    planted = replace(settings, aws_session_token=f"isorun-canary-{secrets.token_hex(16)}")
    return ToolSubsystem(Path(__file__).parent, settings=planted, **options)


def _notes(space: Workspace) -> set[str]:
    folder = space.out / "notes"
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _end_of(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - _LOG_BYTES))
        return log.read(_LOG_BYTES).decode("utf-8", "replace")


def _report(space: Workspace, result: RunResult, log: str, synced: Synced | None) -> str:
    """The execution report. Its parts are bounded, and nothing of the program's can act on a terminal."""
    kept = f"{synced.files} files, {synced.bytes} bytes" if synced else "nothing: it would fill the next run's disk too"
    infra = _end_of(space.out / "logs" / "infra.log")
    parts = {
        "sandbox": _sandbox_tree(space.sandbox, result.turn_id),
        "user.log, its end": printable(tail(log, *_TAIL)),
        "infra.log, its end": printable(tail(infra, *_TAIL)),
        "ERROR lines": "\n".join(error_lines(log)),
        "synced to the workspace": "\n".join((kept, *_left_out(synced))),
    }
    shown = [f"{title}:\n{_indented(text)}" for title, text in parts.items() if text]
    return "\n".join((result.report_text.rstrip(), *shown))


def _sandbox_tree(folder: Path, turn: str) -> str:
    """The sandbox without logs/; the turns of earlier runs are only counted, or they would hide this one."""
    files = list(_files(folder))
    earlier = {parts[1] for path in files if (parts := path.split("/"))[1].startswith("turn_")} - {turn}
    shown = tree(path for path in files if path.split("/")[1] not in earlier)
    return f"{shown}\nand {len(earlier)} earlier turns in out/" if earlier else shown


def _files(folder: Path) -> Iterable[str]:
    """Every file of work/ and out/."""
    for at, _, names in os.walk(folder):  # follows no link
        for name in names:
            yield Path(at, name).relative_to(folder).as_posix()


def _left_out(synced: Synced | None) -> list[str]:
    return [f"left out: {refusal.path}: {one_line(refusal.reason)}" for refusal in (synced.refused if synced else ())]


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
