"""One turn: programs are run and mended, each part of the budget ends it with a sentence, and nothing is lost."""

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from isorun import InvalidRequest
from isorun.core.request import RunRequest
from isorun.service.agent import told
from isorun.service.agent.errors import KeyRefused, RateLimited, Unreachable
from isorun.service.agent.loop import Agent, Budget, Ending
from isorun.service.agent.model import Model
from isorun.service.agent.scripted import Quirk, scripted
from isorun.settings import Settings
from isorun.tools.exec_tools import advertised
from tests.unit.service.agent.agents import (
    ABOUT,
    BROKEN,
    EXEC,
    HEAD,
    KEPT,
    KEY,
    VIEWS,
    Canned,
    Listener,
    Reply,
    agent,
    always,
    loopback,
    program,
    recorded,
    request_head,
    says,
    texts,
)

ASKED = told.asked("Analyse the table, draw a chart and write report.pdf", {"cities.csv": 101})


async def _turn(
    of: Agent,
    run: Any = recorded,  # noqa: ANN401 - a function of any kind
    *,
    asked: Mapping[str, Any] = ASKED,
    history: Any = (),  # noqa: ANN401 - messages
) -> tuple[Ending, Listener]:
    listener = Listener()
    async with of.model:
        return await of.turn(history, asked, run, listener), listener


@pytest.mark.parametrize(
    "quirks",
    [(), *((quirk,) for quirk in Quirk), set(Quirk) - {Quirk.WHOLE}, set(Quirk)],
    ids=["none", *(quirk.name.lower() for quirk in Quirk), "all", "all, whole"],
)
async def test_the_demo_is_the_same_whatever_the_server_is_like(quirks: Any) -> None:  # noqa: ANN401 - a collection
    """Four programs, the first of which breaks its promise; the last text names the files."""
    ending, listener = await _turn(agent(scripted(quirks)))
    assert ending == Ending("answered")
    assert [request.prog_name for request in listener.of("started")] == [*VIEWS]
    assert [view["status"] for view in listener.of("ended")] == ["contract_failed", "ok", "ok", "ok"]
    assert listener.messages[-1]["content"].startswith("Done: summary.csv, chart.png, report.pdf.")
    assert "".join(listener.of("delta")) == "".join(
        message["content"] for message in listener.messages if message["role"] == "assistant"
    )


async def test_a_broken_promise_goes_back_with_the_hint_first() -> None:
    """The model reads the hint before all else, and mends the program."""
    _, listener = await _turn(agent(scripted()))
    hint = BROKEN["result"]["error"]["hint"]
    assert "promised also share" in hint
    assert listener.answers[0].startswith(f"hint: {hint}\nstatus: contract_failed\n")
    assert hint in listener.messages[3]["content"]
    first, second, *_ = listener.of("started")
    assert b'"share"]' not in first.code
    assert b'"share"]' in second.code
    assert first.contract == second.contract


async def test_a_turn_is_told_in_order() -> None:
    """A program is shown before it runs, and the model is told after it has ended."""
    _, listener = await _turn(agent(scripted()))
    kinds = [kind if kind != "message" else value["role"] for kind, value in listener.events if kind != "delta"]
    assert kinds == ["user", *(["assistant", "started", "ended", "tool"] * 4), "assistant"]
    tool = listener.messages[2]
    assert (tool["run"], tool["status"]) == (BROKEN["id"], "contract_failed")


async def test_what_is_sent_begins_with_the_prompt_and_offers_the_tools() -> None:
    """The text of the Runtime names the tool as it is offered; the definition is that of `advertised`."""
    server = Canned(says("hi"))
    await _turn(agent(server))
    sent = server.asked[0]
    system, user = sent["messages"]
    assert system["role"] == "system"
    assert f"the tool {EXEC}" in system["content"]
    assert "run_python" not in system["content"]
    assert user["content"].endswith("working directory:\n- cities.csv (101 bytes)")
    (tool,) = sent["tools"]
    (offered,) = advertised(Settings())
    assert tool == {
        "type": "function",
        "function": {key: offered[key] for key in ("name", "description", "parameters")},
    }


async def test_the_second_tool_is_offered_where_the_operator_wants_it() -> None:
    """It takes no contract."""
    both = advertised(Settings(advertise_side_effect_tool=True))
    server = Canned(
        says("", (f"{EXEC}_side_effect", {"code": "print(1)"})),
        says("", (f"{EXEC}_side_effect", program()[1])),
        says("done"),
    )
    of = Agent(Model("http://a/v1", "m"), ABOUT, both)
    of.model = agent(server).model
    _, listener = await _turn(of, always(KEPT))
    assert [request.contract for request in listener.of("started")] == [None]
    assert (
        listener.answers[1]
        == f"Refused, nothing was run: {EXEC}_side_effect has no argument 'contract'; it has code, timeout_s, prog_name"
    )


_BAD_CALLS: dict[str, tuple[Any, Any, str]] = {
    "unknown tool": ("python", {"code": "1"}, f"the tool 'python' is unknown; call {EXEC}"),
    "no JSON": (EXEC, '{"code": "pri', f"the arguments of {EXEC} are not JSON: Unterminated string"),
    "a list": (EXEC, "[1]", f"the arguments of {EXEC} must be a JSON object with code, contract, timeout_s, prog_name"),
    "deep": (EXEC, "[" * 100_000, f"the arguments of {EXEC} are not JSON"),
    "no contract": (EXEC, {"code": "1"}, f"{EXEC} needs the argument contract"),
    "null contract": (EXEC, {"code": "1", "contract": None}, f"{EXEC} needs the argument contract"),
    "no code": (EXEC, {"contract": []}, f"{EXEC} needs the argument code"),
    "files of the host": (EXEC, {**program()[1], "inputs": ["/etc/passwd"]}, f"{EXEC} has no argument 'inputs'"),
    "code of another kind": (EXEC, {**program()[1], "code": 1}, "code must be"),
    "a time of another kind": (EXEC, {**program()[1], "timeout_s": []}, "timeout_s must be"),
    "half a letter": (EXEC, {**program()[1], "code": "'\ud83d'"}, "code is not valid text"),
}


@pytest.mark.parametrize(("name", "arguments", "text"), _BAD_CALLS.values(), ids=_BAD_CALLS)
async def test_a_call_that_cannot_be_run_goes_back_as_a_text(name: str, arguments: object, text: str) -> None:
    """Nothing is run, nothing is raised, and the model goes on."""
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments)
    ending, listener = await _turn(agent(Canned(says("", (name, arguments)), says("I see."))))
    assert ending.why == "answered"
    assert listener.of("started") == []
    assert listener.answers[0].startswith(f"Refused, nothing was run: {text}")


async def test_arguments_that_were_cut_say_so() -> None:
    """The model cannot know that its own answer was too long."""
    long = says("", (EXEC, '{"code": "pri'))
    long["choices"][0]["finish_reason"] = "length"
    _, listener = await _turn(agent(Canned(long, says("ok"))))
    assert listener.answers[0].endswith("your answer was cut because it is too long: write a shorter program")


async def test_a_run_that_is_refused_goes_back_as_a_text() -> None:
    """The listener is told that nothing was started."""

    async def refuse(request: RunRequest) -> Mapping[str, Any]:
        raise InvalidRequest("contract item 1: filename must be relative", code="absolute_path")

    _, listener = await _turn(agent(Canned(says("", program()), says("ok"))), refuse)
    assert listener.answers == ["Refused, nothing was run: contract item 1: filename must be relative"]
    assert listener.of("ended") == [None]


async def test_a_failure_of_the_sandbox_is_not_shown_to_the_model() -> None:
    """It is raised, for the operator."""

    async def broken(request: RunRequest) -> Mapping[str, Any]:
        raise RuntimeError("no slot")

    with pytest.raises(RuntimeError, match="no slot"):
        await _turn(agent(Canned(says("", program()))), broken)


_LOOP = Canned(says("again", program()))


@pytest.mark.parametrize(
    ("budget", "why", "reason", "runs"),
    [
        ({"steps": 3}, "steps", "the 3 steps of a turn are used up", 2),
        ({"runs": 2}, "runs", "the 2 runs of a turn are used up", 2),
        ({"characters": 100}, "characters", "the model wrote more than 100 characters", 1),
    ],
)
async def test_each_part_of_the_budget_ends_a_turn_with_its_sentence(
    budget: dict[str, float], why: str, reason: str, runs: int
) -> None:
    """A model that never has enough is stopped; the sentence is the last message, and was said like the others."""
    ending, listener = await _turn(agent(Canned(says("again", program())), **budget), always(KEPT))
    assert (ending.why, ending.text) == (why, f"I stop here: {reason}. What was made so far is kept; ask me to go on.")
    assert len(listener.of("started")) == runs
    assert listener.messages[-1] == {"role": "assistant", "content": ending.text, "ended": why}
    assert listener.of("delta")[-1] == ending.text


@pytest.mark.parametrize("repairs", [1, 3])
async def test_a_program_that_stays_broken_is_given_up(repairs: int) -> None:
    """After so many repairs, with the last hint; a run that is good in between begins the count anew."""
    ending, listener = await _turn(agent(_LOOP, repairs=repairs), always(BROKEN))
    assert ending.why == "repairs"
    assert f"still fails after {repairs} repairs. The last hint: turn_1/files/summary.csv columns" in ending.text
    assert len(listener.of("started")) == repairs + 1
    views = iter([BROKEN, KEPT] * 10)

    async def alternating(request: RunRequest) -> Mapping[str, Any]:
        return next(views)

    ending, _ = await _turn(agent(_LOOP, repairs=repairs, steps=8), alternating)
    assert ending.why == "steps"


async def test_the_time_of_a_turn_ends_its_run() -> None:
    """The run is cancelled, and the sentence says the seconds."""
    cancelled = []

    async def endless(request: RunRequest) -> Mapping[str, Any]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(request)
            raise
        raise AssertionError

    ending, listener = await _turn(agent(Canned(says("", program())), seconds=0.2), endless)
    assert ending.why == "time"
    assert ending.text.startswith("I stop here: the 0.2 seconds of a turn are over.")
    assert len(cancelled) == 1
    assert listener.messages[-1]["content"] == ending.text


async def test_a_timeout_of_the_run_itself_is_not_the_turns() -> None:
    """A `TimeoutError` that somebody else raises stays one."""

    async def late(request: RunRequest) -> Mapping[str, Any]:
        raise TimeoutError("of the store")

    with pytest.raises(TimeoutError, match="of the store"):
        await _turn(agent(Canned(says("", program()))), late)


@pytest.mark.parametrize("part", ["steps", "runs", "repairs", "characters", "seconds", "report", "history"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_budget_is_positive_and_finite(part: str, value: float) -> None:
    """No value means without a bound."""
    with pytest.raises(InvalidRequest, match=f"{part} must be positive and finite"):
        Budget(**{part: value})  # type: ignore[arg-type]  # a float for each


async def test_a_cancelled_turn_cancels_its_run_and_the_next_one_goes_on() -> None:
    """The call without an answer gets one in the history of the next turn, so any server takes it."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(request: RunRequest) -> Mapping[str, Any]:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    server = Canned(says("I run it.", program()), says("Where were we?"))
    of, listener = agent(server), Listener()
    async with of.model:
        turn = asyncio.ensure_future(of.turn((), ASKED, endless, listener))
        await asyncio.wait_for(started.wait(), 60)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert cancelled.is_set()
        assert [message["role"] for message in listener.messages] == ["user", "assistant"]
        await of.turn(listener.messages, told.asked("go on"), endless, Listener())
    sent = server.asked[1]["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert sent[3] == {"role": "tool", "tool_call_id": "c0", "content": told.NOT_ANSWERED}
    assert sent[4]["content"] == told.STOPPED


async def test_a_turn_cancelled_in_the_middle_of_an_answer_keeps_what_was_seen() -> None:
    """Stop does not delete the text."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        chunk = json.dumps({"choices": [{"delta": {"content": "The first half"}}]})
        writer.write(HEAD + f"data: {chunk}\n\n".encode())
        await asyncio.Event().wait()

    class Waiting(Listener):
        seen = asyncio.Event()

        async def delta(self, text: str) -> None:
            await super().delta(text)
            self.seen.set()

    listener = Waiting()
    async with loopback(handle) as url, Model(url, "m") as model:
        of = Agent(model, ABOUT, advertised(Settings()))
        turn = asyncio.ensure_future(of.turn((), ASKED, recorded, listener))
        await asyncio.wait_for(listener.seen.wait(), 60)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
    assert listener.messages[1:] == [{"role": "assistant", "content": "The first half", "ended": "broken_off"}]


async def test_a_connection_that_breaks_ends_the_turn_and_keeps_what_was_seen() -> None:
    """The ending has the error with its hint."""
    half = Reply.stream({"choices": [{"delta": {"content": "half"}}]}, end="")
    ending, listener = await _turn(agent(Canned(half)))
    assert isinstance(ending.error, Unreachable)
    assert [message.get("ended") for message in listener.messages] == [None, "broken_off", "model"]
    assert listener.messages[-1]["content"] == str(ending.error)


async def test_a_limit_that_is_over_soon_is_waited_for() -> None:
    """The server says when, and the turn goes on as if nothing had been."""
    limited = Reply({"error": "slow down"}, 429, {"Retry-After": "0"})
    server = Canned(limited, limited, limited, says("hi"))
    ending, listener = await _turn(agent(server))
    assert ending.why == "answered"
    assert len(server.asked) == 4
    assert [message["role"] for message in listener.messages] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("header", "asked"),
    [({"Retry-After": "0"}, 4), ({"Retry-After": "31"}, 1), ({}, 1)],
    ids=["stays", "long", "unknown"],
)
async def test_a_limit_that_stays_ends_the_turn(header: dict[str, str], asked: int) -> None:
    """The text says how long to wait, if the server does."""
    server = Canned(Reply({"error": "slow down"}, 429, header))
    ending, _ = await _turn(agent(server))
    assert (ending.why, len(server.asked)) == ("model", asked)
    assert isinstance(ending.error, RateLimited)
    assert "(429): slow down Wait" in ending.text


@pytest.mark.parametrize(
    ("finish", "why", "text"),
    [
        ("stop", "empty", "The model gave an empty answer."),
        ("length", "cut", "The model's answer was cut"),
    ],
)
async def test_an_answer_that_is_none_is_told(finish: str, why: str, text: str) -> None:
    """Empty, or cut by the server."""
    answer = says(" ")
    answer["choices"][0]["finish_reason"] = finish
    ending, listener = await _turn(agent(Canned(answer)))
    assert ending.why == why
    assert ending.text.startswith(text)
    assert [message.get("ended") for message in listener.messages] == [None, why]  # no message is blank


async def test_the_key_is_in_nothing_that_a_turn_leaves(caplog: pytest.LogCaptureFixture) -> None:
    """Neither in messages nor in the ending, its error or a log, also where the server repeats it."""
    caplog.set_level(logging.DEBUG)
    refused = Reply({"error": {"message": f"the key {KEY} is not valid"}}, 401)
    server = Canned(says("I run it.", program()), refused)
    of = agent(server)
    ending, listener = await _turn(of, always(KEPT))
    assert server.headers[1]["authorization"] == f"Bearer {KEY}"
    assert isinstance(ending.error, KeyRefused)
    seen = (ending, ending.error, of, vars(of), of.model, caplog.text, server.asked)
    assert KEY not in texts((*seen, *listener.events))


async def test_reasoning_goes_back_with_the_calls_it_led_to() -> None:
    """And with nothing else."""
    first = says("", program())
    first["choices"][0]["message"]["reasoning_content"] = "I should run it"
    last = says("done")
    last["choices"][0]["message"]["reasoning_content"] = "I am done"
    server = Canned(first, last)
    _, listener = await _turn(agent(server), always(KEPT))
    assert server.asked[1]["messages"][2]["reasoning_content"] == "I should run it"
    assert server.asked[1]["messages"][2]["content"] is None
    assert "reasoning_content" not in listener.messages[-1]


async def test_many_turns_share_an_agent() -> None:
    """Two at once do not mix."""
    of = agent(scripted())
    async with of.model:
        one, two = Listener(), Listener()
        await asyncio.gather(of.turn((), ASKED, recorded, one), of.turn((), told.asked("hello"), recorded, two))
    assert len(one.of("started")) == 4
    assert two.of("started") == []
    assert [message["role"] for message in two.messages] == ["user", "assistant"]
