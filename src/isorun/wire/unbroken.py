"""Bytes without a line break, for a stream that somebody else cuts into lines. Pure.

A container engine reads what a container prints line by line, for its log, outside of
the container's ceilings. A program that prints line breaks alone would have it do
eighty times the work that it does for as many other bytes.
"""

from isorun.wire.frames import ProtocolError

_BREAK, _ESCAPE = b"\n", b"\x1b"
_BROKEN, _ESCAPED = b"\x1bn", b"\x1be"


def unbroken(data: bytes) -> bytes:
    """*data*, at most twice as long, with no line break in it."""
    return data.replace(_ESCAPE, _ESCAPED).replace(_BREAK, _BROKEN)


class Mended:
    """The stream that `unbroken` was made of, however it was cut on its way."""

    def __init__(self) -> None:
        self._half = b""

    def feed(self, data: bytes) -> bytes:
        """What *data* was. Raises `ProtocolError` if `unbroken` has never made it."""
        data = self._half + data
        self._half = _ESCAPE if data.endswith(_ESCAPE) else b""  # of a pair: alone it stands for nothing
        data = data.removesuffix(_ESCAPE)
        if _BREAK in data or data.count(_ESCAPE) != data.count(_BROKEN) + data.count(_ESCAPED):
            raise ProtocolError("a line break, or an unknown escape")
        return data.replace(_BROKEN, _BREAK).replace(_ESCAPED, _ESCAPE)
