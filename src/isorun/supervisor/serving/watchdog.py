"""Ends a supervisor whose event loop is blocked."""

import asyncio
import faulthandler
import os
import threading
import time
from contextlib import suppress

STUCK = 75  # exit code: tools that do not return block the loop or hold the threads
_STUCK_S = 30.0


class Watchdog(threading.Thread):
    """Ends this process if its event loop is blocked for 30 s: a coroutine that blocks holds up every run."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(daemon=True, name="watchdog")
        self._loop = loop
        self._seen = time.monotonic()

    def _tick(self) -> None:
        self._seen = time.monotonic()

    def run(self) -> None:
        while True:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._tick)
            time.sleep(_STUCK_S / 6)
            if time.monotonic() - self._seen > _STUCK_S:
                os.write(2, b"a coroutine of a tool blocks the event loop; the supervisor starts anew\n")
                faulthandler.dump_traceback()
                os._exit(STUCK)
