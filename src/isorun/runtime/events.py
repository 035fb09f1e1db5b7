"""What happens during a run, for everybody who wants to watch it."""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from isorun.store.folder import utc_now

_KEPT = 1000  # events that a late subscriber still gets
_KEPT_BYTES = 2 << 20  # of memory for their output: each may be as long as a pipe is deep


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`kind` is waiting (for its session), started, output, tool_call_started (of the caller's own), tool_call (which
    has ended), frozen, thawed, artifact or outcome, the last.

    The data of `thawed` has `frozen_s`: for how long the run stood still.
    """

    kind: str
    at_s: float  # of the run's own time since the program's first instruction, without what it was frozen; 0 before it
    data: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0  # from 1 on, in the order in which they happened; of `skipped` that of the last one
    time: str = ""  # of the day, UTC, as in 2026-03-01T12:00:00.000Z


def _nothing() -> None:
    """Before its program runs, a run has printed nothing."""


def _bytes(event: Event) -> int:
    return sys.getsizeof(event.data["text"]) if event.kind == "output" else 0  # a character takes up to four bytes


class Feed:
    """The events of one run. Every subscriber gets the latest ones, then the rest, then the outcome.

    A subscriber that is too slow loses the oldest events, is told how many by an event
    of kind `skipped`, and never slows the run or the others.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._count = 0
        self._ended = False
        self._more = asyncio.Event()
        self.before_others: Callable[[], None] = _nothing  # what publishes the output that came before another event

    def publish(self, *events: Event) -> None:
        """Add *events*; nothing is added after an outcome."""
        if events and events[0].kind != "output":
            self.before_others()
        if self._ended or not events:
            return
        now = utc_now()
        for event in events:
            self._count += 1
            # Not by `replace`, which takes five times as long: a run can make thousands of calls a second.
            made = Event(kind=event.kind, at_s=event.at_s, data=event.data, number=self._count, time=now)
            self._events.append(made)
            self._bytes += _bytes(event)
            while len(self._events) > _KEPT or self._bytes > _KEPT_BYTES:
                self._bytes -= _bytes(self._events.popleft())
        self._ended = events[-1].kind == "outcome"
        self._more.set()
        self._more = asyncio.Event()

    async def subscribe(self, after: int = 0) -> AsyncIterator[Event]:
        """Events with a number above *after*, until the outcome, which is the last one."""
        seen = after
        while True:
            first = self._count - len(self._events)
            if seen < first:
                yield Event(kind="skipped", at_s=0.0, data={"events": first - seen}, number=first)
                seen = first
            more = self._more
            while seen < self._count:
                index = seen - (self._count - len(self._events))
                if index < 0:
                    break
                event = self._events[index]
                seen += 1
                yield event
                if event.kind == "outcome":
                    return
            else:
                await more.wait()
