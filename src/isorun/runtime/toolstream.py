"""Who answers a run's tool calls: the supervisor of its bundle, or, without one, nobody.

Both ends of that choice look alike to a run: opened once the program runs, closed once
it is dead, and whatever the stream said in between is told to a listener.
"""

from typing import TYPE_CHECKING, Protocol

from isorun.backends.base import Slot
from isorun.core.limits import Limits
from isorun.runtime.request import RunRequest
from isorun.supervisor.session import CallLimits, ToolSession

if TYPE_CHECKING:
    from isorun.supervisor.client import RunListener, Supervisor


class Tools(Protocol):
    """A run's tool stream in somebody's hands."""

    async def close(self) -> None:
        """Take what the dead program still sent; the listener is told nothing afterwards."""


class _NoTools:
    """The stream of a run without a bundle: the loader's claims are heard, every call is denied."""

    def __init__(self, session: ToolSession) -> None:
        self._session = session

    async def close(self) -> None:
        """See `Tools.close`."""
        self._session.close()


async def open_tools(
    supervisor: "Supervisor | None", request: RunRequest, slot: Slot, limits: Limits, listener: "RunListener"
) -> Tools:
    """Begin to answer the calls of the program in *slot*."""
    calls = CallLimits.of(limits)
    if supervisor is None:
        return _NoTools(ToolSession(slot.tools, {}, calls, listener))
    return await supervisor.open(
        exec_id=request.exec_id,
        turn=request.turn,
        user=request.user_id,
        grants=request.grants,
        limits=calls,
        stream=slot.tools,
        out=slot.out,
        listener=listener,
    )
