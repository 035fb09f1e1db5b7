"""One turn after the other in each conversation: a scenario of the bundle, or the agent.

Every turn that was accepted ends with the event `turn_ended`, also if it fails. It belongs to the process that took it.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from isorun.core.errors import IsorunError
from isorun.service.agent.script.plays import can_play
from isorun.service.problems import Problem
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
        self._taking: set[str] = set()

    async def say(self, user: User, conversation: str, text: str, files: Sequence[str]) -> int:
        """Begin a turn with what *user* says; its number. Raises `Problem`: 404, 409 while a turn goes on, 429, 507."""
        service = self._service
        about = await service.talks.one(user, conversation)
        if conversation in self._tasks or conversation in self._taking:
            raise Problem(409, "turn_goes_on", "the last turn has not ended", hint="wait for its end, or stop it")
        self._taking.add(conversation)
        try:
            await service.runs.check_room(user)
            inputs = [name for name, _ in await service.uploads.named(user, files)]
            turn = await service.talks.next_turn(conversation)
            brought = [{"id": one, "name": name} for one, name in zip(files, inputs, strict=True)]
            content = {"text": text, "files": brought}
            await service.talks.add(conversation, turn, "user", [content])
            said = [Happened(kind="turn_started"), Happened(kind="message", data={"role": "user", **content})]
            await service.runs.tell(Stream(conversation=conversation, turn=turn), said)
            if not about["title"]:
                await service.talks.rename(conversation, " ".join(text.split())[:_TITLE_CHARS])
            task = asyncio.create_task(self._turn(user, conversation, turn, text, files), name=f"turn-{conversation}")
            self._tasks[conversation] = task
            task.add_done_callback(lambda _: self._tasks.pop(conversation, None))
        finally:
            self._taking.discard(conversation)
        return turn

    async def stop(self, user: User, conversation: str) -> None:
        """End the turn that goes on, and its run; what was printed and written stays. Raises `Problem` 404."""
        await self._service.talks.one(user, conversation)
        if (task := self._tasks.get(conversation)) is not None:
            task.cancel()

    def goes_on(self, conversation: str) -> bool:
        """Whether a turn of it has not ended."""
        return conversation in self._tasks

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
        comm.put("turn_ended", status=status)
        await asyncio.shield(asyncio.ensure_future(comm.flush()))

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
