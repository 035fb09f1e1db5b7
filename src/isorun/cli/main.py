"""The entry point: signals, the early start, dispatch, and one line for every error.

Theory of operation. Starting a sandbox is mostly waiting for another process, and
reading a command line is mostly imports. So `isorun run` starts the first before it
does the second (`early`), on the settings alone; command-line options that would
change the sandbox switch the early start off. This module must not import a run.
"""

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from isorun.cli.early import Early, early_start
from isorun.cli.exits import BUG, INTERRUPTED, exit_code
from isorun.core.errors import IsorunError


def main() -> NoReturn:
    """Run the command line of this process, and exit with its code."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(argv: Sequence[str]) -> int:
    """Run one command line; every error becomes one line on stderr and an exit code."""
    # As exceptions, so that what was started is taken down again on the way out.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, and a shell's `&`
            signal.signal(number, _interrupt)
    try:
        with early_start(argv) as early:
            return _dispatch(argv, early)
    except IsorunError as error:
        return _fail(str(error), exit_code(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # or the interpreter complains about the pipe once more
        return INTERRUPTED
    except Exception as error:  # boundary: the user gets a line; `python -X dev` shows the traceback
        if sys.flags.dev_mode:
            raise
        return _fail(f"internal error, please report it: {type(error).__name__}: {error}", BUG)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _dispatch(argv: Sequence[str], early: Early | None) -> int:
    from isorun.cli.app import UsageError, app

    try:
        code = app(args=list(argv), prog_name="isorun", standalone_mode=False, obj=early)
    except UsageError as error:
        return _fail(f"{error.format_message()} (isorun --help shows what there is)", 2)
    return code if isinstance(code, int) else 0


def _fail(text: str, code: int) -> int:
    from isorun.runtime.report import printable  # the text may quote a file name, which may be anything

    lines = [line.strip() for line in printable(text).splitlines()]
    print("isorun:", " ".join(filter(None, lines)), file=sys.stderr)  # noqa: T201 - the one line
    return code


if __name__ == "__main__":
    main()
