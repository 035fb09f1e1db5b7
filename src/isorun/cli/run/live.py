"""The program's output on our stdout and stderr while it runs, and a spinner until there is some.

Theory of operation. Bytes arrive in the event loop and are written by a thread: a
pager that nobody scrolls blocks the writer, and must not block the clock of the run.
What waits is bounded by the run's own ceiling of output. The program is hostile, so
on a terminal its control characters are made visible; into a pipe its bytes go
untouched.
"""

import codecs
import os
import queue
import select
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from isorun.core.text import printable

_FD = {"stdout": 1, "stderr": 2}


class Visible:
    """Bytes in pieces, made fit for a terminal; a character that is cut between two pieces is not lost."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def feed(self, data: bytes, *, final: bool = False) -> bytes:
        """What of *data* can be shown now; *final*: nothing follows."""
        return printable(self._decoder.decode(data, final)).encode()


class Live:
    """Writes what it is given to descriptors, in the order it came, from a thread of its own.

    *before* is called before each write; *on_gone*, once, when nobody reads stdout any more.
    """

    def __init__(
        self,
        *,
        before: Callable[[], None],
        on_gone: Callable[[], None],
        descriptors: Mapping[str, int] = _FD,
    ) -> None:
        self._before, self._on_gone = before, on_gone
        self._descriptors = descriptors
        self._filters = {name: Visible() for name, fd in descriptors.items() if os.isatty(fd)}
        self._gone: set[str] = set()
        self._queue: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="isorun-live", daemon=True)
        self._thread.start()
        self.mid_line = False  # whether a terminal's cursor is behind the program's last word

    def take(self, stream: str, data: bytes) -> None:
        """Write *data* soon; returns at once."""
        self._queue.put((stream, data))

    def finish(self) -> None:
        """Return once everything is written, or nobody is there to read it. Nothing may follow."""
        self._queue.put(None)
        self._thread.join()

    def _write_all(self) -> None:
        while (taken := self._queue.get()) is not None:
            stream, data = taken
            self._show(stream, self._filters[stream].feed(data) if stream in self._filters else data)
        for stream, visible in self._filters.items():
            self._show(stream, visible.feed(b"", final=True))

    def _show(self, stream: str, data: bytes) -> None:
        if not data or stream in self._gone:
            return
        self._before()
        try:
            write(self._descriptors[stream], data)
        except OSError:
            self._gone.add(stream)
            if stream == "stdout":
                self._on_gone()
            return
        if stream in self._filters:
            self.mid_line = not data.endswith(b"\n")


def write(descriptor: int, data: bytes) -> None:
    """Write all of *data*, also where somebody has made the descriptor non-blocking. Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


class Spinner:
    """Says on a terminal how long it has been, until `stop`. Elsewhere it is silent."""

    def __init__(self, descriptor: int = 2) -> None:
        self._wanted = os.isatty(descriptor)
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None

    def start(self) -> None:
        """Appear, unless `stop` was called before."""
        with self._lock:
            if self._wanted and self._stop is None:
                self._stop = _spinning()

    def stop(self) -> None:
        """Vanish, for good."""
        with self._lock:
            self._wanted = False
            if self._stop is not None:
                with suppress(OSError):
                    self._stop()
                self._stop = None


def _spinning() -> Callable[[], None]:
    # Here, and not above: a program that prints at once shall not wait for it.
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    progress = Progress(
        SpinnerColumn(),
        TextColumn("running"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    progress.add_task("running", total=None)
    progress.start()
    return progress.stop
