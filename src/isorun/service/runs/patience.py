"""Doing again what a database that is away did not do."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from isorun.service.store.database import Away

_log = logging.getLogger("isorun.service")
_T = TypeVar("_T")
_FIRST_S, _LONGEST_S = 0.1, 2.0


async def patiently(what: str, write: Callable[[], Awaitable[_T]], *, gives_up: Callable[[], bool]) -> _T:
    """What *write* gives: it is called until the database is there. Raises `Away` once *gives_up*."""
    pause = _FIRST_S
    while True:
        try:
            return await write()
        except Away as error:
            if gives_up():
                raise
            if pause == _FIRST_S:
                _log.warning("%s is not stored yet, the database is away: %s", what, error)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_S)
