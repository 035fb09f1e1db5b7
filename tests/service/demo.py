"""The demo conversation with real runs; `python -m tests.service.demo FOLDER` records its views for the unit tests."""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import isorun
from isorun.core.request import RunRequest
from isorun.service.agent import told
from isorun.service.agent.loop import Agent, Ending
from isorun.service.agent.model import Model
from isorun.service.agent.scripted import open_model
from isorun.tools.exec_tools import advertised

TABLE = "city;year;people\nOslo;2020;700\nBergen;2020;280\nOslo;2021;710\nBergen;2021;285\nTromsø;2021;75\n"
TABLE_NAME = "cities.csv"
ASKED = "Analyse the table, draw a chart and write report.pdf"
RECORDED = Path(__file__).parents[1] / "unit" / "service" / "agent" / "recorded.json"
_TOOLS = ("generic_tools.write_pdf",)
#: Of a result, what the agent reads, and what tells the runs apart. Paths of a host and times are left out.
_KEPT = ("ok", "status", "exec_id", "prog_name", "error", "stdout", "items", "missing", "notices", "report_text")


@dataclass
class Played:
    """What a conversation came to."""

    ending: Ending
    messages: list[dict[str, Any]] = field(default_factory=list)
    results: list[isorun.RunResult] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    async def delta(self, text: str) -> None:
        self.said.append(text)

    async def message(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    async def run_started(self, call_id: str, request: RunRequest) -> None:
        pass

    async def run_ended(self, call_id: str, view: Mapping[str, Any] | None) -> None:
        pass


def view(result: isorun.RunResult) -> dict[str, Any]:
    """The view of a run, of which the agent reads the result."""
    whole = json.loads(result.to_json())
    return {"id": result.exec_id, "status": whole["status"], "result": {key: whole[key] for key in _KEPT}}


async def played(
    root: Path, asked: Sequence[str] = (ASKED,), *, model: Model | None = None, with_table: bool = True
) -> Played:
    """*asked*, one turn each, in a session of a real Runtime below *root*."""
    files = {TABLE_NAME: TABLE} if with_table else {}
    mine = RunRequest.of("", inputs=files, tools=_TOOLS, turn_id="1")
    async with isorun.Runtime(workspace_root=root, pool_size=0) as rt, model or open_model() as model:
        agent = Agent(model, rt.prompt(tools=_TOOLS), advertised(rt.settings))
        session = rt.session("demo")
        done = Played(Ending("empty"))

        async def run(request: RunRequest) -> Mapping[str, Any]:
            result = await session.execute(replace(request, inputs=mine.inputs, tools=_TOOLS, turn_id="1"))
            done.results.append(result)
            return view(result)

        for one in asked:
            sizes = {name: len(text.encode()) for name, text in files.items()}
            done.ending = await agent.turn(tuple(done.messages), told.asked(one, sizes), run, done)
        return done


if __name__ == "__main__":
    results = asyncio.run(played(Path(sys.argv[1]))).results
    views = {result.prog_name: view(result) for result in results}
    RECORDED.write_text(json.dumps(views, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
