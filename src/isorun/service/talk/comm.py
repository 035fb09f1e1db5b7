"""The way from the answer of a turn to its conversation: everything becomes an event of it, in order."""

import asyncio
from collections.abc import Sequence
from typing import Any

from isorun.core.request import RunRequest
from isorun.runtime.accepted.handle import Run
from isorun.service.runs.runs import Runs
from isorun.service.store.accounts import User
from isorun.service.store.records import Happened, Origin, Stream
from isorun.service.store.talks import Talks


class TurnComm:
    """The `comm` of the bundle's workflow for one turn. What is said waits for `flush`, or for the start of a run."""

    def __init__(self, *, runs: Runs, talks: Talks, user: User, conversation: str, turn: int) -> None:
        self._runs, self._talks, self._user = runs, talks, user
        self.conversation, self.turn = conversation, turn
        self.scenario: int | None = None
        self.run_id = ""
        self._waiting: list[Happened] = []
        self._flushing = asyncio.Lock()
        self._said: list[dict[str, Any]] = []

    @property
    def origin(self) -> Origin:
        """Of the runs of this turn."""
        return Origin(client="chat", conversation=self.conversation, turn=self.turn, scenario=self.scenario)

    def put(self, kind: str, **data: Any) -> None:  # noqa: ANN401 - what the event is about
        """Say it with the next flush."""
        self._waiting.append(Happened(kind=kind, data=data))

    def say(self, text: str) -> None:
        """Something to read."""
        self.put("message", role="assistant", text=text)
        self._said.append({"text": text})

    def suggest(self, followups: Sequence[str]) -> None:
        """What the user may send next, to be clicked."""
        self.put("followups", items=list(followups))

    def output(self, stream: str, data: bytes) -> None:
        """The run's own events have it."""

    async def started(self, run: Run, request: RunRequest) -> None:
        """Store the run, and follow it."""
        self.put("run_started", run=run.exec_id)
        self.run_id = run.exec_id
        await self._runs.adopt(self._user, run, request, self.origin)
        await self.flush()

    def error(self, *, message: str, **details: Any) -> None:  # noqa: ANN401 - the workflow's
        """Something that the user must not overlook."""
        self.put("error", message=message, **details)
        self._said.append({"error": message, **details})

    async def flush(self) -> None:
        """Store what waits, in the order in which it was put."""
        async with self._flushing:
            if happened := tuple(self._waiting):
                await self._runs.tell(Stream(conversation=self.conversation, turn=self.turn), happened)
                del self._waiting[: len(happened)]  # only now: else nothing of it would be there to be stored later
            if said := tuple(self._said):
                await self._talks.add(self.conversation, self.turn, "assistant", said)
                del self._said[: len(said)]
