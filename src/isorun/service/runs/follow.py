"""From a run's events to the store: few writes, each soon, and never more text than a page can hold."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any

from isorun.runtime.accepted.handle import Run
from isorun.runtime.events import Event
from isorun.service.runs.plain import as_json
from isorun.service.store.records import Happened

_SOON_S = 0.04  # after the first event that waits: what comes meanwhile is written with it
_AT_FIRST_S = 0.01  # the same of the first batches: who looks waits for what a program prints first
_FIRST = 3  # batches: what precedes a program, its beginning, and the first that it prints
_MOST_BYTES = 1 << 20  # of output that is kept as events; user.log has all of it

#: Stores a batch; *started*: the time of the program's first instruction, if it is in the batch.
Write = Callable[[Sequence[Happened], str | None], Awaitable[None]]


class Batches:
    """Collects the events of one run, but its outcome, and writes them together."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._waiting: list[Event] = []
        self._more = asyncio.Event()
        self._writing: asyncio.Future[None] | None = None
        self._room, self._skipped = _MOST_BYTES, 0

    async def follow(self, run: Run) -> list[Happened]:
        """Write what happens, until the outcome; what is not written yet, without it. Raises what writing raises."""
        writer = asyncio.create_task(self._write_soon())
        watcher = asyncio.create_task(self._watch(run))
        try:
            await asyncio.wait({writer, watcher}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writer, watcher):
                task.cancel()
            await asyncio.wait({writer, watcher})
        if self._writing is not None:
            await self._writing  # what comes next has its number behind it
        if not watcher.cancelled() and (error := watcher.exception()) is not None:
            raise error
        return self._taken()[0]

    async def _watch(self, run: Run) -> None:
        async for event in run.events():
            if event.kind == "outcome":
                return
            self._waiting.append(event)
            self._more.set()

    async def _write_soon(self) -> None:
        for number in count():
            await self._more.wait()
            await asyncio.sleep(_AT_FIRST_S if number < _FIRST else _SOON_S)
            self._more.clear()
            self._writing = asyncio.ensure_future(self._write(*self._taken()))
            # Not cut off: what was taken would be lost.
            await asyncio.shield(self._writing)

    def _taken(self) -> tuple[list[Happened], str | None]:
        taken, self._waiting = self._waiting, []
        happened: list[Happened] = []
        started = None
        for event in taken:
            if event.kind == "started":
                started = event.time
            if event.kind == "output":
                self._add_output(event, happened)
            else:
                happened.append(Happened(kind=event.kind, data=_plain(event), at=event.time))
        return happened, started

    def _add_output(self, event: Event, happened: list[Happened]) -> None:
        text, stream = str(event.data["text"]), event.data["stream"]
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > self._room:
            self._skipped += size
            return
        self._room -= size
        last = happened[-1] if happened else None
        if last is not None and last.kind == "output" and last.data["stream"] == stream:
            last.data["text"] += text
        else:
            happened.append(Happened(kind="output", data={"stream": stream, "text": text}, at=event.time))

    @property
    def skipped(self) -> list[Happened]:
        """How much of the output is in user.log alone."""
        return [Happened(kind="skipped", data={"bytes": self._skipped})] if self._skipped else []


def _plain(event: Event) -> dict[str, Any]:
    return {**{name: as_json(value) for name, value in event.data.items()}, "at_s": event.at_s}
