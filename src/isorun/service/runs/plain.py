"""What a program made, as JSON has it: a call's parameters can hold bytes, numbers beyond JSON and halves of letters.

Without this, one call would keep its run from being stored: a database takes no such value. Pure.
"""

import math
from collections.abc import Mapping


def as_json(value: object) -> object:
    """*value* if JSON has it; else the nearest that it has. The wire bounds how deep values are nested."""
    match value:
        case str():
            return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case float():
            return value if math.isfinite(value) else str(value)
        case None | bool() | int():
            return value
        case Mapping():
            return {str(as_json(str(key))): as_json(one) for key, one in value.items()}
        case list() | tuple():
            return [as_json(one) for one in value]
        case bytes() | bytearray() | memoryview():
            return {"omitted_bytes": len(value)}
        case _:
            return str(type(value).__name__)
