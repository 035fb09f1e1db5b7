"""The server over a backend that plays its part: each method of the protocol, in both of its eras."""

import asyncio
import base64
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import BlobResourceContents, ImageContent, ResourceLink, TextContent, TextResourceContents

from isorun.core.errors import InvalidRequest, SetupFailed, Unavailable
from isorun.core.request import Named, RunRequest
from isorun.service.mcp.backend import Ended, File, Listed, Piece
from isorun.service.mcp.server import MAX_RESOURCE, make_server
from tests.unit.service.mcp.test_mcp_pictures import PNG

MODES = ("auto", "legacy")
FILES = {
    "chart.png": PNG,
    "bad.png": b"\x89PNG",
    "a.csv": "x\né\n".encode(),
    "data.bin": b"\0\1",
    "b.txt": b"\xff\xfe\0",
}
RESULT = {"ok": True, "status": "ok", "stdout": "hi\n", "stderr": "", "report_text": "status: ok\n"}
SECRET = "/home/somebody/.secret"


class Played:
    """One run, mcp-1, with `FILES`. What it is asked for is kept; *raises* comes of `start`, *ends* lets it end."""

    def __init__(self, raises: Exception | None = None, ends: asyncio.Event | None = None) -> None:
        self.asked: list[RunRequest] = []
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()
        self._raises, self._ends = raises, ends

    @property
    def tools(self) -> Mapping[str, Mapping[str, Any]]:
        return {"stock.level": {"description": "How many.", "parameters": {"properties": {}}}}

    async def start(self, request: RunRequest) -> str:
        if self._raises is not None:
            raise self._raises
        self.asked.append(request)
        return "mcp-1"

    async def output(self, exec_id: str) -> AsyncIterator[str]:
        yield "working\n"
        if self._ends is not None:
            await self._ends.wait()

    async def result(self, exec_id: str) -> Ended:
        if self._ends is not None:
            await self._ends.wait()
        return Ended(exec_id=exec_id, result=RESULT, files=self._files())

    async def cancel(self, exec_id: str) -> None:
        await asyncio.sleep(0)  # a cancelled caller is not cancelled again in here
        self.cancelled.put_nowait(exec_id)

    async def read(self, exec_id: str, path: str, *, offset: int, most: int) -> Piece:
        if path == "huge.csv":
            return Piece(data=b"x", offset=0, total=MAX_RESOURCE + 1)
        if (exec_id, path) not in {("mcp-1", name) for name in FILES}:
            raise InvalidRequest(f"run {exec_id} has no file {path!r}", code="no_such_file")
        data = FILES[path]
        return Piece(data=data[offset : offset + most], offset=offset, total=len(data))

    async def latest(self, most: int) -> Sequence[Listed]:
        return [Listed(exec_id="mcp-1", status="ok", files=self._files())][:most]

    @staticmethod
    def _files() -> list[File]:
        return [File(path=name, bytes=len(data), mime="") for name, data in FILES.items()]


def client(backend: Played, mode: str = "auto") -> Client:
    return Client(make_server(lambda _: backend, instructions="how to"), mode=mode)


def text_of(answer: Any) -> str:  # noqa: ANN401 - an answer
    return "\n".join(one.text for one in answer.content if isinstance(one, TextContent))


@pytest.mark.parametrize("mode", MODES)
async def test_the_tools_and_what_they_promise(mode) -> None:
    """Names, annotations and output schemas; `read_output` has no schema, so that its pictures reach each model."""
    async with client(Played(), mode) as one:
        tools = {tool.name: tool for tool in (await one.list_tools()).tools}
        assert one.instructions == "how to"
    assert list(tools) == ["run_python", "read_output", "list_runs"]
    hints = {name: tool.annotations for name, tool in tools.items()}
    told = {name: (a.read_only_hint, a.destructive_hint, a.open_world_hint) for name, a in hints.items() if a}
    assert told == {
        "run_python": (False, False, False),
        "read_output": (True, False, False),
        "list_runs": (True, False, False),
    }
    assert [tool.output_schema is not None for tool in tools.values()] == [True, False, True]
    assert "stock.level(" in (tools["run_python"].description or "")


@pytest.mark.parametrize("mode", MODES)
async def test_a_program_is_run(mode) -> None:
    """The answer has the output, the one picture that is whole, and a link to each file; progress came before it."""
    backend, told = Played(), []

    async def progress(count: float, total: float | None, message: str | None) -> None:
        told.append((count, message))

    arguments = {
        "code": "print(1)",
        "files": [{"name": "in.csv", "uri": "isorun://runs/mcp-1/out/a.csv"}, {"name": "t", "text": "x"}],
    }
    async with client(backend, mode) as one:
        answer = await one.call_tool("run_python", arguments, progress_callback=progress)
    assert told == [(1, "working")]
    assert not answer.is_error
    assert answer.structured_content["stdout"] == "hi\n"
    shown = [base64.b64decode(one.data) for one in answer.content if isinstance(one, ImageContent)]
    assert shown == [PNG]
    assert [one.name for one in answer.content if isinstance(one, ResourceLink)] == list(FILES)
    (request,) = backend.asked
    assert request.code == b"print(1)"
    assert request.inputs == (Named("t", b"x"), Named("in.csv", FILES["a.csv"]))


@pytest.mark.parametrize("mode", MODES)
async def test_a_clients_cancel_ends_the_run(mode) -> None:
    """The run is cancelled, and that is waited for, before the request is over."""
    backend, started = Played(ends=asyncio.Event()), asyncio.Event()

    async def progress(count: float, total: float | None, message: str | None) -> None:
        started.set()

    async with client(backend, mode) as one:
        call = asyncio.create_task(one.call_tool("run_python", {"code": "1"}, progress_callback=progress))
        await started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(60):
            assert await backend.cancelled.get() == "mcp-1"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InvalidRequest("give a list"), "give a list"),
        (Unavailable(f"{SECRET} is missing"), "the operator of this server can run `isorun doctor`"),
        (SetupFailed("workspace", f"{SECRET} is full"), "its log says why"),
        (RuntimeError(SECRET), "its log says why"),
    ],
)
async def test_an_error_says_what_to_do_and_no_path(mode, error, text, caplog) -> None:
    """What the model can mend is told; of all else the log has it, and the client no path and no traceback."""
    caplog.set_level(logging.ERROR)
    async with client(Played(raises=error), mode) as one:
        answer = await one.call_tool("run_python", {"code": "1"})
    assert answer.is_error
    assert text in text_of(answer)
    assert SECRET not in answer.model_dump_json()
    assert "Traceback" not in answer.model_dump_json()
    assert (SECRET in caplog.text) == (not isinstance(error, InvalidRequest))


async def test_an_error_outside_of_a_tool_has_no_path_either(caplog) -> None:
    """A list of resources that fails is an error of the protocol, with the same sentence."""

    class Broken(Played):
        async def latest(self, most: int) -> Sequence[Listed]:
            raise OSError(SECRET)

    async with client(Broken(), "legacy") as one:
        with pytest.raises(MCPError, match="its log says why") as caught:
            await one.list_resources()
    assert SECRET not in str(caught.value)
    assert SECRET in caplog.text


@pytest.mark.parametrize("mode", MODES)
async def test_wrong_calls_are_refused(mode) -> None:
    """An unknown tool is an error of the protocol that names the tools; arguments are answered with what to give."""
    async with client(Played(), mode) as one:
        with pytest.raises(MCPError, match="'nope' is not a tool; the tools are run_python, read_output, list_runs"):
            await one.call_tool("nope", {})
        for name, arguments, text in (
            ("run_python", {}, "there is no code"),
            ("run_python", {"code": "1", "inputs": ["/etc"]}, "no argument 'inputs'"),
            ("run_python", {"code": "1", "files": [{"name": "a", "uri": "isorun://runs/mcp-1/out/huge.csv"}]}, "has 1"),
            ("read_output", {"exec_id": "mcp-1", "path": "../x"}, "relative to the run's out folder"),
            ("list_runs", {"limit": 0}, "from 1 to 100"),
        ):
            answer = await one.call_tool(name, arguments)
            assert answer.is_error
            assert text in text_of(answer)


async def test_a_file_is_read_by_its_kind() -> None:
    """A text part by part, a picture as a picture, and of other bytes how a program gets them."""
    async with client(Played()) as one:

        async def read(path: str, **more: int) -> Any:  # noqa: ANN401 - an answer
            return await one.call_tool("read_output", {"exec_id": "mcp-1", "path": path, **more})

        assert text_of(await read("a.csv")) == "x\né\n"
        assert text_of(await read("a.csv", offset=2)) == "é\n"
        picture = await read("chart.png")
        assert [base64.b64decode(one.data) for one in picture.content if isinstance(one, ImageContent)] == [PNG]
        for name in ("data.bin", "bad.png"):
            other = await read(name)
            assert re.search(
                rf"is neither a text nor a picture.*uri=isorun://runs/mcp-1/out/{name}", text_of(other)
            ) or (name == "bad.png" and not other.is_error)


@pytest.mark.parametrize("mode", MODES)
async def test_resources_are_the_files_of_runs(mode) -> None:
    """Listed by their addresses; a text is served as text, all else and a text that is not UTF-8 as bytes."""
    async with client(Played(), mode) as one:
        listed = (await one.list_resources()).resources
        (template,) = (await one.list_resource_templates()).resource_templates
        found = {}
        for resource in listed:
            (found[resource.name],) = (await one.read_resource(resource.uri)).contents
        for uri, text in (
            ("isorun://runs/mcp-1/out/../result.json", "relative to the run's out folder"),
            ("isorun://runs/mcp-1/out/nothing", "has no file 'nothing'"),
            ("isorun://runs/mcp-1/out/huge.csv", "at most 16777216 are handed on"),
            ("file:///etc/passwd", "the address of a file has the form"),
        ):
            with pytest.raises(MCPError, match=text):
                await one.read_resource(uri)
    assert template.uri_template == "isorun://runs/{exec_id}/out/{+path}"
    assert list(found) == list(FILES)
    for name, content in found.items():
        if name == "a.csv":
            assert isinstance(content, TextResourceContents)
            assert content.text.encode() == FILES[name]
        else:
            assert isinstance(content, BlobResourceContents)
            assert base64.b64decode(content.blob) == FILES[name]
