"""The body of an HTTP answer, decompressed, and never more bytes than the caller allows.

The library would decode a whole chunk before it can be counted (64 KiB of gzip are 64 MB), so raw
bytes are taken and decoded here. Must not: know what the bytes mean.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2

ACCEPTED = "gzip, deflate"
_CHUNK = 1 << 16


class TooLarge(Exception):
    """More bytes than were allowed."""


class BadAnswer(Exception):
    """The body is not what the header says. The text is for the program."""


class _Plain:
    def feed(self, data: bytes, most: int) -> bytes:
        if len(data) > most:
            raise TooLarge
        return data

    def end(self) -> None:
        pass


class _Inflater:
    """gzip of any number of members, or deflate with or without the zlib header."""

    def __init__(self, *, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        self._stream = zlib.decompressobj(31 if is_gzip else 15)
        self._is_new = True

    def feed(self, data: bytes, most: int) -> bytes:
        parts = []
        while data:
            part = self._decoded(data, most + 1)
            most -= len(part)
            if most < 0:
                raise TooLarge
            parts.append(part)
            data = self._stream.unused_data
            if not self._is_gzip:
                break  # what follows a deflate stream means nothing
            if data:
                self._stream = zlib.decompressobj(31)
        return b"".join(parts)

    def _decoded(self, data: bytes, most: int) -> bytes:
        try:
            try:
                return self._stream.decompress(data, most)
            except zlib.error:
                if self._is_gzip or not self._is_new:
                    raise
                self._stream = zlib.decompressobj(-15)  # without the header, as many servers send it
                return self._stream.decompress(data, most)
        except zlib.error:
            raise BadAnswer("the answer is not compressed as it says") from None
        finally:
            self._is_new = False

    def end(self) -> None:
        if not self._stream.eof:
            raise BadAnswer("the compressed answer ended early")


def _decoder(encoding: str) -> _Plain | _Inflater:
    match encoding.strip().lower():
        case "" | "identity":
            return _Plain()
        case "gzip" | "x-gzip":
            return _Inflater(is_gzip=True)
        case "deflate":
            return _Inflater(is_gzip=False)
        case _:
            raise BadAnswer(f"the answer is compressed as {encoding[:40]!r}, which was not asked for")


async def read_body(response: httpx2.Response, most: int) -> bytes:
    """All bytes of *response*, decompressed. Raises `TooLarge` beyond *most*, raw or decompressed, and `BadAnswer`."""
    said = response.headers.get("content-length", "")
    if said.isascii() and said.isdigit() and int(said[:20]) > most:
        raise TooLarge
    decoder = _decoder(response.headers.get("content-encoding", ""))
    raw, body = 0, bytearray()
    async for chunk in response.aiter_raw(_CHUNK):
        raw += len(chunk)
        if raw > most:
            raise TooLarge
        body += decoder.feed(chunk, most - len(body))
    if raw:
        decoder.end()
    return bytes(body)
