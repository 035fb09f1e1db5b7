"""The program's stdout and stderr, and where its `logging` goes."""

import functools
import io
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from isorun.executor import rules
from isorun.executor.calls.tool_stream import ToolStream
from isorun.wire.messages import Log

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_TEXT = 8192  # characters of one record that infra.log receives
_RECORDS, _CHARS = 10_000, 4 << 20  # that it receives of one run


def open_streams() -> None:
    """Unbuffered text streams, so that what was printed before a kill has arrived."""
    # surrogateescape is what the interpreter takes in UTF-8 mode: a file name that is not text can be printed.
    raw = io.FileIO(rules.STDIN, "r", closefd=False)
    raw.name = "<stdin>"
    # newline: as CPython opens it, so that \r\n arrives as \r\n.
    sys.stdin = io.TextIOWrapper(io.BufferedReader(raw), "utf-8", "surrogateescape", newline="\n")
    sys.stdout = _text(rules.STDOUT, "<stdout>", "surrogateescape")
    sys.stderr = _text(rules.STDERR, "<stderr>", "backslashreplace")
    sys.stdin.mode = "r"  # type: ignore[misc]  # CPython sets it so at start
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]  # CPython sets them so at start


def _text(descriptor: int, name: str, errors: str) -> io.TextIOWrapper:
    raw = io.FileIO(descriptor, "w", closefd=False)
    raw.name = name
    stream = io.TextIOWrapper(raw, "utf-8", errors, write_through=True)
    stream.mode = "w"  # type: ignore[misc]  # CPython sets it so at start
    return stream


class UtcFormatter(logging.Formatter):
    """`<UTC time> <LEVEL> <name> <text>`."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__(_FORMAT)


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]  # a StreamHandler takes no type argument at run time
    """Writes to the sys.stderr of that moment, as logging's last resort does."""

    def __init__(self, level: int) -> None:
        logging.Handler.__init__(self, level)

    @property
    def stream(self) -> object:
        return sys.stderr


class _Infra(logging.Handler):
    """Sends records to the host, which writes them to infra.log."""

    def __init__(self, stream: ToolStream) -> None:
        super().__init__()
        self._stream = stream
        self._records = self._chars = 0

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)[:_TEXT].encode("utf-8", "replace").decode()
        self._records += 1
        self._chars += len(text)
        if self._records <= _RECORDS and self._chars <= _CHARS:  # what is above is not kept, and far above a breach
            self._stream.send(Log(level=record.levelname[:20], name=record.name[:200], text=text))


def log_user_to_stderr() -> None:
    """In every mode `logging.getLogger("user")` goes to user.log, from INFO on."""
    user = logging.getLogger("user")
    user.setLevel(logging.INFO)
    user.propagate = False
    user.addHandler(_formatted(_Stderr(logging.NOTSET)))


def log_the_rest(mode: str, stream: ToolStream) -> None:
    """Every other logger: to user.log too (`include_logging`), or to infra.log (`print_only`).

    With `include_logging` lines are ours until the program says how they should look;
    a handler or format that it gives to `logging.basicConfig` works as it does outside.
    """
    if mode == "print_only":
        root = logging.getLogger()
        root.setLevel(logging.INFO)
        infra = _Infra(stream)
        infra.setFormatter(logging.Formatter("%(message)s"))
        root.addHandler(infra)
    else:
        logging.lastResort = _formatted(_Stderr(logging.WARNING))
        logging.basicConfig = _ours_by_default(logging.basicConfig)


def _ours_by_default(basic_config: Callable[..., None]) -> Callable[..., None]:
    """basicConfig that writes our lines if it is told nothing about them, as by `logging.warning(text)`."""

    @functools.wraps(basic_config)
    def configure(**options: Any) -> None:  # noqa: ANN401 - basicConfig's own
        if options.keys() <= {"level", "force"}:
            options["handlers"] = [_formatted(_Stderr(logging.NOTSET))]
        basic_config(**options)

    return configure


def _formatted(handler: _Stderr) -> _Stderr:
    handler.setFormatter(UtcFormatter())
    return handler
