"""The contract path: the program promises files, and each is checked before it counts."""

from typing import Any

from isorun.core.result import RunResult
from isorun.tools import exec_tools
from isorun.tools.workspace import Workspace

from .verdicts import Scenario


async def run(scenario: Scenario, space: Workspace, turn: str, **options: Any) -> RunResult:
    """Run *scenario* in the sandbox of *space*; *options* are those of `exec_tools.run_exec_tool`."""
    return await exec_tools.run_exec_tool(
        scenario.program, scenario.contract(turn), scenario.timeout_s, space.work, space.out, turn_id=turn, **options
    )
