"""Which calls a supervisor had begun and not yet reported, in memory that outlives it.

The host makes the table and shares it with the supervisor as a descriptor. Records of
calls travel in batches, so a supervisor that dies leaves some unsaid: those the table
still names. A call costs it two short writes to memory and no system call.
"""

import mmap
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_ROW = struct.Struct("<BQd200s")  # state, call id, seconds since the epoch, tool id in UTF-8
_ROWS = 256  # above the calls that can be open at once and those that wait in a batch
_FREE, _BEGUN, _ENDED = 0, 1, 2
REPLACED = "the supervisor died: this call may or may not have been carried out"


@dataclass(frozen=True, slots=True)
class Unsaid:
    """A call the table names: whether the tool had ended, and so was carried out, is all that is known of it."""

    call_id: int
    tool_id: str
    started_at: float
    ended: bool

    def record(self) -> dict[str, Any]:
        """What the journal says of it, see `session.ToolSession`."""
        return {
            "call_id": self.call_id,
            "tool_id": self.tool_id,
            "reason": "",
            "status": "unreported" if self.ended else "ToolUnavailable",
            "ms": round((time.time() - self.started_at) * 1000, 3),
            "started_at": self.started_at,
            "error": REPLACED,
        }


class InFlight:
    """The table of one run. One process writes, and another reads once the writer is dead.

    It is behind *descriptor*, which becomes this object's own.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, _ROW.size * _ROWS)
        self._rows: dict[int, int] = {}
        self._free = list(range(_ROWS))
        self._ended: list[int] = []

    @classmethod
    def create(cls) -> "InFlight":
        """A new, empty table, in a memory file of its own."""
        descriptor = os.memfd_create("isorun-calls", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _ROW.size * _ROWS)
        return cls(descriptor)

    def began(self, call_id: int, tool_id: str, started_at: float) -> None:
        """A tool is about to be carried out. With a full table the call is not named."""
        if self._free:
            row = self._rows[call_id] = self._free.pop()
            number = call_id & (1 << 64) - 1
            self._write(row, _BEGUN, number, started_at, tool_id)

    def ended(self, call_id: int) -> None:
        """The tool has ended; its record is not sent yet."""
        row = self._rows.pop(call_id, None)
        if row is not None:
            self._memory[row * _ROW.size] = _ENDED
            self._ended.append(row)

    def told(self) -> None:
        """Every record of a call that has ended is sent."""
        for row in self._ended:
            self._memory[row * _ROW.size] = _FREE
        self._free += self._ended
        self._ended.clear()

    def unsaid(self) -> Iterator[Unsaid]:
        """What the table names now."""
        for row in range(_ROWS):
            state, number, started_at, name = _ROW.unpack_from(self._memory, row * _ROW.size)
            if state != _FREE:
                tool_id = name.rstrip(b"\0").decode("utf-8", "replace")
                yield Unsaid(number, tool_id, started_at, ended=state == _ENDED)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
        os.close(self.descriptor)

    def _write(self, row: int, state: int, number: int, started_at: float, tool_id: str) -> None:
        text = tool_id.encode("utf-8", "replace")[:200]
        _ROW.pack_into(self._memory, row * _ROW.size, _FREE, number, started_at, text)
        self._memory[row * _ROW.size] = state  # last, so that a row that counts is whole
