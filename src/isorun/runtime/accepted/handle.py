"""A run as its caller holds it. It conducts nothing: `accepted.course` does, and tells the handle of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from isorun.core.errors import InvalidRequest
from isorun.core.guard.life import Life
from isorun.core.outcome import Stop
from isorun.core.result import RunResult
from isorun.runtime.events import Event, Feed
from isorun.runtime.request import AcceptedRun
from isorun.runtime.run import Conduct

if TYPE_CHECKING:
    from isorun.runtime.held.calls import HeldCall


class Run:
    """A run that was started. Its result stays available; its events can be watched by many."""

    def __init__(self, request: AcceptedRun, feed: Feed, life: Life) -> None:
        self.exec_id = request.exec_id
        self._feed = feed
        self._life = life
        self._conduct: Conduct | None = None
        self._cancelled = False
        self._extended_s = 0.0  # before there is a slot
        self._turn: asyncio.Future[bool] | None = None
        self._task: asyncio.Task[RunResult] | None = None

    def events(self, after: int = 0) -> AsyncIterator[Event]:
        """What happened and happens, until the outcome; *after*: the number of the last event that is known already.

        The latest thousand are kept. An event of kind `skipped` says how many came before them.
        """
        self._life.check_here()
        return self._feed.subscribe(after)

    @property
    def held_calls(self) -> "tuple[HeldCall, ...]":
        """The calls of the caller's own tools that wait for `answer`, in the order in which they were asked."""
        held = self._conduct.held if self._conduct is not None else None
        return held.waiting if held is not None else ()

    async def answer(
        self, call_id: int, value: object = None, *, error: str | None = None, kind: str = "ToolFailed"
    ) -> None:
        """Give the program the result *value* of a held call, or raise there: *error* is the text, *kind* its type.

        *kind* is ToolFailed, ToolDenied, ToolInputInvalid, ToolTimeout, ToolBudgetExceeded or ToolUnavailable. Raises
        `InvalidRequest`: no_such_call if no such call waits, invalid_answer for what cannot be sent (it still waits).
        """
        self._life.check_here()
        held = self._conduct.held if self._conduct is not None else None
        if held is None:
            raise InvalidRequest(f"no call {call_id} waits for an answer: this run holds none", code="no_such_call")
        held.answer(call_id, value, error, kind)

    async def result(self) -> RunResult:
        """The result, once the run has ended. Raises what the sandbox raised, if it did."""
        self._life.check_here()
        if self._task is None:
            raise RuntimeError("the run was not started")
        return await asyncio.shield(self._task)

    async def cancel(self) -> RunResult:
        """End the run now and return its partial result; a run that has ended keeps its outcome."""
        self._life.check_here()
        self._cancelled = True
        if self._conduct is not None:
            self._conduct.stop(Stop.CANCELLED)
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(False)
        return await self.result()

    async def freeze(self) -> None:
        """Stop the program where it is: once this returns, none of its processes uses any processor time.

        Its time stands still, too: `timeout_s` and the deadlines of its tool calls pass only while it runs. Waits until
        the program has begun, and until no tool is at work for it. Nothing happens if the run is frozen or has ended.
        A frozen run stays so until `thaw`, or until it is cancelled. Raises `SetupFailed` if it cannot be stopped; then
        it runs on.
        """
        self._life.check_here()
        async for event in self._feed.subscribe():
            if self.program_started or event.kind == "outcome":
                break
        if self._conduct is not None:
            await self._conduct.freezing.freeze()

    async def thaw(self) -> None:
        """Let a frozen program run on from where it was. Nothing happens if the run is not frozen, or has ended."""
        self._life.check_here()
        if self._conduct is not None:
            await self._conduct.freezing.thaw()

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """`async with run.frozen():` the run is frozen inside of the block, and thawed behind it."""
        try:
            await self.freeze()
            yield
        finally:
            await self.thaw()

    def extend(self, seconds: float) -> None:
        """Put the run's deadline off by *seconds*, more than 0. Without effect once the run has ended.

        Raises `InvalidRequest`.
        """
        self._life.check_here()
        if not 0 < seconds < float("inf"):
            raise InvalidRequest(f"a run is extended by more than 0 seconds, not by {seconds!r}")
        if self._conduct is not None:
            self._conduct.freezing.extend(seconds)
        else:
            self._extended_s += seconds

    @property
    def program_started(self) -> bool:
        """Whether the program's first instruction was reached."""
        return self._conduct is not None and self._conduct.program_started

    def waits_for(self, turn: "asyncio.Future[bool]") -> None:
        """Its program starts once *turn* has come; a cancellation gives it up."""
        self._turn = turn
        if self._cancelled and not turn.done():
            turn.set_result(False)

    def started(self, task: "asyncio.Task[RunResult]") -> None:
        """*task* produces the result."""
        self._task = task

    def when_done(self, tell: Callable[["Run"], object]) -> None:
        """Call *tell* with the run once its result is there."""
        if self._task is not None:
            self._task.add_done_callback(lambda _: tell(self))

    def conducted_by(self, conduct: Conduct) -> None:
        """The slot is there; a cancellation that came before takes effect now."""
        self._conduct = conduct
        if self._extended_s:
            conduct.freezing.extend(self._extended_s)
        if self._cancelled:
            conduct.stop(Stop.CANCELLED)


async def ended(run: Run) -> RunResult:
    """The result of *run*; if the caller is cancelled meanwhile, so is the run. Raises as `Run.result`."""
    try:
        return await run.result()
    except asyncio.CancelledError:
        await run.cancel()
        raise
