"""One turn of the agent for a client that has the conversation itself: history comes along, text goes back.

Theory of operation. A task asks the model and runs its programs; what is said goes through a queue to who answers the
client. The turn ends with its task, and the task with its client: what is left at the end of the block is cancelled,
also a run.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from anyio import CancelScope

from isorun.core.errors import IsorunError
from isorun.core.request import RunRequest
from isorun.core.text import one_line
from isorun.service.agent import told
from isorun.service.agent.loop import Ending
from isorun.service.context import Service
from isorun.service.store.accounts import User
from isorun.service.store.records import Origin
from isorun.service.talk.agent import AgentTurns
from isorun.store import sessions

_MOST_SAID = 1000  # pieces that wait for a client which reads slowly; then the turn waits, too
_MOST_LISTED = 50
_TURN = "1"  # of the folder that all programs of a turn write to
_END_S = 10.0  # for a run that was cancelled
_MARKS = re.compile(r"([\\\[\]()<>*_`])")


class AgentTurn:
    """A turn of *user*. *base*: the address of this service, as the client knows it, for links to files."""

    def __init__(self, service: Service, agent: AgentTurns, user: User, base: str) -> None:
        self._service, self._agent, self._user, self._base = service, agent, user, base
        self._session = f"{user.id.removeprefix('u_')}-{secrets.token_hex(12)}"
        self._said: asyncio.Queue[str | None] = asyncio.Queue(_MOST_SAID)
        self._files: dict[str, str] = {}  # the latest run that wrote each
        self._last = self._run_id = ""
        self._task: asyncio.Task[None] | None = None
        self.ending: Ending | None = None

    @asynccontextmanager
    async def begun(self, history: Sequence[Mapping[str, Any]], text: str) -> AsyncIterator["AgentTurn"]:
        """Inside the block, the turn goes on. What the programs left for each other is removed behind it."""
        task = self._task = asyncio.create_task(self._turn(history, text), name="agent-turn")
        try:
            yield self
            await task
        finally:
            with CancelScope(shield=True):  # the client's leaving cancels each await of what answers it
                task.cancel()
                await asyncio.wait({task})
                await self._forget()

    async def _forget(self) -> None:
        """Remove what the programs left for each other. A run that was cancelled has it until it has ended."""
        if self._run_id:
            await self._service.runs.wait(self._user, self._run_id, _END_S)
        with suppress(IsorunError):  # no program has run, or what it left goes with its time
            await asyncio.to_thread(sessions.remove, self._service.runtime.root, self._session)

    async def said(self, at_least_every_s: float) -> AsyncIterator[str]:
        """The pieces of the text; an empty one if nothing was said for so long."""
        while True:
            try:
                async with asyncio.timeout(at_least_every_s):
                    piece = await self._said.get()
            except TimeoutError:
                if self._task is None or self._task.done():  # it could not say so: the queue was full
                    return
                yield ""
                continue
            if piece is None:
                return
            yield piece

    async def _turn(self, history: Sequence[Mapping[str, Any]], text: str) -> None:
        try:
            self.ending = await self._agent.agent.turn(history, told.asked(text), self._run, self)
            if self._files:
                await self.delta(self._listed())
        finally:
            with suppress(asyncio.QueueFull):
                self._said.put_nowait(None)

    async def _run(self, request: RunRequest) -> Mapping[str, Any]:
        asked = replace(request, tools=self._agent.tools, session=self._session, turn_id=_TURN)
        runs = self._service.runs
        run_id = await runs.start(self._user, asked, origin=Origin(client="chat_completions"))
        self._run_id = run_id
        try:
            view = await runs.wait(self._user, run_id)
        except asyncio.CancelledError:
            await runs.cancel(self._user, run_id)
            raise
        self._files |= {one["path"]: run_id for one in view["files"]}
        return view

    def _listed(self) -> str:
        """Links to what the programs wrote. A name is the program's: it is shown as text, and cannot end its link."""
        files = list(self._files.items())[:_MOST_LISTED]
        return "\n\nFiles:\n" + "\n".join(_link(path, f"{self._base}v1/runs/{run}/files/") for path, run in files)

    async def delta(self, text: str) -> None:
        """See `loop.Says`."""
        if text:
            await self._said.put(text)
            self._last = text

    async def message(self, message: dict[str, Any]) -> None:
        """See `loop.Says`. A text of the model's that its next text follows is a paragraph."""
        if (
            message["role"] == "assistant"
            and message.get("tool_calls")
            and self._last
            and not self._last.endswith("\n")
        ):
            await self.delta("\n\n")

    async def run_started(self, call_id: str, request: RunRequest) -> None:
        """See `loop.Says`."""

    async def run_ended(self, call_id: str, view: Mapping[str, Any] | None) -> None:
        """See `loop.Says`."""


def _link(path: str, base: str) -> str:
    shown = _MARKS.sub(r"\\\1", one_line(path, 200))
    return f"- [{shown}]({base}{quote(path)})"
