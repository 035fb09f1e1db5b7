"""The processes of the service, as the database knows them: each raises its number; a process that stops that has died.

The number says nothing but that it changed: no clock of any machine is compared with another's.
"""

from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from isorun.service.store.database import Database
from isorun.service.store.tables import hosts

_PLACE = 4973  # of the advisory lock: processes that share the work have a part of it, one that does not has it whole


class Hosts:
    """Those in *database*."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def join(self, host: str) -> None:
        """*host* lives."""
        async with self._db.write() as connection:
            await connection.execute(insert(hosts).values(id=host, beat=0))

    async def leave(self, host: str) -> None:
        """*host* has ended."""
        async with self._db.write() as connection:
            await connection.execute(delete(hosts).where(hosts.c.id == host))

    async def bury(self, host: str, beat: int) -> bool:
        """*host* has died, unless its number is not *beat* any more. False if it is not so, or if another said so."""
        async with self._db.write() as connection:
            mine = (hosts.c.id == host) & (hosts.c.beat == beat)
            return bool((await connection.execute(delete(hosts).where(mine))).rowcount)


async def beat(connection: AsyncConnection, host: str) -> bool:
    """Raise the number of *host*; False if the others have taken it for dead."""
    mine = update(hosts).where(hosts.c.id == host).values(beat=hosts.c.beat + 1)
    return bool((await connection.execute(mine)).rowcount)


async def beats(connection: AsyncConnection) -> dict[str, int]:
    """The number of each."""
    return {row.id: row.beat for row in await connection.execute(select(hosts.c.id, hosts.c.beat))}


async def take_place(connection: AsyncConnection, *, alone: bool) -> bool:
    """Hold the right to serve this database for as long as *connection* lives; False if it is not to be had."""
    function = "pg_try_advisory_lock" if alone else "pg_try_advisory_lock_shared"
    return bool((await connection.execute(text(f"SELECT {function}({_PLACE})"))).scalar_one())
