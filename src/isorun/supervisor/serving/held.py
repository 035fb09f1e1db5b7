"""Calls of one run that the host answers; `dispatch` has the others."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from isorun.supervisor.session import Refusal
from isorun.wire.messages import CallAnswered, CallGivenUp, CallHeld, CallRefused, Message, NotEncodable


class HeldCalls:
    """The calls of one run that the host answers, of the tools *ids*. *tell* sends a message to the host.

    *hold* is called with each call's number: the run may be frozen while the call waits.
    """

    def __init__(
        self, run: int, ids: Collection[str], tell: Callable[[Message], None], hold: Callable[[int], None]
    ) -> None:
        self._run, self._ids, self._tell, self._hold = run, frozenset(ids), tell, hold
        self._asked: dict[int, asyncio.Future[object]] = {}
        self._reasons: dict[int, str] = {}  # of calls that `ask` is about to send

    def tools(self) -> dict[str, "HeldTool"]:
        """Each of the tools, for the session."""
        return {tool_id: HeldTool(tool_id, self) for tool_id in self._ids}

    def began(self, record: Mapping[str, Any]) -> None:
        """See `session.Listener.began`. Keeps the reason until `ask` sends the call."""
        if record["tool_id"] in self._ids:
            self._reasons[record["call_id"]] = record["reason"]

    async def ask(self, call_id: int, tool_id: str, params: dict[str, Any], deadline: float) -> object:
        """The host's answer. Raises `Refusal`. If this is cancelled, the host is told to give the call up."""
        answer = self._asked[call_id] = asyncio.get_running_loop().create_future()
        reason, seconds = self._reasons.pop(call_id, ""), max(deadline - time.monotonic(), 0.0)
        call = CallHeld(run=self._run, call=call_id, tool=tool_id, params=params, reason=reason, seconds=seconds)
        try:
            self._tell(call)
            self._hold(call_id)
            return await answer
        except NotEncodable as error:
            raise Refusal("ToolInputInvalid", f"{tool_id}: the arguments cannot be handed on: {error}") from None
        except asyncio.CancelledError:
            self._tell(CallGivenUp(run=self._run, call=call_id))
            raise
        finally:
            self._asked.pop(call_id, None)

    def answered(self, message: CallAnswered | CallRefused) -> None:
        """Take the host's answer. It is dropped if the call has ended."""
        waiting = self._asked.pop(message.call, None)
        if waiting is None or waiting.done():
            return
        if isinstance(message, CallAnswered):
            waiting.set_result(message.value)
        else:
            waiting.set_exception(Refusal(message.error, message.text))


class HeldTool:
    """One tool that the host answers, for one run; see `session.Answering`."""

    max_calls: int | None = None
    timeout_s: float | None = None

    def __init__(self, tool_id: str, calls: HeldCalls) -> None:
        self._tool_id, self._calls = tool_id, calls

    async def answer(self, call_id: int, params: dict[str, Any], deadline: float) -> object:
        """See `session.Answering.answer`. The arguments are checked where the tool is known: by the host."""
        return await self._calls.ask(call_id, self._tool_id, params, deadline)

    async def sendable(self, call_id: int, value: object) -> object:
        """See `session.Answering.sendable`. A value that came in a message can be sent, so this one is too large."""
        raise Refusal("ToolFailed", f"the tool's result cannot be sent (call {call_id})")
