"""A run in a supervisor's hands, as the host holds it: its stream, its held calls, and the way to its answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from isorun.core.errors import IsorunError
from isorun.core.guard.log import log_of
from isorun.supervisor.incarnation import Incarnation, NewStream
from isorun.supervisor.inflight import InFlight
from isorun.supervisor.session import Listener
from isorun.wire.messages import CallAnswered, CallHeld, CallRefused, FreeRun, HoldRun, OpenRun

if TYPE_CHECKING:
    from isorun.supervisor.client import Supervisor

_log = log_of("isorun.supervisor")


class RunListener(Listener, Protocol):
    """Who is told what happens on a run's stream, and what its tools print."""

    def told(self, component: str, level: str, text: str) -> None:
        """A line for the run's infra.log."""

    def journalled(self, records: Sequence[dict[str, Any]]) -> None:
        """These calls have ended, in this order."""


class Answers(Protocol):
    """Who answers a run's held calls, by `OpenedRun.reply`."""

    def asked(self, call: CallHeld) -> None:
        """This call waits for its answer."""

    def given_up(self, call_id: int | None) -> None:
        """The program does not wait for this call any more; None: for any call."""


class OpenedRun:
    """A run in the supervisor's hands, until `close`."""

    def __init__(
        self,
        owner: Supervisor,
        request: OpenRun,
        stream: socket.socket,
        out: int,
        listener: RunListener,
        new_stream: NewStream,
        answers: Answers | None,
    ) -> None:
        self._owner = owner
        self.answers = answers
        self.new_stream = new_stream
        self.request, self.stream, self.out, self.listener = request, stream, out, listener
        self.table = InFlight.create()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.own_stream = False  # whether `stream` is ours to close: the first one is the slot's
        self.is_closing = False
        self.is_new = True  # no process has had its stream: what the program asks for waits in it
        self.asked = 0  # how often to be quiet
        self._quiet: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        """Once the run's last process is dead: hear the rest. The listener is told nothing afterwards."""
        self.is_closing = True
        if self.answers is not None:
            self.answers.given_up(None)
        try:
            await self._owner.finish(self)
        finally:
            self.table.close()
            if self.own_stream:
                self.stream.close()

    def reply(self, call_id: int, value: object = None, *, error: str = "", text: str = "") -> None:
        """Answer a held call with *value*, in JSON's types and bytes, or with an *error* of `REFUSALS` and its *text*.

        From any thread. Raises `NotEncodable` for a value that cannot be sent; the call still waits then.
        """
        number = self.request.run
        if error:
            self._owner.tell(CallRefused(run=number, call=call_id, error=error, text=text))
        else:
            self._owner.tell(CallAnswered(run=number, call=call_id, value=value))

    async def quiet(self) -> bool:
        """No call of the run is begun from here on; return once no tool is at work. False: `go_on` came first."""
        self.asked += 1
        self._quiet = asyncio.get_running_loop().create_future()
        if self._owner.tell(HoldRun(run=self.request.run, asked=self.asked)):
            return await self._quiet
        return True  # no process, no tool

    def go_on(self, frozen_s: float) -> None:
        """Calls of the run are begun again, and those that are open get *frozen_s* more."""
        self.held(self.asked, quiet=False)
        self._owner.tell(FreeRun(run=self.request.run, frozen_s=frozen_s))

    def held(self, asked: int, *, quiet: bool) -> None:
        """The process answers, or has died."""
        if asked == self.asked and not self._quiet.done():
            self._quiet.set_result(quiet)

    def hand_to(self, process: Incarnation) -> None:
        """Let *process* answer this run's calls."""
        self.is_new = False
        if not process.hand_over(self.request, [self.stream.fileno(), self.out, self.table.descriptor]):
            # Whoever closes a run finds out, and kills it.
            self.listener.told("supervisor", "ERROR", "the supervisor does not answer: this run has no tools")
            self.cut_off()

    def cut_off(self) -> None:
        """From here on the run's calls find no tools."""
        self.is_new = False
        with suppress(OSError):
            self.stream.shutdown(socket.SHUT_RDWR)

    async def replace_stream(self) -> bool:
        """Take a new stream, whose other end the program gets over the old one; False if it cannot be sent."""
        try:
            ours, theirs = await self.new_stream()
        except IsorunError as error:
            _log.warning("a run has no tools any more: %s", error)
            self.cut_off()
            return False
        with theirs:
            ours.setblocking(False)
            try:
                if self.is_closing:  # meanwhile
                    raise BrokenPipeError
                socket.send_fds(self.stream, [b"\0"], [theirs.fileno()], socket.MSG_DONTWAIT)
            except OSError:  # the program reads nothing, or is gone: then it has no use for tools
                ours.close()
                return False
            finally:
                self.cut_off()
        if self.own_stream:
            self.stream.close()
        self.stream, self.own_stream = ours, True
        return True

    def journal_the_unsaid(self) -> None:
        """Tell the calls that a dead supervisor had not reported, and begin a new table."""
        for call in sorted(self.table.unsaid(), key=lambda call: call.started_at):
            self.listener.called(call.record())
        self.table.close()
        self.table = InFlight.create()
