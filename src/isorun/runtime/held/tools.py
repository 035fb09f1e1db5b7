"""The caller's own tools of a run: functions, or descriptions of tools whose calls `Run.answer` answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isorun.core import signatures
from isorun.core.errors import InvalidRequest
from isorun.core.request import OwnTool
from isorun.core.text import shown
from isorun.runtime.events import Feed

if TYPE_CHECKING:
    from isorun.runtime.held.calls import HostAnswers
    from isorun.runtime.request import AcceptedRun
    from isorun.supervisor.registry import Tool

_CODE = "invalid_tools"
_KEYS = ("description", "parameters", "returns", "result")
_ANYTHING = {"type": "object"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTool:
    """One tool of the caller's. `described` is as in `Runtime.tools`; `tool` has its function, if it has one."""

    id: str
    described: Mapping[str, Any]
    tool: "Tool | None"


def host_tools(given: Mapping[str, OwnTool]) -> dict[str, HostTool]:
    """Those of *given* that are the caller's own, by id. Raises `InvalidRequest` (invalid_tools), naming the tool."""
    return {tool_id: _host_tool(tool_id, one) for tool_id, one in given.items() if one is not True}


def _host_tool(tool_id: str, one: OwnTool) -> HostTool:
    # Not at the top: a run without such tools does not pay for pydantic.
    from isorun.supervisor.descriptor import check_alias
    from isorun.supervisor.registry import own_tool

    try:
        check_alias(tool_id.partition(".")[0], tool_id)
        if callable(one):
            tool = own_tool(tool_id, one)
            return HostTool(id=tool_id, described=tool.described(), tool=tool)
    except InvalidRequest as error:
        raise InvalidRequest(str(error), code="invalid_tools") from error
    assert isinstance(one, Mapping)
    return HostTool(id=tool_id, described=_described(tool_id, one), tool=None)


def _described(tool_id: str, one: Mapping[str, Any]) -> dict[str, Any]:
    from isorun.runtime.inspection.schema import schema_fault

    for key in one:
        if key not in _KEYS:
            raise InvalidRequest(f"{tool_id}: unknown key {shown(key)}; known are {', '.join(_KEYS)}", code=_CODE)
    parameters, result = one.get("parameters", _ANYTHING), one.get("result", {})
    for name, schema in (("parameters", parameters), ("result", result)):
        fault = schema_fault(schema) if isinstance(schema, dict) else "must be an object"
        if fault:
            raise InvalidRequest(f"{tool_id}: {name} {fault}", code=_CODE)
    texts = {name: one.get(name, "") for name in ("description", "returns")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise InvalidRequest(f"{tool_id}: {name} must be text, got {shown(text)}", code=_CODE)
    return {**texts, "parameters": parameters, "result": result, "where": "", "timeout_s": None, "max_calls": None}


def about_own(tools: Mapping[str, HostTool]) -> dict[str, list[str]]:
    """Signature and description of each, for the program; see `core.signatures.about`."""
    return signatures.about({tool_id: host.described for tool_id, host in tools.items()})


def host_answers(
    request: "AcceptedRun", out: int, feed: Feed, at: Callable[[], float], tell: Callable[[str, str, str], None]
) -> "HostAnswers | None":
    """What answers the held calls of *request*; None if the caller gave it no tools."""
    if not request.own_tools:
        return None
    from isorun.runtime.held.calls import HostAnswers  # not at the top: other runs need not import it

    return HostAnswers(request, out, feed, at, tell)
