"""Importing much without the garbage collector.

Everything that is imported stays, so each collection on the way looks through all of it for nothing.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager

TYPE_CHECKING = False  # not from typing, which costs milliseconds of a cold start
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def uncollected() -> Iterator[None]:
    """No collection in this block; those after it leave alone what it has made."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
