"""The host of runs: begins them for users, within their quotas, and sees each to its end in the store.

Theory of operation. A run begins in the Runtime of this process, and then its row is stored; the caller is answered
after that. One task follows the run and alone writes about it. If this process dies, the
next one (or, with Redis, one of the others) finds the row still open, and closes it as `lost`, with what was written.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sqlalchemy.exc import IntegrityError

from isorun.core.errors import IsorunError
from isorun.core.ids import new_exec_id
from isorun.core.request import RunRequest
from isorun.core.result import RunResult
from isorun.runtime.accepted.handle import Run
from isorun.runtime.runtime import Runtime
from isorun.service.problems import Problem, not_found
from isorun.service.runs.follow import Batches
from isorun.service.runs.quotas import Quotas, too_many
from isorun.service.runs.views import stored_result, whole
from isorun.service.runs.wakes import LocalWakes
from isorun.service.store.accounts import User
from isorun.service.store.records import OPEN, Happened, Origin, Records, Stored, Stream
from isorun.settings import Settings
from isorun.store.folder import utc_now
from isorun.store.recovery import stored_file

_log = logging.getLogger("isorun.service")
_T = TypeVar("_T")
_MOST_OPEN = 500  # runs of all users that wait or run in this process
_LOOK_AGAIN_S = 15.0  # who waits for news looks by himself then


@dataclass(eq=False)
class _Live:
    """A run of this process."""

    run: Run
    row: dict[str, Any]
    stream: Stream
    seq: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Runs:
    """The runs of every user."""

    def __init__(
        self, *, records: Records, wakes: LocalWakes, runtime: Runtime, settings: Settings, host_id: str
    ) -> None:
        self.records, self.runtime = records, runtime
        self._wakes, self._host_id = wakes, host_id
        self._quotas = Quotas(records, settings)
        self._live: dict[str, _Live] = {}
        self._closing = False
        self._following: set[asyncio.Task[None]] = set()
        self._stopping: set[asyncio.Task[RunResult]] = set()
        wakes.on_order = self._obey

    @property
    def open(self) -> int:
        """How many runs of this process have not ended."""
        return len(self._live)

    async def start(
        self, user: User, asked: RunRequest, *, origin: Origin | None = None, key: tuple[str, str] | None = None
    ) -> str:
        """Begin a run of *user*; its id, once it is stored.

        *key*: the caller's name for the request, and the request's digest: the second of the same name is the first.
        Raises `Problem` (quota, queue, idempotency), `InvalidRequest`, `Unavailable`, `SetupFailed`.
        """
        if key is not None and (known := await self._known(user, key)) is not None:
            return known
        await self.check_room(user)
        request = replace(asked, exec_id=asked.exec_id or new_exec_id(), user_id=user.id)
        run = await self.runtime.start(request)
        try:
            await self.adopt(user, run, request, origin or Origin(), key=key)
        except IntegrityError:
            await run.cancel()
            if key is not None and (known := await self._known(user, key)) is not None:
                return known
            raise
        return run.exec_id

    async def adopt(
        self, user: User, run: Run, asked: RunRequest, origin: Origin, *, key: tuple[str, str] | None = None
    ) -> None:
        """Store *run*, which was begun already, and follow it. If it cannot be stored, it is cancelled."""
        stream = Stream(run=run.exec_id, conversation=origin.conversation, turn=origin.turn)
        live = _Live(run, self._row(user, run, asked, origin), stream, seq=1)
        try:
            await self.records.begin(live.row, [Happened(kind="queued")], key=key)
        except BaseException:
            await run.cancel()
            raise
        self._live[run.exec_id] = live
        task = asyncio.create_task(self._follow(live), name=f"follow-{run.exec_id}")
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        await self._tell(live.stream)

    async def check_room(self, user: User) -> None:
        """Raise `Problem` if *user* may not begin a run now: his quotas, or too many runs of all users wait here."""
        if self._closing:
            raise Problem(503, "closing", "the service is ending", headers={"Retry-After": "5"})
        if len(self._live) >= _MOST_OPEN:
            raise too_many("queue_full", "too many runs wait here", "try again in a second")
        await self._quotas.check(user)

    async def _known(self, user: User, key: tuple[str, str]) -> str | None:
        found = await self.records.named(user.id, key[0])
        if found is not None and found[0] != key[1]:
            raise Problem(
                409,
                "idempotency_key_reused",
                "this Idempotency-Key was sent before, with another request",
                hint="send a new key for a new request",
            )
        return found[1] if found else None

    def _row(self, user: User, run: Run, asked: RunRequest, origin: Origin) -> dict[str, Any]:
        code = asked.code.decode("utf-8", "replace")
        return {
            "id": run.exec_id,
            "user_id": user.id,
            "conversation_id": origin.conversation,
            "turn": origin.turn,
            "status": "queued",
            "host_id": self._host_id,
            "client": origin.client,
            "scenario": origin.scenario,
            "prog_name": asked.prog_name or "",
            "asked": {
                "code": code,
                "sha256": hashlib.sha256(asked.code).hexdigest(),
                "contract": asked.contract,
                "timeout_s": asked.timeout_s,
                "tools": None if asked.tools is None else list(asked.tools),
                "inputs": [{"name": getattr(one, "name", "")} for one in asked.inputs],
            },
            "created": utc_now(),
            "started": None,
            "ended": None,
            "bytes": 0,
            "cost": None,
            "result": None,
        }

    async def _follow(self, live: _Live) -> None:
        try:
            await self._see_to_its_end(live)
        except Exception:  # noqa: BLE001 - whatever the database raises: who waits is told, and the run is found again
            # The next look for lost runs closes it: the store cannot be written to now.
            _log.exception("run %s could not be stored to its end", live.run.exec_id)
        finally:
            live.ended.set()
            del self._live[live.run.exec_id]
            await self._tell(live.stream)

    async def _see_to_its_end(self, live: _Live) -> None:
        async def write(happened: Sequence[Happened], started: str | None) -> None:
            changes = {"status": "running", "started": started} if started else {}
            await self._add(live, happened, changes)

        batches = Batches(write)
        rest = await batches.follow(live.run)
        try:
            result = await live.run.result()
        except Exception as error:  # noqa: BLE001 - a sandbox that failed, in whatever way: the run has an end all the same
            _log.error("run %s: %s", live.run.exec_id, error)
            changes = lost_changes("sandbox_lost", "the sandbox failed; what happened is in the service's log")
        else:
            found = await asyncio.to_thread(self._ended, result.stored(), result.exec_id)
            changes = found or lost_changes("sandbox_lost", "the run's result cannot be read; its log is kept")
        outcome = outcome_of(changes)
        started = next((one.at for one in rest if one.kind == "started"), None)
        changes |= {"started": started} if started else {}
        await self._add(live, [*rest, *batches.skipped, outcome], changes)

    def _ended(self, stored: bytes, exec_id: str) -> dict[str, Any] | None:
        told = stored_result(stored, exec_id, self.runtime.root)
        if told is None:
            return None
        size = sum(one["bytes"] for one in told["artifacts"])
        return {"status": told["status"], "ended": utc_now(), "bytes": size, "cost": told.get("usage"), "result": told}

    async def _add(self, live: _Live, happened: Sequence[Happened], changes: dict[str, Any]) -> None:
        live.seq = await self.records.add(live.stream, live.seq, happened, changes)
        live.row |= changes
        await self._tell(live.stream)

    async def tell(self, stream: Stream, happened: Sequence[Happened]) -> None:
        """Put *happened* into a conversation's own events."""
        await self.records.add(stream, 0, happened)
        await self._tell(stream)

    async def _tell(self, stream: Stream) -> None:
        await self._wakes.tell(*(name for name in (stream.run, stream.conversation) if name))

    async def row(self, user: User, run_id: str) -> dict[str, Any]:
        """The run's row. Raises `Problem` 404 for another user's, too."""
        live = self._live.get(run_id)
        row = dict(live.row) if live is not None else await self.records.run(run_id)
        if row is None or row["user_id"] != user.id:
            raise not_found("run")
        return dict(row)

    async def view(self, user: User, run_id: str) -> dict[str, Any]:
        """The run, as `views.whole` shows it. Raises `Problem` 404."""
        return whole(await self.row(user, run_id))

    async def wait(self, user: User, run_id: str, timeout_s: float | None = None) -> dict[str, Any]:
        """The run once it has ended, or as it is after *timeout_s* seconds. Raises `Problem` 404."""
        row = await self.row(user, run_id)
        live = self._live.get(run_id)
        try:
            async with asyncio.timeout(timeout_s):
                if live is not None:
                    await live.ended.wait()
                    row = live.row
                elif row["status"] in OPEN:
                    async for _ in self.events(run_id):
                        pass
                    row = await self.row(user, run_id)
        except TimeoutError:
            row = await self.row(user, run_id)
        return whole(row)

    async def settled(self, run_id: str) -> None:
        """Once the store has the end of a run of this process; at once for any other."""
        if (live := self._live.get(run_id)) is not None:
            await live.ended.wait()

    async def events(self, run_id: str, after: int = 0) -> AsyncIterator[Stored]:
        """What happened and happens behind event *after*, until the outcome."""
        with self._wakes.listen(run_id) as news:
            while True:
                news.clear()
                for one in await self.records.events_of_run(run_id, after):
                    yield one
                    after = one.seq
                    if one.kind == "outcome":
                        return
                    news.set()  # there may be more than one answer holds
                await _news(news)

    async def events_of_conversation(self, conversation: str, after: int = 0) -> AsyncIterator[Stored]:
        """What happened and happens in it, without an end."""
        with self._wakes.listen(conversation) as news:
            while True:
                news.clear()
                for one in await self.records.events_of_conversation(conversation, after):
                    yield one
                    after = one.seq
                    news.set()
                await _news(news)

    async def cancel(self, user: User, run_id: str) -> dict[str, Any]:
        """Let the run end, wherever it runs; its files and its output stay. Raises `Problem` 404."""
        row = await self.row(user, run_id)
        if row["status"] in OPEN:
            if run_id in self._live:
                await self._obey("cancel", run_id)
            else:
                await self._wakes.order(row["host_id"], "cancel", run_id)
        return whole(row)

    async def _obey(self, verb: str, subject: str) -> None:
        live = self._live.get(subject)
        if verb == "cancel" and live is not None:
            self._stop(live)

    def _stop(self, live: _Live) -> None:
        """Cancel the run, and do not wait: who follows it sees its end."""
        task = asyncio.create_task(live.run.cancel())
        self._stopping.add(task)
        task.add_done_callback(self._stopped)

    def _stopped(self, task: "asyncio.Task[RunResult]") -> None:
        self._stopping.discard(task)
        if not task.cancelled():
            task.exception()  # who follows the run tells of it

    async def close_lost(self, hosts: Sequence[str] | None) -> int:
        """Give every run that is open on *hosts*, which have died, its end. How many there were; None: on any host."""
        rows = [row for row in await self.records.open_on(hosts) if row["id"] not in self._live]
        for row in rows:
            changes = await asyncio.to_thread(self._found_or_lost, row["id"])
            stream = Stream(run=row["id"], conversation=row["conversation_id"], turn=row["turn"])
            await self.records.add(stream, await self.records.last(row["id"]), [outcome_of(changes)], changes)
            await self._tell(stream)
        return len(rows)

    def _found_or_lost(self, run_id: str) -> dict[str, Any]:
        """The end that is in the run's folder: the process may have died behind it. Else the run is lost."""
        with suppress(IsorunError):
            stored = stored_file(self.runtime.root, run_id, "result.json")
            if stored is not None and (found := self._ended(stored, run_id)) is not None:
                return found
        return lost_changes("host_lost", "the service ended while the program ran; what it had printed is kept")

    async def in_thread(self, function: Callable[..., _T], *arguments: object) -> _T:
        """What *function* gives, which may wait for a disk."""
        return await asyncio.to_thread(function, *arguments)

    async def close(self) -> None:
        """Cancel what runs and wait until the store has its end; no run begins any more."""
        self._closing = True
        for live in tuple(self._live.values()):
            self._stop(live)
        if self._following:
            await asyncio.wait(self._following)


def outcome_of(changes: dict[str, Any]) -> Happened:
    """The last event of a run that ends with *changes*."""
    result = changes["result"]
    error: dict[str, Any] = result.get("error") or {}
    told = {name: error[name] for name in ("code", "message", "where", "hint") if error.get(name)}
    data = {"status": changes["status"], "ok": changes["status"] == "ok"}
    return Happened(kind="outcome", data={**data, "error": told} if told else data)


def lost_changes(code: str, message: str) -> dict[str, Any]:
    """What the row of a lost run becomes."""
    error: dict[str, Any] = {
        "code": code,
        "message": message,
        "where": None,
        "details": {},
        "hint": "run it again",
    }
    empty: dict[str, Any] = {"stdout": "", "stderr": "", "artifacts": [], "files": [], "calls": [], "items": []}
    result = {"ok": False, "status": "lost", "error": error, "notices": [], "missing": [], **empty}
    return {"status": "lost", "ended": utc_now(), "result": result}


async def _news(news: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_LOOK_AGAIN_S):
            await news.wait()
    except TimeoutError:
        return
