"""A conversation is deleted with everything that came of it: on the disk first, and then in the database.

An interrupted deletion leaves the rows, which say what is to be deleted still: the same can be asked for again.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isorun.core.errors import InvalidRequest
from isorun.executor.rules import OUT
from isorun.service.problems import Problem
from isorun.service.store.accounts import User
from isorun.service.store.records import OPEN
from isorun.service.talk.agent import session_of
from isorun.store import recovery, sessions
from isorun.tools.workspace import Workspaces

if TYPE_CHECKING:
    from isorun.service.context import Service

_ENDING_S = 30.0  # in which what goes on has ended, once it was told to
_AGAIN = 3  # times that somebody may begin something in between
_OUT = f"{OUT}/"


async def remove_run(service: "Service", run_id: str) -> None:
    """Delete what a run that has ended left on the disk. Raises `Problem` 409 while its process works on it."""
    try:
        await service.runs.in_thread(recovery.remove, service.runtime.root, run_id)
    except InvalidRequest as error:
        if error.code == "run_is_running":  # it was lost for all others, and its process still lives
            raise still_running() from None
        if error.code != "no_such_run":  # its folder may have gone with its time
            raise


def still_running() -> Problem:
    """A run cannot be deleted yet."""
    return Problem(409, "run_is_running", "the run has not ended", hint="cancel it first, or wait for its end")


async def remove_conversation(service: "Service", user: User, conversation: str) -> None:
    """End what goes on in it; then delete its messages, runs, files and events, and the uploads given to it alone.

    Raises `Problem`: 404; 409 if something of it does not end, or begins again and again; 503 if the process that
    conducts it cannot be told.
    """
    await service.talks.one(user, conversation)
    removed: list[str] = []
    for _ in range(_AGAIN):
        runs = await _ended(service, user, conversation)
        await _clear(service, user, conversation, runs)
        removed = [str(run["id"]) for run in runs]
        uploads = await service.talks.remove(user, conversation, removed)
        if uploads is not None:
            break
    else:
        raise _goes_on()
    for upload in uploads:
        await service.runs.in_thread(service.uploads.discard, upload)
    service.wakes.tell(conversation, *removed)


def _goes_on() -> Problem:
    return Problem(409, "conversation_goes_on", "something in it has not ended", hint="stop it, and delete it then")


async def _ended(service: "Service", user: User, conversation: str) -> Sequence[Mapping[str, Any]]:
    """Its runs, once its turn and all of them have ended, which are told to."""
    told: set[str] = set()
    try:
        async with asyncio.timeout(_ENDING_S):
            with service.wakes.listen(conversation) as news:
                while True:
                    news.clear()
                    turn_goes_on = (await service.talks.one(user, conversation))["turn_host"] is not None
                    runs = await service.records.of_conversation(conversation)
                    going_on = {run["id"] for run in runs if run["status"] in OPEN}
                    if turn_goes_on and conversation not in told:
                        await service.turns.stop(user, conversation)
                    for run in going_on - told:
                        await service.runs.cancel(user, run)
                    if not turn_goes_on and not going_on:
                        return runs
                    told |= {conversation, *going_on} if turn_goes_on else going_on
                    await _wait(news, service.wakes.look_again_s)
    except TimeoutError:
        raise _goes_on() from None


async def _wait(news: asyncio.Event, most_s: float) -> None:
    waiting = asyncio.ensure_future(news.wait())
    try:
        await asyncio.wait({waiting}, timeout=most_s)
    finally:
        waiting.cancel()


async def _clear(service: "Service", user: User, conversation: str, runs: Sequence[Mapping[str, Any]]) -> None:
    """Delete what is on the disk: the runs' folders, the agent's session, and what scenarios left in the user's own."""
    for run in runs:
        await remove_run(service, run["id"])
    try:
        await service.runs.in_thread(sessions.remove, service.runtime.root, session_of(conversation))
    except InvalidRequest as error:
        if error.code == "session_in_use":
            raise _goes_on() from None
        if error.code != "no_such_session":
            raise
    if left := [path for run in runs if run["scenario"] is not None for path in _left_by(run)]:
        try:
            async with asyncio.timeout(_ENDING_S):
                await Workspaces.of(service.settings).forget(user.name, left)
        except TimeoutError:  # its folder is in use
            raise Problem(
                409, "scenario_runs", "another scenario of yours runs", hint="try again once it has ended"
            ) from None


def _left_by(run: Mapping[str, Any]) -> Iterator[str]:
    """The paths in the user's out/ of what a scenario's run wrote there: the folder of its turn, files of its calls."""
    yield f"turn_{run['id']}"
    for call in (run["result"] or {}).get("calls") or ():
        if isinstance(result := call.get("result"), str) and result.startswith(_OUT):
            yield result.removeprefix(_OUT)
