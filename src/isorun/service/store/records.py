"""Runs and what happened in them. Who conducts a run writes here; who asks reads here, and nowhere else.

A run that is open is written to by the process that conducts it, and closed once: by that process, or, if it has died,
by the first that sees it. A writer holds the run's row until its transaction ends, so the outcome is the
last event, and events have no gap. The same holds for the numbers of a conversation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from isorun.service.problems import Problem, not_found
from isorun.service.store import together
from isorun.service.store.accounts import hold
from isorun.service.store.database import Database
from isorun.service.store.tables import IS_OPEN, USED, conversations, events, hosts, idempotency, runs
from isorun.store.folder import utc_now

OPEN = ("queued", "running")  # the words of a run that has not ended
Row = Mapping[str, Any]
_HOLD = select(runs.c.id).where(IS_OPEN).with_for_update()
_BEGIN, _CHANGE, _EVENTS = insert(runs), update(runs).where(IS_OPEN), insert(events)
_STREAM = (runs.c.id, runs.c.conversation_id, runs.c.turn)
_LISTED = [column for column in runs.c if column.name not in ("result", "asked")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a run was asked for."""

    client: str = "api"
    conversation: str | None = None
    turn: int | None = None
    scenario: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """Something to be stored. *at* is UTC in RFC 3339."""

    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    at: str = field(default_factory=utc_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored(Happened):
    """An event with its number in the stream that was asked for. `run` is absent for a conversation's own event."""

    seq: int
    run: str | None
    turn: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Where events are put: of a run, of a conversation, or of a run in a conversation."""

    run: str | None = None
    conversation: str | None = None
    turn: int | None = None


class Closed(Exception):
    """The run has its end already, or is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What a user has: runs that have not ended, runs that he began since a moment, bytes of all runs' files."""

    now: int
    since: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Asked before a run is stored: *check* raises unless the user has used less than *most* since *since*."""

    since: str
    most: Used
    check: Callable[[Used], None]


class Records:
    """The runs and events in *database*."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def begin(
        self,
        row: dict[str, Any],
        first: Sequence[Happened],
        *,
        allowed: Allowance,
        key: tuple[str, str] | None = None,
    ) -> tuple[str, str] | None:
        """Store a new run with its first events, if its user is *allowed* to have it.

        *key*: what the caller calls it, and the digest of its request. If there is one of that name, nothing is stored,
        and its digest and run are returned. Raises what *allowed* raises, and `Problem`: 401 for a user who is gone,
        404 for a conversation that is.
        """
        async with self._db.write() as connection:
            if not await hold(connection, row["user_id"]):
                raise Problem(401, "not_signed_in", "your user was removed")
            if key is not None:
                if (known := await _named(connection, row["user_id"], key[0])) is not None:
                    return known
                values = {"user_id": row["user_id"], "key": key[0], "body_sha256": key[1], "run_id": row["id"]}
                await connection.execute(insert(idempotency), {**values, "created": row["created"]})
            if (inside := row["conversation_id"]) is not None:
                there = select(conversations.c.id).where(conversations.c.id == inside)
                if (await connection.execute(there.with_for_update(read=True, key_share=True))).first() is None:
                    raise not_found("conversation")
            stream = Stream(run=row["id"], conversation=inside, turn=row["turn"])
            if self._db.is_sqlite:
                allowed.check(await _used(connection, row["user_id"], allowed.since))
                await connection.execute(_BEGIN, row)
                await _put(connection, stream, 0, first)
            else:
                rows = await _numbered(connection, stream, 0, first)
                storing = together.begin(row, rows, since=allowed.since, most=asdict(allowed.most))
                allowed.check(_as_used(await connection.execute(*storing)))
        return None

    async def add(
        self, stream: Stream, after: int, happened: Sequence[Happened], changes: dict[str, Any] | None = None
    ) -> int:
        """Put *happened* behind the event *after* of *stream*, and *changes* into its run. The last event's number.

        What an earlier call stored, whose answer was lost, is not stored again. Raises `Closed`.
        """
        try:
            if stream.run is not None and stream.conversation is None and happened and not self._db.is_sqlite:
                return await self._add_at_once(stream.run, stream, after, happened, changes or {})
            async with self._db.write() as connection:
                if stream.run is not None and not await _hold_open(connection, stream.run, changes):
                    raise Closed
                return await _put(connection, stream, after, happened)
        except (Closed, IntegrityError):
            if not await self._has(stream, after, happened):
                raise Closed from None
            return after + len(happened)

    async def _add_at_once(
        self, run: str, stream: Stream, after: int, happened: Sequence[Happened], changes: Mapping[str, Any]
    ) -> int:
        rows = _rows(stream, after, None, happened)
        async with self._db.statement() as connection:
            if not (await connection.execute(*together.add(run, rows, changes))).rowcount:
                raise Closed
        return after + len(rows)

    async def _has(self, stream: Stream, after: int, happened: Sequence[Happened]) -> bool:
        """Whether *happened* is what is stored behind *after*."""
        if stream.run is None or not happened:
            return False
        stored = await self.events_of_run(stream.run, after, len(happened))
        return [(one.kind, one.at) for one in stored] == [(one.kind, one.at) for one in happened]

    async def close(self, stream: Stream, outcome: Happened, changes: dict[str, Any]) -> bool:
        """Give a run whose process has died its end. False if it has one."""
        async with self._db.write() as connection:
            if stream.run is None or not await _hold_open(connection, stream.run, changes):
                return False
            last = select(func.coalesce(func.max(events.c.seq), 0)).where(events.c.stream == stream.run)
            await _put(connection, stream, int((await connection.execute(last)).scalar_one()), [outcome])
            return True

    async def end_turn(self, conversation: str, turn: int, happened: Sequence[Happened]) -> bool:
        """Put *happened*, the end of a turn, into its conversation. False if it has ended."""
        going_on = (conversations.c.id == conversation) & (conversations.c.last_turn == turn)
        ended = update(conversations).where(going_on, conversations.c.turn_host.is_not(None)).values(turn_host=None)
        async with self._db.write() as connection:
            if not (await connection.execute(ended)).rowcount:
                return False
            await _put(connection, Stream(conversation=conversation, turn=turn), 0, happened)
            return True

    async def run(self, run_id: str) -> Row | None:
        """All of one run."""
        async with self._db.read() as connection:
            found = (await connection.execute(select(runs).where(runs.c.id == run_id))).mappings().first()
        return cast("Row | None", found)

    async def of_conversation(self, conversation: str, most: int | None = None) -> Sequence[Row]:
        """Its newest runs, *most* of them or all, whole, oldest first."""
        question = select(runs).where(runs.c.conversation_id == conversation)
        question = question.order_by(runs.c.created.desc(), runs.c.id.desc()).limit(most)
        async with self._db.read() as connection:
            return cast("Sequence[Row]", (await connection.execute(question)).mappings().all()[::-1])

    async def listed(
        self, user_id: str, *, before: str = "", status: str = "", text: str = "", most: int = 50
    ) -> Sequence[Row]:
        """The user's runs, newest first, without what they were and gave. *before*: `created id` of one of them."""
        question = select(*_LISTED).where(runs.c.user_id == user_id)
        if status:
            question = question.where(runs.c.status == status)
        if text:
            found = runs.c.prog_name.icontains(text, autoescape=True) | runs.c.id.contains(text, autoescape=True)
            question = question.where(found)
        if before:
            created, _, run_id = before.partition(" ")
            older = (runs.c.created < created) | ((runs.c.created == created) & (runs.c.id < run_id))
            question = question.where(older)
        question = question.order_by(runs.c.created.desc(), runs.c.id.desc()).limit(most)
        async with self._db.read() as connection:
            return cast("Sequence[Row]", (await connection.execute(question)).mappings().all())

    async def used(self, user_id: str, since: str) -> Used:
        """What the user has."""
        async with self._db.read() as connection:
            return await _used(connection, user_id, since)

    async def open_runs(self, ids: Sequence[str] | None = None) -> Sequence[Row]:
        """Those of *ids* that have not ended; None: of all."""
        question = select(*_STREAM).where(runs.c.status.in_(OPEN))
        if ids is not None:
            question = question.where(runs.c.id.in_(ids))
        async with self._db.read() as connection:
            return cast("Sequence[Row]", (await connection.execute(question)).mappings().all())

    async def orphans(self) -> Sequence[Row]:
        """Runs that have not ended, of processes that have."""
        question = select(*_STREAM).where(runs.c.status.in_(OPEN), runs.c.host_id.not_in(select(hosts.c.id)))
        async with self._db.read() as connection:
            return cast("Sequence[Row]", (await connection.execute(question)).mappings().all())

    async def events_of_run(self, run_id: str, after: int, most: int = 500) -> list[Stored]:
        """Its events behind number *after*, in order."""
        question = select(events).where(events.c.stream == run_id, events.c.seq > after)
        async with self._db.read() as connection:
            rows = (await connection.execute(question.order_by(events.c.seq).limit(most))).mappings().all()
        return [_stored(cast("Row", row), row["seq"], run_id) for row in rows]

    async def events_of_conversation(self, conversation: str, after: int, most: int = 500) -> list[Stored]:
        """Its own events and those of its runs behind number *after*, in order."""
        question = select(events).where(events.c.conversation_id == conversation, events.c.conversation_seq > after)
        async with self._db.read() as connection:
            rows = (await connection.execute(question.order_by(events.c.conversation_seq).limit(most))).mappings().all()
        return [
            _stored(cast("Row", row), row["conversation_seq"], None if row["stream"] == conversation else row["stream"])
            for row in rows
        ]

    async def before(self, conversation: str, runs_in_it: Sequence[str], turn: int | None) -> int | None:
        """The number in *conversation* before the first event of *runs_in_it* and *turn*; None without an event."""
        wanted: ColumnElement[bool] = events.c.stream.in_(runs_in_it)
        if turn is not None:
            wanted |= events.c.turn == turn
        question = select(func.min(events.c.conversation_seq)).where(events.c.conversation_id == conversation, wanted)
        async with self._db.read() as connection:
            first = (await connection.execute(question)).scalar_one()
        return None if first is None else int(first) - 1

    async def exists(self, run_id: str) -> bool:
        """Whether there is such a run."""
        async with self._db.read() as connection:
            return (await connection.execute(select(runs.c.id).where(runs.c.id == run_id))).first() is not None

    async def has_conversation(self, conversation: str) -> bool:
        """Whether there is such a conversation."""
        question = select(conversations.c.id).where(conversations.c.id == conversation)
        async with self._db.read() as connection:
            return (await connection.execute(question)).first() is not None

    async def discard(self, run_id: str) -> None:
        """A run that did not begin, as if it had not been asked for."""
        async with self._db.write() as connection:
            await remove_runs(connection, runs.c.id == run_id)

    async def remove(self, run_id: str) -> bool:
        """The run and its events, if it has ended; whether it has."""
        async with self._db.write() as connection:
            return await remove_runs(connection, (runs.c.id == run_id) & runs.c.status.not_in(OPEN))


async def remove_runs(connection: AsyncConnection, which: ColumnElement[bool]) -> bool:
    """Those runs with their events and the names of their requests; whether there was one."""
    gone = (await connection.execute(runs.delete().where(which).returning(runs.c.id))).scalars().all()
    await connection.execute(events.delete().where(events.c.stream.in_(gone)))
    await connection.execute(idempotency.delete().where(idempotency.c.run_id.in_(gone)))
    return bool(gone)


async def _named(connection: AsyncConnection, user_id: str, key: str) -> tuple[str, str] | None:
    """The digest and the run of a request that the user has called *key* before."""
    question = select(idempotency.c.body_sha256, idempotency.c.run_id)
    mine = (idempotency.c.user_id == user_id) & (idempotency.c.key == key)
    found = (await connection.execute(question.where(mine))).first()
    return (found[0], found[1]) if found else None


async def _used(connection: AsyncConnection, user_id: str, since: str) -> Used:
    return _as_used(await connection.execute(USED, {"of": user_id, "since": since}))


def _as_used(found: CursorResult[Any]) -> Used:
    return Used(**{str(name): int(value) for name, value in found.mappings().one().items()})


async def _hold_open(connection: AsyncConnection, run_id: str, changes: dict[str, Any] | None) -> bool:
    """Keep others from writing to a run until the end of the transaction; False if it is not open."""
    if changes:
        return bool((await connection.execute(_CHANGE, {"run": run_id, **changes})).rowcount)
    return (await connection.execute(_HOLD, {"run": run_id})).first() is not None


async def _put(connection: AsyncConnection, stream: Stream, after: int, happened: Sequence[Happened]) -> int:
    if not happened:
        return after
    rows = await _numbered(connection, stream, after, happened)
    await connection.execute(_EVENTS, rows if len(rows) > 1 else rows[0])
    return int(rows[-1]["seq"])


async def _numbered(
    connection: AsyncConnection, stream: Stream, after: int, happened: Sequence[Happened]
) -> list[dict[str, Any]]:
    """The rows of *happened*; a conversation's numbers are taken for them."""
    first = None
    if stream.conversation is not None:
        # The row's lock gives each writer its numbers in the order in which the writers commit.
        more = conversations.c.last_event + len(happened)
        raised = update(conversations).where(conversations.c.id == stream.conversation).values(last_event=more)
        first = (await connection.execute(raised.returning(conversations.c.last_event))).scalar_one_or_none()
        first = None if first is None else first - len(happened) + 1
        if stream.run is None:
            after = (first or 1) - 1
    return _rows(stream, after, first, happened)


def _rows(stream: Stream, after: int, first: int | None, happened: Sequence[Happened]) -> list[dict[str, Any]]:
    """*happened* behind the event *after* of *stream*; *first*: the number of the first one in the conversation."""
    return [
        {
            "stream": stream.run or stream.conversation,
            "seq": after + 1 + number,
            "conversation_id": None if first is None else stream.conversation,
            "conversation_seq": None if first is None else first + number,
            "kind": one.kind,
            "at": one.at,
            "turn": stream.turn,
            "data": one.data,
        }
        for number, one in enumerate(happened)
    ]


def _stored(row: Row, seq: int, run_id: str | None) -> Stored:
    return Stored(seq=seq, at=row["at"], run=run_id, turn=row["turn"], kind=row["kind"], data=row["data"])
