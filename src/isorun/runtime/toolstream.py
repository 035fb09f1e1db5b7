"""Who answers a run's tool calls: the supervisor of its bundle; without a bundle every call is denied.

Both ends of that choice look alike to a run: opened once the program runs, closed once
it is dead, and whatever the stream said in between is told to a listener.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from isorun.backends.base import Slot
from isorun.core.limits import Limits
from isorun.core.share import Owing
from isorun.runtime.request import AcceptedRun
from isorun.supervisor.session import CallLimits, ToolSession

if TYPE_CHECKING:
    from isorun.supervisor.client import RunListener, Supervisor


#: Without a bundle every call is denied, by the loop that all runs share: reading one takes it 2 ms at most.
_DENIED_BYTES = 64 << 10
_DENIED_VALUES = 1 << 10


class Tools(Protocol):
    """A run's tool stream in somebody's hands."""

    async def close(self) -> None:
        """Take what the dead program still sent; the listener is told nothing afterwards."""


def call_limits(limits: Limits, *, has_tools: bool) -> CallLimits:
    """What the trusted end takes of one run."""
    calls = CallLimits.of(limits)
    if has_tools:
        return calls
    return replace(calls, frame_bytes=min(calls.frame_bytes, _DENIED_BYTES), values=_DENIED_VALUES)


async def open_tools(
    supervisor: "Supervisor | None",
    request: AcceptedRun,
    slot: Slot,
    limits: Limits,
    listener: "RunListener",
    owing: Owing,
) -> Tools:
    """Begin to answer the calls of the program in *slot*; *owing* knows the streams that this loop reads itself."""
    calls = call_limits(limits, has_tools=supervisor is not None)
    if supervisor is None:
        # Nothing is granted: the loader's claims are heard, every call is denied.
        return ToolSession(slot.tools, {}, calls, listener, owing=owing)
    return await supervisor.open(
        exec_id=request.exec_id,
        turn=request.turn,
        user=request.user_id,
        grants=request.grants,
        limits=calls,
        stream=slot.tools,
        new_stream=slot.new_stream,
        out=slot.out,
        listener=listener,
    )
