"""The way to the database: reads that take no lock, and writes that happen whole or not at all.

SQLite has one writer: writes of this process wait for each other in order, and never run into a lock of their own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from isorun.core.errors import InvalidRequest, Unavailable
from isorun.settings import Settings

_MIGRATIONS = Path(__file__).parent / "migrations"
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_BUSY_S = 10.0  # for which a write waits for another process, such as `isorun users`


def url_of(settings: Settings, folder: Path) -> URL:
    """The database that *settings* name, or a file in *folder*. Raises `InvalidRequest` (invalid_setting)."""
    if settings.database_url is not None:
        url = make_url(settings.database_url)
        driver = _DRIVERS.get(url.get_backend_name())
        if driver is None:
            raise InvalidRequest(
                f"DATABASE_URL is of {url.get_backend_name()}: give a URL that begins with postgresql:// or sqlite://",
                code="invalid_setting",
            )
        return url.set(drivername=driver)
    if settings.postgres_host is not None:
        return URL.create(
            "postgresql+asyncpg",
            settings.postgres_user,
            settings.postgres_password,
            settings.postgres_host,
            settings.postgres_port,
            settings.postgres_db,
        )
    return URL.create("sqlite+aiosqlite", database=str(folder / "service.sqlite3"))


class Database:
    """`async with Database(url) as db:`. Entering brings its tables up to date, or raises `Unavailable`."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.where = url.render_as_string(hide_password=True)
        self._writing = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Database":
        async with AsyncExitStack() as stack:
            self._engine = self._made()
            stack.push_async_callback(self._engine.dispose)
            try:
                async with self.write() as connection:
                    if not self.is_sqlite:  # two processes may start at once
                        await connection.execute(text("SELECT pg_advisory_xact_lock(4972)"))
                    await connection.run_sync(_migrate)
            except (OSError, SQLAlchemyError) as error:
                raise Unavailable(f"the database {self.where} cannot be used: {_reason(error)}") from error
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def _made(self) -> AsyncEngine:
        if not self.is_sqlite:
            return create_async_engine(self.url, pool_pre_ping=True, pool_size=10, max_overflow=10)
        engine = create_async_engine(self.url, connect_args={"timeout": _BUSY_S})
        event.listen(engine.sync_engine, "connect", _prepare)
        event.listen(engine.sync_engine, "begin", _begin)
        return engine

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for one or two questions; nothing of it is kept."""
        async with self._engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: all that is done in the block happens, or nothing if it raises."""
        if not self.is_sqlite:
            async with self._engine.begin() as connection:
                yield connection
            return
        async with self._writing, self._engine.connect() as connection:
            await connection.execution_options(isorun_writes=True)
            async with connection.begin():
                yield connection


def _prepare(connection: Any, _: object) -> None:  # noqa: ANN401 - a driver's own
    connection.isolation_level = None  # else the driver begins transactions by itself, and too late
    for line in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {line}").close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("isorun_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    at, newest = MigrationContext.configure(connection).get_current_heads(), ScriptDirectory.from_config(config)
    known = {script.revision for script in newest.walk_revisions()}
    if not set(at) <= known:
        raise Unavailable("the database was made by a newer isorun: install that one, or name another database")
    if tuple(at) != tuple(newest.get_heads()):
        command.upgrade(config, "head")


def _reason(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0][:300]
