"""What is told while a program runs: its output as progress, in as many messages as a client can bear.

A program can print a million lines a second. A message holds what came since the last one, or the end of that, and
there are at most ten a second, so a client sees what is printed and is never flooded.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from isorun.core.text import printable

MOST_CHARS = 2000  # of one message
PAUSE_S = 0.1  # between two
QUIET_S = 10.0  # after so long without output a message says that the program runs: some clients give up else

#: Takes how many lines there were so far, which only grows, and the text.
Tell = Callable[[float, str], Awaitable[None]]


class Lines:
    """Output that was printed and not told yet. What is over `MOST_CHARS` is left out at its beginning."""

    def __init__(self) -> None:
        self._text = ""
        self._left_out = False
        self._count = 0
        self._told = 0

    def add(self, text: str) -> None:
        """Output that came."""
        self._count += text.count("\n")
        self._text += text
        if len(self._text) > MOST_CHARS:
            self._text, self._left_out = self._text[-MOST_CHARS:], True

    def tick(self) -> int:
        """A number that is above the last one, for a message without lines."""
        self._told += 1
        return self._told

    def take(self, *, all_of_it: bool = False) -> tuple[int, str] | None:
        """A number that is above the last one, and the lines that ended since; None if there is nothing to see.

        With *all_of_it* a last line that has not ended is told, too. A carriage return ends a line: the next one is
        drawn over it, as a progress bar is, and the last is told.
        """
        end = len(self._text) if all_of_it else max(map(self._text.rfind, "\r\n")) + 1
        ready, self._text = self._text[:end], self._text[end:]
        shown = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in ready.rstrip("\r\n").split("\n"))
        if not shown.strip():
            return None
        mark, self._left_out = "… " if self._left_out else "", False
        self._told = max(self._told + 1, self._count)
        return self._told, mark + printable(shown)


async def tell_progress(
    output: AsyncIterator[str], tell: Tell, *, pause_s: float = PAUSE_S, quiet_s: float = QUIET_S
) -> None:
    """Give *tell* the lines of *output* until it ends. A client that takes them slowly gets fewer, never later ones."""
    lines, more, ended = Lines(), asyncio.Event(), asyncio.Event()

    async def read() -> None:
        try:
            async for text in output:
                lines.add(text)
                more.set()
        finally:
            ended.set()
            more.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        while not ended.is_set():
            try:
                await asyncio.wait_for(more.wait(), quiet_s)
            except TimeoutError:
                await tell(lines.tick(), "it is still running")
                continue
            more.clear()
            if told := lines.take(all_of_it=ended.is_set()):
                await tell(*told)
                with suppress(TimeoutError):  # the answer does not wait for the pause
                    await asyncio.wait_for(ended.wait(), pause_s)
    if told := lines.take(all_of_it=True):
        await tell(*told)
