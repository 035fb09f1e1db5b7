"""The host of runs: begins them for users, within their quotas, and sees each to its end in the store.

Theory of operation. A run that a user asks for has its row before it begins: the row is taken in one transaction with
the user's quotas and the name that the request has. A task follows the run and writes what happens; as long as this
process lives, it alone writes about the run. If this process dies, the next one (or, with Redis, one of the others)
finds the row still open, and closes it as `lost`, with what was written. A database that is away is waited for while
the run goes on and for a minute behind its end; what is not stored then is closed by `look`.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from isorun.core.ids import new_exec_id
from isorun.core.request import RunRequest
from isorun.core.result import RunResult
from isorun.runtime.accepted.handle import Run
from isorun.runtime.runtime import Runtime
from isorun.service.problems import Problem, not_found
from isorun.service.runs.follow import Batches
from isorun.service.runs.lost import close_lost, ended_changes, failed_changes, is_short, lost_changes, outcome_of
from isorun.service.runs.news import followed
from isorun.service.runs.patience import patiently
from isorun.service.runs.quotas import Quotas, too_many
from isorun.service.runs.rows import new_row
from isorun.service.runs.views import whole
from isorun.service.runs.wakes import Wakes
from isorun.service.store.accounts import User
from isorun.service.store.database import Away
from isorun.service.store.records import OPEN, Closed, Happened, Origin, Records, Row, Stored, Stream
from isorun.settings import Settings

_log = logging.getLogger("isorun.service")
_T = TypeVar("_T")
_MOST_OPEN = 500  # runs of all users that wait or run in this process
_PATIENCE_S = 60.0  # for a database that is away, once a run has ended
_CLOSING_S = 2.0  # the same, once the service ends


@dataclass(eq=False)
class _Live:
    """A run of this process."""

    run: Run
    row: dict[str, Any]
    stream: Stream
    host: str
    seq: int = 0
    over_at: float | None = None  # by the clock of `time.monotonic`
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def over(self, _: Run) -> None:
        """Its program has ended."""
        self.over_at = time.monotonic()


class Runs:
    """The runs of every user. *host_id*: what the rows of this process' runs say; it may be given another."""

    def __init__(self, *, records: Records, wakes: Wakes, runtime: Runtime, settings: Settings, host_id: str) -> None:
        self.records, self.runtime, self.host_id = records, runtime, host_id
        self._wakes = wakes
        self._quotas = Quotas(records, settings)
        self._live: dict[str, _Live] = {}
        self._beginning: set[str] = set()
        self._left: set[str] = set()  # whose rows may be open, and which are conducted no more
        self._closing_at: float | None = None
        self._following: set[asyncio.Task[None]] = set()
        self._stopping: set[asyncio.Task[RunResult]] = set()
        wakes.on("cancel", self._cancel)

    @property
    def open(self) -> int:
        """How many runs of this process have not ended."""
        return len(self._live)

    async def start(
        self, user: User, asked: RunRequest, *, origin: Origin | None = None, key: tuple[str, str] | None = None
    ) -> str:
        """Begin a run of *user*; its id, once it is stored.

        *key*: the caller's name for the request, and the request's digest: the second of the same name is the first.
        Raises `Problem` (quota, queue, idempotency), `InvalidRequest`, `Unavailable`, `SetupFailed`, `Away`.
        """
        self._check_queue()
        request = replace(asked, exec_id=asked.exec_id or new_exec_id(), user_id=user.id)
        origin, run_id = origin or Origin(), request.exec_id
        assert run_id is not None
        row = new_row(user, run_id, request, origin, self.host_id)
        with self._beginning_of(run_id):
            if (known := await self._store(user, row, key)) is not None:
                return known
            try:
                run = await self.runtime.start(request)
            except Exception:
                await self.records.discard(run_id)
                raise
            live = self._adopted(run, row, origin)
        self._tell(live.stream)
        return run_id

    async def adopt(self, user: User, run: Run, asked: RunRequest, origin: Origin) -> None:
        """Store *run*, which was begun already, and follow it. If it cannot be stored, it is cancelled."""
        row = new_row(user, run.exec_id, asked, origin, self.host_id)
        with self._beginning_of(run.exec_id):
            try:
                await self._store(user, row, None)
            except BaseException:
                await run.cancel()
                raise
            live = self._adopted(run, row, origin)
        self._tell(live.stream)

    async def check_room(self, user: User) -> None:
        """Raise `Problem` if *user* may not begin a run now: his quotas, or too many runs of all users wait here."""
        self._check_queue()
        await self._quotas.check(user)

    def _check_queue(self) -> None:
        if self._closing_at is not None:
            raise Problem(503, "closing", "the service is ending", headers={"Retry-After": "5"})
        if len(self._live) + len(self._beginning) >= _MOST_OPEN:
            raise too_many("queue_full", "too many runs wait here", "try again in a second")

    async def _store(self, user: User, row: dict[str, Any], key: tuple[str, str] | None) -> str | None:
        """Store the row of a run that begins; the run of the same *key*, if there is one already."""
        first = [Happened(kind="queued", at=row["created"])]
        found = await self.records.begin(row, first, allowed=self._quotas.allowance(user), key=key)
        if found is None or key is None:
            return None
        if found[0] != key[1]:
            raise Problem(
                409,
                "idempotency_key_reused",
                "this Idempotency-Key was sent before, with another request",
                hint="send a new key for a new request",
            )
        return found[1]

    @contextmanager
    def _beginning_of(self, run_id: str) -> Iterator[None]:
        """Of a run whose row may be stored inside of the block. If that is not known in the end, `look` closes it."""
        self._beginning.add(run_id)
        try:
            yield
        except (Away, asyncio.CancelledError):
            self._left.add(run_id)
            raise
        finally:
            self._beginning.discard(run_id)

    def _adopted(self, run: Run, row: dict[str, Any], origin: Origin) -> _Live:
        stream = Stream(run=run.exec_id, conversation=origin.conversation, turn=origin.turn)
        live = _Live(run, row, stream, row["host_id"], seq=1)
        run.when_done(live.over)
        self._live[run.exec_id] = live
        task = asyncio.create_task(self._follow(live), name=f"follow-{run.exec_id}")
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        return live

    async def _follow(self, live: _Live) -> None:
        run_id = live.run.exec_id
        try:
            await self._see_to_its_end(live)
        except Closed:
            _log.warning("run %s has an end already, or was removed: it is cancelled", run_id)
        except (Away, asyncio.CancelledError) as error:
            self._left.add(run_id)
            _log.error("run %s could not be stored to its end: %s", run_id, error)
        except Exception:  # noqa: BLE001 - a defect of ours: who waits is told, and `look` closes the run
            self._left.add(run_id)
            _log.exception("run %s could not be stored to its end", run_id)
        finally:
            if live.over_at is None:
                self._stop(live)
            live.ended.set()
            del self._live[run_id]
            self._tell(live.stream)

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
            changes = failed_changes(error)
        else:
            found = await self._ended(result)
            changes = found or lost_changes("sandbox_lost", "the run's result cannot be read; its log is kept")
        outcome = outcome_of(changes)
        started = next((one.at for one in rest if one.kind == "started"), None)
        changes |= {"started": started} if started else {}
        await self._add(live, [*rest, *batches.skipped, outcome], changes)

    async def _ended(self, result: RunResult) -> dict[str, Any] | None:
        root = self.runtime.root
        if is_short(result):
            return ended_changes(root, json.dumps(result.to_dict(), allow_nan=False), result.exec_id)
        return await asyncio.to_thread(lambda: ended_changes(root, result.stored(), result.exec_id))

    async def _add(self, live: _Live, happened: Sequence[Happened], changes: dict[str, Any]) -> None:
        async def write() -> int:
            return await self.records.add(live.stream, live.seq, happened, changes)

        live.seq = await patiently(f"run {live.run.exec_id}", write, gives_up=lambda: self.gives_up(live.over_at))
        live.row |= changes
        self._tell(live.stream)

    def gives_up(self, over_at: float | None) -> bool:
        """Whether a database that is away is waited for no longer, by somebody whose work was *over_at* that time."""
        now = time.monotonic()
        if self._closing_at is not None and now > self._closing_at + _CLOSING_S:
            return True
        return over_at is not None and now > over_at + _PATIENCE_S

    async def tell(self, stream: Stream, happened: Sequence[Happened]) -> None:
        """Put *happened* into a conversation's own events. Raises `Away`."""
        await self.records.add(stream, 0, happened)
        self._tell(stream)

    def _tell(self, stream: Stream) -> None:
        self._wakes.tell(*(name for name in (stream.run, stream.conversation) if name))

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

    def handle(self, run_id: str) -> Run | None:
        """The run itself, to answer its held calls; None unless it is open in this process. Whose it is, `row` says."""
        live = self._live.get(run_id)
        return None if live is None else live.run

    async def wait(self, user: User, run_id: str, timeout_s: float | None = None) -> dict[str, Any]:
        """The run once it has ended, or as it is after *timeout_s* seconds. Raises `Problem` 404."""
        row = await self.row(user, run_id)
        live = self._live.get(run_id)
        try:
            async with asyncio.timeout(timeout_s):
                if live is not None:
                    await live.ended.wait()
                    # It may have been closed by another process.
                    row = live.row if live.row["ended"] else await self.row(user, run_id)
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
        """What happened and happens behind event *after*, until the outcome. It ends, too, if the run is removed."""

        async def more(after: int) -> list[Stored] | None:
            found = await self.records.events_of_run(run_id, after)
            return found if found or await self.records.exists(run_id) else None

        async for one in followed(self._wakes, run_id, more, after):
            yield one
            if one.kind == "outcome":
                return

    async def events_of_conversation(self, conversation: str, after: int = 0) -> AsyncIterator[Stored]:
        """What happened and happens in it, until it is deleted."""

        async def more(after: int) -> list[Stored] | None:
            found = await self.records.events_of_conversation(conversation, after)
            return found if found or await self.records.has_conversation(conversation) else None

        async for one in followed(self._wakes, conversation, more, after):
            yield one

    async def cancel(self, user: User, run_id: str) -> dict[str, Any]:
        """Let the run end, wherever it runs; its files and its output stay. Raises `Problem` 404, or 503 if the process
        that conducts it cannot be told.
        """
        row = await self.row(user, run_id)
        if row["status"] in OPEN:
            if run_id in self._live:
                await self._cancel(run_id)
            elif not await self._wakes.order(row["host_id"], "cancel", run_id):
                raise unheard("run")
        return whole(row)

    async def _cancel(self, run_id: str) -> None:
        if (live := self._live.get(run_id)) is not None:
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

    def stop_buried(self) -> None:
        """Cancel the runs that this process began under another name: the others have taken it for dead."""
        for live in tuple(self._live.values()):
            if live.host != self.host_id:
                self._stop(live)

    async def look(self, rows: Sequence[Row] = ()) -> int:
        """Give each of *rows*, open runs that are conducted no more, its end, and those that could not be stored.

        How many had none. Raises `Away`.
        """
        left = self._left - self._live.keys()
        if left:
            rows = [*rows, *await self.records.open_runs(sorted(left))]
        lost = [row for row in rows if row["id"] not in self._live and row["id"] not in self._beginning]
        closed = await close_lost(self.records, self.runtime.root, lost, self._tell)
        self._left -= left
        return closed

    async def in_thread(self, function: Callable[..., _T], *arguments: object) -> _T:
        """What *function* gives, which may wait for a disk."""
        return await asyncio.to_thread(function, *arguments)

    async def close(self) -> None:
        """Cancel what runs and wait until the store has its end; no run begins any more."""
        if self._closing_at is None:
            self._closing_at = time.monotonic()
        for live in tuple(self._live.values()):
            self._stop(live)
        if self._following:
            _, late = await asyncio.wait(self._following, timeout=_CLOSING_S)
            for task in late:  # the next process closes them
                task.cancel()


def unheard(what: str) -> Problem:
    """A 503: an order could not be given to another process."""
    return Problem(
        503,
        "process_away",
        f"the process that conducts the {what} cannot be told now",
        hint="try again in a few seconds; if the process has died, that ends by itself",
        headers={"Retry-After": "2"},
    )
