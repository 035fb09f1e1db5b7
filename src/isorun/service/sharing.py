"""Whether this process serves alone or beside others, and what is done for those that have died."""

import asyncio
import fcntl
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isorun.core.errors import Unavailable
from isorun.service.runs.place import Place, open_place
from isorun.service.runs.wakes import LocalWakes
from isorun.service.store.accounts import Accounts
from isorun.service.store.database import Away, Database
from isorun.settings import Settings

if TYPE_CHECKING:
    from isorun.service.runs.runs import Runs
    from isorun.service.talk.turns import Turns

_log = logging.getLogger("isorun.service")
_LOOK_S = 2.0
_PURGE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Sharing:
    """How this process serves. *place* is left out on SQLite, which one process alone may use."""

    place: Place | None
    wakes: LocalWakes
    several: bool

    @property
    def host(self) -> str:
        """The name of this process, as rows have it."""
        return self.place.host if self.place is not None else _ALONE

    @property
    def taken(self) -> asyncio.Event:
        """Set once another process has this one's place; then it must end."""
        return self.place.taken if self.place is not None else asyncio.Event()

    def when_buried(self, call: Callable[[], None]) -> None:
        """Call it once the others have taken this process for dead, and it has a new name."""
        if self.place is not None:
            self.place.buried = call

    async def look(self, runs: "Runs", turns: "Turns", accounts: Accounts) -> None:
        """See, for ever, to what is open and has lost its process, and now and then to secrets whose time is over."""
        purged = float("-inf")
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                if time.monotonic() - purged > _PURGE_S:
                    await accounts.purge()
                    purged = time.monotonic()
                lost = await runs.look(await runs.records.orphans() if self.several else ())
                await turns.look(await turns.orphans() if self.several else ())
            except Away as error:
                _log.warning("what was lost is looked for later, the database is away: %s", error)
            except Exception:  # noqa: BLE001 - a defect of ours in one look must not end all further ones
                _log.exception("what was lost could not be looked for")
            else:
                if lost:
                    _log.warning("%d runs of a process that has died were lost", lost)


_ALONE = f"alone-{secrets.token_hex(6)}"


@asynccontextmanager
async def open_sharing(settings: Settings, folder: Path, database: Database) -> AsyncIterator[Sharing]:
    """How this process may serve *database*. Raises `Unavailable` if others do so already and it cannot join them."""
    async with AsyncExitStack() as stack:
        if database.is_sqlite:
            stack.callback(os.close, _only_one(folder))
            yield Sharing(None, LocalWakes(), several=False)
            return
        from isorun.service.runs.redis_wakes import client_of, open_wakes  # not at the top: SQLite needs no Redis

        client = client_of(settings)
        place = await stack.enter_async_context(open_place(database, alone=client is None))
        wakes = LocalWakes()
        if client is not None:
            wakes = await stack.enter_async_context(open_wakes(client, place.process))
        yield Sharing(place, wakes, several=client is not None)


def _only_one(folder: Path) -> int:
    """A lock that no second process of the service gets: it would not hear of the first one's runs."""
    descriptor = os.open(folder / "service.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Unavailable(
            f"another process serves {folder} already; end it, set ISORUN_SERVICE_DATA to another folder, "
            "or set DATABASE_URL and REDIS_URL so that several can share the work"
        ) from None
    return descriptor
