"""SQLite in the thread of the event loop: its statements take microseconds, and a way through another thread ten times
as long.

Nothing here waits with the loop standing still: a lock that another process has (`isorun users`) is tried again, and
the log is written into the database file, which a disk may take its time for, by a thread.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Any, TypeVar, cast

from sqlalchemy import URL, Connection, CursorResult, Executable, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

_T = TypeVar("_T")
_BUSY_S = 10.0  # for which a write waits for another process
_TRY_S, _AGAIN_S = 0.02, 0.01
_CHECKPOINT_S = 2.0


class _Inline:
    """As much of an `AsyncConnection` as is used here; nothing in it waits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:  # noqa: ANN401 - of SQLAlchemy
        return cast("CursorResult[Any]", self._connection.execute(statement, parameters))

    async def run_sync(self, work: Callable[[Connection], _T]) -> _T:
        return work(self._connection)


class Sqlite:
    """The database file of *url*, used by the loop that made this."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._engine = create_engine(url, connect_args={"timeout": _TRY_S})
        event.listen(self._engine, "connect", _prepare)
        self._writing = asyncio.Lock()  # in order, and never against a lock of our own
        # Open for good: to take one from the pool and to give it back takes as long as two questions.
        self._reader, self._writer = self._engine.connect(), self._engine.connect()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for questions: each is answered whole before the loop goes on."""
        yield cast("AsyncConnection", _Inline(self._reader))

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, which no other process writes beside."""
        async with self._writing:
            try:
                await _begin(self._writer)
                yield cast("AsyncConnection", _Inline(self._writer))
                self._writer.commit()
            except BaseException:
                self._writer.rollback()
                raise

    async def write_log(self) -> None:
        """Write what was logged into the database file, for ever."""
        while True:
            await asyncio.sleep(_CHECKPOINT_S)
            with suppress(sqlite3.Error):  # a full disk, which the writes will tell of
                await asyncio.to_thread(self._checkpoint)

    def _checkpoint(self) -> None:
        with closing(sqlite3.connect(str(self._url.database), timeout=_TRY_S)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").close()

    def close(self) -> None:
        """No connection is left."""
        self._reader.close()
        self._writer.close()
        self._engine.dispose()


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # else the driver begins transactions by itself, and too late
    lines = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "wal_autocheckpoint=0")
    for line in lines:
        connection.execute(f"PRAGMA {line}").close()


async def _begin(connection: Connection) -> None:
    end = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except OperationalError:
            connection.rollback()
            if time.monotonic() > end:
                raise
            await asyncio.sleep(_AGAIN_S)
        else:
            return
