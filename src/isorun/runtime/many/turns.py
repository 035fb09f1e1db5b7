"""The queue of a Runtime that has a ceiling on its runs: who came first runs first.

A run that waits has no sandbox and no folder yet, so its time limit has not begun. A run that gives up, or that is
still waiting when its Runtime is left, gets a result that says so.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from isorun.core.outcome import Code, Status
from isorun.core.report import report_text
from isorun.core.result import RunError, RunResult
from isorun.runtime.request import AcceptedRun
from isorun.store.folder import RunFolder, utc_now

_MESSAGE = "cancelled while it waited for its turn: the program was not started"


class Turns:
    """At most *most* turns at once, in the order in which they were asked for; None: as many as are asked for."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._running = 0
        self._waiting: deque[asyncio.Future[bool]] = deque()

    def ask(self) -> "asyncio.Future[bool]":
        """Has the value True once the turn has come. To give the turn up, set the value False before."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._most is None or self._running < self._most:
            self._running += 1
            turn.set_result(True)
        else:
            self._waiting.append(turn)
        return turn

    @asynccontextmanager
    async def taken(self, turn: "asyncio.Future[bool]") -> AsyncIterator[bool]:
        """Wait for *turn*. The block runs either way, with whether the turn came; leaving it gives the turn back."""
        try:
            yield await turn
        finally:
            if turn.done() and not turn.cancelled() and turn.result():
                self._next()
            elif turn in self._waiting:
                self._waiting.remove(turn)

    def give_up_all(self) -> None:
        """Those who wait now get no turn."""
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(False)

    def _next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(True)  # the place goes from hand to hand: who asks now comes behind all that wait
                return
        self._running -= 1


def unstarted(request: AcceptedRun, folder: RunFolder, accepted: str, began: float) -> RunResult:
    """The result of a run that gave up its turn, stored in *folder*. Raises `SetupFailed`."""
    folder.append_infra("runtime", "INFO", _MESSAGE)
    waited = time.monotonic() - began
    unseen = RunResult.unseen(
        exec_id=request.exec_id,
        turn_id=request.turn,
        prog_name=request.prog_name,
        out_dir=folder.out,
        status=Status.CANCELLED,
        error=RunError(code=Code.CANCELLED, message=_MESSAGE),
        timings={"accepted": accepted, "ended": utc_now(), "queued_s": waited, "total_s": waited},
    )
    limits = {**request.limits.as_dict(), "wall_s": request.timeout_s}
    result = replace(unseen, limits=limits, infra_log_tail=folder.infra_text())
    result = replace(result, report_text=report_text(result))
    folder.write_result(result.stored())
    return result
