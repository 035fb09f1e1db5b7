"""The demo conversation with real runs: the files are there, and the recorded runs of the unit tests are true."""

import asyncio
import csv
import io
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from isorun.service.agent.loop import Ending
from isorun.service.agent.model import Model
from isorun.service.agent.scripted import NAME, scripted
from isorun.service.context import open_service
from isorun.settings import Settings
from tests.service.demo import ASKED, RECORDED, played, view

pytestmark = [pytest.mark.slow, pytest.mark.any_user]


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """The scripted model, served on a port of this machine."""
    server = uvicorn.Server(uvicorn.Config(scripted(), log_level="warning", lifespan="off"))
    listening = socket.create_server(("127.0.0.1", 0))  # who connects too early waits in its queue
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        await serving
        listening.close()


def _as_recorded(one: dict[str, Any]) -> str:
    """A view without what differs from run to run."""
    text = re.sub(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{12}", "ID", json.dumps(one, ensure_ascii=False))
    return re.sub(r"[0-9a-f]{64}|\d+ bytes|\"bytes\": \d+", "N", text)


async def test_the_whole_conversation_makes_the_files(tmp_path: Path) -> None:
    """A table, a chart and a report, after a promise that was broken and mended; the last text says what was found."""
    done = await played(tmp_path)
    assert done.ending == Ending("answered")
    assert [str(result.status) for result in done.results] == ["contract_failed", "ok", "ok", "ok"]
    _, analysis, chart, report = done.results
    rows = list(csv.reader(io.StringIO(analysis["summary.csv"].read_text())))
    assert rows == [
        ["city", "total", "share"],
        ["Oslo", "1410", "0.688"],
        ["Bergen", "565", "0.276"],
        ["Tromsø", "75", "0.037"],
    ]
    assert chart["chart.png"].read_bytes().startswith(b"\x89PNG")
    assert report["report.pdf"].read_bytes().startswith(b"%PDF")
    assert [call["tool_id"] for call in report.tool_calls] == ["generic_tools.write_pdf"]
    assert "- Oslo: 1410 (69%)" in done.messages[-1]["content"]
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    for result in done.results:
        assert _as_recorded(view(result)) == _as_recorded(recorded[result.prog_name])


async def test_one_step_a_turn_and_once_more(tmp_path: Path, address: str) -> None:
    """Over a port, without a table; a step that is asked for again is done again."""
    asked = ("Analyse my table", "Now draw a chart", "Draw a chart", "Write a report", "What is love?")
    done = await played(tmp_path, asked, model=Model(address, NAME), with_table=False)
    names = [result.prog_name for result in done.results]
    assert names == ["analysis, first draft", "analysis", "chart", "chart", "report"]
    assert [result.ok for result in done.results] == [False, True, True, True, True]
    assert "I can play this" in done.messages[-1]["content"]


async def test_the_service_makes_the_files_without_a_key(tmp_path: Path) -> None:
    """As it is opened, with nothing configured: its programs may call the tool that writes the report."""
    settings = Settings(
        service_data=tmp_path / "service",
        workspace_root=tmp_path / "runs",
        user_workspace_root=tmp_path / "workspace",
        sandbox_root=tmp_path / "sandbox",
    )
    (tmp_path / "runs").mkdir()
    async with open_service(settings, pool_size=0) as service:
        user = await service.accounts.local()
        await service.talks.create(user, "one", "")
        await service.turns.say(user, "one", ASKED, [])
        async with asyncio.timeout(60):
            async for event in service.runs.events_of_conversation("one"):
                if event.kind == "turn_ended":
                    break
        said = [one.content["text"] for one in await service.talks.said("one") if one.role == "assistant"]
        await service.close()
    assert said[-1].startswith("Done: summary.csv, chart.png, report.pdf.")


async def test_openais_own_client_speaks_with_it(address: str) -> None:
    """Models, an answer at once, a stream with usage, and a call of a tool."""
    from openai import AsyncOpenAI  # not at the top: it takes a second

    parameters = {"type": "object", "properties": {"code": {"type": "string"}}}
    tools: Any = [{"type": "function", "function": {"name": "run", "parameters": parameters}}]
    messages: Any = [{"role": "user", "content": "demo"}]
    async with AsyncOpenAI(base_url=address, api_key="none") as client:
        assert [one.id async for one in client.models.list()] == [NAME]
        said = await client.chat.completions.create(model=NAME, messages=messages)
        assert "a script, not a model" in (said.choices[0].message.content or "")
        usage: Any = {"include_usage": True}
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model=NAME, messages=messages, tools=tools, stream=True, stream_options=usage
            )
        ]
    pieces = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    arguments = "".join(piece.function.arguments or "" for piece in pieces if piece.function)
    assert pieces[0].function is not None
    assert pieces[0].function.name == "run"
    assert list(json.loads(arguments)) == ["code"]
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "tool_calls"
    assert chunks[-1].usage is not None
