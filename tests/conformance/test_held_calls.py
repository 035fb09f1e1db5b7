"""A program calls tools that its caller answers: functions of this process, or whoever calls `answer`.

Clauses: with and without a bundle · plain functions and coroutines, typed or not · the
program's errors are those of a bundle's tools, and no text of an exception reaches it · an event tells each call as it
begins, with what the program claims · an answer comes from anywhere, once · a call that nobody waits for is given up.
"""

import asyncio
import datetime
import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import isorun
from tests.bundles import supervisors

Run = Callable[..., isorun.RunResult]
ASKED = {
    "desk.ask": {
        "description": "Ask somebody.",
        "parameters": {
            "type": "object",
            "properties": {"question": {"type": "string", "pattern": "(a+)+$"}},
            "required": ["question"],
            "additionalProperties": False,
        },
    }
}


def test_a_lambda_without_a_bundle(run: Run) -> None:
    """A thousand calls of a plain function, by the names that a program uses for every tool."""
    result = run(
        """
        from calc import add
        print(sum([await add(a=number, b=1) for number in range(998)]))
        lists = {"a": [1], "b": [2]}
        print(add.sync(a="x", b="y"), await agent_io_tools.tool_call(tool_id="calc.add", params=lists))
        """,
        tools={"calc.add": lambda a, b: a + b},
        timeout_s=30,
    )
    assert result.stdout.splitlines() == [str(sum(range(1, 999))), "xy [1, 2]"], result.report_text
    assert len(result.tool_calls) == 1000
    assert {call["status"] for call in result.tool_calls} == {"ok"}


@dataclass
class Order:
    """What is bought."""

    item: str
    day: datetime.date


class Shop:
    """Its methods and the object itself are tools as well as functions are."""

    def __init__(self) -> None:
        self.sold: list[Order] = []

    async def sell(self, order: Order, count: int = 1) -> dict[str, Any]:
        """Sell something.

        Args:
            order: What.
            count: How many of it.
        """
        self.sold += [order] * count
        return {"orders": self.sold, "at": datetime.time(12)}

    def __call__(self) -> list[str]:
        return [order.item for order in self.sold]


def test_typed_functions_are_what_a_bundles_are(run: Run) -> None:
    """Arguments become the types that the hints name, results what JSON has for them, `help` shows both."""
    shop = Shop()
    result = run(
        """
        import inspect
        print(await shop.sell(order={"item": "tea", "day": "2026-05-01"}, count=2))
        print(inspect.signature(shop.sell))
        print("Sell something." in inspect.getdoc(shop.sell), "order: What." in inspect.getdoc(shop.sell))
        print(await shop.items(), await shop.more(start=20))
        tea = {"item": "tea", "day": "2026-05-01"}
        for wrong in ({"order": {"item": "tea"}}, {"order": tea, "count": "2"}, {"x": 1}):
            try:
                await agent_io_tools.tool_call(shop.sell, params=wrong)
            except agent_io_tools.ToolInputInvalid as error:
                print(error)
        """,
        tools={"shop.sell": shop.sell, "shop.items": shop, "shop.more": functools.partial(sum, [1, 2])},
    )
    sold = {"item": "tea", "day": "2026-05-01"}
    lines = result.stdout.splitlines()
    assert lines[:4] == [
        str({"orders": [sold, sold], "at": "12:00:00"}),
        "(*, order: Order, count: int = 1) -> dict",
        "True True",
        "['tea', 'tea'] 23",
    ], result.report_text
    assert [line.partition(":")[2].split(":")[0].strip() for line in lines[4:6]] == ["order.day", "count"]
    assert shop.sold == [Order("tea", datetime.date(2026, 5, 1))] * 2


def _leave() -> None:
    raise SystemExit(3)


async def _cancel() -> None:
    raise asyncio.CancelledError


def _ended() -> None:
    raise StopIteration


def _late() -> None:
    raise TimeoutError("hush-late")


def _told() -> None:
    raise isorun.ToolError("the shelf is empty")


def _untold() -> None:
    raise RuntimeError("hush-secret")


def test_whatever_a_function_raises_is_the_calls_alone(run: Run) -> None:
    """The program gets `ToolFailed` with the call's number, or a `ToolError`'s text; the rest stands in infra.log."""
    tools = {
        f"bad.{function.__name__.strip('_')}": function for function in (_leave, _cancel, _ended, _late, _untold, _told)
    }
    result = run(
        """
        for name in ("leave", "cancel", "ended", "late", "untold", "told", "strange"):
            try:
                await getattr(bad, name)()
            except agent_io_tools.ToolFailed as error:
                print(error)
        print(await bad.fine())
        """,
        tools={**tools, "bad.strange": lambda: object(), "bad.fine": lambda: "still here"},
    )
    lines = result.stdout.splitlines()
    assert lines[:5] == [f"the tool failed (call {number})" for number in range(1, 6)], result.report_text
    assert lines[5] == "the shelf is empty"
    assert lines[6].startswith("the tool's result cannot be sent: value")
    assert lines[7] == "still here"
    assert "RuntimeError: hush-secret" in (result.out_dir / "logs/infra.log").read_text()
    assert "hush" not in result.stdout + result.report_text + str(result.tool_calls)


def _torn() -> None:
    raise isorun.ToolError("no such file: \udcff")


def _long() -> None:
    raise isorun.ToolError("x" * (20 << 20))


def test_a_text_that_cannot_be_sent_is_mended(run: Run) -> None:
    """The name of a file in out/ can hold half a character: a call without an answer waits until its time is over."""
    result = run(
        """
        for name in ("torn", "long"):
            try:
                await getattr(bad, name)()
            except agent_io_tools.ToolFailed as error:
                print(len(str(error)), str(error)[:20])
        """,
        tools={"bad.torn": _torn, "bad.long": _long},
        timeout_s=20,
    )
    assert result.stdout.splitlines() == ["15 no such file: ?", f"8192 {'x' * 20}"], result.report_text


def test_a_call_whose_failure_cannot_be_logged_is_answered(own, tmp_path: Path) -> None:
    """The run's infra.log cannot be written, as on a full disk: the program is told all the same, and at once."""

    def fails(ctx: isorun.ToolContext) -> None:
        logs(ctx.exec_id).rename(tmp_path / "aside")
        raise RuntimeError

    def mends(ctx: isorun.ToolContext) -> str:
        (tmp_path / "aside").rename(logs(ctx.exec_id))
        return "mended"

    def logs(exec_id: str) -> Path:
        return tmp_path / "root" / f"codegen_{exec_id}" / "out" / "logs"

    code = """
try:
    await bad.fails()
except agent_io_tools.ToolFailed as error:
    print(error)
print(await bad.mends())
"""
    with own(workspace_root=tmp_path / "root") as runtime:
        result = runtime.execute(code, tools={"bad.fails": fails, "bad.mends": mends}, timeout_s=20)
        assert result.stdout.splitlines() == ["the tool failed (call 1)", "mended"], result.report_text


def test_only_what_was_named_is_granted(run: Run) -> None:
    """Another name is denied; what is no tool is refused before anything starts."""
    result = run(
        """
        try:
            await agent_io_tools.tool_call(tool_id="calc.sub", params={})
        except agent_io_tools.ToolDenied as error:
            print(error)
        """,
        tools={"calc.add": lambda: 1},
    )
    assert result.stdout == "no such tool for this run\n"
    wrong: dict[str, object] = {
        "add": lambda: 1,
        "calc.": lambda: 1,
        "os.remove": lambda: 1,
        "class.add": lambda: 1,
        "calc.add": "add",
        "calc.sub": True,
        "calc.star": lambda *all_of_them: 1,
        "calc.schema": {"parameters": {"type": "nonsense"}},
        "calc.key": {"params": {}},
    }
    for tool_id, one in wrong.items():
        with pytest.raises(isorun.InvalidRequest, match=tool_id.replace(".", r"\.")):
            run("pass", tools={tool_id: one})
    with pytest.raises(isorun.InvalidRequest, match="JSON cannot hold"):
        isorun.RunRequest.of("pass", tools={"calc.add": lambda: 1}).to_json()


def test_beside_a_bundle(own, tmp_path: Path) -> None:
    """A bundle's tool by True, one of the caller's own, one in the place of a bundle's; no other is granted."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "tools_descriptor.py").write_text('TOOLS = [{"ref": "shelf.py", "alias": "shelf"}]\n')
    made = "@isorun.tool\ndef {0}() -> str:\n    'Return it.'\n    return 'the bundle: {0}'\n"
    (folder / "shelf.py").write_text("import isorun\n" + "".join(map(made.format, ("one", "two", "three"))))
    with own(bundle=folder) as runtime:
        result = runtime.execute(
            """
print(await shelf.one(), await shelf.two(), await calc.add(a=1, b=2), hasattr(shelf, "three"))
try:
    await agent_io_tools.tool_call(tool_id="shelf.three", params={})
except agent_io_tools.ToolDenied:
    print("denied")
""",
            tools={"shelf.one": True, "shelf.two": lambda: "mine: two", "calc.add": lambda a, b: a + b},
        )
        assert result.stdout.splitlines() == ["the bundle: one mine: two 3 False", "denied"], result.report_text
        assert runtime.execute("print(await shelf.two())").stdout == "the bundle: two\n"


def test_an_answer_that_comes_from_elsewhere(rt: isorun.SyncRuntime) -> None:
    """The event tells the call as it begins; two are answered in the other order, one with an error; each once."""
    code = """
import asyncio
async def ask(question):
    try:
        return await agent_io_tools.tool_call(desk.ask, params={"question": question}, call_reason="I am told to")
    except agent_io_tools.ToolError as error:
        return repr(error)
print(await asyncio.gather(ask("one"), ask("two"), ask("three"), ask(4)))
"""
    run = rt.start(code, tools=ASKED, timeout_s=30)
    asked, numbers, times = {}, [], []
    for event in run.events():
        numbers.append(event.number)
        times.append(event.time)
        if event.kind == "tool_call_started":
            asked[str(event.data["params"]["question"])] = event.data
            if len(asked) == 3:
                break
    assert numbers == list(range(1, len(numbers) + 1))
    assert times == sorted(times)
    assert all(datetime.datetime.fromisoformat(one).tzinfo for one in times)
    assert asked["one"]["tool_id"] == "desk.ask"
    assert asked["one"]["claimed_reason"] == "I am told to"
    assert sorted(call.params["question"] for call in run.held_calls) == [
        "one",
        "three",
        "two",
    ]  # the fourth is refused
    run.answer(asked["two"]["call_id"], {"said": [1, 2]})
    run.answer(asked["three"]["call_id"], error="nobody may", kind="ToolDenied")
    for number in (asked["two"]["call_id"], 4711):
        with pytest.raises(isorun.InvalidRequest, match="waits for an answer; open are"):
            run.answer(number, 1)
    with pytest.raises(isorun.InvalidRequest, match="cannot be sent"):
        run.answer(asked["one"]["call_id"], object())
    run.answer(asked["one"]["call_id"], error="no")
    result = run.result()
    assert result.stdout.splitlines() == [
        str(
            [
                "ToolFailed('no')",
                {"said": [1, 2]},
                "ToolDenied('nobody may')",
                "ToolInputInvalid(\"desk.ask: question: it must fulfil type: 'string'\")",
            ]
        )
    ], result.report_text
    later = [event.kind for event in run.events(after=numbers[-1])]
    assert "started" not in later
    assert later[-1] == "outcome"
    with pytest.raises(isorun.InvalidRequest, match="waits for an answer"):
        run.answer(asked["one"]["call_id"], 1)


def test_a_call_that_nobody_answers_ends_at_its_time(run: Run) -> None:
    """A description, a coroutine and a function that sleeps: `ToolTimeout` for each, and the run goes on."""
    cancelled = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    result = run(
        """
        for tool in (desk.ask, slow.wait, slow.sleep, slow.marked):
            try:
                params = {"question": "?"} if tool is desk.ask else {}
                await agent_io_tools.tool_call(tool, params=params, timeout_s=0.3)
            except agent_io_tools.ToolTimeout:
                print("timeout")
        """,
        tools={
            **ASKED,
            "slow.wait": wait,
            "slow.sleep": lambda: time.sleep(2),
            "slow.marked": isorun.tool(timeout_s=0.1)(lambda: time.sleep(2)),
        },
        timeout_s=30,
    )
    assert result.stdout == "timeout\n" * 4, result.report_text
    assert cancelled.wait(10)


def test_functions_that_never_come_back_have_an_end(run: Run) -> None:
    """Each leaves a thread behind; with 32 of them the run gets no other, and the next run is not concerned."""
    until = threading.Event()
    ask = """
        async def one():
            try:
                await agent_io_tools.tool_call(slow.hang, params={}, timeout_s=0.05)
            except agent_io_tools.ToolError as error:
                return type(error).__name__
        for _ in range(20):
            answers = await asyncio.gather(*(one() for _ in range(8)))
            print(answers)
            if "ToolUnavailable" in answers:
                break
        """
    result = run(ask, tools={"slow.hang": lambda: until.wait(60)}, timeout_s=30)
    assert "ToolUnavailable" in result.stdout.splitlines()[-1], result.report_text
    assert "ToolUnavailable" not in result.stdout.splitlines()[0]
    assert run("print(await fine.one())", tools={"fine.one": lambda: 1}).stdout == "1\n"
    until.set()


def test_threads_are_used_again_and_end_with_the_run(run: Run) -> None:
    """A hundred calls one after the other share a thread, four at once have four; none stays when the run has ended."""
    seen: set[threading.Thread] = set()

    def note(wait: bool = False) -> int:
        seen.add(threading.current_thread())
        if wait:
            together.wait(20)
        return len(seen)

    together = threading.Barrier(4)
    result = run(
        """
        for _ in range(100):
            count = await one.note()
        print(count)
        await asyncio.gather(*(one.note(wait=True) for _ in range(4)))
        """,
        tools={"one.note": note},
        timeout_s=40,
    )
    assert result.stdout == "1\n", result.report_text
    assert len(seen) == 4
    for thread in seen:
        thread.join(20)
        assert not thread.is_alive()


def test_a_run_stands_still_while_somebody_thinks(rt: isorun.SyncRuntime) -> None:
    """It is frozen while its call waits; neither its time nor the call's passes meanwhile."""
    code = """
answer = await agent_io_tools.tool_call(desk.ask, params={"question": "?"}, timeout_s=2)
print(answer)
"""
    run = rt.start(code, tools=ASKED, timeout_s=4)
    asked = next(event.data for event in run.events() if event.kind == "tool_call_started")
    with run.frozen():
        time.sleep(4.5)
    run.answer(asked["call_id"], "thought")
    result = run.result()
    assert result.stdout == "thought\n", result.report_text
    assert result.timings["frozen_s"] >= 4


def test_a_run_that_is_cancelled_gives_up_its_calls(rt: isorun.SyncRuntime) -> None:
    """Its function is cancelled, and an answer is refused."""
    ended = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    code = "await asyncio.gather(slow.wait(), desk.ask(question='?'))"
    run = rt.start(code, tools={"slow.wait": wait, **ASKED}, timeout_s=60)
    calls = []
    for event in run.events():
        calls += [event.data] if event.kind == "tool_call_started" else []
        if len(calls) == 2:
            break
    result = run.cancel()
    assert result.status == "cancelled"
    assert ended.wait(10)
    assert run.held_calls == ()
    assert {call["status"] for call in result.tool_calls} == {"cancelled"}


def test_a_function_may_write_where_a_bundles_tool_may(run: Run) -> None:
    """By its `ToolContext`, beneath the run's own out/ and nowhere else."""

    def note(text: str, context: isorun.ToolContext) -> str:
        with context.open_output("notes/one.txt", "w") as file:
            file.write(f"{text} for {context.user_id}")
        try:
            context.open_output("../outside", "w")
        except isorun.ToolError as error:
            return str(error)
        return "it could"

    result = run("print(await desk.note(text='tea'))", tools={"desk.note": note}, user_id="ann")
    assert "outside" in result.stdout
    assert result["notes/one.txt"].read_text() == "tea for ann"


def test_large_values_go_both_ways(run: Run) -> None:
    """Six answers of 4 MiB at once, of which no socket takes one at a time, and as much in the arguments."""
    result = run(
        """
        data = bytes(4 << 20)
        answers = await asyncio.gather(*(big.mirror(data=data, number=n) for n in range(6)))
        print([(len(one["data"]), one["number"]) for one in answers])
        """,
        tools={"big.mirror": lambda data, number: {"data": data, "number": number}},
        timeout_s=60,
    )
    assert result.stdout.strip() == str([(4 << 20, number) for number in range(6)]), result.report_text


def test_a_supervisor_that_dies_ends_the_calls_that_it_held(own) -> None:
    """The function is cancelled and the program is told; the next call is answered by the next supervisor."""
    ended = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    code = """
try:
    await slow.wait()
except agent_io_tools.ToolUnavailable:
    print("told")
print(await slow.add(a=1, b=2))
"""
    with own() as runtime:
        before = set(supervisors())
        run = runtime.start(code, tools={"slow.wait": wait, "slow.add": lambda a, b: a + b}, timeout_s=60)
        next(event for event in run.events() if event.kind == "tool_call_started")
        (mine,) = set(supervisors()) - before
        os.kill(mine, signal.SIGKILL)
        result = run.result()
    assert result.stdout == "told\n3\n", result.report_text
    assert ended.is_set()
    assert [call["status"] for call in result.tool_calls] == ["ToolUnavailable", "ok"]


def test_a_prompt_tells_of_own_tools(rt: isorun.SyncRuntime) -> None:
    """With the signature that the program sees."""

    def add(a: int, b: int = 2) -> int:
        """Add two numbers."""
        return a + b

    text = rt.prompt(tools={"calc.add": add, **ASKED})
    assert "calc.add(*, a: int, b: int = 2) -> int" in text
    assert "Add two numbers." in text
    assert "desk.ask(*, question: str)" in text


def test_the_parameters_in_a_runs_events_have_an_end(rt: isorun.SyncRuntime) -> None:
    """A flood of calls fills no memory of the host: beyond 4 MiB the events tell the size, and the function all."""
    code = """
for _ in range(90):
    desk.ask.sync(question="x" * 60_000)
"""
    lengths = []
    run = rt.start(code, tools={"desk.ask": lambda question: lengths.append(len(question))}, timeout_s=50)
    result = run.result()
    assert (result.status, lengths) == ("ok", [60_000] * 90), result.report_text
    asked = [event.data["params"] for event in run.events() if event.kind == "tool_call_started"]
    assert [set(params) for params in asked] == [{"question"}] * 69 + [{"omitted_bytes"}] * 21
