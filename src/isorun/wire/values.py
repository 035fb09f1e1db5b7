"""Values in and out of a header: the tree of JSON values, the blobs beside it and the escapes.

Knows no message. Going out, a value that cannot be sent raises `Unfit` with its path; coming in,
everything is hostile; a value that is not strict raises `ProtocolError` and nothing else.
"""

from __future__ import annotations

import json
import json.encoder
import re
from itertools import islice
from math import isfinite

from isorun.core.pace import rest
from isorun.wire.frames import ProtocolError

TYPE_CHECKING = False  # typing costs milliseconds of a cold start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_DEPTH = 64  # lists and dicts inside each other, in one field
MAX_INT_DIGITS = 640  # int(text) is quadratic; CPython lets no process set its own ceiling below 640
MAX_VALUES = 1_000_000  # 16 MiB of "{}," would become 5.6 million dicts: 6 s and 600 MB
CALL_VALUES = 1 << 16  # of what a program sends: at most 0.16 s to read; 8,000 rows of seven columns
_FEW_VALUES = 1 << 12  # at most 8 ms to read
TOO_LARGE = "the frame would exceed"  # how the reason begins that no other form of a value would mend
_SHORT = 1 << 18  # bytes of a header: at most 3 ms, whatever the values

# Up to and with the next mark outside a string. Possessive, and true at the end too, so that no byte is
# looked at twice whatever the quotes are.
_TO_MARK = re.compile(rb'(?s)(?:[^",\[{]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"?)*+(?:[,\[{]|\Z)')
_INT_LIMIT = 10**MAX_INT_DIGITS


class Unfit(Exception):
    """A value that cannot be sent; every container on the way out puts its own step before `path`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = ""


class Packer:
    """Turns one message's values into JSON values, and its bytes into blobs."""

    __slots__ = ("_max_frame", "_open", "_room", "blobs")

    def __init__(self, max_frame: int) -> None:
        self.blobs: list[bytes] = []
        self._open: list[int] = []
        self._max_frame = self._room = max_frame

    def pack(self, value: object) -> object:
        if isinstance(value, str):
            return self._text(value)
        self._take(1)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            if not -_INT_LIMIT < value < _INT_LIMIT:
                raise Unfit(f"an int of more than {MAX_INT_DIGITS} digits cannot be sent")
            return value
        if isinstance(value, float):
            if not isfinite(value):
                raise Unfit(f"{value} cannot be sent")
            return value
        if isinstance(value, (dict, list, tuple)):
            return self._inside(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            blob = bytes(value)
            self._take(len(blob))
            self.blobs.append(blob)
            return {"$blob": len(self.blobs) - 1}
        raise Unfit(f"{type(value).__name__} cannot be sent")

    def _take(self, count: int) -> None:
        # Counted on the way, not at the end: ten lists, each ten times in the next, make 10**10 values.
        self._room -= count
        if self._room < 0:
            raise Unfit(f"{TOO_LARGE} {self._max_frame} bytes here")

    def _text(self, value: str) -> str:
        self._room -= len(value)  # `_take` in place: most values are text
        if self._room < 0:
            self._take(0)
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Unfit("text with a lone surrogate cannot be sent") from None
        return value

    def _inside(self, value: dict[object, object] | list[object] | tuple[object, ...]) -> object:
        if id(value) in self._open:
            raise Unfit("it contains itself")
        if len(self._open) == MAX_DEPTH:
            raise Unfit(f"nested deeper than {MAX_DEPTH} levels")
        self._open.append(id(value))
        packed = self._dict(value) if isinstance(value, dict) else self._list(value)
        self._open.pop()
        return packed

    def _list(self, value: list[object] | tuple[object, ...]) -> list[object]:
        packed: list[object] = []
        try:
            for item in value:
                packed.append(self.pack(item))  # noqa: PERF401 - its length is the path of a failure
        except Unfit as unfit:
            unfit.path = f"[{len(packed)}]{unfit.path}"
            raise
        return packed

    def _dict(self, value: dict[object, object]) -> dict[str, object]:
        packed: dict[str, object] = {}
        for name in value:
            if not isinstance(name, str):
                raise Unfit(f"keys must be str, got {type(name).__name__}")
            self._text(name)
        key: Any = ""
        try:
            for key, item in value.items():
                packed[key] = self.pack(item)
        except Unfit as unfit:
            unfit.path = f".{key}{unfit.path}" if key.isidentifier() else f"[{key!r}]{unfit.path}"
            raise
        return {"$dict": packed} if len(packed) == 1 and key.startswith("$") else packed


class Unpacker:
    """Turns JSON values back, using every blob exactly once."""

    __slots__ = ("_blobs",)

    def __init__(self, lengths: object, blobs: bytes | memoryview) -> None:
        if lengths == [] and not blobs:
            self._blobs: list[bytes | None] = []
            return
        if not isinstance(lengths, list) or not all(type(n) is int and n >= 0 for n in lengths):
            raise ProtocolError("blobs must be a list of lengths")
        if sum(lengths) != len(blobs):
            raise ProtocolError(f"blobs of {brief(sum(lengths))} bytes announced, {len(blobs)} sent")
        self._blobs = []
        start = 0
        for length in lengths:
            self._blobs.append(bytes(blobs[start : start + length]))
            start += length

    def unpack(self, value: object, depth: int) -> object:
        if isinstance(value, str):
            return value if value.isascii() else _whole(value)
        if value is None:
            return value
        if isinstance(value, (dict, list)):
            if isinstance(value, dict) and len(value) == 1:
                ((key, inner),) = value.items()
                if key == "$blob":
                    return self._blob(inner)
                if key.startswith("$"):
                    value = _unescaped(key, inner)
            if depth == MAX_DEPTH:
                raise ProtocolError(f"values nested deeper than {MAX_DEPTH} levels")
            if isinstance(value, list):
                return [self.unpack(item, depth + 1) for item in value]
            return {_whole(key): self.unpack(item, depth + 1) for key, item in value.items()}
        if isinstance(value, float) and not isfinite(value):
            raise ProtocolError("a number is too large for a float")
        return value

    def end(self) -> None:
        for index, blob in enumerate(self._blobs):
            if blob is not None:
                raise ProtocolError(f"blob {index} is not used")

    def _blob(self, index: object) -> bytes:
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(self._blobs):
            raise ProtocolError(f"no blob {brief(index)}")
        blob = self._blobs[index]
        if blob is None:
            raise ProtocolError(f"blob {index} is used twice")
        self._blobs[index] = None
        return blob


class RestingUnpacker(Unpacker):
    """As `Unpacker`, for many values: in a thread that is paced it rests between them (`core.pace`)."""

    __slots__ = ()

    def unpack(self, value: object, depth: int) -> object:
        rest()
        return super().unpack(value, depth)


def unpacker_of(header: bytes, lengths: object, blobs: bytes | memoryview) -> Unpacker:
    """Of the kind that fits *header*, by its length."""
    return (Unpacker if len(header) <= _FEW_VALUES else RestingUnpacker)(lengths, blobs)


def _unescaped(key: str, inner: object) -> dict[str, Any]:
    # Only what needs the escape may use it, so that a value has one spelling.
    if key == "$dict" and isinstance(inner, dict) and len(inner) == 1 and next(iter(inner)).startswith("$"):
        return inner
    raise ProtocolError(f"bad escape {brief(key)}")


def _whole(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ProtocolError("text with a lone surrogate") from None
    return text


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two parsers that keep different ones of two equal keys would disagree about what was granted.
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("duplicate key")
    return made


def _resting(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    rest()
    return _no_duplicates(pairs)


def _short_int(text: str) -> int:
    if len(text) > MAX_INT_DIGITS + text.startswith("-"):
        raise ValueError(f"an int of more than {MAX_INT_DIGITS} digits")
    return int(text)


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number")


_OUT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
_IN = json.JSONDecoder(parse_int=_short_int, parse_constant=_no_constant, object_pairs_hook=_resting)
# In a text of MAX_INT_DIGITS characters no int has more digits than that, so none need be counted.
_IN_SHORT = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_no_duplicates)


def _renderer() -> Callable[[object], str]:
    """What `_OUT.encode` does, without making its encoder anew for every message: 0.6 of 1.9 us."""
    make = getattr(json.encoder, "c_make_encoder", None)  # None where json has no C part
    if make is None:
        return _OUT.encode
    encoder = make(None, _OUT.default, json.encoder.encode_basestring, None, ":", ",", False, False, False)
    return lambda tree: "".join(encoder(tree, 0))


_text_of = _renderer()


def render(tree: dict[str, object], most: int = MAX_VALUES) -> bytes:
    """The header whose values a `Packer` made. Raises `Unfit` if it holds more than *most*."""
    header = _text_of(tree).encode()
    if _crowded(header, most):
        raise Unfit(f"more than {most} values")
    return header


def is_costly(header: bytes) -> bool:
    """Whether reading *header* may take longer than a shared event loop has for one stream. Looks at bytes only."""
    return len(header) > _SHORT or (len(header) > _FEW_VALUES and _marks(header) > _FEW_VALUES)


def _marks(header: bytes) -> int:
    return header.count(b",") + header.count(b"[") + header.count(b"{")


def _crowded(header: bytes, most: int) -> bool:
    # Counted before anything is parsed. A container of n values has one bracket and n - 1 commas.
    # Text may be full of commas, so it is passed over, which costs time, only if the first count is high.
    if len(header) <= most or _marks(header) <= most:
        return False
    at_the_end = 2  # what is behind the last mark, and the empty rest
    enough = most + at_the_end + 1
    return sum(1 for _ in islice(_TO_MARK.finditer(header), enough)) == enough


def parse(header: bytes, most: int = MAX_VALUES) -> dict[str, Any]:
    """The JSON object that *header* holds, at most *most* values, still packed. Raises `ProtocolError`."""
    if _crowded(header, most):
        raise ProtocolError(f"header of more than {most} values")
    try:
        tree = _read(str(header, "utf-8"))
    except (ValueError, RecursionError) as exc:  # "[" * 100_000 is a RecursionError
        raise ProtocolError(f"header is not strict JSON: {brief(str(exc))}") from None
    if not isinstance(tree, dict):
        raise ProtocolError(f"header must be an object, got {type(tree).__name__}")
    return tree


def _read(text: str) -> object:
    if len(text) <= MAX_INT_DIGITS and text.startswith("{"):
        try:
            tree, end = _IN_SHORT.scan_once(text, 0)  # type: ignore[attr-defined]  # what raw_decode calls
        except StopIteration:
            pass  # `decode` says what is wrong
        else:
            if end == len(text):
                return tree
    return _IN.decode(text)


def brief(value: object) -> str:
    """At most 80 printable ASCII characters that say what *value* is."""
    # The peer chose it: ascii() so that it cannot forge a log line; never of a list or a dict, whose
    # depth could raise RecursionError here.
    if isinstance(value, (str, int, float, type(None))):
        text = ascii(value[:80] if isinstance(value, str) else value)
        return text if len(text) <= 80 else f"{text[:77]}..."
    return f"a {type(value).__name__}"
