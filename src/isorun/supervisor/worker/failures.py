"""The texts of a failed tool call, the same wherever the tool ran: for the program, and for the run's infra.log."""

import traceback
import types

from isorun.wire.messages import NotEncodable
from isorun.wire.values import Unfit

TRACEBACK_CHARS = 64 << 10  # of what a tool raised, in infra.log


def raised(error: BaseException, where: str) -> str:
    """The traceback of *error* for infra.log, from the first frame in the tool's own file; *where* is `Tool.where`."""
    file = where.rpartition(":")[0]
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != file:
        frames = frames.tb_next
    kept: types.TracebackType | None = frames or error.__traceback__
    return "".join(traceback.format_exception(error.with_traceback(kept)))[:TRACEBACK_CHARS]


def failed(call_id: int) -> str:
    """What the program is told of an exception in a tool: no more, because its text can hold paths and secrets."""
    return f"the tool failed (call {call_id})"


def unsendable(error: Unfit | NotEncodable) -> str:
    """What the program is told of a result that cannot be encoded."""
    said = f"value{error.path}: {error.reason}" if isinstance(error, Unfit) else error
    return f"the tool's result cannot be sent: {said}"
