"""Tools called without a program, by their author and by tests: the same supervisor, the same answers."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from isorun.core.errors import InvalidRequest
from isorun.core.limits import Limits
from isorun.executor.calls import agent_io_tools
from isorun.settings import base_environment
from isorun.supervisor.direct import Caller, DirectCalls, direct_calls
from tests.bundles import supervisors, write_bundle

pytestmark = pytest.mark.slow  # each test starts a supervisor

TOOLS = '''
import asyncio, os
@isorun.tool
def write(text: str, ctx: isorun.ToolContext, name: str = "notes/a") -> str:
    """Write."""
    print("writing", text)
    with ctx.open_output(name, "w") as file:
        file.write(text)
    return str(ctx.output_dir / name)
@isorun.tool
def who(ctx: isorun.ToolContext) -> list[str]:
    """Who."""
    return [ctx.user_id, ctx.turn_id, ctx.exec_id, ctx.env.get("GIVEN", "none")]
@isorun.tool
async def wait() -> None:
    """Wait."""
    await asyncio.sleep(60)
@isorun.tool
def fails() -> None:
    """Fail."""
    raise KeyError("s3cret")
@isorun.tool
def says() -> None:
    """Say."""
    raise isorun.ToolError("my own words")
@isorun.tool
def ends() -> None:
    """End."""
    os._exit(3)
'''


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", x=TOOLS)


@asynccontextmanager
async def opened(bundle: Path, **options: Any) -> AsyncIterator[DirectCalls]:  # noqa: ANN401 - those of direct_calls
    """The tools of *bundle*, with a new folder beside it."""
    out = bundle.parent / "out"
    out.mkdir(exist_ok=True)
    environment = {**base_environment(), "GIVEN": "allowed"}
    async with direct_calls(bundle, out, environment, **options) as calls:
        yield calls


async def test_a_tool_writes_to_the_folder_that_was_given(bundle: Path) -> None:
    """It returns the program's name of the file, and what it printed is in `lines`."""
    async with opened(bundle) as calls:
        assert await calls.call("x.write", {"text": "hello"}) == "/workspace/out/notes/a"
        assert (calls.out / "notes" / "a").read_text() == "hello"
        while not calls.lines:  # noqa: ASYNC110 - a log line comes on another socket than the answer
            await asyncio.sleep(0)
        assert calls.lines == ["INFO [tool] x.write 1: writing hello"]


async def test_the_tools_are_described(bundle: Path) -> None:
    """Every tool of the bundle, by id, in order."""
    async with opened(bundle) as calls:
        assert list(calls.tools) == ["x.write", "x.who", "x.wait", "x.fails", "x.says", "x.ends"]
        assert calls.tools["x.write"]["parameters"]["required"] == ["text"]


async def test_who_calls_can_be_told(bundle: Path) -> None:
    """A tool's context shows the caller and the environment that was given."""
    async with opened(bundle) as calls:
        assert await calls.call("x.who") == ["developer", "turn_1", "direct", "allowed"]
    async with opened(bundle, caller=Caller(user_id="ana", turn_id="turn_7", exec_id="e")) as calls:
        assert await calls.call("x.who", {}) == ["ana", "turn_7", "e", "allowed"]


NO_WAY = "'../b' must be a relative path below the output directory, without '..'"
ERRORS = [
    ("x.nothing", {}, "ToolDenied", "no such tool for this run"),
    ("x.write", {"text": 3}, "ToolInputInvalid", "x.write: text: Input should be a valid string"),
    ("x.write", {"text": "a", "name": "../b"}, "ToolFailed", NO_WAY),
    ("x.fails", {}, "ToolFailed", "the tool failed (call 1)"),
    ("x.says", {}, "ToolFailed", "my own words"),
    ("x.ends", {}, "ToolUnavailable", "the supervisor is gone"),
]


@pytest.mark.parametrize(("tool", "params", "error", "text"), ERRORS)
async def test_an_author_sees_the_error_that_a_program_would(
    bundle: Path, tool: str, params: dict[str, Any], error: str, text: str
) -> None:
    """The kinds and texts are those of `agent_io_tools`."""
    async with opened(bundle) as calls:
        with pytest.raises(getattr(agent_io_tools, error)) as raised:
            await calls.call(tool, params)
        assert type(raised.value).__name__ == error
        assert str(raised.value).startswith(text)


async def test_after_a_death_every_call_is_unavailable(bundle: Path) -> None:
    """Calls here use the stream that they began with; a later one is told as the one in flight was."""
    async with opened(bundle) as calls:
        for tool in ("x.ends", "x.who", "x.who"):
            with pytest.raises(agent_io_tools.ToolUnavailable, match="the supervisor is gone"):
                await calls.call(tool)


async def test_time_and_budget_hold(bundle: Path) -> None:
    """A call's own time, the limits' time, and the number of calls."""
    async with opened(bundle, limits=Limits(tool_call_s=0.2, tool_calls=2)) as calls:
        for timeout_s in (0.05, None):
            with pytest.raises(agent_io_tools.ToolTimeout):
                await calls.call("x.wait", timeout_s=timeout_s)
        with pytest.raises(agent_io_tools.ToolBudgetExceeded, match="this run may make 2 tool calls"):
            await calls.call("x.who")


async def test_nothing_is_left(bundle: Path) -> None:
    """No process, and no descriptor, after the block, also after a tool that hung or died."""
    async with opened(bundle) as calls:
        await calls.call("x.who")
    before, descriptors = set(supervisors()), len(os.listdir("/proc/self/fd"))
    for tool in ("x.who", "x.wait", "x.ends"):
        async with opened(bundle) as calls:
            try:
                await calls.call(tool, timeout_s=0.05 if tool == "x.wait" else None)
            except agent_io_tools.ToolError:
                assert tool != "x.who"
    assert set(supervisors()) == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


async def test_a_bundle_that_cannot_be_loaded_starts_nothing(tmp_path: Path) -> None:
    """The refusal names file, line and tool; and one that dies while it loads says its last words."""
    faulty = write_bundle(tmp_path / "faulty", x="@isorun.tool\ndef f(a) -> int: ...\n")
    with pytest.raises(InvalidRequest) as raised:
        async with opened(faulty):
            pass
    assert str(raised.value) == f"{faulty}/tools/x.py:2: x.f: the parameter a has no type hint"
    dying = write_bundle(tmp_path / "dying", x="import os\nprint('last words', flush=True)\nos._exit(3)\n")
    with pytest.raises(Exception, match="it died while it loaded the bundle: last words"):
        async with opened(dying):
            pass
