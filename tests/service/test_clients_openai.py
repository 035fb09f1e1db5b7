"""OpenAI's own client with the agent as its model, behind which the scripted model plays its demo."""

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import uvicorn
from service.conftest import END_S, Served, end_service, start_service
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from openai import AsyncOpenAI

pytestmark = [pytest.mark.slow, pytest.mark.any_user]
MODEL = "isorun-agent"
_LINK = re.compile(r"/v1/runs/[^/]+/")
ASKED: Any = [{"role": "user", "content": "Analyse my table"}]


@contextlib.asynccontextmanager
async def opened(served: Served, key: str) -> AsyncIterator["AsyncOpenAI"]:
    from openai import AsyncOpenAI  # not at the top: it takes a second

    async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0, timeout=END_S) as client:
        yield client


async def test_the_one_model_is_listed(served: Served) -> None:
    async with opened(served, served.key) as client:
        assert [one.id async for one in client.models.list()] == [MODEL]
        assert (await client.models.retrieve(MODEL)).owned_by == "isorun"


async def test_an_answer_names_what_the_programs_wrote(served: Served) -> None:
    """At once and as a stream the same; the link gives the file to its user, and to no other."""
    async with opened(served, served.key) as client:
        whole = await client.chat.completions.create(model=MODEL, messages=ASKED)
        stream = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
        chunks = [chunk async for chunk in stream]
    assert whole.choices[0].finish_reason == "stop"
    text = whole.choices[0].message.content or ""
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert len(chunks) > 5
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert _LINK.sub("", streamed) == _LINK.sub("", text)
    link = text.partition("](")[2].partition(")")[0]
    assert link.startswith(f"{served.url}/v1/runs/"), text
    mine = httpx2.get(link, headers={"Authorization": f"Bearer {served.key}"})
    assert mine.status_code == 200
    assert mine.content
    assert httpx2.get(link, headers={"Authorization": f"Bearer {served.other_key}"}).status_code == 404


async def test_programs_of_one_answer_find_each_others_files_and_no_others_do(served: Served) -> None:
    """The session of a turn is removed behind it."""
    async with opened(served, served.key) as client:
        await client.chat.completions.create(model=MODEL, messages=ASKED)
    assert _sessions(served) == []


def _sessions(served: Served) -> list[Any]:
    argv = [sys.executable, "-m", "isorun", "sessions", "ls", "--json"]
    listed = subprocess.run(argv, env=served.environment, capture_output=True, text=True, check=True, timeout=END_S)
    return list(json.loads(listed.stdout))


@contextlib.asynccontextmanager
async def endless_model() -> AsyncIterator[str]:
    """The address of a model whose one program never ends."""

    async def completions(request: Request) -> Response:
        promise = [{"filename": "never.txt", "description": "never"}]
        code = json.dumps({"code": "while True: pass", "contract": promise})
        name = (await request.json())["tools"][0]["function"]["name"]
        call = {"id": "c", "index": 0, "type": "function", "function": {"name": name, "arguments": code}}
        delta = {"role": "assistant", "content": "I run it.", "tool_calls": [call]}
        chunk = {
            "id": "x",
            "model": "endless",
            "choices": [{"index": 0, "delta": delta, "finish_reason": "tool_calls"}],
        }
        return Response(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n", media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/chat/completions", completions, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    listening = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        await serving
        listening.close()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_its_turn(tmp_path: Path, stream: bool) -> None:
    """Its program ends with it, though it would run for ever, and nothing is left for a next one."""
    async with endless_model() as model:
        more = {"ISORUN_MODEL_URL": model, "ISORUN_MODEL": "endless"}
        served = await asyncio.to_thread(lambda: start_service(tmp_path, **more))
        try:
            headers = {"Authorization": f"Bearer {served.key}"}
            async with httpx2.AsyncClient(base_url=served.url, headers=headers, timeout=END_S) as http:
                body = {"model": MODEL, "messages": ASKED, "stream": stream}
                asking = asyncio.ensure_future(http.post("/v1/chat/completions", json=body))
                await _until(http, lambda runs: any(one["started"] for one in runs))
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asking
                runs = await _until(http, lambda runs: all(one["ended"] for one in runs))
            assert [one["status"] for one in runs] == ["cancelled"]
            async with asyncio.timeout(END_S):
                while True:
                    if not await asyncio.to_thread(_sessions, served):
                        break
        finally:
            await asyncio.to_thread(end_service, served)


async def _until(http: httpx2.AsyncClient, true: Callable[[list[Any]], bool]) -> list[Any]:
    """The user's runs, once that is true of them."""
    async with asyncio.timeout(END_S):
        while True:
            runs = list((await http.get("/v1/runs")).json()["runs"])
            if true(runs):
                return runs
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "gpt", "messages": ASKED}, 404, "model_not_found"),
        ({"model": MODEL, "messages": []}, 422, "invalid_request"),
        ({"model": MODEL, "messages": [{"role": "assistant", "content": "x"}]}, 400, "no_question"),
        ({"model": MODEL, "messages": ASKED, "n": 2}, 400, "unsupported"),
        (
            {"model": MODEL, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            400,
            "unsupported",
        ),
    ],
)
async def test_what_cannot_be_answered_is_an_error_in_its_shape(
    served: Served, body: dict[str, Any], status: int, code: str
) -> None:
    headers = {"Authorization": f"Bearer {served.key}"}
    answer = httpx2.post(f"{served.url}/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["code"] == code


async def test_a_key_is_needed(served: Served) -> None:
    from openai import AuthenticationError

    async with opened(served, "isr_wrong") as client:
        with pytest.raises(AuthenticationError) as refused:
            await client.models.list()
        with pytest.raises(AuthenticationError):
            await client.chat.completions.create(model=MODEL, messages=ASKED)
    assert refused.value.body is not None
    assert json.loads(refused.value.response.text)["error"]["type"] == "authentication_error"
