"""SPEC A4: a program calls tools that run in the supervisor.

Clauses: `await agent_io_tools.tool_call(fn=, params=, tool_id=, call_reason=)` · fn may be the
proxy's attribute, tool_id alone is enough, and if both disagree the call is refused ·
`await local_tools.write_note(text=…)` · bytes anywhere in params and results · calls may
overlap, from any loop and any thread · `tool_call_sync` · a child of fork has no tools ·
each failure is an exception of its own type. The tools are a bundle's, in its supervisor.
"""

import json
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import isorun

DESCRIPTOR = 'TOOLS = [{"ref": "tools/local_tools.py", "alias": "local_tools"}]\n'
TOOLS = '''
import asyncio
import datetime
import os

import isorun


@isorun.tool
def write_note(text: str) -> str:
    """Return the note, marked.

    Args:
        text: What it says.
    """
    return f"noted: {text}"


@isorun.tool
def mirror(value: object) -> object:
    """Return what was sent.

    Args:
        value: Anything.
    """
    return value


@isorun.tool
async def both(number: int, parties: int = 2) -> int:
    """Return the number once as many calls as are parties are here.

    Args:
        number: What to return.
        parties: How many calls wait for each other.
    """
    waiting.append(number)
    while len(waiting) < parties:
        await asyncio.sleep(0.001)
    return number


waiting: list[int] = []


@isorun.tool
def process() -> list[object]:
    """Return the id of the process that runs tools, and of its pid namespace."""
    return [os.getpid(), os.readlink("/proc/self/ns/pid")]


@isorun.tool
def fail(how: str) -> object:
    """Fail in one of several ways.

    Args:
        how: Which.
    """
    if how == "told":
        raise isorun.ToolError("the shelf is empty")
    if how == "untold":
        raise RuntimeError("secret-of-the-host")
    return object()


@isorun.tool
def next_day(day: datetime.date) -> dict[str, datetime.date]:
    """Return the day after a day.

    Args:
        day: Any.
    """
    return {"next": day + datetime.timedelta(days=1)}


@isorun.tool(timeout_s=0.05)
async def slow() -> None:
    """Take longer than a tool may."""
    await asyncio.sleep(60)


@isorun.tool
async def patient() -> None:
    """Take longer than a caller waits."""
    await asyncio.sleep(60)


@isorun.tool(max_calls=1)
def once() -> int:
    """Be called once."""
    return 1
'''


@pytest.fixture
def bundle(tmp_path) -> Path:
    """The bundle above, as a folder."""
    folder = tmp_path / "bundle"
    (folder / "tools").mkdir(parents=True)
    (folder / "tools_descriptor.py").write_text(DESCRIPTOR)
    (folder / "tools" / "local_tools.py").write_text(TOOLS)
    return folder


@pytest.fixture
def with_tools(own, bundle) -> Iterator[Callable[..., isorun.RunResult]]:
    """`with_tools(code, **options)`: a program with the bundle above."""
    with own(bundle=bundle) as runtime:

        def execute(code: str, **options: object) -> isorun.RunResult:
            return runtime.execute(textwrap.dedent(code), **{"timeout_s": 20, **options})

        yield execute


def test_one_tool_by_every_spelling(with_tools) -> None:
    """fn, tool_id, both, the proxy itself, its import and tool_call_sync: one tool, one result, at top level."""
    result = with_tools("""
        from local_tools import write_note
        call = agent_io_tools.tool_call
        both = {"fn": local_tools.write_note, "tool_id": "local_tools.write_note"}
        print(await call(**both, params={"text": "a"}, call_reason="r"))
        print(await call(fn=local_tools.write_note, params={"text": "b"}))
        print(await call(tool_id="local_tools.write_note", params={"text": "c"}))
        print(await local_tools.write_note(text="d"))
        print(await write_note(text="e"))
        print(agent_io_tools.tool_call_sync(fn=write_note, params={"text": "f"}))
    """)
    assert result.stdout.splitlines() == [f"noted: {letter}" for letter in "abcdef"], result.report_text
    assert [call["tool_id"] for call in result.tool_calls] == ["local_tools.write_note"] * 6
    assert [call["status"] for call in result.tool_calls] == ["ok"] * 6
    assert [call["reason"] for call in result.tool_calls] == ["r", "", "", "", "", ""]


def test_a_call_where_nothing_can_be_awaited(with_tools) -> None:
    """`.sync` in a lambda, in a plain function, in a thread, and in a coroutine while other calls are open."""
    result = with_tools("""
        import threading
        note, mirror = local_tools.write_note, local_tools.mirror
        print(list(map(lambda text: note.sync(text=text), "ab")))
        def plain(text):
            return note.sync(text=text)
        print(plain("c"))
        thread = threading.Thread(target=lambda: print(plain("d")))
        thread.start()
        thread.join()
        async def beside():
            both = asyncio.gather(*(local_tools.both(number=n) for n in range(2)))
            await asyncio.sleep(0)
            found = plain("e")
            return found, await both
        print(await beside())
        try:
            note.sync("f")
        except TypeError as error:
            print(error)
        try:
            note.sync(text=1)
        except agent_io_tools.ToolInputInvalid as error:
            print("refused", "text" in str(error))
    """)
    assert result.stdout.splitlines() == [
        "['noted: a', 'noted: b']",
        "noted: c",
        "noted: d",
        "('noted: e', [0, 1])",
        "local_tools.write_note takes its arguments by name: write_note(name=value)",
        "refused True",
    ], result.report_text


def test_a_tool_tells_what_it_is(with_tools) -> None:
    """`inspect.signature` and `help` show its parameters, its result and its docstring, not our class."""
    result = with_tools("""
        import inspect
        print(inspect.signature(local_tools.both))
        print(inspect.signature(local_tools.next_day))
        print(inspect.signature(local_tools.write_note).parameters["text"].kind.name)
        print(inspect.getdoc(local_tools.write_note))
        help(local_tools.next_day)
    """)
    lines = result.stdout.splitlines()
    assert lines[:8] == [
        "(*, number: int, parties: int = 2) -> int",
        "(*, day: date) -> dict[str, str]",
        "KEYWORD_ONLY",
        "write_note(*, text: str) -> str",
        "",
        "Return the note, marked.",
        "",
        "Args:",
    ], result.report_text
    assert "next_day(*, day: date) -> dict[str, str]" in result.stdout
    assert "Return the day after a day." in result.stdout


def test_a_prompt_names_the_tools_that_are_granted(own, bundle) -> None:
    """Each with signature and docstring, all of them or those that are named; an unknown one is refused."""
    with own(bundle=bundle) as runtime:
        every, one = runtime.prompt(), runtime.prompt(tools=["local_tools.once"])
        with pytest.raises(isorun.InvalidRequest, match=r"local_tools\.none"):
            runtime.prompt(tools=["local_tools.none"])
    assert "local_tools.both(*, number: int, parties: int = 2) -> int\n" in every
    assert "          parties: How many calls wait for each other." in every
    assert "local_tools.once() -> int" in one
    assert "local_tools.both" not in one
    assert "A program has no network" in one


def test_a_program_passes_what_it_has(with_tools) -> None:
    """A date for a date, and what has a form of its own for a value of any kind; bytes stay bytes beside it."""
    result = with_tools("""
        import datetime, decimal, enum, pathlib, uuid
        print(await local_tools.next_day(day=datetime.date(2024, 1, 31)))
        class Size(enum.Enum):
            SMALL = "s"
        print(await local_tools.mirror(value={
            "set": {2, 1}, "price": decimal.Decimal("1.10"), "id": uuid.UUID(int=7), "size": Size.SMALL,
            "path": pathlib.Path("a/b"), "raw": b"x", 1: "one",
        }))
        try:
            await local_tools.mirror(value=[float("nan")])
        except agent_io_tools.ToolInputInvalid as error:
            print(error)
    """)
    mirrored = {
        "set": [1, 2],
        "price": "1.10",
        "id": "00000000-0000-0000-0000-000000000007",
        "size": "s",
        "path": "a/b",
        "raw": b"x",
        "1": "one",
    }
    assert result.stdout.splitlines() == [
        "{'next': '2024-02-01'}",
        repr(mirrored),
        "params.value[0]: nan cannot be sent: use None for a number that is missing",
    ], result.report_text


def test_names_that_disagree_are_refused_before_a_call(with_tools) -> None:
    """fn of one tool and tool_id of another: TypeError, and the supervisor hears nothing."""
    result = with_tools("""
        try:
            await agent_io_tools.tool_call(fn=local_tools.write_note, tool_id="local_tools.mirror", params={"value": 1})
        except TypeError as error:
            print(error)
    """)
    assert result.stdout == "fn is local_tools.write_note and tool_id is local_tools.mirror: name one tool\n"
    assert result.tool_calls == ()


def test_a_call_over_the_runs_own_cap_is_no_breach(own, bundle) -> None:
    """Where a run's frames are smaller than the wire's, its program knows, and the call is refused inside."""
    code = """
        for size in (100, 30_000):
            try:
                print(len(await local_tools.mirror(value="x" * size)))
            except agent_io_tools.ToolInputInvalid as error:
                print(error)
    """
    with own(bundle=bundle, limits=isorun.Limits(frame_bytes=20_000)) as runtime:
        result = runtime.execute(textwrap.dedent(code), timeout_s=20)
    assert result.status == "ok", result.report_text
    first, second = result.stdout.splitlines()
    assert (first, "20000" in second) == ("100", True)


def test_an_unknown_attribute_says_what_there_is(with_tools) -> None:
    """A tool that the alias has not is an AttributeError with the names that it has, and an ImportError by import."""
    result = with_tools("""
        try:
            local_tools.write_notes
        except AttributeError as error:
            print(error)
        try:
            from local_tools import nothing
        except ImportError as error:
            print(type(error).__name__)
    """)
    first, second = result.stdout.splitlines()
    assert first.startswith("local_tools has no tool 'write_notes'; it has: ")
    assert set(first.partition("has: ")[2].split(", ")) >= {"write_note", "mirror", "fail", "once"}
    assert second == "ImportError"


def test_tools_run_in_another_process(with_tools) -> None:
    """The supervisor's, outside of the program's own."""
    result = with_tools("print(await local_tools.process() != [os.getpid(), os.readlink('/proc/self/ns/pid')])")
    assert result.stdout == "True\n"


def test_bytes_anywhere(with_tools) -> None:
    """In lists, dicts, and beside dicts that look like the wire's own; a megabyte; nothing changes its type."""
    result = with_tools(r"""
        values = [b"\0\xff", [b"", {"a": b"x", "$blob": 0}], {"$blob": 0}, {"$dict": {"$x": b"y"}}, b"z" * (1 << 20),
                  None, True, 1.5, -(2**70), "\u00e9\U0001f600", [], {}]
        for value in values:
            got = await local_tools.mirror(value=value)
            print(repr(got) == repr(value), end=" ")
        got = agent_io_tools.tool_call_sync(tool_id="local_tools.mirror", params={"value": values})
        print(repr(got) == repr(values))
    """)
    assert result.stdout.split() == ["True"] * 13, result.report_text


def test_calls_overlap(with_tools) -> None:
    """Two calls that wait for each other both come back, gathered; so do fifty that need not."""
    result = with_tools("""
        print(await asyncio.gather(local_tools.both(number=1), local_tools.both(number=2)))
        print(sum(await asyncio.gather(*(local_tools.mirror(value=n) for n in range(50)))))
    """)
    assert result.stdout == "[1, 2]\n1225\n", result.report_text


def test_from_threads_and_other_loops(with_tools) -> None:
    """Threads without a loop, threads with one each, and a synchronous call inside a running loop."""
    result = with_tools("""
        from concurrent.futures import ThreadPoolExecutor
        def sync(n):
            return agent_io_tools.tool_call_sync(tool_id="local_tools.mirror", params={"value": n})
        def loop(n):
            return asyncio.run(local_tools.mirror(value=n))
        with ThreadPoolExecutor(8) as pool:
            print(list(pool.map(sync, range(40))) == list(range(40)))
            print(list(pool.map(loop, range(16))) == list(range(16)))
        async def main():
            task = asyncio.ensure_future(local_tools.mirror(value="async"))
            await asyncio.sleep(0)
            inner = sync("sync")
            return [inner, await task]
        print(await main())
    """)
    assert result.stdout == "True\nTrue\n['sync', 'async']\n", result.report_text


def test_each_failure_has_its_type(with_tools) -> None:
    """Denied, invalid, timed out, over budget, failed: an exception each, under ToolError; a secret stays outside."""
    result = with_tools("""
        async def of(awaitable):
            try:
                print("no error:", await awaitable)
            except agent_io_tools.ToolError as error:
                print(f"{type(error).__name__}: {error}")
        call = agent_io_tools.tool_call
        await of(call(tool_id="local_tools.nothing"))
        await of(call(tool_id="other.write_note"))
        await of(local_tools.write_note())
        await of(local_tools.write_note(text=1))
        await of(local_tools.write_note(text=object()))
        await of(local_tools.slow())
        await of(call(fn=local_tools.patient, timeout_s=0.05))
        await of(call(fn=local_tools.patient, timeout_s=0))
        await of(local_tools.once())
        await of(local_tools.once())
        await of(local_tools.fail(how="told"))
        await of(local_tools.fail(how="untold"))
        await of(local_tools.fail(how="an object"))
        await of(local_tools.write_note(text="still here"))
    """)
    lines = result.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        *("ToolDenied",) * 2,
        *("ToolInputInvalid",) * 3,
        *("ToolTimeout",) * 2,
        "ToolInputInvalid",
        "no error",
        "ToolBudgetExceeded",
        *("ToolFailed",) * 3,
        "no error",
    ], result.report_text
    assert lines[0] == lines[1] == "ToolDenied: no such tool for this run"
    assert (
        lines[4]
        == "ToolInputInvalid: params.text: object cannot be sent: give numbers, text, bytes, lists and dicts made of it"
    )
    assert lines[7] == "ToolInputInvalid: timeout_s: must be a positive, finite number of seconds, got 0"
    assert lines[10] == "ToolFailed: the shelf is empty"
    assert lines[11].startswith("ToolFailed: the tool failed (call ")
    assert "secret-of-the-host" not in result.stdout


def test_a_call_of_exec_tools_is_denied_by_name(with_tools) -> None:
    """A program cannot start another run, and is told that it is this."""
    result = with_tools("""
        try:
            await exec_tools.execute_code_python(code="1")
        except agent_io_tools.ToolDenied as error:
            print(error)
    """)
    assert result.stdout.startswith("nested_execution: ")


def test_a_call_given_up_disturbs_no_other(with_tools) -> None:
    """asyncio.wait_for on a tool that does not answer in time: the next calls get their own answers."""
    result = with_tools("""
        try:
            await asyncio.wait_for(local_tools.patient(), 0.05)
        except TimeoutError:
            print("gave up")
        print(await asyncio.gather(*(local_tools.mirror(value=n) for n in range(5))))
    """)
    assert result.stdout == "gave up\n[0, 1, 2, 3, 4]\n", result.report_text


def test_a_forked_child_has_no_tools_and_the_parent_keeps_its(with_tools) -> None:
    """ToolUnavailable in the child, at once; a subprocess has no descriptor of the stream; the parent calls on."""
    result = with_tools("""
        import subprocess
        before = await local_tools.write_note(text="before")
        pid = os.fork()
        if pid == 0:
            try:
                agent_io_tools.tool_call_sync(tool_id="local_tools.write_note", params={"text": "child"})
            except agent_io_tools.ToolUnavailable as error:
                print(error)
            os._exit(0)
        os.waitpid(pid, 0)
        look = "print([n for n in range(64) if is_socket(n)])"
        look = "def is_socket(n):\\n try: return stat.S_ISSOCK(os.fstat(n).st_mode)\\n except OSError: pass\\n" + look
        look = "import os, stat\\n" + look
        made = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, close_fds=False)
        print(made.stdout.strip())
        print(await local_tools.write_note(text="after"))
    """)
    assert result.stdout.splitlines() == [
        "no tool stream: a child process has none, and a closed stream stays closed",
        "[]",
        "noted: after",
    ], result.report_text
    assert len(result.tool_calls) == 2


def test_large_values_both_ways(with_tools) -> None:
    """Nearly the cap there and back, while other calls are open; over it is the caller's own error."""
    result = with_tools("""
        big = b"x" * (16 * 1024 * 1024 - 4096)
        got = await asyncio.gather(*(local_tools.mirror(value=big) for _ in range(2)), local_tools.mirror(value=1))
        print([one == big for one in got[:2]], got[2])
        try:
            await local_tools.mirror(value=big + bytes(8192))
        except agent_io_tools.ToolInputInvalid as error:
            print(str(error).startswith("params.value: the frame would exceed "))
    """)
    assert result.stdout == "[True, True] 1\nTrue\n", result.report_text


def test_what_is_recorded_is_what_was_called(with_tools) -> None:
    """Every call that reached the supervisor is in the result, with params and result in the record it names."""
    result = with_tools("await local_tools.write_note(text='kept')")
    (call,) = result.tool_calls
    assert (call["tool_id"], call["status"]) == ("local_tools.write_note", "ok")
    record = json.loads((Path(result.out_dir) / call["record"]).read_text())
    assert (record["params"], record["result"]) == ({"text": "kept"}, "noted: kept")
