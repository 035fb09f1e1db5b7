"""Our loggers. A caller's handler or filter that raises changes nothing here.

What we log stands in the middle of what we do: a slot is taken down, a run is recorded. The standard library lets
an exception of a handler's `emit` or of a filter through to who logs. Here it is printed on stderr, as `logging`
does for its own handlers, and dropped.
"""

import logging
import sys
import traceback
from typing import Any


class _Log(logging.LoggerAdapter[logging.Logger]):
    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ANN401 - logging's own
        try:
            super().log(level, msg, *args, **{"stacklevel": 2, **kwargs})
        except Exception:  # noqa: BLE001 - the caller's handlers and filters may raise anything
            if logging.raiseExceptions and sys.stderr is not None:
                traceback.print_exc(file=sys.stderr)


def log_of(name: str) -> _Log:
    """The logger *name*, which never raises."""
    return _Log(logging.getLogger(name), {})
