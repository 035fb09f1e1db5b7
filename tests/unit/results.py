"""A `RunResult` for tests, of which they say what matters to them."""

from dataclasses import replace
from pathlib import Path

from isorun.core.outcome import Code, Status
from isorun.core.result import RunError, RunResult


def result(
    *, status: Status = Status.OK, code: Code | None = None, message: str = "", hint: str = "", **fields: object
) -> RunResult:
    """One of a run `e` without a name; *code*, *message* and *hint* are its error's."""
    error = RunError(code=code or Code.HOST_LOST, message=message, hint=hint)
    made = RunResult.unseen(exec_id="e", turn_id="", prog_name="", out_dir=Path("out"), error=error, timings={})
    return replace(made, status=status, error=error if code else None, **fields)
