"""The file of the code that asked for a run, for people who look at a list of runs.

It must not reach a program, nor decide anything: it is a name to be shown.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType

from isorun.core.text import is_visible

_OURS = str(Path(__file__).parents[2]) + "/"
_LIBRARY = str(Path(os.__file__).parent) + "/"
_MOST = 64
_elsewhere: ContextVar[str] = ContextVar("isorun_caller", default="")


def caller() -> str:
    """The name of the caller's file, `<stdin>` or `<string>`; "" if this thread only works for others."""
    if told := _elsewhere.get():
        return told
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        # A library that was installed works for somebody whose file comes further up.
        if not file.startswith((_OURS, _LIBRARY, "<frozen ")) and "-packages/" not in file:
            name = file.rpartition("/")[2][:_MOST]
            return name if is_visible(name) else ""
        frame = frame.f_back
    return ""


@contextmanager
def calling(name: str | None = None) -> Iterator[None]:
    """What is handed to a thread or a task within the block has the caller that there is here, or *name*."""
    token = _elsewhere.set(caller() if name is None else name)
    try:
        yield
    finally:
        _elsewhere.reset(token)
