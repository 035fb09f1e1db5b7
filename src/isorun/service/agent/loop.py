"""One turn: the model is asked, its programs are run, and it reads what became of them, until it has an answer.

Theory of operation. A turn is a sequence of steps. A step is one answer of the model: text, which streams out, and
calls of tools. Each call is checked here and becomes a run; a call that cannot be run becomes a text for the model, and
so does a run that failed or broke its promise, with the hint first. A turn ends with an answer, or when a part of its
budget is used up, and then it says which. Every message is handed out when it is whole, so a turn that is cancelled, or
whose process ends, loses nothing that was seen: `told.sound` makes a history of it again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

from isorun.core.errors import InvalidRequest
from isorun.core.request import RunRequest
from isorun.core.text import shown
from isorun.model import model_request
from isorun.service.agent import told
from isorun.service.agent.answer import Answer, ToolCall
from isorun.service.agent.arguments import arguments_of
from isorun.service.agent.errors import ModelError, RateLimited
from isorun.service.agent.model import Model

#: Runs a program to its end and gives its view: `id`, `status`, and `result`, as `RunResult.to_dict` has it, or None.
#: It adds what is not the model's to choose (inputs, session, tools, user), and cancels the run if it is cancelled.
#: Raises `InvalidRequest` if nothing was started; the model is told why. What else it raises ends the turn.
RunProgram = Callable[[RunRequest], Awaitable[Mapping[str, Any]]]
Why = Literal["answered", "cut", "empty", "steps", "runs", "repairs", "characters", "time", "model"]

_WAITS, _LONGEST_WAIT_S = 3, 30.0  # for a server that takes no requests for now


class Says(Protocol):
    """Where a turn says what happens. A turn awaits each, so a slow listener slows it down."""

    async def delta(self, text: str) -> None:
        """A piece of the text of the message that comes next."""

    async def message(self, message: dict[str, Any]) -> None:
        """A new message of the conversation, whole, in JSON's types: the history of the next turn."""

    async def run_started(self, call_id: str, request: RunRequest) -> None:
        """A program is about to be run."""

    async def run_ended(self, call_id: str, view: Mapping[str, Any] | None) -> None:
        """It has ended; None if it was refused and nothing was started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Ceilings of one turn. `repairs`: failed runs in a row, beyond the first. `characters`: what the model
    writes. `report` and `history`: characters that it is sent of one run, and of earlier turns.
    """

    steps: int = 12
    runs: int = 12
    repairs: int = 4
    characters: int = 200_000
    seconds: float = 900.0
    report: int = 12_000
    history: int = 200_000

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not 0 < value < math.inf:
                raise InvalidRequest(f"{one.name} must be positive and finite, got {value}", code="invalid_setting")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a turn ended. `text` says it to the person where it is not an answer; `error` is the model's own."""

    why: Why
    text: str = ""
    error: ModelError | None = None


class Agent:
    """A model with the tools that it may call. One serves many turns, also at once.

    *about* is the text of `Runtime.prompt` for the tools that programs are granted; *advertised* what
    `exec_tools.advertised` gives.
    """

    def __init__(
        self, model: Model, about: str, advertised: Sequence[Mapping[str, Any]], budget: Budget | None = None
    ) -> None:
        self.model = model
        self.budget = budget or Budget()
        self._tools = {str(tool["name"]): tool for tool in advertised}
        self._definitions = told.definitions(advertised)
        self._system = {"role": "system", "content": told.system_prompt(about, list(self._tools))}

    async def turn(
        self, history: Sequence[Mapping[str, Any]], asked: Mapping[str, Any], run: RunProgram, says: Says
    ) -> Ending:
        """Answer *asked*, a message that `told.asked` made, after *history*, the messages of earlier turns.

        A cancelled turn cancels its request or its run, whichever it waits for. A failure of the model is an ending.
        """
        turn = _Turn(self, told.sound(history, self.budget.history), run, says)
        deadline = asyncio.timeout(self.budget.seconds)
        try:
            async with deadline:
                await turn.add(dict(asked))
                ending = await turn.steps()
        except TimeoutError:
            if not deadline.expired():
                raise
            ending = _used_up("time", f"the {self.budget.seconds:g} seconds of a turn are over")
        except _UsedUp as used_up:
            ending = used_up.ending
        except ModelError as error:
            ending = Ending("model", str(error), error)
        if ending.text:
            await says.delta(ending.text)
            await turn.add({"role": "assistant", "content": ending.text, "ended": ending.why})
        return ending

    def requested(self, call: ToolCall, *, was_cut: bool = False) -> RunRequest:
        """The run that *call* asks for. Raises `InvalidRequest`, whose text tells the model what to mend."""
        tool = self._tools.get(call.name)
        if tool is None:
            text = f"the tool {shown(call.name)} is unknown; call {', '.join(self._tools)}"
            raise InvalidRequest(text, code="unknown_tool")
        return model_request(arguments_of(tool, call.arguments, was_cut=was_cut))


class _UsedUp(Exception):  # an ending, not an error
    def __init__(self, ending: Ending) -> None:
        self.ending = ending


class _Turn:
    """What one turn has said and used."""

    def __init__(self, agent: Agent, messages: list[dict[str, Any]], run: RunProgram, says: Says) -> None:
        self._agent, self._budget = agent, agent.budget
        self._messages, self._run, self._says = messages, run, says
        self._runs = self._failed = self._written = 0

    async def add(self, message: dict[str, Any]) -> None:
        self._messages.append(message)
        await self._says.message(message)

    async def steps(self) -> Ending:
        """Raises `_UsedUp` and `ModelError`."""
        for left in range(self._budget.steps - 1, -1, -1):
            answer = await self._ask()
            if answer.text.strip() or answer.calls:
                await self.add(answer.message())
            if not answer.calls:
                return _ending(answer)
            self._written += answer.chars
            if self._written > self._budget.characters:
                raise _UsedUp(_used_up("characters", f"the model wrote more than {self._budget.characters} characters"))
            if not left:
                break
            for call in answer.calls:
                await self._answer(call, was_cut=answer.cut)
        return _used_up("steps", f"the {self._budget.steps} steps of a turn are used up")

    async def _ask(self) -> Answer:
        """The next answer. A server that takes no requests for now is asked again, if it says when and that is soon."""
        for waits_left in range(_WAITS, -1, -1):
            said: list[str] = []
            try:
                return await self._asked_once(said)
            except RateLimited as error:
                wait = error.retry_after_s
                if said or wait is None or wait > _LONGEST_WAIT_S or not waits_left:
                    raise
                await asyncio.sleep(wait)
        raise AssertionError("the last try returns or raises")

    async def _asked_once(self, said: list[str]) -> Answer:
        async def on_text(text: str) -> None:
            said.append(text)
            await self._says.delta(text)

        agent = self._agent
        try:
            return await agent.model.ask([agent._system, *self._messages], agent._definitions, on_text)
        except (asyncio.CancelledError, ModelError):
            if said:  # it was seen, so it stays
                await self.add({"role": "assistant", "content": "".join(said), "ended": "broken_off"})
            raise

    async def _answer(self, call: ToolCall, *, was_cut: bool) -> None:
        """Do what *call* asks for, and tell the model what came of it."""
        message: dict[str, Any] = {"role": "tool", "tool_call_id": call.id}
        try:
            request = self._agent.requested(call, was_cut=was_cut)
            view = await self._ran(call, request)
        except InvalidRequest as error:
            await self.add({**message, "content": told.cut(f"Refused, nothing was run: {error}", self._budget.report)})
            return
        ran = {"run": view.get("id"), "status": view["status"]}
        await self.add({**message, "content": told.report(view, self._budget.report), **ran})
        self._failed = 0 if view["status"] == "ok" else self._failed + 1
        if self._failed > self._budget.repairs:
            last = "".join(f" The last hint: {hint}" for hint in told.hints(view)[:1])
            raise _UsedUp(_used_up("repairs", f"the program still fails after {self._budget.repairs} repairs", last))

    async def _ran(self, call: ToolCall, request: RunRequest) -> Mapping[str, Any]:
        if self._runs == self._budget.runs:
            raise _UsedUp(_used_up("runs", f"the {self._budget.runs} runs of a turn are used up"))
        self._runs += 1
        await self._says.run_started(call.id, request)
        try:
            view = await self._run(request)
        except InvalidRequest:
            await self._says.run_ended(call.id, None)
            raise
        await self._says.run_ended(call.id, view)
        return view


def _ending(answer: Answer) -> Ending:
    """The end that an answer without calls is."""
    if answer.cut:
        return Ending("cut", "The model's answer was cut: its server allows no longer one.")
    if not answer.text.strip():
        return Ending("empty", "The model gave an empty answer. Ask again, or set ISORUN_MODEL to another model.")
    return Ending("answered")


def _used_up(why: Why, reason: str, more: str = "") -> Ending:
    return Ending(why, f"I stop here: {reason}.{more} What was made so far is kept; ask me to go on.")
