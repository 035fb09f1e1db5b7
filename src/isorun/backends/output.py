"""What a launcher prints for people: the end of it is kept."""

import asyncio
import os

_KEPT = 1 << 20


class OutputTail:
    """The last of what the launcher printed, bounded, for runtime.err.log and error texts."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._followed: set[int] = set()

    def follow(self, descriptor: int) -> None:
        """Keep what arrives at *descriptor*, which does not block, from now on."""
        self._followed.add(descriptor)
        asyncio.get_running_loop().add_reader(descriptor, self._take, descriptor)

    def unfollow(self, descriptor: int) -> None:
        """Take what is left and stop; the descriptor stays the caller's."""
        self._take(descriptor)
        self._followed.discard(descriptor)
        asyncio.get_running_loop().remove_reader(descriptor)

    def read(self) -> bytes:
        """What is kept now, with what has arrived and was not yet taken."""
        for descriptor in self._followed:
            self._take(descriptor)
        return bytes(self._kept)

    def add(self, data: bytes) -> None:
        """Keep *data* as well."""
        self._kept = (self._kept + data)[-_KEPT:]

    def _take(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(descriptor)
        self._kept += data
        del self._kept[:-_KEPT]
