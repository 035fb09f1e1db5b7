"""What a run has left, for an answer that holds it whole."""

import os

from isorun.core.errors import InvalidRequest
from isorun.service.context import Service
from isorun.store.recovery import open_stored


def content(service: Service, run_id: str, path: str, most: int) -> bytes | None:
    """The bytes of the file *path* of a run, at most *most*; None if it is not there. No link is followed. Blocks."""
    try:
        descriptor = open_stored(service.runtime.root, run_id, path)
    except InvalidRequest:
        return None
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(most)
