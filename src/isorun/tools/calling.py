"""A tool called directly, without a program: the same checks, the same process that runs it, the same errors."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isorun.core.errors import InvalidRequest
from isorun.executor.calls.agent_io_tools import ToolError
from isorun.runtime.services import descriptor_of, environment_of, mode_policy_of
from isorun.settings import Settings, base_environment
from isorun.supervisor.direct import direct_calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """What became of a call: the *result*, or the error that a program would get; and what the tool printed."""

    result: Any
    error: ToolError | None
    lines: Sequence[str]


async def call_tool(
    tool_id: str,
    params: Mapping[str, Any] | None = None,
    *,
    out: str | Path,
    bundle: str | Path | None = None,
    timeout_s: float | None = None,
    settings: Settings | None = None,
) -> Any:  # noqa: ANN401 - the tool's result is its own affair
    """The result of the tool for *params*, as a program would get it.

    The tool is a built-in one, or one of *bundle*, a folder (default: that of the settings). Its files go below *out*,
    a folder that is made if it is missing. Raises the `ToolError` that a program would get, `InvalidRequest` for an
    unknown tool or a folder that cannot be used, `Unavailable` and `SetupFailed`.
    """
    settings = settings or Settings.load()
    done = await called(tool_id, params or {}, settings, out=Path(out), bundle=bundle, timeout_s=timeout_s)
    if done.error is not None:
        raise done.error
    return done.result


async def called(
    tool_id: str,
    params: Mapping[str, Any],
    settings: Settings,
    *,
    out: Path,
    bundle: str | Path | None = None,
    timeout_s: float | None = None,
) -> Called:
    """As `call_tool`, with all that there is to show of it."""
    await asyncio.to_thread(_made, out)
    descriptor = await asyncio.to_thread(descriptor_of, settings, bundle or settings.bundle, named=tool_id)
    environment = {**base_environment(), **environment_of(settings, descriptor)}
    where: dict[str, Any] = {"network": settings.network_mode != "none", "mode_policy": mode_policy_of(settings)}
    async with direct_calls(descriptor, out, environment, limits=settings.limits(), **where) as calls:
        if tool_id not in calls.tools:
            text = f"the bundle has no tool {tool_id}; it has {', '.join(calls.tools)}"
            raise InvalidRequest(text, code="unknown_tool")
        result, failure = None, None
        try:
            result = await calls.call(tool_id, params, timeout_s=timeout_s)
        except ToolError as error:  # a result too: what the tool printed, and its traceback, are still to be shown
            failure = error
    return Called(result=result, error=failure, lines=tuple(calls.lines))  # the last lines come as it is closed


def _made(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(f"out (--out) {out} cannot be used: {error.strerror}", code="out_unusable") from None
