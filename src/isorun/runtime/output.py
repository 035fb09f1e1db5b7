"""What a program prints: read from two pipes, kept exactly, and written to user.log line by line.

Each stream is exact up to its cap. user.log takes both in the order of arrival and
never cuts inside a line of up to 8 KiB. Its cap keeps the beginning and the end, and
says how much is gone between them.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress

from isorun.core.limits import Limits

LINE = 8192
_READ = 1 << 16
_TAIL_SHARE = 16  # of a cap, one part in so many is kept from the end


class Kept:
    """The first and the last bytes of something long, and how many went missing between them."""

    def __init__(self, cap: int) -> None:
        self._tail_cap = max(cap // _TAIL_SHARE, 1)
        self._head_cap = cap - self._tail_cap
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def add(self, data: bytes) -> bytes:
        """Take *data*; returns the part of it that belongs to the head."""
        self.total += len(data)
        room = self._head_cap - len(self._head)
        head, rest = data[:room], data[room:]
        self._head += head
        self._tail += rest
        if len(self._tail) > 2 * self._tail_cap:  # trimmed now and then: trimming moves bytes
            del self._tail[: -self._tail_cap]
        return head

    @property
    def cut(self) -> int:
        """Bytes that are in neither part."""
        return max(0, self.total - self._head_cap - self._tail_cap)

    @property
    def ending(self) -> bytes:
        """What follows the head."""
        if not self.cut:
            return bytes(self._tail)
        return b"\n[... %d bytes were cut here ...]\n" % self.cut + bytes(self._tail[-self._tail_cap :])

    def read(self) -> bytes:
        """Both parts, with the gap said."""
        return bytes(self._head) + self.ending


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
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._streams = {name: Kept(limits.result_bytes) for name in ("stdout", "stderr")}
        self._partial = {name: bytearray() for name in self._streams}
        self._log = Kept(limits.log_bytes)
        self._most = limits.output_bytes
        self._publish = publish
        self._on_flood = on_flood
        self._disk_full = ""
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
        os.close(self._file)

    def text(self, name: str) -> str:
        """A stream as text; bytes that are not UTF-8 become the replacement character."""
        return self._streams[name].read().decode("utf-8", "replace")

    def log_text(self) -> str:
        """What user.log holds after its first line."""
        return self._log.read().decode("utf-8", "replace")

    @property
    def truncated(self) -> bool:
        """Whether anything was cut, in a stream or in user.log."""
        return any(kept.cut for kept in (*self._streams.values(), self._log))


class PipeReader:
    """Reads one pipe until its end, without a thread."""

    def __init__(self, descriptor: int, take: Callable[[bytes], None]) -> None:
        self._descriptor = descriptor
        self._take = take
        self.ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(data)
        else:
            self.stop()

    def stop(self) -> None:
        """Stop reading; what is still in the pipe stays there."""
        if not self.ended.is_set():
            with suppress(OSError, ValueError):
                asyncio.get_running_loop().remove_reader(self._descriptor)
            self.ended.set()
