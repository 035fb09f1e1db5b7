"""The file locks of every process, as the kernel lists them: counted a bounded part at a time.

No kernel limit and no control group counts them, and each is some 200 bytes of kernel memory. The list is everybody's,
and to read on from line N the kernel walks over N lines with all locking of the machine at a stand. So one pass over a
long list takes several reads, with a look at what was counted between them, and a very long one is not read to its end.
A read gives 4 KiB, and who locks without end makes as many locks between two of them, which move the list on: a reader
that took turns with it would meet the same lines for ever. So a part is copied by one call, within the kernel.

Must not: decide whose a lock is, or how many are too many.
"""

import os
import time

LISTED = "/proc/locks"
LONGEST = 1 << 16  # lines of one pass: the next one begins again with the newest
_CHUNK = 1 << 16


class Listing:
    """One pass after the other over the list. `counts`: of this pass so far, by pid and device (as `major:minor`)."""

    def __init__(self, path: str = LISTED) -> None:
        self._path = path
        self._file = self._copy = -1
        self._rest = b""
        self._seen: set[bytes] = set()
        self._lines = 0  # of this pass, those that were met again, too
        self.began = 0.0  # this pass, monotonic
        self.counts: dict[tuple[int, str], int] = {}

    @property
    def lines(self) -> int:
        """How many locks were seen in this pass."""
        return len(self._seen)

    def read(self, until: float, enough: int) -> bool:
        """Go on until the pass is over (True), or *until* is past or *enough* more locks were seen (False)."""
        if self._file < 0:
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self._copy = os.memfd_create("isorun-locks", os.MFD_CLOEXEC)
            self.began = time.monotonic()
            self._rest, self._seen, self.counts, self._lines = b"", set(), {}, 0
        stop = self.lines + enough
        while (data := self._part()) and self._lines < LONGEST:
            *whole, self._rest = (self._rest + data).split(b"\n")
            self._lines += len(whole)
            for line in whole:
                self._count(line)
            if self.lines >= stop or time.monotonic() > until:
                return False
        self.start_again()
        return True

    def _part(self) -> bytes:
        """The next part of the list; b"" at its end."""
        try:
            size = os.sendfile(self._copy, self._file, None, _CHUNK)
        except OSError:  # a kernel that copies nothing out of such a file
            return os.read(self._file, _CHUNK)
        os.lseek(self._copy, 0, os.SEEK_SET)
        return os.pread(self._copy, size, 0)

    def start_again(self) -> None:
        """The next read begins a new pass."""
        if self._file >= 0:
            os.close(self._file)
            os.close(self._copy)
            self._file = self._copy = -1

    def _count(self, line: bytes) -> None:
        # Its number is its place. New locks move the others to later places, where a longer pass meets them again.
        lock = line.partition(b":")[2]
        words = lock.split()
        # Told from the end: who waits for a lock has an arrow before its type.
        if lock in self._seen or len(words) < 6 or not words[-4].lstrip(b"-").isdigit():
            return
        self._seen.add(lock)
        key = int(words[-4]), words[-3].rpartition(b":")[0].decode("ascii", "replace")
        self.counts[key] = self.counts.get(key, 0) + 1


def name_of(device: int) -> str:
    """How the list calls *device*, a number as `os.stat` gives it."""
    return f"{os.major(device):02x}:{os.minor(device):02x}"
