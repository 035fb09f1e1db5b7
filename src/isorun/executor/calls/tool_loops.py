"""How the calls of an event loop are sent and answered, without a thread and without blocking the loop.

For a moment after a call the loop keeps looking at the stream, so that the CPU is awake
for a quick tool; then its selector watches it, until no call of the loop is open. All
of this runs in the loop's own thread, except `LoopCall.hand`, which any reader calls.
"""

import asyncio
import os
from collections import deque
from contextlib import suppress
from time import perf_counter

from isorun.executor.calls.tool_stream import Answer, Gone, ToolStream
from isorun.executor.calls.tool_threads import SPIN_S
from isorun.wire.messages import Refused


class LoopCall:
    """A call that a coroutine waits for; a cancelled call still awaits its answer, and drops it."""

    __slots__ = ("_end", "_is_taken", "frame", "future", "number")

    def __init__(self, end: "LoopEnd", number: int, frame: bytes) -> None:
        self._end = end
        self._is_taken = False
        self.number = number
        self.frame = frame
        self.future: asyncio.Future[Answer] = end.loop.create_future()

    def hand(self, answer: Answer) -> None:
        """See `Waiter.hand`."""
        loop = self._end.loop
        if asyncio._get_running_loop() is loop:
            self.take(answer)
        elif not self._end.stream.is_forgotten:  # a child of fork shares the loop's self-pipe with its parent
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self.take, answer)

    def take(self, answer: Answer) -> None:
        """Take the answer in the loop's own thread."""
        if not self._is_taken:
            self._is_taken = True
            if not self.future.done():
                self.future.set_result(answer)
            self._end.answered()


class LoopEnd:
    """The calls of one loop."""

    def __init__(self, stream: ToolStream, loop: asyncio.AbstractEventLoop) -> None:
        self.stream = stream
        self.loop = loop
        self._open = 0  # calls without an answer
        self._unsent: deque[LoopCall] = deque()  # there was no room for them yet
        self._spin_until = 0.0
        self._spins = False
        self._reads: int | None = None  # the generation of the stream that the selector watches
        self._writes = False

    async def call(self, number: int, frame: bytes) -> Answer:
        """Send a call and wait for its answer. Raises `Gone`."""
        call = LoopCall(self, number, frame)
        if self._unsent or not self.stream.push(frame, number, call):
            self._unsent.append(call)
        self._open += 1
        self._spin_until = perf_counter() + SPIN_S
        if not self._spins:
            self._spins = True
            self.loop.call_soon(self._spin)
        return await call.future

    def answered(self) -> None:
        """A call is over."""
        self._open -= 1
        if not self._open and self._reads is not None:
            # Not at once: the task that got the answer may make its next call first.
            self.loop.call_soon(self._watch)

    def _spin(self) -> None:
        self._spins = False
        try:
            if self._open:
                self._turn()
        finally:  # a signal handler may raise here, and the other calls must not suffer
            if self._open and perf_counter() < self._spin_until and not self._unsent:
                self._spins = True
                os.sched_yield()
                self.loop.call_soon(self._spin)
            else:
                self._watch()

    def _ready(self) -> None:
        try:
            self._turn()
        finally:
            if self._open:  # else `answered` sees to it
                self._watch()

    def _turn(self) -> None:
        if self.stream.is_forgotten:
            return
        self.stream.receive()
        self.stream.flush()
        while self._unsent:
            call = self._unsent[0]
            if call.future.done():  # cancelled before it was sent
                self.answered()
            elif not self._is_begun(call):
                return
            self._unsent.popleft()

    def _is_begun(self, call: LoopCall) -> bool:
        try:
            return self.stream.push(call.frame, call.number, call)
        except Gone as gone:
            call.take(Refused(id=call.number, error="ToolUnavailable", text=str(gone)))
            return True

    def _watch(self) -> None:
        """Have the selector watch for what this loop waits for, and for nothing else."""
        stream = self.stream
        if stream.is_forgotten:
            return  # the selector is the parent's too
        if self._reads is not None and (not self._open or self._reads != stream.generation):
            # Under the same number is another socket by now, which the selector does not know.
            self.loop.remove_reader(stream.descriptor)
            self.loop.remove_writer(stream.descriptor)
            self._reads, self._writes = None, False
        if self._open:
            try:
                self._add()
            except OSError as error:
                stream.lose(error)

    def _add(self) -> None:
        stream, loop = self.stream, self.loop
        if self._reads is None:
            loop.add_reader(stream.descriptor, self._ready)
            self._reads = stream.generation
        writes = bool(self._unsent) or stream.is_sending
        if writes and not self._writes:
            loop.add_writer(stream.descriptor, self._ready)
        elif self._writes and not writes:
            loop.remove_writer(stream.descriptor)
        self._writes = writes

    def changed(self) -> None:
        """The stream was replaced or lost. May be called in any thread."""
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._ready)


class ToolLoops:
    """The loops that call tools over *stream*."""

    def __init__(self, stream: ToolStream) -> None:
        self._stream = stream
        self._ends: dict[asyncio.AbstractEventLoop, LoopEnd] = {}
        stream.on_change = self._changed

    def running(self) -> LoopEnd:
        """That of the running loop."""
        loop = asyncio.get_running_loop()
        end = self._ends.get(loop)
        if end is None:
            for other in list(self._ends):
                if other.is_closed():
                    self._ends.pop(other, None)
            end = self._ends[loop] = LoopEnd(self._stream, loop)
        return end

    def _changed(self) -> None:
        for end in list(self._ends.values()):
            end.changed()
