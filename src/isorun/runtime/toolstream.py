"""Who answers a run's tool calls: the supervisor of its bundle; without a bundle every call is denied.

Both ends of that choice look alike to a run: opened once the program runs, closed once
it is dead, and a listener is told all that the stream said in between.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from isorun.backends.base import Slot
from isorun.core.limits import Limits
from isorun.core.share import Owing
from isorun.runtime.request import AcceptedRun
from isorun.supervisor.session import CallLimits, ToolSession

if TYPE_CHECKING:
    from isorun.runtime.held.calls import HostAnswers
    from isorun.supervisor.client import Supervisor
    from isorun.supervisor.opened import RunListener


#: Without a bundle every call is denied, by the loop that all runs share: reading one takes it 2 ms at most.
_DENIED_BYTES = 64 << 10
_DENIED_VALUES = 1 << 10


class Tools(Protocol):
    """A run's tool stream in somebody's hands."""

    async def quiet(self) -> bool:
        """Begin no call from here on, and return once no tool is at work; a call that the host answers may be open.

        False: `go_on` came first.
        """

    def go_on(self, frozen_s: float) -> None:
        """Begin calls again. Those that are open get *frozen_s* more: so long the run was frozen."""

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
    held: "HostAnswers | None" = None,
) -> Tools:
    """Begin to answer the calls of the program in *slot*; *owing* knows the streams that this loop reads itself.

    *held* answers those of the caller's own tools.
    """
    calls = call_limits(limits, has_tools=supervisor is not None)
    if supervisor is None:
        # Nothing is granted: the loader's claims are heard, every call is denied.
        return ToolSession(slot.tools, {}, calls, listener, owing=owing)
    opened = await supervisor.open(
        exec_id=request.exec_id,
        turn=request.turn,
        user=request.user_id,
        grants=request.grants,
        limits=calls,
        stream=slot.tools,
        new_stream=slot.new_stream,
        out=slot.out,
        listener=listener,
        held=list(request.own_tools),
        answers=held,
    )
    if held is not None:
        held.send_by(opened)
    return opened
