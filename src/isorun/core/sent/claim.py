"""What a program says of the exception that ended it."""

from __future__ import annotations

from isorun.core.sent.record import Record


class Claim(Record):
    """What the loader said of an uncaught exception. A program can forge it; the supervisor bounds its texts.

    `line` is of the program's own code; `source` is the text of the line that raised, in whatever file.
    """

    type: str
    message: str = ""
    errno: int | None = None
    line: int | None = None
    source: str = ""
