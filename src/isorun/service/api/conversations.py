"""Conversations over HTTP."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from isorun.service.api.runs import Open
from isorun.service.api.streams import last_seen, told
from isorun.service.auth import CurrentUser
from isorun.service.runs import views
from isorun.service.schema import ConversationBody, MessageBody
from isorun.service.talk.agent import HISTORY
from isorun.service.talk.removal import remove_conversation

router = APIRouter(prefix="/v1/conversations", tags=["conversations"])
ConversationId = Annotated[str, Path(pattern="^c_[0-9a-f]{16}$")]


@router.post("", status_code=201)
async def create(body: ConversationBody, user: CurrentUser, service: Open, response: Response) -> dict[str, Any]:
    """Begin one."""
    made = f"c_{secrets.token_hex(8)}"
    await service.talks.create(user, made, body.title)
    response.headers["Location"] = f"/v1/conversations/{made}"
    return {"id": made, "title": body.title}


@router.get("")
async def listing(user: CurrentUser, service: Open) -> dict[str, Any]:
    """The user's, newest first."""
    rows = await service.talks.all(user)
    return {"conversations": [{name: row[name] for name in ("id", "title", "created")} for row in rows]}


@router.get("/{conversation}")
async def view(conversation: ConversationId, user: CurrentUser, service: Open) -> dict[str, Any]:
    """All that was said and run in it."""
    row = await service.talks.one(user, conversation)
    said = await service.talks.said(conversation)
    runs = await service.records.of_conversation(conversation)
    return {
        **{name: row[name] for name in ("id", "title", "created", "last_event")},
        "goes_on": row["turn_host"] is not None,
        "messages": [asdict(one) for one in said if one.role != HISTORY],
        "runs": [views.whole(run) for run in runs],
    }


@router.delete("/{conversation}", status_code=204)
async def delete(conversation: ConversationId, user: CurrentUser, service: Open) -> Response:
    """End what goes on in it; then delete its messages, runs, files and events, and the uploads that no other
    conversation or run was given.
    """
    await remove_conversation(service, user, conversation)
    return Response(status_code=204)


@router.post("/{conversation}/messages", status_code=202)
async def say(conversation: ConversationId, body: MessageBody, user: CurrentUser, service: Open) -> dict[str, Any]:
    """Say something; what comes of it is told by the events."""
    return {"turn": await service.turns.say(user, conversation, body.text, body.files)}


@router.post("/{conversation}/stop", status_code=202)
async def stop(conversation: ConversationId, user: CurrentUser, service: Open) -> dict[str, Any]:
    """End the turn that goes on; what it printed and wrote stays."""
    return {"stopping": await service.turns.stop(user, conversation)}


async def own_conversation(conversation: ConversationId, user: CurrentUser, service: Open) -> str:
    """The id of one of the user's: before a stream begins."""
    await service.talks.one(user, conversation)
    return conversation


@router.get("/{conversation}/events", response_class=EventSourceResponse)
async def events(
    conversation: Annotated[str, Depends(own_conversation, scope="function")],
    service: Open,
    after: Annotated[int, Depends(last_seen)],
) -> AsyncIterator[ServerSentEvent]:
    """Everything that happens in it: what is said, its runs, files, follow-ups."""
    async for message in told(service.runs.events_of_conversation(conversation, after), service.closing):
        yield message
