"""Bytes in, frames out. Knows lengths and nothing of what a header means; opens no socket.

A frame is a prefix (body length, header length: two unsigned 32-bit integers, big-endian), then the
body: the header and, after it, the raw blobs. The peer is hostile: both lengths are judged before
anything after the prefix is kept.
"""

import struct
from collections.abc import Sequence

_PREFIX = struct.Struct("!II")
PREFIX_BYTES = _PREFIX.size
MAX_FRAME = 16 << 20  # of a body; one tool result is the largest thing that travels
MOST_FRAME = MAX_FRAME + (1 << 16)  # between supervisor and worker: as much, and what is said of its run


class ProtocolError(Exception):
    """The peer broke the protocol; its stream must not be read any further. Never our own mistake."""


def encode_frame(header: bytes, blobs: Sequence[bytes] = (), max_frame: int = MAX_FRAME) -> bytes:
    """One whole frame. Raises `ValueError` if its body exceeds *max_frame* bytes."""
    length = len(header) + sum(map(len, blobs)) if blobs else len(header)
    if length > max_frame:
        raise ValueError(f"frame of {length} bytes exceeds {max_frame}")
    return b"".join((_PREFIX.pack(length, len(header)), header, *blobs))


def cut(data: bytes, max_frame: int = MAX_FRAME) -> tuple[list[tuple[bytes, bytes]], int]:
    """Header and blobs of every whole frame that *data* begins with, and how many bytes they take.

    Raises `ProtocolError` for a bad length, also one whose frame is not whole yet.
    """
    frames = []
    start, end = 0, len(data)
    while end - start >= PREFIX_BYTES:
        length, header_length = _PREFIX.unpack_from(data, start)
        if refusal := _judged(length, header_length, max_frame):
            raise ProtocolError(refusal)
        header = start + PREFIX_BYTES
        if end - header < length:
            break
        start = header + length
        blobs = header + header_length
        frames.append((data[header:blobs], data[blobs:start]))
    return frames, start


def _judged(length: int, header_length: int, max_frame: int) -> str:
    if length > max_frame:
        return f"frame of {length} bytes exceeds {max_frame}"
    if header_length > length:
        return f"header of {header_length} bytes exceeds its frame of {length}"
    return ""


class Frames:
    """Cuts one stream into frames. Call `next` until it gives None after every `feed`.

    Holds at most one incomplete frame and the data of one `feed`. After a refusal every later
    `next` refuses with the same text and every later `feed` is dropped.
    """

    __slots__ = ("_buffer", "_max_frame", "_refusal")

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._buffer = bytearray()
        self._max_frame = max_frame
        self._refusal = ""

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the stream; raises nothing, `next` says what is wrong with them."""
        if not self._refusal:
            self._buffer += data
            self._judge()

    def next(self) -> tuple[bytes, bytes] | None:
        """The header and the blobs of the next frame, or None if more bytes are needed."""
        if self._refusal:
            raise ProtocolError(self._refusal)
        if len(self._buffer) < PREFIX_BYTES:
            return None
        length, header_length = _PREFIX.unpack_from(self._buffer)
        end = PREFIX_BYTES + length
        if len(self._buffer) < end:
            return None
        middle = PREFIX_BYTES + header_length
        with memoryview(self._buffer) as view:
            frame = bytes(view[PREFIX_BYTES:middle]), bytes(view[middle:end])
        del self._buffer[:end]
        self._judge()
        return frame

    def end(self) -> None:
        """Say that the stream has closed: raises if it did so inside a frame."""
        if self._refusal:
            raise ProtocolError(self._refusal)
        if self._buffer:
            raise ProtocolError(f"the stream ended {len(self._buffer)} bytes into a frame")

    def _judge(self) -> None:
        # Judged as soon as the prefix is whole: a peer that announces 4 GiB must not fill our memory
        # while we wait for the rest.
        if len(self._buffer) < PREFIX_BYTES:
            return
        length, header_length = _PREFIX.unpack_from(self._buffer)
        self._refusal = _judged(length, header_length, self._max_frame)
        if self._refusal:
            self._buffer.clear()
