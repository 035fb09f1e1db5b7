"""Which exit code an error of ours has. What a run's own ending gives is `core.outcome.cli_exit_code`."""

from isorun.core.errors import CleanupFailed, InvalidRequest, IsorunError, Misused, SetupFailed, Unavailable

EXIT: dict[type[IsorunError], int] = {
    InvalidRequest: 2,
    Unavailable: 4,
    SetupFailed: 70,
    CleanupFailed: 71,
    Misused: 70,  # no command does it: a bug of ours
}
NOBODY_READS = 1  # the reader of a table went away
BUG = 70  # an exception that is none of ours: the same "software error" as a failed set-up


class UsageError(Exception):
    """A command line that cannot be read; exit code 2, and nothing was done."""


def exit_code(error: IsorunError) -> int:
    """The exit code for *error*, by its most specific class in the table."""
    return next(code for kind, code in EXIT.items() if isinstance(error, kind))


def error_code(error: IsorunError) -> str:
    """The stable word for *error*: its own, else that of its class."""
    words = {
        Unavailable: "unavailable",
        SetupFailed: "setup_failed",
        CleanupFailed: "cleanup_failed",
        Misused: "misused",
    }
    if isinstance(error, InvalidRequest):
        return error.code
    return next(word for kind, word in words.items() if isinstance(error, kind))
