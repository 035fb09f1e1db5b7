"""What happens during a run, for everybody who wants to watch it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_KEPT = 1000  # events that a late subscriber still gets
_KEPT_CHARS = 2 << 20  # of output in them: each may be as long as a pipe is deep


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`kind` is started, output, tool_call, artifact or outcome; `outcome` is the last one."""

    kind: str
    at_s: float  # since the program's first instruction; 0 before it
    data: Mapping[str, Any] = field(default_factory=dict)


def _chars(event: Event) -> int:
    return len(event.data["text"]) if event.kind == "output" else 0


class Feed:
    """The events of one run. Every subscriber gets the latest ones, then the rest, then the outcome.

    A subscriber that is too slow loses the oldest events, is told how many by an event
    of kind `skipped`, and never slows the run or the others.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._chars = 0
        self._count = 0
        self._ended = False
        self._more = asyncio.Event()

    def publish(self, *events: Event) -> None:
        """Add *events*; nothing is added after an outcome."""
        if self._ended or not events:
            return
        for event in events:
            self._events.append(event)
            self._chars += _chars(event)
            while len(self._events) > _KEPT or self._chars > _KEPT_CHARS:
                self._chars -= _chars(self._events.popleft())
        self._count += len(events)
        self._ended = events[-1].kind == "outcome"
        self._more.set()
        self._more = asyncio.Event()

    async def subscribe(self) -> AsyncIterator[Event]:
        """Events until the outcome, which is the last one."""
        seen = 0
        while True:
            first = self._count - len(self._events)
            if seen < first:
                yield Event(kind="skipped", at_s=0.0, data={"events": first - seen})
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
