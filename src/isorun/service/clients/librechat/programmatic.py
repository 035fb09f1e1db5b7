"""`/exec/programmatic`: a program calls tools of LibreChat, which calls them and sends what they gave.

Theory of operation. The tools are held calls of one live run. A request is answered when the run has ended, or when
calls wait; then the run is frozen until the next request brings their results under the token that the answer had.
LibreChat's own server runs the program anew in each round; here it goes on where it was, so what it did, it did once.
"""

import asyncio
import keyword
import re
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from isorun.core.errors import InvalidRequest, IsorunError
from isorun.runtime.accepted.handle import Run
from isorun.service.api.runs import Open
from isorun.service.clients.librechat import PREFIX
from isorun.service.clients.librechat.bodies import ExecBody, request_of, result_of, shape
from isorun.service.clients.librechat.waiting import MOST_ROUNDS, WaitingRun, WaitingRuns
from isorun.service.clients.speech import KeyUser, speaking, while_asked
from isorun.service.context import Service
from isorun.service.problems import Problem
from isorun.service.runs.plain import as_json
from isorun.service.store.accounts import User
from isorun.service.store.records import Origin

router = APIRouter(prefix=PREFIX, tags=["clients"], route_class=speaking(shape), include_in_schema=False)
_MOST_TOOLS, _MOST_RESULTS = 200, 1000
_TOGETHER_S = 0.03  # after the first call: those that the program makes at once are told of at once
_ALIAS = "librechat"


class ToolBody(BaseModel):
    """A tool of LibreChat's. It checks the arguments itself."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: Annotated[str, Field(max_length=20_000)] | None = ""


class ResultBody(BaseModel):
    """What a tool gave."""

    call_id: Annotated[str, Field(max_length=40)]
    result: Any = None
    is_error: bool = False
    error_message: Annotated[str, Field(max_length=20_000)] | None = None


class ProgrammaticBody(ExecBody):
    """A program with tools, or the results of calls that it waits for."""

    tools: Annotated[list[ToolBody], Field(max_length=_MOST_TOOLS, default_factory=list)]
    continuation_token: Annotated[str, Field(max_length=100)] | None = None
    tool_results: Annotated[list[ResultBody], Field(max_length=_MOST_RESULTS, default_factory=list)]


def _waiting(request: Request) -> WaitingRuns:
    found: WaitingRuns = request.app.state.waiting_runs
    return found


@router.post("/exec/programmatic")
async def programmatic(
    body: ProgrammaticBody,
    request: Request,
    user: KeyUser,
    service: Open,
    kept: Annotated[WaitingRuns, Depends(_waiting)],
) -> dict[str, Any]:
    """Run a program that calls tools of the client, or let one go on with what they gave."""
    if body.continuation_token:
        waiting = kept.take(user, body.continuation_token)
        await waiting.run.thaw()
        await _give(waiting, body.tool_results)
    else:
        kept.check_room()
        run_id, tools = await _begin(body, user, service)
        run = service.runs.handle(run_id)
        if run is None:  # it has ended already
            return _ended(await service.runs.view(user, run_id))
        waiting = WaitingRun(run, user.id, tools)
    return await _go_on(request, service, user, waiting, kept)


async def _go_on(
    request: Request, service: Service, user: User, waiting: WaitingRun, kept: WaitingRuns
) -> dict[str, Any]:
    """The answer once the run has ended, or waits for its client."""
    run_id = waiting.run.exec_id
    await while_asked(request, service, user, run_id, _until_next(waiting.run))
    calls = waiting.run.held_calls
    if not calls:
        return _ended(await service.runs.wait(user, run_id))
    if waiting.rounds == MOST_ROUNDS:
        await service.runs.cancel(user, run_id)
        return {"status": "error", "error": f"more than {MOST_ROUNDS} rounds of tool calls", "session_id": run_id}
    waiting.rounds += 1
    waiting.asked = {f"call_{call.call_id:03}": call.call_id for call in calls}
    told = [
        {"id": f"call_{call.call_id:03}", "name": waiting.tools[call.tool_id], "input": dict(call.params)}
        for call in calls
    ]
    with suppress(IsorunError):  # a run that cannot be frozen waits all the same, and its time passes
        await waiting.run.freeze()
    token = kept.put(waiting, partial(_abandon, service, user, run_id))
    return {"status": "tool_call_required", "continuation_token": token, "tool_calls": told, "session_id": run_id}


async def _begin(body: ProgrammaticBody, user: User, service: Service) -> tuple[str, dict[str, str]]:
    """The id of the new run, and the client's names of its tools by ours."""
    if not body.code:
        raise Problem(400, "missing_code", "the code is missing")
    if not body.tools:
        raise Problem(400, "missing_tools", "the tools are missing", hint="a program without tools goes to /exec")
    named = {python_name(tool.name): tool for tool in body.tools}
    ids = {f"{_ALIAS}.t_{name}": tool.name for name, tool in named.items()}
    described = {
        f"{_ALIAS}.t_{name}": {"description": tool.description or "", "parameters": {"type": "object"}}
        for name, tool in named.items()
    }
    asked = await request_of(body, user, service, code=f"{_defined(list(named))}\n{body.code}", tools=described)
    return await service.runs.start(user, asked, origin=Origin(client="librechat")), ids


def python_name(name: str) -> str:
    """What the program calls a tool, as LibreChat tells the model."""
    made = re.sub(r"[^A-Za-z0-9_]", "", re.sub(r"[-\s]", "_", name))
    made = f"_{made}" if made[:1].isdigit() else made
    if not made:
        raise Problem(400, "invalid_tool", "the name of a tool has no letter, digit or underscore")
    return f"{made}_tool" if keyword.iskeyword(made) else made


def _defined(tools: list[str]) -> str:
    """One line in front of the program that makes a coroutine function of each tool, and imports what it may expect."""
    lines = ["import asyncio, json"]
    for name in tools:
        call = f"agent_io_tools.tool_call({_ALIAS}.t_{name}, params=params, call_reason='')"
        lines.append(f"async def {name}(**params):\n    return await {call}")
    return f"exec({chr(10).join(lines)!r})"


async def _until_next(run: Run) -> None:
    """Return once calls wait for the client, or the run has ended. Arguments that JSON does not have are refused."""
    async for event in run.events():
        if event.kind == "outcome":
            return
        if run.held_calls:
            await asyncio.sleep(_TOGETHER_S)
            for call in run.held_calls:
                if as_json(call.params) != call.params:
                    with suppress(InvalidRequest):  # its time was over
                        await run.answer(call.call_id, error="arguments must be JSON values", kind="ToolInputInvalid")
            if run.held_calls:
                return


async def _give(waiting: WaitingRun, results: list[ResultBody]) -> None:
    """Answer those calls that still wait. A call without a result here is told of again."""
    for one in results:
        number = waiting.asked.get(one.call_id)
        if number is None:
            continue
        try:
            if one.is_error:
                await waiting.run.answer(number, error=one.error_message or "the tool failed")
            else:
                await waiting.run.answer(number, one.result)
        except InvalidRequest as error:
            if error.code == "invalid_answer":
                await waiting.run.answer(number, error=f"the result of the tool cannot be sent: {error}"[:1000])


def _abandon(service: Service, user: User, run_id: str) -> None:
    task = asyncio.ensure_future(service.runs.cancel(user, run_id))
    task.add_done_callback(lambda done: done.exception() if not done.cancelled() else None)


def _ended(view: dict[str, Any]) -> dict[str, Any]:
    result = result_of(view)
    if view["status"] == "ok":
        return {"status": "completed", **result}
    return {"status": "error", "error": _ERRORS.get(view["status"]) or _exit(view), **result}


#: Sentences that LibreChat knows, and shows to its model; any other it hides.
_ERRORS = {"timed_out": "Time limit exceeded", "out_of_memory": "Out of memory"}


def _exit(view: dict[str, Any]) -> str:
    code = view["result"].get("exit_code")
    return "Sandbox exited with code unknown" if code is None else f"Sandbox exited with code {int(code)}"
