"""The agent's turns in conversations: its texts become events, its programs become runs of the user.

The model is asked here and nowhere else. It never has a key, and programs never have the model's.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isorun.core.request import RunRequest
from isorun.runtime.services import by_default
from isorun.service.agent import told
from isorun.service.agent.loop import Agent
from isorun.service.agent.scripted import open_model
from isorun.service.store.accounts import User
from isorun.service.store.uploads import Brought
from isorun.service.talk.comm import TurnComm
from isorun.tools.exec_tools import advertised

if TYPE_CHECKING:
    from isorun.service.context import Service

_SOON_S = 0.1  # in which pieces of a text are told together
HISTORY = "model"  # the role of what a model wrote and was sent, as it is stored


class AgentTurns:
    """Answers messages by the agent. One serves all conversations."""

    def __init__(self, service: "Service", agent: Agent, tools: Sequence[str]) -> None:
        self._service, self.agent, self.tools = service, agent, tuple(tools)

    async def answer(self, comm: TurnComm, user: User, text: str, files: Sequence[str]) -> None:
        """One turn. A cancelled one cancels the request to the model, or the run."""
        service = self._service
        said = await service.talks.said(comm.conversation)
        history = [one.content for one in said if one.role == HISTORY]
        inputs = await self._inputs(user, [one.content for one in said if one.role == "user"])
        sizes = {one.name: one.content.stat().st_size for one in inputs if isinstance(one.content, Path)}
        says = _Says(service, comm)

        async def run(request: RunRequest) -> Mapping[str, Any]:
            asked = replace(request, inputs=tuple(inputs), tools=self.tools, session=session_of(comm.conversation))
            return await self._ran(comm, user, asked)

        async with says.telling():
            await self.agent.turn(history, told.asked(text, sizes if files else None), run, says)

    async def _inputs(self, user: User, said: Sequence[Mapping[str, Any]]) -> list[Brought]:
        """The files that the user brought into the conversation and has not removed; of equal names the latest."""
        brought = {one["name"]: one["id"] for content in said for one in content.get("files", ())}
        known = {one.id for one in await self._service.uploads.all(user)}
        ids = [one for one in brought.values() if one in known]
        return await self._service.uploads.named(user, ids)

    async def _ran(self, comm: TurnComm, user: User, asked: RunRequest) -> Mapping[str, Any]:
        runs = self._service.runs
        comm.run_id = await runs.start(user, asked, origin=comm.origin)
        comm.put("run_started", run=comm.run_id)
        await comm.flush()
        try:
            return await runs.wait(user, comm.run_id)
        except asyncio.CancelledError:
            await runs.cancel(user, comm.run_id)
            raise


class _Says:
    """What the loop says, as events of the conversation; pieces of a text are told some at a time."""

    def __init__(self, service: "Service", comm: TurnComm) -> None:
        self._service, self._comm = service, comm
        self._text = ""

    async def delta(self, text: str) -> None:
        """A piece of the text of the message that comes next."""
        self._text += text

    async def message(self, message: dict[str, Any]) -> None:
        """Keep it for the next turn; a text of the model's is shown, too."""
        await self._told()
        comm = self._comm
        await self._service.talks.add(comm.conversation, comm.turn, HISTORY, [message])
        if message["role"] == "assistant" and message.get("content"):
            comm.say(message["content"])
            await comm.flush()

    async def run_started(self, call_id: str, request: RunRequest) -> None:
        """The run tells it by itself."""

    async def run_ended(self, call_id: str, view: Mapping[str, Any] | None) -> None:
        """The run has told it by itself."""

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Inside the block, pieces are told soon."""
        task = asyncio.create_task(self._tell_soon())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _tell_soon(self) -> None:
        while True:
            await asyncio.sleep(_SOON_S)
            await self._told()

    async def _told(self) -> None:
        text, self._text = self._text, ""
        if text:
            self._comm.put("text", delta=text)
            await asyncio.shield(asyncio.ensure_future(self._comm.flush()))


def session_of(conversation: str) -> str:
    """The session of its programs: what one writes, the next one of the same conversation finds."""
    return conversation.replace("_", "-")


@asynccontextmanager
async def open_agent(service: "Service") -> AsyncIterator[AgentTurns]:
    """The agent on the endpoint that the settings name, else on the script. Raises `InvalidRequest`."""
    settings = service.settings
    tools = by_default(service.runtime.tools)  # not those of the web, which are a way out
    async with open_model(settings.model_url, settings.model, settings.model_key) as model:
        agent = Agent(model, service.runtime.prompt(tools=tools), advertised(settings))
        yield AgentTurns(service, agent, tools)
