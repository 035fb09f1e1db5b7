"""The scripted server itself: what each quirk changes in the bytes that it sends."""

import json
from typing import Any

import httpx2
import pytest

from isorun.service.agent import told
from isorun.service.agent.model import PATH
from isorun.service.agent.scripted import Quirk, scripted
from isorun.settings import Settings
from isorun.tools.exec_tools import advertised

BODY: dict[str, Any] = {
    "model": "scripted-demo",
    "messages": [{"role": "user", "content": "analyse"}],
    "tools": told.definitions(advertised(Settings())),
    "stream": True,
}


async def _sent(*quirks: Quirk, **more: object) -> httpx2.Response:
    transport = httpx2.ASGITransport(scripted(quirks))
    async with httpx2.AsyncClient(transport=transport, base_url="http://models.test/v1") as client:
        return await client.post(PATH, json={**BODY, **more})


def _chunks(response: httpx2.Response) -> list[dict[str, Any]]:
    lines = response.text.split("\n\n")
    return [json.loads(one.removeprefix("data: ")) for one in lines if one.startswith("data: {")]


def _calls(response: httpx2.Response) -> list[dict[str, Any]]:
    deltas = [choice["delta"] for chunk in _chunks(response) for choice in chunk.get("choices", ())]
    return [call for delta in deltas for call in delta.get("tool_calls", ())]


def _finish(response: httpx2.Response) -> str:
    return str(_chunks(response)[-1]["choices"][0]["finish_reason"])


_SHOWS: dict[Quirk, Any] = {
    Quirk.ARGUMENTS_AS_OBJECT: lambda sent: [type(one["function"]["arguments"]) for one in _calls(sent)] == [dict],
    Quirk.NO_INDEX: lambda sent: all("index" not in one for one in _calls(sent)),
    Quirk.STOP_WITH_CALLS: lambda sent: _finish(sent) == "stop",
    Quirk.USAGE_WITHOUT_CHOICES: lambda sent: any("choices" not in chunk for chunk in _chunks(sent)),
    Quirk.COMMENTS: lambda sent: "\n\n: " in sent.text,
    Quirk.REASONING: lambda sent: '"reasoning_content"' in sent.text,
    Quirk.STRICT: lambda sent: sent.status_code == 400,
    Quirk.WHOLE: lambda sent: "message" in sent.json()["choices"][0],
    Quirk.NO_DONE: lambda sent: "[DONE]" not in sent.text,
}


@pytest.mark.parametrize("quirk", Quirk, ids=lambda quirk: quirk.name.lower())
async def test_each_quirk_shows(quirk: Quirk) -> None:
    """A switch that changed nothing would test nothing. Without it the server is as OpenAI's."""
    more = {"stream_options": {"include_usage": False}}
    assert _SHOWS[quirk](await _sent(quirk, **more))
    plain = await _sent(**more)
    if quirk is not Quirk.WHOLE:
        assert not _SHOWS[quirk](plain)
    assert plain.headers["content-type"].startswith("text/event-stream")
    assert _finish(plain) == "tool_calls"


async def test_usage_is_told_where_it_is_asked_for() -> None:
    """In a last chunk without a choice."""
    last = _chunks(await _sent(stream_options={"include_usage": True}))[-1]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] > 0


async def test_a_strict_server_knows_no_keys_of_ours() -> None:
    """Neither in the request nor in a message."""
    odd = [{"role": "user", "content": "demo", "text": "demo"}]
    refused = await _sent(Quirk.STRICT, messages=odd)
    assert refused.json()["error"]["message"] == "Unrecognized request argument supplied: text"
    assert (await _sent(Quirk.STRICT)).status_code == 200
