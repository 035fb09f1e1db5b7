"""One turn after the other in each conversation: a scenario of the bundle, or the agent.

Every turn that was accepted ends with the event `turn_ended`, also if it fails. It belongs to the process that took it;
if that has died, another process writes the end.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isorun.core.errors import IsorunError
from isorun.service.agent.script.plays import can_play
from isorun.service.problems import Problem
from isorun.service.runs.patience import patiently
from isorun.service.runs.runs import unheard
from isorun.service.store.accounts import User
from isorun.service.store.records import Happened, Stream
from isorun.service.talk.comm import TurnComm

if TYPE_CHECKING:
    from isorun.service.context import Service

_log = logging.getLogger("isorun.service")
_TITLE_CHARS = 60


class Turns:
    """The turns of *service*."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._hosts: dict[str, str] = {}
        self._left: dict[str, int] = {}  # which go on by the database alone
        service.wakes.on("stop", self._stop)

    async def say(self, user: User, conversation: str, text: str, files: Sequence[str]) -> int:
        """Begin a turn with what *user* says; its number. Raises `Problem`: 404, 409 while a turn goes on, 429, 507."""
        service = self._service
        about = await service.talks.one(user, conversation)
        await service.runs.check_room(user)
        inputs = await service.uploads.named(user, files)
        host = service.runs.host_id
        turn = await service.talks.begin_turn(conversation, host)
        if turn is None:
            raise Problem(409, "turn_goes_on", "the last turn has not ended", hint="wait for its end, or stop it")
        try:
            brought = [{"id": one.upload, "name": one.name} for one in inputs]
            content = {"text": text, "files": brought}
            await service.talks.add(conversation, turn, "user", [content])
            said = [Happened(kind="turn_started"), Happened(kind="message", data={"role": "user", **content})]
            await service.runs.tell(Stream(conversation=conversation, turn=turn), said)
            if not about["title"]:
                await service.talks.rename(conversation, " ".join(text.split())[:_TITLE_CHARS])
        except BaseException:
            self._left[conversation] = turn
            raise
        task = asyncio.create_task(self._turn(user, conversation, turn, text, files), name=f"turn-{conversation}")
        self._tasks[conversation], self._hosts[conversation] = task, host
        task.add_done_callback(lambda _: self._tasks.pop(conversation, None))
        return turn

    async def stop(self, user: User, conversation: str) -> bool:
        """End the turn that goes on, and its run; what was printed and written stays. Whether one goes on. Raises
        `Problem` 404, or 503 if the process that conducts it cannot be told.
        """
        host = (await self._service.talks.one(user, conversation))["turn_host"]
        if conversation in self._tasks:
            await self._stop(conversation)
        elif host is not None and not await self._service.wakes.order(host, "stop", conversation):
            raise unheard("turn")
        return host is not None

    async def _stop(self, conversation: str) -> None:
        if (task := self._tasks.get(conversation)) is not None:
            task.cancel()

    def stop_buried(self) -> None:
        """Stop the turns that this process began under another name: the others have taken it for dead."""
        for conversation, task in self._tasks.items():
            if self._hosts[conversation] != self._service.runs.host_id:
                task.cancel()

    async def orphans(self) -> Sequence[Mapping[str, Any]]:
        """The turns that go on, and whose process has died."""
        return await self._service.talks.going_on(orphans=True)

    async def look(self, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write the end of each of *rows*, conversations whose turn is conducted no more, and of our own. Raises
        `Away`.
        """
        left = {**{row["id"]: row["last_turn"] for row in rows}, **self._left}
        for conversation, turn in left.items():
            if conversation not in self._tasks:
                await self._end(conversation, turn, [Happened(kind="turn_ended", data={"status": "lost"})])
                self._left.pop(conversation, None)

    async def _end(self, conversation: str, turn: int, happened: Sequence[Happened]) -> None:
        if await self._service.records.end_turn(conversation, turn, happened):
            self._service.wakes.tell(conversation)

    async def close(self) -> None:
        """Stop every turn, and wait for its end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _turn(self, user: User, conversation: str, turn: int, text: str, files: Sequence[str]) -> None:
        service = self._service
        comm = TurnComm(runs=service.runs, talks=service.talks, user=user, conversation=conversation, turn=turn)
        status = "failed"
        try:
            await self._answer(comm, user, text, files)
            status = "ended"
        except asyncio.CancelledError:
            status = "stopped"  # and not raised: nobody waits for this task but `close`
        except (IsorunError, Problem) as error:
            hint = error.hint if isinstance(error, Problem) else ""
            comm.error(message=str(error), hint=hint)
        except Exception:  # noqa: BLE001 - a bundle's own code, or a database: the turn has an end all the same
            _log.exception("turn %d of conversation %s failed", turn, conversation)
            comm.error(message="the service failed; what happened is in its log")
        await service.runs.settled(comm.run_id)
        ending = asyncio.ensure_future(self._see_to_its_end(comm, conversation, turn, status))
        await asyncio.shield(ending)

    async def _see_to_its_end(self, comm: TurnComm, conversation: str, turn: int, status: str) -> None:
        over_at, ended = time.monotonic(), [Happened(kind="turn_ended", data={"status": status})]

        async def write() -> None:
            await comm.flush()
            await self._end(conversation, turn, ended)

        try:
            what = f"turn {turn} of conversation {conversation}"
            await patiently(what, write, gives_up=lambda: self._service.runs.gives_up(over_at))
        except Exception:  # noqa: BLE001 - whatever it is, the turn has an end: `look` writes it
            _log.exception("turn %d of conversation %s could not be stored to its end", turn, conversation)
            self._left[conversation] = turn

    async def _answer(self, comm: TurnComm, user: User, text: str, files: Sequence[str]) -> None:
        """A scenario that *text* names; else the agent. Without a model, what the script cannot play gets the list."""
        service = self._service
        has_scenarios = (service.bundle / "workflow.py").is_file()
        if has_scenarios and not files:
            picked = service.bundle_module("exec").pick(text)
            if picked is not None or not (service.settings.model_url or can_play(text)):
                comm.scenario = None if picked is None else picked.number
                await self._play(comm, user, text)
                return
        if service.agent is None:
            raise Problem(503, "not_ready", "the service is starting", hint="try again in a second")
        await service.agent.answer(comm, user, text, files)
        if has_scenarios:
            comm.suggest(service.bundle_module("workflow").followups())

    async def _play(self, comm: TurnComm, user: User, text: str) -> None:
        service = self._service
        made: Any = service.bundle_module("workflow").Workflow
        workflow = made(comm, user_id=user.name, settings=service.settings, subsystem=service.subsystem)
        await workflow.run(text)
