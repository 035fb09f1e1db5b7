"""Users, and what they show to be let in: keys of programs, links that work once, cookies of browsers.

A secret is shown once, when it is made. The database holds its digest, which does not let a reader of it in.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from isorun.core.errors import InvalidRequest
from isorun.core.text import shown
from isorun.service.store.database import Database
from isorun.service.store.tables import conversations, events, keys, runs, uploads, users
from isorun.store.folder import utc_now

Kind = Literal["key", "once", "session"]
LOCAL = "local"  # the user of a service that one person runs alone
# Of each request and each run, and so made once.
_VALID = (
    (keys.c.sha256 == bindparam("digest"))
    & (keys.c.kind == bindparam("shown_as"))
    & keys.c.revoked.is_(None)
    & (keys.c.expires.is_(None) | (keys.c.expires > bindparam("now")))
)
_OWNER = select(users).join(keys, keys.c.user_id == users.c.id).where(_VALID)
_HOLD = select(users.c.id).where(users.c.id == bindparam("of")).with_for_update(key_share=True)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_PREFIX = {"key": "isr_", "once": "", "session": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user. The quotas are the user's own; None: the service's."""

    id: str
    name: str
    runs_at_once: int | None = None
    runs_per_day: int | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user as `isorun users ls` shows it. `prefixes`: how its keys begin."""

    user: User
    created: str
    prefixes: tuple[str, ...]


class Accounts:
    """The users and keys in *database*."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, name: str) -> User:
        """A new user. Raises `InvalidRequest`: invalid_user, or user_exists."""
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"the name of a user must be 1 to 32 characters of a-z, 0-9, '_' and '-', got {shown(name)}",
                code="invalid_user",
            )
        user = User(id=f"u_{secrets.token_hex(8)}", name=name)
        try:
            async with self._db.write() as connection:
                await connection.execute(insert(users).values(id=user.id, name=name, created=utc_now()))
        except IntegrityError:
            raise InvalidRequest(f"there is a user {name} already", code="user_exists") from None
        return user

    async def find(self, name: str) -> User | None:
        """The user of that name."""
        async with self._db.read() as connection:
            row = (await connection.execute(select(users).where(users.c.name == name))).mappings().first()
        return _user(row) if row else None

    async def local(self) -> User:
        """The one user of a service that has no others."""
        if (found := await self.find(LOCAL)) is not None:
            return found
        try:
            return await self.add(LOCAL)
        except InvalidRequest:  # another process was first
            found = await self.find(LOCAL)
            assert found is not None
            return found

    async def all(self) -> list[Account]:
        """Every user, by name."""
        async with self._db.read() as connection:
            rows = (await connection.execute(select(users).order_by(users.c.name))).mappings().all()
            held = (
                await connection.execute(
                    select(keys.c.user_id, keys.c.prefix).where(keys.c.kind == "key", keys.c.revoked.is_(None))
                )
            ).all()
        return [
            Account(
                user=_user(row),
                created=row["created"],
                prefixes=tuple(text for owner, text in held if owner == row["id"]),
            )
            for row in rows
        ]

    async def remove(self, name: str) -> list[str]:
        """The user and everything that the database has of that user; the ids of the uploads, whose bytes stay.

        Raises `InvalidRequest` (no_such_user).
        """
        mine = select(users.c.id).where(users.c.name == name).scalar_subquery()
        async with self._db.write() as connection:
            asked = select(uploads.c.id).where(uploads.c.user_id == mine)
            brought = (await connection.execute(asked)).scalars().all()  # now: the rows go with the user
            for table in (runs, conversations):
                streams = select(table.c.id).where(table.c.user_id == mine)
                await connection.execute(delete(events).where(events.c.stream.in_(streams)))
            if not (await connection.execute(delete(users).where(users.c.name == name))).rowcount:
                raise InvalidRequest(
                    f"the user {name} does not exist; `isorun users ls` shows them", code="no_such_user"
                )
            return list(brought)

    async def new_secret(self, user: User, kind: Kind, *, lives: timedelta | None = None) -> str:
        """A secret that lets *user* in; it is shown nowhere again."""
        secret = f"{_PREFIX[kind]}{secrets.token_urlsafe(32)}"
        expires = None if lives is None else _time(datetime.now(UTC) + lives)
        async with self._db.write() as connection:
            await connection.execute(
                insert(keys).values(
                    id=f"k_{secrets.token_hex(8)}",
                    user_id=user.id,
                    kind=kind,
                    sha256=_digest(secret),
                    prefix=secret[:8],
                    created=utc_now(),
                    expires=expires,
                )
            )
        return secret

    async def owner_of(self, secret: str, kind: Kind) -> User | None:
        """The user whom *secret* lets in, or None. A secret of kind `once` works a single time."""
        given = {"digest": _digest(secret), "shown_as": kind, "now": utc_now()}
        if kind == "once":
            async with self._db.write() as connection:
                row = (await connection.execute(_OWNER, given)).mappings().first()
                used = await connection.execute(update(keys).where(_VALID), {**given, "revoked": given["now"]})
                return _user(row) if row and used.rowcount else None
        async with self._db.read() as connection:
            row = (await connection.execute(_OWNER, given)).mappings().first()
        return _user(row) if row else None

    async def revoke(self, prefix: str) -> int:
        """Revoke the keys that begin with *prefix*, of at least 8 characters, and sign the browsers of their users out.

        How many keys there were.
        """
        if len(prefix) < 8:
            raise InvalidRequest(
                "give the first 8 characters of the key; `isorun users ls` shows them", code="too_short"
            )
        async with self._db.write() as connection:
            begins = keys.c.prefix == prefix[:8]
            held = (begins, keys.c.kind == "key", keys.c.revoked.is_(None))
            owners = (await connection.execute(select(keys.c.user_id).where(*held))).scalars().all()
            await connection.execute(update(keys).where(*held).values(revoked=utc_now()))
            # Which key a browser signed in with is not kept.
            await connection.execute(delete(keys).where(keys.c.user_id.in_(owners), keys.c.kind == "session"))
        return len(owners)

    async def forget(self, secret: str) -> None:
        """Sign the browser with the cookie *secret* out."""
        async with self._db.write() as connection:
            await connection.execute(delete(keys).where(keys.c.sha256 == _digest(secret), keys.c.kind == "session"))

    async def purge(self) -> None:
        """Remove the secrets whose time is over: cookies, links, and keys that were made to end."""
        async with self._db.write() as connection:
            await connection.execute(delete(keys).where(keys.c.expires <= utc_now()))

    async def any_key(self) -> bool:
        """Whether somebody could sign in with a key."""
        async with self._db.read() as connection:
            question = select(keys.c.id).where(keys.c.kind == "key", keys.c.revoked.is_(None)).limit(1)
            return (await connection.execute(question)).first() is not None


async def hold(connection: AsyncConnection, user_id: str) -> bool:
    """Let no other transaction decide about this user's quotas until this one has ended; False if the user is gone."""
    return (await connection.execute(_HOLD, {"of": user_id})).first() is not None


def _user(row: Mapping[Any, Any]) -> User:
    names = ("id", "name", "runs_at_once", "runs_per_day", "bytes")
    return User(**{name: row[name] for name in names})


def _digest(secret: str) -> str:
    # Of 32 random bytes: what a slow hash is for, guessing, is not possible.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
