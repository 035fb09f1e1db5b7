"""The way to the database: reads that take no lock, and writes that happen whole or not at all.

A database that does not answer is `Away`, for every driver; what it refuses is raised as it is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from isorun.core.errors import InvalidRequest, Unavailable
from isorun.service.store.sqlite import Sqlite
from isorun.settings import Settings

_MIGRATIONS = Path(__file__).parent / "migrations"
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_CONNECT_S, _ANSWER_S = 5.0, 20.0  # for which PostgreSQL is waited for
#: Of PostgreSQL: the transaction came to nothing because of another one, or the server goes down, or is full.
_AGAIN = ("08", "40001", "40P01", "53", "57P")


class Away(Exception):
    """The database does not answer now. Whether the last write happened is not known."""


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
    return URL.create("sqlite", database=str(folder / "service.sqlite3"))


class Database:
    """`async with Database(url) as db:`. Entering brings its tables up to date, or raises `Unavailable`."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.where = url.render_as_string(hide_password=True)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Database":
        async with AsyncExitStack() as stack:
            try:
                ways = _sqlite(self.url) if self.is_sqlite else _postgres(self.url)
                self._ways = await stack.enter_async_context(ways)
                async with self.write() as connection:
                    if not self.is_sqlite:  # two processes may start at once
                        await connection.execute(text("SELECT pg_advisory_xact_lock(4972)"))
                    await connection.run_sync(_migrate)
            except (Away, SQLAlchemyError) as error:
                raise Unavailable(f"the database {self.where} cannot be used: {_reason(error)}") from error
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def own(self) -> AsyncIterator[AsyncConnection]:
        """A connection to PostgreSQL for the caller alone, without transactions. Raises `Away`."""
        engine = create_async_engine(self.url, poolclass=NullPool, connect_args=_WAITS, **_NO_TRANSACTION)
        with _away():
            async with engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for one or two questions; nothing of it is kept. Raises `Away`."""
        with _away():
            async with self._ways.read() as connection:
                yield connection

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """A connection to PostgreSQL on which each statement is a transaction. Raises `Away`: it may have happened."""
        with _away():
            async with self._ways.read() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: all that is done in the block happens, or nothing if it raises. Raises `Away`."""
        with _away():
            async with self._ways.write() as connection:
                yield connection


Way = Callable[[], AbstractAsyncContextManager[AsyncConnection]]


@dataclass(frozen=True, slots=True)
class _Ways:
    read: Way
    write: Way


@asynccontextmanager
async def _sqlite(url: URL) -> AsyncIterator[_Ways]:
    file = Sqlite(url)
    writing = asyncio.create_task(file.write_log())
    try:
        yield _Ways(file.read, file.write)
    finally:
        writing.cancel()
        await asyncio.wait({writing})
        file.close()


@asynccontextmanager
async def _postgres(url: URL) -> AsyncIterator[_Ways]:
    engine = create_async_engine(url, pool_size=10, max_overflow=10, connect_args=_WAITS)
    event.listen(engine.sync_engine, "checkout", _check)
    try:
        # Nothing is written there, so nothing has to be begun and ended.
        yield _Ways(engine.execution_options(**_NO_TRANSACTION).connect, engine.begin)
    finally:
        await engine.dispose()


_WAITS = {"timeout": _CONNECT_S, "command_timeout": _ANSWER_S}
_NO_TRANSACTION: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if is_away(error):
            raise Away(_reason(error)) from error
        if _state(error).startswith("22") or isinstance(error, UnicodeEncodeError):
            text = "a text holds a character that cannot be stored: send it without NUL and lone surrogates"
            raise InvalidRequest(text, code="invalid_text") from None
        raise


def is_away(error: Exception) -> bool:
    """Whether *error*, of a driver or of SQLAlchemy, says that the same may be asked again later."""
    if isinstance(error, OSError | NoConnection):  # a TimeoutError is an OSError
        return True
    if not isinstance(error, DBAPIError):
        return type(error).__module__.startswith("asyncpg.")  # raised as it is if there is no connection yet
    broken = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
    return broken or _state(error).startswith(_AGAIN)


def _state(error: Exception) -> str:
    """PostgreSQL's code for what went wrong, if it is PostgreSQL's."""
    return str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")


def _check(connection: Any, *_: object) -> None:  # noqa: ANN401 - a driver's own
    """The driver knows whether the other end has hung up: it has not to be asked."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


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
    cause = getattr(error, "orig", None) or error
    return (str(cause) or type(cause).__name__).splitlines()[0][:300]  # a TimeoutError says nothing
