"""The entry point: signals, the early start, dispatch, and one line for every error.

Theory of operation. Starting a sandbox is mostly waiting for another process, and the
rest of a short run is mostly imports. So `isorun run` reads its options, starts the jail
(`early`), and only then imports what comes after it. The other commands are imported
only once they are wanted (`commands`). Nothing heavy may be imported at the top here.
"""

from __future__ import annotations

import atexit
import io
import os
import signal
import sys

from isorun.cli.exits import BUG, NOBODY_READS, UsageError, error_code, exit_code
from isorun.core.errors import IsorunError
from isorun.core.guard.signals import INTERRUPTED

TYPE_CHECKING = False  # not from typing, which costs 10 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process, and exit with its code."""
    code = run_command(sys.argv[1:])
    if sys.argv[1:2] == ["run"]:
        leave(code)
    sys.exit(code)


def leave(code: int) -> None:
    """Exit with *code*, but do not take the interpreter apart, 10 ms of each run; the kernel takes the memory.

    Returns where something is left that `sys.exit` waits for or tells: a thread, or output that cannot be written.
    """
    import threading  # here by now

    if threading.active_count() > 1:
        return
    atexit._run_exitfuncs()  # as the interpreter does; `atexit` has no other name for it
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # ValueError: it is closed
        return
    os._exit(code)


def run_command(argv: Sequence[str]) -> int:
    """Run one command line; every error becomes one line on stderr and an exit code."""
    _open_standard_streams()
    # As exceptions, so that what was started is taken down again on the way out.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, and a shell's `&`
            signal.signal(number, _interrupt)
    try:
        from isorun.cli.commands import call  # here, where an interrupt is caught

        return call(argv)
    except UsageError as error:
        return _fail(str(error), 2)
    except IsorunError as error:
        if _wants_json(argv):
            _tell_json(error)
        return _fail(str(error), exit_code(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains about it once more
        return NOBODY_READS
    except Exception as error:  # boundary: the user gets a line; `python -X dev` shows the traceback
        if sys.flags.dev_mode:
            raise
        return _fail(f"internal error, please report it: {type(error).__name__}: {error}", BUG)


def _open_standard_streams() -> None:
    """After `>&-` the next file that is opened would be our stdout, and get the program's output."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            break
    # The interpreter found them closed, and has None in their place.
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as we are
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as stdin
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as stdin
    # A name or a sign that the terminal's encoding lacks is shown as its number; it must not end the command.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _wants_json(argv: Sequence[str]) -> bool:
    """Whether `--json` is ours: what stands after `--` is the program's."""
    ours = argv[: argv.index("--")] if "--" in argv else argv
    return "--json" in ours and list(argv[:2]) != ["tools", "call"]  # there it brings the arguments


def _tell_json(error: IsorunError) -> None:
    """Who asked for JSON gets an object on stdout also when there is no result."""
    from isorun.cli.show import print_json

    try:
        print_json({"ok": False, "error": {"code": error_code(error), "message": str(error)}})
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains about it once more


def _fail(text: str, code: int) -> int:
    from isorun.core.text import printable  # the text may quote a file name, which may be anything

    lines = [line.strip() for line in printable(text).splitlines()]
    print("isorun:", " ".join(filter(None, lines)), file=sys.stderr)  # noqa: T201 - the one line
    return code


if __name__ == "__main__":
    main()
