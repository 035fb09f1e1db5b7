"""For people who write tools: the fixture `isorun_bundle`, there wherever isorun is installed.

    def test_a_note_is_written(isorun_bundle):
        tools = isorun_bundle("path/to/my-bundle")
        path = tools.call("local_tools.write_note", text="hello")
        assert tools.read(path) == b"hello"

The bundle runs in a real supervisor process, so a tool that works here works for a
program. Nothing is imported before the fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from isorun.supervisor.direct import DirectCalls


class Tools:
    """A loaded bundle. `out` is the folder that its tools see as the run's output directory."""

    def __init__(self, calls: DirectCalls, run: Callable[..., Any]) -> None:
        self._calls, self._run = calls, run
        self.out = calls.out

    @property
    def described(self) -> Mapping[str, Mapping[str, Any]]:
        """Every tool by id: description, JSON schema of its parameters, where it stands."""
        return self._calls.tools

    @property
    def log(self) -> str:
        """What the tools printed and logged, a line each."""
        return "\n".join(self._calls.lines)

    def call(self, tool_id: str, /, timeout_s: float | None = None, **params: Any) -> Any:  # noqa: ANN401 - the tool's
        """The tool's result. Raises what a program would get, from `isorun.executor.calls.agent_io_tools`."""
        from isorun.core.errors import InvalidRequest
        from isorun.executor.calls.agent_io_tools import ToolError

        if tool_id not in self.described:
            known = ", ".join(self.described)
            raise InvalidRequest(f"the bundle has no tool {tool_id!r}; it has {known}", code="unknown_tool")
        try:
            return self._run(self._calls.call(tool_id, params, timeout_s=timeout_s))
        except ToolError as error:
            error.add_note(self.log)  # the program is not told why a tool failed, its author is
            raise

    def read(self, path: str) -> bytes:
        """A file that a tool wrote, by the path that it returned or a relative one. Raises OSError."""
        return (self.out / path.removeprefix("/workspace/out/")).read_bytes()


@pytest.fixture
def isorun_bundle(tmp_path: Path) -> Iterator[Callable[..., Tools]]:
    """`isorun_bundle(folder, env={...})`: its tools, callable. *env* is what their context's `env` holds."""
    from isorun.api import Loop
    from isorun.settings import base_environment
    from isorun.supervisor.direct import direct_calls
    from isorun.supervisor.worker.modes import ModePolicy
    from isorun.tools.tools_insights import tool_isolation

    with ExitStack() as stack:
        loop = Loop()
        stack.callback(loop.close)

        def opened(bundle: str | Path, env: Mapping[str, str] | None = None) -> Tools:
            out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
            out.mkdir()
            environment = {**base_environment(), **(env or {})}
            made = direct_calls(bundle, out, environment, mode_policy=ModePolicy(default=tool_isolation))
            calls = loop.call(made.__aenter__())
            stack.callback(lambda: loop.call(made.__aexit__(None, None, None)))
            return Tools(calls, loop.call)

        yield opened
