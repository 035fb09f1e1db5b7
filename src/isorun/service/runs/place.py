"""A process' place in the service: alone, or beside others that share the work.

Theory of operation. Each process holds a connection of its own to PostgreSQL, and on it an advisory lock: a part of it
if it has Redis, the whole if it has not, so that a process that would not hear of the others is refused. On the same
connection it raises its number in `hosts` every two seconds, and looks at the numbers of the others. One whose number
has stayed the same for ten seconds, as this process has seen it by a clock that is never set, has died: the first that
removes its row may say so, and closes its runs. Runs of a process that has no row are closed by any other.

A process that others have taken for dead (it was stopped, or cut off) finds its row gone. It cancels what it began, and
goes on under a new name. One whose connection breaks loses its lock, and takes it again; if another kind of process
has it then, this one must end.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

from sqlalchemy.ext.asyncio import AsyncConnection

from isorun.core.errors import Unavailable
from isorun.service.store.database import Away, Database
from isorun.service.store.hosts import Hosts, beat, beats, take_place

_log = logging.getLogger("isorun.service")
_BEAT_S, _DEAD_S = 2.0, 10.0
_AGAIN_S = 0.5
_TAKEN = (
    "another process serves this database already, and without Redis it would not hear of this one's runs: end it, or "
    "set REDIS_URL (or REDIS_HOST) for all of them"
)


class Watch:
    """Which of several have died, by what this process sees of their numbers and when."""

    def __init__(self, dead_s: float = _DEAD_S, gap_s: float = 2.5 * _BEAT_S) -> None:
        self._dead_s, self._gap_s = dead_s, gap_s
        self._seen: dict[str, tuple[int, float]] = {}
        self._looked = float("-inf")

    def died(self, numbers: Mapping[str, int], now: float) -> list[str]:
        """Those that have had the same number for too long. *now*: seconds, of a clock that only goes forward.

        Who has not looked for a while, as he was stopped or the database was away, begins to count anew.
        """
        if now - self._looked > self._gap_s:
            self._seen.clear()
        self._looked = now
        seen = {host: self._seen.get(host, (number, now)) for host, number in numbers.items()}
        self._seen = {host: old if old[0] == numbers[host] else (numbers[host], now) for host, old in seen.items()}
        return [host for host, (_, since) in self._seen.items() if now - since > self._dead_s]


class Place:
    """Of this process. `host`: its name among the processes, which changes if it was taken for dead."""

    def __init__(self, database: Database, *, alone: bool) -> None:
        self._db, self._alone = database, alone
        self.process = secrets.token_hex(6)
        self._names = 0
        self.host = self._name()
        self.taken = asyncio.Event()  # set once another process has the place: this one must end
        self.buried: Callable[[], None] = lambda: None  # called once this process has a new name

    def _name(self) -> str:
        self._names += 1
        return f"{self.process}.{self._names}"

    async def keep(self, taken: "asyncio.Future[None]") -> None:
        """Hold the place until it is lost to others. *taken* is done once it is held, or has the reason why not."""
        watch = Watch()
        while not self.taken.is_set():
            try:
                async with self._db.own() as connection:
                    if await self._take(connection, taken):
                        await self._beat(connection, watch)
            except Away as error:
                if not taken.done():
                    raise
                _log.warning("the database is away: %s", error)
            await asyncio.sleep(_AGAIN_S)

    async def _take(self, connection: AsyncConnection, taken: "asyncio.Future[None]") -> bool:
        if not await take_place(connection, alone=self._alone):
            if not taken.done():
                raise Unavailable(_TAKEN)
            _log.critical("%s", _TAKEN)
            self.taken.set()
            return False
        if not taken.done():
            if not self._alone:
                await Hosts(self._db).join(self.host)
            taken.set_result(None)
        else:
            _log.warning("the database is back, and this process has its place again")
        return True

    async def _beat(self, connection: AsyncConnection, watch: Watch) -> None:
        while True:
            if self._alone:
                await beats(connection)  # whether the connection, and so the lock, is still there
            elif not await beat(connection, self.host):
                await self._begin_anew()
            else:
                numbers = await beats(connection)
                for host in watch.died(numbers, time.monotonic()):
                    if host != self.host and await Hosts(self._db).bury(host, numbers[host]):
                        _log.warning("process %s has died", host)
            await asyncio.sleep(_BEAT_S)

    async def _begin_anew(self) -> None:
        _log.warning("other processes took this one for dead; its runs are cancelled, and it goes on")
        name = self._name()
        await Hosts(self._db).join(name)
        self.host = name
        self.buried()

    async def leave(self) -> None:
        """Let the others know that this process has ended."""
        if not self._alone:
            with suppress(Away):
                await Hosts(self._db).leave(self.host)


@asynccontextmanager
async def open_place(database: Database, *, alone: bool) -> AsyncIterator[Place]:
    """The place of this process, inside of the block. Raises `Unavailable` if it is not to be had."""
    place = Place(database, alone=alone)
    taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    keeping = asyncio.create_task(place.keep(taken))
    try:
        await asyncio.wait({keeping, taken}, return_when=asyncio.FIRST_COMPLETED)
        if not taken.done():
            try:
                await keeping
            except Away as error:
                raise Unavailable(f"the database cannot be used: {error}") from error
        yield place
        await place.leave()
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})
