"""`isorun batch`: many programs from lines of JSON, and their results as lines of JSON in the same order.

A line says all that a run may be asked for, paths of this machine too: its writer is trusted as its caller is, and
the program in it is not. A line that cannot be run costs no other one.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from isorun.cli.parsing import BACKEND, ENV_FILE, PRELOAD, count, option

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from isorun.runtime.runtime import Runtime

_LINE_BYTES = 64 << 20
OPTIONS = {
    "batch": (
        option("file FILE|-", 'A request in each line, as {"code": "print(1)", "timeout_s": 10}; - for stdin.'),
        option("--at-once N", "Programs at once (default: 8).", type=count),
        option("--no-keep", "Remove each run's folder afterwards.", dest="keep", action="store_false"),
        BACKEND,
        option("--bundle DIR", "The folder whose tools the programs may call.", type=Path),
        option("--python FILE", "The Python that the programs run on.", type=Path),
        PRELOAD,
        ENV_FILE,
    )
}
END = (
    'Each line of the output has the number of its line of the input as "line", and the whole result, or "ok": false '
    'and an "error". The exit code is 0 if every program was ok, else 1; 4 if no sandbox works here.'
)


def batch(
    file: str,
    at_once: int = 8,
    keep: bool = True,
    backend: str | None = None,
    bundle: Path | None = None,
    python: Path | None = None,
    preload: list[str] | None = None,
    env_file: Path | None = None,
) -> int:
    """Run many programs, one JSON object a line, and print their results as lines of JSON, in order."""
    import asyncio
    import sys

    from isorun.cli.run.command import Wanted
    from isorun.cli.run.early import settings_for
    from isorun.core.guard.signals import INTERRUPTED
    from isorun.core.text import one_line
    from isorun.runtime.runtime import Runtime

    settings = settings_for(Wanted(preload=tuple(preload or ()), python=python, env_file=env_file))
    for warning in settings.warnings:
        print("isorun: warning:", one_line(warning), file=sys.stderr)  # noqa: T201 - for the user
    stream = _opened(file)  # not closed: that would wait for a thread that is blocked in reading it
    with asyncio.Runner() as runner:
        runtime = Runtime(backend=backend, settings=settings, bundle=bundle, preload=preload)
        try:
            all_ok = runner.run(_all(runtime, stream, _total(file), at_once, keep))
        except asyncio.CancelledError:
            return INTERRUPTED
    return 0 if all_ok else 1


def _opened(file: str) -> BinaryIO:
    from isorun.core.errors import InvalidRequest

    try:
        # Not sys.stdin: the interpreter's end would wait for the lock of a reader that is blocked.
        return open(0, "rb", closefd=False) if file == "-" else Path(file).open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidRequest(f"{file} cannot be read: {reason}", code="unreadable_file") from None


def _total(file: str) -> int | None:
    """How many requests there are, if a bar is shown and the file can be read twice."""
    if file == "-" or not _shows_bar() or not Path(file).is_file():
        return None
    with Path(file).open("rb") as lines:
        return sum(1 for line in lines if line.strip())


def _shows_bar() -> bool:
    """On a terminal that does not show the results already."""
    import sys

    return sys.stderr.isatty() and not sys.stdout.isatty()


@contextmanager
def _bar(total: int | None) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr; what it gives is called for each result."""
    if not _shows_bar():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("programs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("programs", total=total)
        yield lambda: progress.advance(task)


async def _all(runtime: Runtime, stream: BinaryIO, total: int | None, at_once: int, keep: bool) -> bool:
    import asyncio
    from contextlib import aclosing
    from functools import partial

    from isorun.cli.run.live import write
    from isorun.core.guard.signals import cancel_on_signals
    from isorun.core.result import as_json
    from isorun.runtime.many.ordered import ordered

    cancel_on_signals()
    all_ok = True
    async with runtime:
        with _bar(total) as advance:
            work = partial(_entry, runtime, keep)
            async with aclosing(ordered(work, _lines(stream), at_once)) as entries:
                async for entry in entries:
                    # In a thread: a pager that holds the output must not hold the runs' time limits.
                    await asyncio.to_thread(write, 1, as_json(entry).encode() + b"\n")
                    all_ok &= entry["ok"]
                    advance()
    return all_ok


async def _lines(stream: BinaryIO) -> AsyncIterator[tuple[int, bytes]]:
    """Each line that is not blank, with its number. A line that is too long is cut, and its length says so.

    They are read in a daemon thread: a pipe may never say more, and our end must not wait for it.
    """
    import asyncio
    import threading
    from queue import SimpleQueue

    loop = asyncio.get_running_loop()
    asked: SimpleQueue[asyncio.Future[bytes] | None] = SimpleQueue()
    threading.Thread(target=_read, args=(stream, asked, loop), name="isorun-lines", daemon=True).start()
    try:
        number = 0
        while True:
            number += 1
            answer: asyncio.Future[bytes] = loop.create_future()
            asked.put(answer)
            line = await answer
            if not line:
                return
            if line.strip():
                yield number, line
    finally:
        asked.put(None)


def _read(stream: BinaryIO, asked: Any, loop: Any) -> None:  # noqa: ANN401 - a queue and a loop
    from contextlib import suppress

    while (answer := asked.get()) is not None:
        line, error = b"", None
        try:
            line = part = stream.readline(_LINE_BYTES + 1)
            while len(part) > _LINE_BYTES and not part.endswith(b"\n"):
                part = stream.readline(_LINE_BYTES + 1)
        except OSError as caught:
            error = caught
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_answer, answer, line, error)


def _answer(answer: Any, line: bytes, error: OSError | None) -> None:  # noqa: ANN401 - a future
    if not answer.done():
        answer.set_exception(error) if error else answer.set_result(line)


async def _entry(runtime: Runtime, keep: bool, numbered: tuple[int, bytes]) -> dict[str, Any]:
    """What is printed for one line."""
    import json
    from dataclasses import replace

    from isorun.cli.exits import error_code
    from isorun.core.errors import InvalidRequest, IsorunError
    from isorun.core.request import RunRequest

    number, line = numbered
    try:
        if len(line) > _LINE_BYTES:
            raise InvalidRequest(f"the line has more than {_LINE_BYTES} bytes", code="line_too_large")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"the line is not JSON: {error}", code="invalid_json") from None
        request = RunRequest.from_json(value)
        result = await runtime.execute(request if keep else replace(request, keep=False))
    except IsorunError as error:
        return {"line": number, "ok": False, "error": {"code": error_code(error), "message": str(error)}}
    return {"line": number, **result.to_dict()}
