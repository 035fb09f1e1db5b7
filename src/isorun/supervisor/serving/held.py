"""Calls of one run that the host answers; `dispatch` has the others."""

import asyncio
import time
from collections.abc import Callable, Collection

from isorun.supervisor.session import Asking, Refusal
from isorun.wire.messages import Call, CallAnswered, CallGivenUp, CallHeld, CallRefused, Message, NotEncodable


class HeldCalls(Asking):
    """The calls of one run that the host answers, of the tools *ids*.

    *tell* sends a message to the host, which checks the arguments: it knows the tools.
    """

    def __init__(self, run: int, ids: Collection[str], tell: Callable[[Message], None]) -> None:
        self._run, self._ids, self._tell = run, ids, tell
        self._asked: dict[int, Callable[[object], None]] = {}

    def tools(self) -> dict[str, Asking]:
        """Each of the tools, for the session."""
        return dict.fromkeys(self._ids, self)

    def ask(self, call: Call, reason: str, deadline: float, answered: Callable[[object], None]) -> None:
        """See `session.Asking.ask`."""
        self._asked[call.id] = answered
        seconds = max(deadline - time.monotonic(), 0.0)
        held = CallHeld(run=self._run, call=call.id, tool=call.tool, params=call.params, reason=reason, seconds=seconds)
        try:
            self._tell(held)
        except NotEncodable as error:
            text = f"{call.tool}: the arguments cannot be handed on: {error}"
            asyncio.get_running_loop().call_soon(self._answer, call.id, Refusal("ToolInputInvalid", text))

    def give_up(self, call_id: int) -> None:
        """See `session.Asking.give_up`. The host is told."""
        if self._asked.pop(call_id, None) is not None:
            self._tell(CallGivenUp(run=self._run, call=call_id))

    def answered(self, message: CallAnswered | CallRefused) -> None:
        """Take the host's answer. It is dropped if the call has ended."""
        if isinstance(message, CallAnswered):
            self._answer(message.call, message.value)
        else:
            self._answer(message.call, Refusal(message.error, message.text))

    def _answer(self, call_id: int, answer: object) -> None:
        if (answered := self._asked.pop(call_id, None)) is not None:
            answered(answer)
