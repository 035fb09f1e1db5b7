"""What a program prints: read from two pipes, kept exactly, and written to user.log line by line.

Each stream is exact up to its cap. user.log takes both in the order of arrival and
never cuts inside a line of up to 8 KiB. Its cap keeps the beginning and the end, and
says how much is gone between them. Its beginning is on disk only.

What taking a program's output costs is charged to the run: see `core.share`.

A caller that listens is told after all of this (`Listening`).
"""

import asyncio
import codecs
import functools
import inspect
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from isorun.core.errors import InvalidRequest
from isorun.core.guard.log import log_of
from isorun.core.limits import Limits
from isorun.core.pace import rest
from isorun.core.text import one_line

OnOutput = Callable[[str, bytes], None]

_log = log_of("isorun")
LINE = 8192
_TAIL_SHARE = 16  # of a cap, one part in so many is kept from the end
_END = 1 << 20  # bytes of user.log that are searched for errors and shown
_CONTINUED = bytes(range(0x80, 0xC0))
_PIECE = 16 << 10  # bytes that are decoded at once, or dropped from a tail
_SLOW_S = 0.5  # of one call of the caller's function: the other runs notice
_PATIENCE_S = 5.0


class Kept:
    """The first and the last bytes of something long, and how many went missing between them.

    *has_head* False: somebody else keeps the first ones. Little more is held than what `read` gives.
    """

    def __init__(self, cap: int, *, has_head: bool = True) -> None:
        self._tail_cap = max(cap // _TAIL_SHARE, 1)
        self._head_cap = cap - self._tail_cap
        self._has_head = has_head
        self._head = bytearray()
        self._tail: deque[bytearray] = deque()  # in pieces: of one long array, each cut at its beginning moves the rest
        self._tail_bytes = 0
        self.total = 0

    def add(self, data: bytes) -> bytes:
        """Take *data*; returns the part of it that belongs to the head."""
        room = max(self._head_cap - self.total, 0)
        self.total += len(data)
        head, rest = data[:room], data[room:]
        if self._has_head:
            self._head += head
        if rest:
            self._add_to_tail(rest)
        return head

    def _add_to_tail(self, data: bytes) -> None:
        if not self._tail or len(self._tail[-1]) + len(data) > _PIECE:
            self._tail.append(bytearray(data))
        else:
            self._tail[-1] += data
        self._tail_bytes += len(data)
        while self._tail_bytes - len(self._tail[0]) >= self._tail_cap:
            self._tail_bytes -= len(self._tail.popleft())

    @property
    def cut(self) -> int:
        """Bytes that are in neither part."""
        return max(0, self.total - self._head_cap - self._tail_cap)

    @property
    def ending(self) -> bytes:
        """What follows the head."""
        tail = b"".join(self._tail)
        if not self.cut:
            return tail
        return b"\n[... %d bytes were cut here ...]\n" % self.cut + tail[-self._tail_cap :]

    def forget(self) -> None:
        """Hold no bytes any more; how many there were stays known."""
        self._head.clear()
        self._tail.clear()
        self._tail_bytes = 0

    def read(self) -> bytes:
        """Both parts, with the gap said."""
        return b"".join((self._head, self.ending))


class OutputLog:
    """Both streams of one run, and its user.log. Feed it, then `close` it once both have ended."""

    def __init__(
        self,
        path: str,
        header: str,
        limits: Limits,
        publish: Callable[[str, str], None],
        on_flood: Callable[[], None],
    ) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._streams = {name: Kept(limits.result_bytes) for name in ("stdout", "stderr")}
        self._partial = {name: bytearray() for name in self._streams}
        self._log = Kept(limits.log_bytes, has_head=False)
        self._most = limits.output_bytes
        self._publish = publish
        self._on_flood = on_flood
        self._disk_full = ""
        self._begins = len(header.encode()) + 1
        self._write(header.encode() + b"\n")

    def feed(self, name: str, data: bytes) -> None:
        """Bytes from *name*, as they came."""
        self._streams[name].add(data)
        partial = self._partial[name]
        partial += data
        end = partial.rfind(b"\n") + 1
        if len(partial) - end > LINE:
            end = len(partial)  # a line this long is not kept whole
        if end:
            self._take(name, bytes(partial[:end]))
            del partial[:end]
        if self.total > self._most:
            self._on_flood()

    def _take(self, name: str, data: bytes) -> None:
        self._write(self._log.add(data))
        if not self._log.cut:
            self._publish(name, data.decode("utf-8", "replace"))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not self._disk_full:
            try:
                view = view[os.write(self._file, view) :]
            except OSError as error:
                self._disk_full = error.strerror or str(error)

    @property
    def total(self) -> int:
        """Bytes printed, kept or not."""
        return sum(kept.total for kept in self._streams.values())

    @property
    def problem(self) -> str:
        """Why user.log is not whole, other than its cap; empty if it is."""
        return f"user.log could not be written: {self._disk_full}" if self._disk_full else ""

    def close(self) -> None:
        """Write what is left: lines without an end, and the end of a log that was cut."""
        for name, partial in self._partial.items():
            if partial:
                self._take(name, bytes(partial) + b"\n")
                partial.clear()
        self._write(self._log.ending)
        self._log.forget()
        os.close(self._file)

    def text(self, name: str) -> str:
        """A stream as text; bytes that are not UTF-8 become the replacement character."""
        return _decoded(self._streams[name].read())

    def log_text(self) -> str:
        """What a closed user.log holds after its first line, or the last MiB of it. Raises `OSError`."""
        if self._disk_full:  # what is not there can still be told, if not in the order of its arrival
            return _decoded(b"".join(kept.read() for kept in self._streams.values())[-_END:])
        file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            start = max(os.fstat(file).st_size - _END, self._begins)
            end = os.pread(file, _END, start)
        finally:
            os.close(file)
        return _decoded(end.lstrip(_CONTINUED) if start > self._begins else end)  # it may begin inside a character

    @property
    def truncated(self) -> bool:
        """Whether anything was cut, in a stream or in user.log."""
        return any(kept.cut for kept in (*self._streams.values(), self._log))


def _decoded(data: bytes) -> str:
    # In pieces: a MiB of bytes that are no text takes 30 ms, in which no other thread has the interpreter.
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = []
    for start in range(0, len(data), _PIECE):
        rest()
        pieces.append(decoder.decode(data[start : start + _PIECE]))
    return "".join([*pieces, decoder.decode(b"", final=True)])


def check_on_output(on_output: object) -> None:
    """Raises `InvalidRequest` (invalid_on_output) for what cannot be called, or would have to be awaited."""
    if on_output is None:
        return
    if not callable(on_output):
        raise InvalidRequest(
            f"on_output must be a function of a stream's name and bytes, not a {type(on_output).__name__}",
            code="invalid_on_output",
        )
    if inspect.iscoroutinefunction(on_output) or inspect.iscoroutinefunction(type(on_output).__call__):
        raise InvalidRequest(
            "on_output is a coroutine function, which isorun does not await: give a plain function that returns at "
            "once, or iterate over the events of the run",
            code="invalid_on_output",
        )


class InThread:
    """A function of the caller's that is called in a thread of its run's, where it may take its time."""

    def __init__(self, function: OnOutput) -> None:
        self.function = function

    def __call__(self, stream: str, data: bytes) -> None:
        self.function(stream, data)


def listening_to(on_output: OnOutput) -> "Listening":
    """What tells *on_output* of a run's output: in the event loop, or in a thread if it is an `InThread`."""
    return ListeningInThread(on_output.function) if isinstance(on_output, InThread) else Listening(on_output)


class Listening:
    """A caller's *on_output*, called when the run's own books are written, so that no failure of it changes them.

    What it raises is logged the first time, with its traceback, and counted; it is called for the next bytes as if
    nothing had happened. The text of its exception stays in the caller's log: a result may be shown to anybody.
    """

    def __init__(self, on_output: OnOutput) -> None:
        self._on_output = on_output
        self._calls, self._failures, self._first = 0, 0, ""
        self._longest_s = 0.0

    def tell(self, stream: str, data: bytes) -> None:
        """Hand on what was printed. Raises nothing but KeyboardInterrupt."""
        self._calls += 1
        began = time.monotonic()
        try:
            answer: object = self._on_output(stream, data)
            if inspect.isawaitable(answer):
                if inspect.iscoroutine(answer):
                    answer.close()  # else Python warns of it in a place that has nothing to do with it
                raise TypeError("on_output returned an awaitable, which isorun does not await: give a plain function")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit, too, would end the loop of every run
            self._failures += 1
            if not self._first:
                self._first = type(error).__name__
                _log.error("on_output raised; the run goes on", exc_info=error)
        self._longest_s = max(self._longest_s, time.monotonic() - began)

    async def told(self) -> None:
        """Return when it has been told of all that was printed."""

    def notices(self) -> tuple[str, ...]:
        """What the caller should know of it."""
        return (*self._about_failures(), *self._about_slowness())

    def _about_failures(self) -> list[str]:
        if not self._failures:
            return []
        return [
            f"on_output raised {one_line(self._first, 100)} in {self._failures} of {self._calls} calls; "
            "the result and user.log have every byte, the traceback is in the log of the host process"
        ]

    def _about_slowness(self) -> list[str]:
        if self._longest_s >= _SLOW_S:
            return [
                f"on_output took {self._longest_s:.1f} s in one call, and the other runs of its Runtime waited: "
                "let it return at once, or iterate over the events of the run"
            ]
        return []


class ListeningInThread(Listening):
    """As `Listening`, with the calls in a thread, one after the other: only the run's own result waits for them.

    The queue holds what was not told yet, which the run's ceiling for output bounds. A function that is still busy
    `_PATIENCE_S` after the program's end is waited for no more; it is told of the rest all the same.
    """

    def __init__(self, on_output: OnOutput) -> None:
        super().__init__(on_output)
        self._waiting: queue.SimpleQueue[tuple[str, bytes] | Callable[[], object]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._tell_all, name="isorun-on-output", daemon=True)
        self._is_late = False

    def tell(self, stream: str, data: bytes) -> None:
        """Hand on what was printed; it is told in its turn."""
        if self._thread.ident is None:
            self._thread.start()
        self._waiting.put((stream, data))

    def _tell_all(self) -> None:
        while isinstance(item := self._waiting.get(), tuple):
            with suppress(KeyboardInterrupt):  # meant for the main thread
                super().tell(*item)
        with suppress(RuntimeError):  # the loop is closed
            item()

    async def told(self) -> None:
        """As of `Listening`; after `_PATIENCE_S` in any case, and then a notice says so."""
        if self._thread.ident is None:
            return
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        self._waiting.put(functools.partial(loop.call_soon_threadsafe, done.set))
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await done.wait()
        except TimeoutError:
            self._is_late = True

    def _about_slowness(self) -> list[str]:
        if not self._is_late:
            return []
        return [f"on_output was still busy {_PATIENCE_S:g} s after the program's end; it is told of the rest later"]
