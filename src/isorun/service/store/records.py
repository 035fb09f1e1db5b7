"""Runs and what happened in them. Who conducts a run writes here; who asks reads here, and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from isorun.service.store.database import Database
from isorun.service.store.tables import conversations, events, idempotency, runs
from isorun.store.folder import utc_now

OPEN = ("queued", "running")  # the words of a run that has not ended
Row = Mapping[str, Any]
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


class Records:
    """The runs and events in *database*."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def begin(
        self, row: dict[str, Any], first: Sequence[Happened], *, key: tuple[str, str] | None = None
    ) -> None:
        """Store a new run with its first events. *key*: what the caller calls it, and the digest of its request."""
        async with self._db.write() as connection:
            if key is not None:
                values = {"user_id": row["user_id"], "key": key[0], "body_sha256": key[1], "run_id": row["id"]}
                await connection.execute(insert(idempotency).values(**values, created=row["created"]))
            await connection.execute(insert(runs).values(**row))
            stream = Stream(run=row["id"], conversation=row.get("conversation_id"), turn=row.get("turn"))
            await _put(connection, stream, 0, first)

    async def named(self, user_id: str, key: str) -> tuple[str, str] | None:
        """The digest and the run of a request that the user has called *key* before."""
        question = select(idempotency.c.body_sha256, idempotency.c.run_id)
        async with self._db.read() as connection:
            found = (
                await connection.execute(question.where(idempotency.c.user_id == user_id, idempotency.c.key == key))
            ).first()
        return (found[0], found[1]) if found else None

    async def add(
        self, stream: Stream, after: int, happened: Sequence[Happened], changes: dict[str, Any] | None = None
    ) -> int:
        """Put *happened* behind the event *after* of *stream*, and *changes* into its run. The last event's number."""
        async with self._db.write() as connection:
            if changes:
                await connection.execute(update(runs).where(runs.c.id == stream.run).values(**changes))
            return await _put(connection, stream, after, happened)

    async def run(self, run_id: str) -> Row | None:
        """All of one run."""
        async with self._db.read() as connection:
            found = (await connection.execute(select(runs).where(runs.c.id == run_id))).mappings().first()
        return cast("Row | None", found)

    async def change(self, run_id: str, **changes: Any) -> None:  # noqa: ANN401 - columns of the table
        """Set columns of a run."""
        async with self._db.write() as connection:
            await connection.execute(update(runs).where(runs.c.id == run_id).values(**changes))

    async def of_conversation(self, conversation: str) -> Sequence[Row]:
        """Its runs, whole, oldest first."""
        question = select(runs).where(runs.c.conversation_id == conversation).order_by(runs.c.created, runs.c.id)
        async with self._db.read() as connection:
            return cast("Sequence[Row]", (await connection.execute(question)).mappings().all())

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

    async def used(self, user_id: str, since: str) -> tuple[int, int, int]:
        """How many runs of the user are open, how many began after *since*, and how many bytes all have."""
        question = select(
            func.count().filter(runs.c.status.in_(OPEN)),
            func.count().filter(runs.c.created > since),
            func.coalesce(func.sum(runs.c.bytes), 0),
        ).where(runs.c.user_id == user_id)
        async with self._db.read() as connection:
            row = (await connection.execute(question)).one()
        return int(row[0]), int(row[1]), int(row[2])

    async def open_on(self, hosts: Sequence[str] | None) -> Sequence[Row]:
        """The runs that have not ended, on *hosts*; None: on any."""
        question = select(runs.c.id, runs.c.conversation_id, runs.c.turn).where(runs.c.status.in_(OPEN))
        if hosts is not None:
            question = question.where(runs.c.host_id.in_(hosts))
        async with self._db.read() as connection:
            return cast("Sequence[Row]", (await connection.execute(question)).mappings().all())

    async def last(self, stream: str) -> int:
        """The number of the last event of a run or a conversation; 0 if it has no event."""
        question = select(func.coalesce(func.max(events.c.seq), 0)).where(events.c.stream == stream)
        async with self._db.read() as connection:
            return int((await connection.execute(question)).scalar_one())

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
        """The number in *conversation* before the first event of *runs_in_it* and of *turn*; None if there is none."""
        wanted: ColumnElement[bool] = events.c.stream.in_(runs_in_it)
        if turn is not None:
            wanted |= events.c.turn == turn
        question = select(func.min(events.c.conversation_seq)).where(events.c.conversation_id == conversation, wanted)
        async with self._db.read() as connection:
            first = (await connection.execute(question)).scalar_one()
        return None if first is None else int(first) - 1

    async def remove(self, run_id: str) -> None:
        """The run and its events."""
        async with self._db.write() as connection:
            await connection.execute(events.delete().where(events.c.stream == run_id))
            await connection.execute(idempotency.delete().where(idempotency.c.run_id == run_id))
            await connection.execute(runs.delete().where(runs.c.id == run_id))


async def _put(connection: AsyncConnection, stream: Stream, after: int, happened: Sequence[Happened]) -> int:
    if not happened:
        return after
    first = None
    if stream.conversation is not None:
        # The row's lock gives each writer its numbers in the order in which the writers commit.
        more = conversations.c.last_event + len(happened)
        raised = update(conversations).where(conversations.c.id == stream.conversation).values(last_event=more)
        first = (await connection.execute(raised.returning(conversations.c.last_event))).scalar_one_or_none()
        first = None if first is None else first - len(happened) + 1
        if stream.run is None:
            after = (first or 1) - 1
    rows = [
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
    await connection.execute(insert(events), rows)
    return after + len(happened)


def _stored(row: Row, seq: int, run_id: str | None) -> Stored:
    return Stored(seq=seq, at=row["at"], run=run_id, turn=row["turn"], kind=row["kind"], data=row["data"])
