"""SPEC A3: the names a program finds.

Clauses: OUTPUT_DIR (str, and in the environment) · OUT and OUT_DIR (Path) · Path, os,
asyncio, sys, time, json, logging · agent_io_tools · exec_tools · CONTRACT ·
EXECUTION_ID · TURN_ID, the folder's name, which stands before the program starts with
files/ and the promised parents (DESIGN 6) · `import agent_io_tools` · `from alias import
tool`. Without a bundle every call answers ToolDenied: from a coroutine,
without a loop, overlapping, and from threads.
"""

import json

import pytest


def test_every_name_is_there_without_import(run) -> None:
    """Each name is bound to what it says."""
    result = run("""
        import asyncio as a, json as j, logging as l, os as o, pathlib, sys as s, time as t
        print(asyncio is a and json is j and logging is l and os is o and sys is s and time is t)
        print(Path is pathlib.Path)
        print(type(OUTPUT_DIR) is str, OUT == OUT_DIR == Path(OUTPUT_DIR), isinstance(OUT, Path))
        print(os.environ["OUTPUT_DIR"] == OUTPUT_DIR, agent_io_tools.__name__, exec_tools.__name__)
    """)
    assert result.stdout.splitlines() == [
        "True",
        "True",
        "True True True",
        "True isorun.executor.calls.agent_io_tools exec_tools",
    ]


def test_contract_execution_id_and_turn_id(run) -> None:
    """The program knows what was promised, which run it is, and the folder of its turn."""
    item = {"filename": "turn_7/files/deep/report.md", "description": "Summary"}
    result = run(
        """
        print(json.dumps([CONTRACT, EXECUTION_ID, TURN_ID]))
        Path(CONTRACT[0]["filename"]).write_text("x")
        """,
        contract=[item],
    )
    assert json.loads(result.stdout) == [[item], result.exec_id, "turn_7"]
    assert result.turn_id == "turn_7"


def test_without_a_contract_it_is_none(run) -> None:
    """CONTRACT is None if nothing was promised, and the turn is the run's own."""
    result = run("print(CONTRACT, TURN_ID)")
    assert result.stdout == f"None turn_{result.exec_id}\n"


@pytest.mark.parametrize("turn", [123, "123", "turn_123"])
def test_the_turn_folder_stands_before_the_start(run, turn) -> None:
    """`123` and `turn_123` are one folder, and it holds files/ from the first instruction on."""
    result = run("print(TURN_ID, os.listdir('.'), os.listdir(TURN_ID))", turn_id=turn)
    assert result.stdout == "turn_123 ['turn_123'] ['files']\n"


def test_promised_parents_stand_before_the_start(run) -> None:
    """A promised file can be written at once, however deep."""
    contract = [{"filename": f"turn_1/files/{n}/a.txt", "description": "d"} for n in ("x/y", "z")]
    result = run("for item in CONTRACT: Path(item['filename']).write_text('x')", contract=contract)
    assert (result.status, len(result.succeeded)) == ("ok", 2)


def test_imports_by_name(run) -> None:
    """`import agent_io_tools` and `from exec_tools import …` give what the bare names are."""
    result = run("""
        import agent_io_tools as module, exec_tools as tools
        from exec_tools import execute_code_python
        print(module is agent_io_tools, tools is exec_tools, execute_code_python)
    """)
    assert result.stdout == "True True <tool exec_tools.execute_code_python>\n"


def test_a_call_without_a_bundle_is_denied(run) -> None:
    """By coroutine, by proxy and without a loop, a call raises ToolDenied, a ToolError; exec tools say why."""
    result = run("""
        async def main():
            for call in (agent_io_tools.tool_call(tool_id="local_tools.write_note", params={"text": b"x"}),
                         agent_io_tools.tool_call(fn=exec_tools.execute_code_python, params={}),
                         exec_tools.execute_code_python(code="1")):
                try:
                    await call
                except agent_io_tools.ToolError as error:
                    print(type(error).__name__, error)
        asyncio.run(main())
        try:
            agent_io_tools.tool_call_sync(tool_id="a.b")
        except agent_io_tools.ToolDenied as error:
            print("sync", error)
    """)
    said = "no such tool for this run"
    nested = "nested_execution: a program cannot start another run"
    assert result.stdout.splitlines() == [
        f"ToolDenied {said}",
        f"ToolDenied {nested}",
        f"ToolDenied {nested}",
        f"sync {said}",
    ]
    assert [call["status"] for call in result.tool_calls] == ["ToolDenied"] * 4
    assert [call["tool_id"] for call in result.tool_calls][:2] == [
        "local_tools.write_note",
        "exec_tools.execute_code_python",
    ]


def test_calls_may_overlap_and_come_from_threads(run) -> None:
    """Fifty calls at once from a loop and twenty from threads each get their own answer."""
    result = run("""
        from concurrent.futures import ThreadPoolExecutor
        async def main():
            calls = [agent_io_tools.tool_call(tool_id="t.x", params={"n": n}) for n in range(50)]
            return await asyncio.gather(*calls, return_exceptions=True)
        def call(n):
            try:
                agent_io_tools.tool_call_sync(tool_id="t.y")
            except agent_io_tools.ToolDenied:
                return n
        print({type(answer).__name__ for answer in asyncio.run(main())})
        with ThreadPoolExecutor(8) as pool:
            print(sum(pool.map(call, range(20))))
    """)
    assert result.stdout == "{'ToolDenied'}\n190\n"
    assert len(result.tool_calls) == 70


def test_a_call_without_a_name_or_with_two_is_refused_inside(run) -> None:
    """fn and tool_id that disagree, neither, or an fn that is no tool: TypeError, and nothing is sent."""
    result = run("""
        for arguments in ({"fn": exec_tools.execute_code_python, "tool_id": "a.b"}, {}, {"fn": print}):
            try:
                agent_io_tools.tool_call_sync(**arguments)
            except TypeError as error:
                print(error)
    """)
    assert result.stdout.splitlines() == [
        "fn is exec_tools.execute_code_python and tool_id is a.b: name one tool",
        "name a tool with fn or tool_id",
        "fn must be a tool such as local_tools.write_note, not <built-in function print>",
    ]
    assert result.tool_calls == ()


def test_a_forked_child_has_no_tools(run) -> None:
    """The stream belongs to the program's process; a child of fork is refused at once."""
    result = run("""
        pid = os.fork()
        if pid == 0:
            try:
                agent_io_tools.tool_call_sync(tool_id="a.b")
            except agent_io_tools.ToolUnavailable as error:
                print(error)
            os._exit(0)
        os.waitpid(pid, 0)
    """)
    assert result.stdout == "no tool stream: a child process has none, and a closed stream stays closed\n"
    assert result.tool_calls == ()
