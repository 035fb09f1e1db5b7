"""The call that a program makes, for trusted code: the same words, refused for the same reasons.

A program's own `agent_io_tools` goes through its tool stream and reaches what the run was
granted; this one is in the caller's process and reaches `exec_tools`.
"""

import asyncio
import inspect
from typing import Any

from isorun.core.guard.log import log_of
from isorun.core.text import one_line, shown
from isorun.executor.calls.agent_io_tools import (
    ToolBudgetExceeded,
    ToolDenied,
    ToolError,
    ToolFailed,
    ToolInputInvalid,
    ToolTimeout,
    ToolUnavailable,
)
from isorun.tools import exec_tools

__all__ = [
    "ToolBudgetExceeded",
    "ToolDenied",
    "ToolError",
    "ToolFailed",
    "ToolInputInvalid",
    "ToolTimeout",
    "ToolUnavailable",
    "tool_call",
]

_log = log_of("isorun")


async def tool_call(
    fn: Any = None,  # noqa: ANN401 - a function of exec_tools, or what has a tool_id
    params: dict[str, Any] | None = None,
    tool_id: str | None = None,
    call_reason: str = "",
    timeout_s: float | None = None,
) -> Any:  # noqa: ANN401 - the tool's result is its own affair
    """Call a tool by *fn* or by its *tool_id*, and return its result.

    Raises `TypeError` if the two name different tools or neither is given, `ToolInputInvalid`
    for arguments that do not fit, `ToolDenied` for a tool that is not there, `ToolTimeout`
    after *timeout_s* seconds, and what the tool raises.
    """
    name = _named(fn, tool_id)
    _log.info("[tool_call] %s reason=%s", one_line(name, 500), shown(call_reason))
    arguments = dict(params or {})
    function = exec_tools.TOOLS.get(name)
    if function is None:
        raise ToolDenied("no such tool: trusted code calls the exec tools, a program the tools of its bundle")
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise ToolInputInvalid(f"{name}: {error}") from None
    deadline = asyncio.timeout(timeout_s)
    try:
        async with deadline:
            return await function(**arguments)
    except TimeoutError:
        if not deadline.expired():
            raise
        raise ToolTimeout(f"{name} took longer than {timeout_s:g} s") from None


def _named(fn: object, tool_id: str | None) -> str:
    of_fn = next((name for name, function in exec_tools.TOOLS.items() if function is fn), getattr(fn, "tool_id", None))
    if fn is not None and of_fn is None:
        raise TypeError(f"fn must be a tool such as exec_tools.execute_code_python, not {fn!r}")
    if of_fn is not None and tool_id is not None and of_fn != tool_id:
        raise TypeError(f"fn is {of_fn} and tool_id is {tool_id}: name one tool")
    name = of_fn or tool_id
    if name is None:
        raise TypeError("name a tool with fn or tool_id")
    return str(name)
