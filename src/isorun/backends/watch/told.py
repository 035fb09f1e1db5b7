"""What the watcher's process tells the host of each run, in a file of records that both have open."""

import os
import struct
import threading

#: Of one run: its peak in bytes, the most file locks that were seen, the processes killed for memory, why it was ended.
RECORD = struct.Struct("<QQII")
LOCKS, BROKEN = 1, 2


class Told:
    """What the host reads of one run. Several threads write it."""

    def __init__(self, records: int, number: int) -> None:
        self._records, self._offset = records, number * RECORD.size
        self._lock = threading.Lock()
        self._peak = self._locks = self._kills = self._why = 0

    def add(self, *, peak: int = 0, file_locks: int = 0, kills: int = 0, why: int = 0) -> None:
        """Peaks are kept, *kills* are added, the first *why* stays."""
        with self._lock:
            self._peak, self._locks = max(self._peak, peak), max(self._locks, file_locks)
            self._kills, self._why = self._kills + kills, self._why or why
            os.pwrite(self._records, RECORD.pack(self._peak, self._locks, self._kills, self._why), self._offset)
