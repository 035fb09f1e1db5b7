"""Conversations and what was said in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Text, delete, func, insert, select, update
from sqlalchemy import cast as as_type
from sqlalchemy.ext.asyncio import AsyncConnection

from isorun.service.problems import not_found
from isorun.service.store.accounts import User
from isorun.service.store.database import Database
from isorun.service.store.records import remove_runs
from isorun.service.store.tables import conversations, events, hosts, messages, runs, uploads
from isorun.store.folder import utc_now


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Something that was said. `content` is what its role says: text, files, tool calls."""

    number: int
    turn: int
    role: str
    content: dict[str, Any]
    created: str


class Talks:
    """The conversations in *database*."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def create(self, user: User, conversation_id: str, title: str) -> None:
        """A new one."""
        values = {"id": conversation_id, "user_id": user.id, "title": title, "created": utc_now()}
        async with self._db.write() as connection:
            await connection.execute(insert(conversations).values(**values, last_turn=0, last_event=0))

    async def all(self, user: User, most: int = 200) -> Sequence[Mapping[str, Any]]:
        """The user's, newest first."""
        columns = (conversations.c.id, conversations.c.title, conversations.c.created, conversations.c.last_turn)
        question = select(*columns).where(conversations.c.user_id == user.id)
        question = question.order_by(conversations.c.created.desc(), conversations.c.id.desc()).limit(most)
        async with self._db.read() as connection:
            return cast("Sequence[Mapping[str, Any]]", (await connection.execute(question)).mappings().all())

    async def one(self, user: User, conversation_id: str) -> Mapping[str, Any]:
        """The conversation. Raises `Problem` 404."""
        mine = (conversations.c.id == conversation_id) & (conversations.c.user_id == user.id)
        async with self._db.read() as connection:
            row = (await connection.execute(select(conversations).where(mine))).mappings().first()
        if row is None:
            raise not_found("conversation")
        return cast("Mapping[str, Any]", row)

    async def rename(self, conversation_id: str, title: str) -> None:
        """Give it a title."""
        async with self._db.write() as connection:
            mine = conversations.c.id == conversation_id
            await connection.execute(update(conversations).where(mine).values(title=title))

    async def remove(self, user: User, conversation_id: str, known: Sequence[str]) -> list[str] | None:
        """The conversation with all that was said in it, its runs, which are those *known*, and their events.

        The ids of the uploads that it alone was given: they are removed, too, but for their bytes. None, and nothing is
        removed, if a turn goes on or there is another run. Raises `Problem` 404.
        """
        mine = (conversations.c.id == conversation_id) & (conversations.c.user_id == user.id)
        inside = runs.c.conversation_id == conversation_id
        async with self._db.write() as connection:
            # Nobody begins a turn or a run in it until the end of the transaction.
            row = (await connection.execute(select(conversations.c.turn_host).where(mine).with_for_update())).first()
            if row is None:
                raise not_found("conversation")
            found = (await connection.execute(select(runs.c.id).where(inside))).scalars().all()
            if row.turn_host is not None or set(found) != set(known):
                return None
            given = await _given_to(connection, conversation_id)
            await remove_runs(connection, inside)
            await connection.execute(delete(events).where(events.c.stream == conversation_id))
            await connection.execute(delete(conversations).where(mine))
            alone = [one for one in given if not await _is_given_to_another(connection, user, one)]
            of_the_users = (uploads.c.user_id == user.id) & uploads.c.id.in_(alone)
            gone = await connection.execute(delete(uploads).where(of_the_users).returning(uploads.c.id))
            return list(gone.scalars())

    async def begin_turn(self, conversation_id: str, host: str) -> int | None:
        """The number of a new turn, which the process *host* conducts; None while one goes on, anywhere."""
        free = (conversations.c.id == conversation_id) & conversations.c.turn_host.is_(None)
        raised = update(conversations).where(free)
        raised = raised.values(last_turn=conversations.c.last_turn + 1, turn_host=host)
        async with self._db.write() as connection:
            found = (await connection.execute(raised.returning(conversations.c.last_turn))).scalar_one_or_none()
        return None if found is None else int(found)

    async def going_on(self, *, orphans: bool) -> Sequence[Mapping[str, Any]]:
        """The conversations with a turn that goes on; *orphans*: those alone whose process has died."""
        columns = (conversations.c.id, conversations.c.last_turn, conversations.c.turn_host)
        question = select(*columns).where(conversations.c.turn_host.is_not(None))
        if orphans:
            question = question.where(conversations.c.turn_host.not_in(select(hosts.c.id)))
        async with self._db.read() as connection:
            return cast("Sequence[Mapping[str, Any]]", (await connection.execute(question)).mappings().all())

    async def add(self, conversation_id: str, turn: int, role: str, contents: Sequence[dict[str, Any]]) -> None:
        """Put *contents* behind what was said."""
        async with self._db.write() as connection:
            mine = select(conversations.c.id).where(conversations.c.id == conversation_id)
            await connection.execute(mine.with_for_update())  # so that no other takes the same numbers
            last = select(func.coalesce(func.max(messages.c.number), 0))
            found = await connection.execute(last.where(messages.c.conversation_id == conversation_id))
            first = int(found.scalar_one()) + 1
            rows = [
                {
                    "conversation_id": conversation_id,
                    "number": number,
                    "turn": turn,
                    "role": role,
                    "content": content,
                    "created": utc_now(),
                }
                for number, content in enumerate(contents, first)
            ]
            if rows:
                await connection.execute(insert(messages), rows)

    async def said(self, conversation_id: str, *, since: str = "", turn: int | None = None) -> list[Message]:
        """What was said from the moment *since* on, and all of the turns from *turn* on, in order."""
        newer = messages.c.created >= since
        if turn is not None:
            newer |= messages.c.turn >= turn
        question = select(messages).where(messages.c.conversation_id == conversation_id, newer)
        question = question.order_by(messages.c.number)
        async with self._db.read() as connection:
            rows = (await connection.execute(question)).mappings().all()
        names = ("number", "turn", "role", "content", "created")
        return [Message(**{name: row[name] for name in names}) for row in rows]


async def _given_to(connection: AsyncConnection, conversation_id: str) -> set[str]:
    """The uploads that were given to a conversation: with a message, or to one of its runs."""
    said = select(messages.c.content).where(messages.c.conversation_id == conversation_id, messages.c.role == "user")
    asked = select(runs.c.asked).where(runs.c.conversation_id == conversation_id)
    files = [one for content in (await connection.execute(said)).scalars() for one in content.get("files") or ()]
    inputs = [one for run in (await connection.execute(asked)).scalars() for one in run.get("inputs") or ()]
    return {str(one["id"]) for one in (*files, *inputs) if one.get("id")}


async def _is_given_to_another(connection: AsyncConnection, user: User, upload: str) -> bool:
    """Whether a message or a run of the user's names it. A program that only mentions its random id keeps it, too."""
    theirs = select(conversations.c.id).where(conversations.c.user_id == user.id)
    said = select(messages.c.number).where(
        messages.c.conversation_id.in_(theirs), as_type(messages.c.content, Text).contains(upload, autoescape=True)
    )
    asked = select(runs.c.id).where(
        runs.c.user_id == user.id, as_type(runs.c.asked, Text).contains(upload, autoescape=True)
    )
    return any([(await connection.execute(one.limit(1))).first() is not None for one in (said, asked)])
