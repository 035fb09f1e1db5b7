"""When a run's events are written: the first soon, the rest in few batches. The loop has a time of its own."""

import asyncio
import selectors
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from isorun.runtime.accepted.handle import Run
from isorun.runtime.events import Event
from isorun.service.runs.follow import Batches
from isorun.service.store.records import Happened


class Timeless(asyncio.SelectorEventLoop):
    """Who would wait is at once that much later."""

    now = 0.0

    def __init__(self) -> None:
        loop = self

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> list[Any]:
                loop.now += timeout or 0.0
                return super().select(0)

        super().__init__(Selector())

    def time(self) -> float:
        return self.now


class Printing:
    """A run that begins, and prints a number after each of *pauses*."""

    def __init__(self, pauses: Sequence[float]) -> None:
        self._pauses = pauses

    async def events(self) -> AsyncIterator[Event]:
        yield Event(kind="started", at_s=0, time="2026-01-01T00:00:00.000Z")
        for number, pause in enumerate(self._pauses):
            await asyncio.sleep(pause)
            yield Event(kind="output", at_s=0, data={"stream": "stdout", "text": f"{number} "})
        yield Event(kind="outcome", at_s=0)


def written(pauses: Sequence[float]) -> tuple[list[tuple[int, str]], str]:
    """What was written of such a run, each batch with its time in milliseconds; and what was left to its end."""
    batches: list[tuple[int, str]] = []

    def text(happened: Sequence[Happened]) -> str:
        return "".join(str(one.data.get("text", f"{one.kind} ")) for one in happened)

    async def write(happened: Sequence[Happened], started: str | None) -> None:
        batches.append((round(1000 * asyncio.get_running_loop().time()), text(happened)))

    with asyncio.Runner(loop_factory=Timeless) as runner:
        rest = runner.run(Batches(write).follow(cast("Run", Printing(pauses))))
    return batches, text(rest)


def test_what_is_printed_first_is_written_after_ten_milliseconds() -> None:
    """In three batches at most; later ones are 40 ms long."""
    batches, rest = written([0.015] * 10)
    assert batches == [(10, "started "), (25, "0 "), (40, "1 "), (85, "2 3 4 "), (130, "5 6 7 ")]
    assert rest == "8 9 "


def test_a_run_that_is_shorter_is_written_once() -> None:
    """All of it with its outcome: it costs no batch of its own."""
    assert written([0.003, 0.003]) == ([], "started 0 1 ")
