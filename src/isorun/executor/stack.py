"""A program's stack as it would be outside: without the frames that lie below its own.

The standard library shows a stack in four places: tracebacks of the current stack, `inspect.stack()`, the place that a
warning names, and the recursion limit. In the program's process those functions are replaced by ones that stop at the
loader. Nothing is hidden from a program that follows `f_back` itself, nor where faulthandler writes without
Python; `EXEC_TRACEBACK_REMAP=0` leaves every function as it was.
"""

import functools
import inspect
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from types import CodeType, FrameType, ModuleType
from typing import Any

Show = Callable[[warnings.WarningMessage], None]


class Views:
    """What replaces the functions; made before the fork, installed for a program by `install`.

    *below* is the code that calls the program; *is_ours* says of a file's name whether that code, or what called it,
    is in there.
    """

    def __init__(self, below: Collection[CodeType], is_ours: Callable[[str], bool]) -> None:
        self._below, self._is_ours = below, is_ours
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            warnings.warn("", stacklevel=1_000_000)
        self._beyond = found[0].filename, found[0].lineno  # what a warning names whose caller is beyond the stack
        replaced: tuple[tuple[ModuleType, str, Callable[..., Any]], ...] = (
            (traceback, "walk_stack", self._walking(traceback.walk_stack)),
            (inspect, "getouterframes", self._outer(inspect.getouterframes)),
            (warnings, "_showwarnmsg", self._placing(warnings._showwarnmsg)),  # type: ignore[attr-defined]  # what C calls
        )
        self._replaced = replaced
        self._original = tuple((module, name, getattr(module, name)) for module, name, _ in replaced)

    def install(self) -> None:
        """From here on the program's stack begins with the program."""
        for module, name, function in self._replaced:
            setattr(module, name, function)

    def remove(self) -> None:
        """Every function is as it was before `install`."""
        for module, name, function in self._original:
            setattr(module, name, function)

    def _walking(self, walk: Callable[[FrameType | None], Iterator[tuple[FrameType, int]]]) -> Callable[..., Any]:
        @functools.wraps(walk)
        def walk_stack(f: FrameType | None) -> Iterator[tuple[FrameType, int]]:
            # Without a frame it counts its callers, of which this function must not be one.
            return walk(f) if f is None else self._until_ours(walk(f))

        return walk_stack

    def _until_ours(self, walked: Iterator[tuple[FrameType, int]]) -> Iterator[tuple[FrameType, int]]:
        for frame, line in walked:
            if frame.f_code in self._below:
                return
            yield frame, line

    def _outer(self, outer: Callable[..., list[inspect.FrameInfo]]) -> Callable[..., Any]:
        @functools.wraps(outer)
        def getouterframes(frame: Any, context: int = 1) -> list[inspect.FrameInfo]:  # noqa: ANN401 - a traceback, too
            found = outer(frame, context)
            ours = (number for number, info in enumerate(found) if info.frame.f_code in self._below)
            return found[: next(ours, None)]

        return getouterframes

    def _placing(self, show: Show) -> Show:
        @functools.wraps(show)
        def _showwarnmsg(msg: warnings.WarningMessage) -> None:
            if self._is_ours(msg.filename):
                msg.filename, msg.lineno = self._beyond
                msg.line = None
            show(msg)

        return _showwarnmsg


def depth() -> int:
    """How deep the interpreter says that this call is: until Python 3.12 it counts calls of its own functions, too."""
    try:
        sys.setrecursionlimit(1)
    except RecursionError as error:
        return int(re.findall(r"\d+", str(error))[1])  # "… limit to 1 at the recursion depth 14: …"
    raise AssertionError("a function that was called has a depth of more than 1")


def charge_nothing_for(frames: int) -> Callable[[], None]:
    """The recursion limit is reached, told and set as if the stack were less deep by *frames*; what takes that back."""
    told, limit = sys.getrecursionlimit, sys.setrecursionlimit
    limit(told() + frames)

    @functools.wraps(told)
    def getrecursionlimit() -> int:
        return told() - frames

    @functools.wraps(limit)
    def setrecursionlimit(limit_: int, /) -> None:
        limit(limit_ + frames if isinstance(limit_, int) and limit_ > 0 else limit_)

    def undo() -> None:
        limit(told() - frames)
        sys.getrecursionlimit, sys.setrecursionlimit = told, limit

    for function in (getrecursionlimit, setrecursionlimit):
        setattr(sys, function.__name__, function)
    return undo
