"""Records of calls on their way to the host: one JSON text for many, because the wire's own values cost more.

The supervisor makes them and the host believes it, so they need no strict reading.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]


def packed(records: Sequence[Record]) -> bytes:
    """*records* as JSON in ASCII; bytes in them become their `summary`."""
    return _ENCODER.encode(records).encode()


def unpacked(data: bytes) -> list[Record]:
    """What `packed` packed."""
    records: list[Record] = json.loads(data)
    return records


def summary(value: object) -> object:
    """For bytes, which JSON cannot hold: how many, and which."""
    data = bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else str(value).encode()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


_ENCODER = json.JSONEncoder(default=summary, separators=(",", ":"))
