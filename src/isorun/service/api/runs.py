"""Runs over HTTP."""

import hashlib
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from isorun.core.outcome import Status
from isorun.core.request import RunRequest
from isorun.service.api.streams import last_seen, told
from isorun.service.auth import CurrentUser
from isorun.service.context import Service, service_of
from isorun.service.problems import not_found
from isorun.service.runs import views
from isorun.service.schema import RunBody
from isorun.service.store.accounts import User
from isorun.service.store.records import OPEN, Origin
from isorun.service.talk.removal import remove_run, still_running

router = APIRouter(prefix="/v1/runs", tags=["runs"])
Open = Annotated[Service, Depends(service_of)]
RunId = Annotated[str, Path(pattern="^[a-z0-9-]{1,64}$")]
_WAIT = re.compile(r"(?:.*[,;\s])?wait=([0-9]{1,5})\b.*", re.IGNORECASE)
_MOST_WAIT_S = 600


@router.post("", status_code=202, responses={200: {"description": "The run has ended."}})
async def start(
    body: RunBody,
    response: Response,
    user: CurrentUser,
    service: Open,
    prefer: Annotated[str, Header(max_length=200)] = "",
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> dict[str, Any]:
    """Run a program. With `Prefer: wait=SECONDS` the answer is 200 and the whole run, if it ends in that time."""
    key = (idempotency_key, _digest(body)) if idempotency_key else None
    run_id = await service.runs.start(user, await request_of(body, user, service), origin=Origin(), key=key)
    response.headers["Location"] = f"/v1/runs/{run_id}"
    wait = _WAIT.fullmatch(prefer)
    if wait is None:
        return await service.runs.view(user, run_id)
    view = await service.runs.wait(user, run_id, min(int(wait[1]), _MOST_WAIT_S))
    if view["ended"] is not None:
        response.status_code = 200
    response.headers["Preference-Applied"] = f"wait={wait[1]}"
    return view


def _digest(body: RunBody) -> str:
    return hashlib.sha256(body.model_dump_json().encode()).hexdigest()


async def request_of(body: RunBody, user: User, service: Service) -> RunRequest:
    """What *body* asks of the Runtime. Raises `Problem` for a file that the user has not, `InvalidRequest`."""
    options: dict[str, Any] = {
        "contract": body.contract,
        "timeout_s": body.timeout_s,
        "prog_name": body.prog_name,
        "turn_id": body.turn_id,
        "stdin": body.stdin,
        "argv": body.argv,
        "env": body.env,
        "tools": body.tools,
        "session": None if body.session is None else _session(user, body.session),
        "network": body.network,
        "inputs": await service.uploads.named(user, body.inputs) or None,
    }
    return RunRequest.of(body.code, **{name: value for name, value in options.items() if value is not None})


def _session(user: User, name: str) -> str:
    """The user's name for a session, as the Runtime knows it: two users never share one."""
    return f"{user.id.removeprefix('u_')}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


@router.get("")
async def listing(
    user: CurrentUser,
    service: Open,
    cursor: Annotated[str, Query(max_length=120)] = "",
    status: Literal["queued", "running"] | Status | None = None,
    q: Annotated[str, Query(max_length=100)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """The user's runs, newest first, a page at a time."""
    rows = await service.records.listed(user.id, before=cursor, status=status or "", text=q, most=limit + 1)
    shown = [views.listed(row) for row in rows[:limit]]
    more = f"{shown[-1]['created']} {shown[-1]['id']}" if len(rows) > limit else None
    return {"runs": shown, "next": more}


@router.get("/{run_id}")
async def view(run_id: RunId, user: CurrentUser, service: Open) -> dict[str, Any]:
    """All that is known of a run."""
    return await service.runs.view(user, run_id)


@router.post("/{run_id}/cancel", status_code=202)
async def cancel(run_id: RunId, user: CurrentUser, service: Open) -> dict[str, Any]:
    """Let a run end now. Its output and its files stay. A run that has ended keeps its outcome."""
    return await service.runs.cancel(user, run_id)


@router.delete("/{run_id}", status_code=204)
async def delete(run_id: RunId, user: CurrentUser, service: Open) -> Response:
    """Remove a run that has ended, its files and logs and all."""
    row = await service.runs.row(user, run_id)
    if row["status"] in OPEN:
        raise still_running()
    await remove_run(service, run_id)
    await service.records.remove(run_id)
    return Response(status_code=204)


async def own_run(run_id: RunId, user: CurrentUser, service: Open) -> str:
    """The id of a run of the user's: before a stream begins, because afterwards it is too late for a 404."""
    await service.runs.row(user, run_id)
    return run_id


@router.get("/{run_id}/events", response_class=EventSourceResponse)
async def events(
    run: Annotated[str, Depends(own_run, scope="function")],
    service: Open,
    after: Annotated[int, Depends(last_seen)],
) -> AsyncIterator[ServerSentEvent]:
    """What happens in a run, until its outcome; what has happened comes first."""
    async for message in told(service.runs.events(run, after), service.closing):
        yield message


@router.get("/{run_id}/diff")
async def diff(run_id: RunId, user: CurrentUser, service: Open) -> dict[str, Any]:
    """Which files the run created, modified and deleted, if it had no contract."""
    row = await service.runs.row(user, run_id)
    found = (row["result"] or {}).get("workspace_diff")
    if found is None:
        raise not_found("comparison: the run has a contract, or has not ended")
    return dict(found)
