"""SPEC B1 and B6: the exec tools as a model's host calls them.

Clauses. seed 000's two calls run as printed · the program comes as `code` or beforehand,
`async with exec_tools.source(code)` · no code from either: `missing_code` · a JSON string
is accepted for the list · all ways give the same result · from inside a run both answer
ToolDenied (nested_execution) · prog_name is shown · both descriptions say when to choose
which · ISORUN_ADVERTISE_SIDE_EFFECT_TOOL decides what is offered.
"""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

import isorun
from isorun.tools import agent_io_tools, exec_tools
from tests.conformance.conftest import options_for

CONTRACT = [{"filename": "turn_123/files/report.md", "description": "Summary report"}]
REPORT = "Path(OUTPUT_DIR, 'turn_123/files/report.md').write_text('# Summary')\nprint('done')"


@pytest.fixture
async def runtime(new_backend, rt, tmp_path) -> AsyncIterator[isorun.Runtime]:
    """A Runtime of the test's own; `rt` finds out whether this machine has the backend."""
    async with isorun.Runtime(**options_for(new_backend(), tmp_path / "runs", pool_size=0)) as opened:
        yield opened


async def seed_contract_call() -> isorun.RunResult:
    """As printed in the guide."""
    return await agent_io_tools.tool_call(
        fn=exec_tools.execute_code_python,
        params={
            "contract": [
                {
                    "filename": "turn_123/files/report.md",
                    "description": "Summary report"
                }
            ],
            "timeout_s": 300,
            "prog_name": "report_generator"
        },
        tool_id="exec_tools.execute_code_python",
    )  # fmt: skip


async def seed_side_effects_call() -> isorun.RunResult:
    """As printed in the guide."""
    return await agent_io_tools.tool_call(
        fn=exec_tools.execute_code_python_side_effect,
        params={
            "timeout_s": 300,
            "prog_name": "side_effects_run"
        },
        tool_id="exec_tools.execute_code_python_side_effect",
    )  # fmt: skip


async def test_the_guides_calls_run_as_printed(runtime) -> None:
    """Both calls have no code: it is the one that was set beforehand."""
    async with exec_tools.using(runtime), exec_tools.source(REPORT):
        promised = await seed_contract_call()
        compared = await seed_side_effects_call()
    assert (promised.status, promised.succeeded, promised.prog_name) == (
        "ok",
        ("turn_123/files/report.md",),
        "report_generator",
    )
    assert "run: " + promised.exec_id + " (report_generator)" in promised.report_text
    assert (compared.status, compared.prog_name) == ("failed", "side_effects_run")  # no promise made that folder
    async with exec_tools.using(runtime), exec_tools.source("Path('x.txt').write_text('x')"):
        compared = await seed_side_effects_call()
    assert compared.workspace_diff["created"] == ("x.txt",)


async def test_every_way_to_say_it_gives_the_same_result(runtime) -> None:
    """Code given or set beforehand, as text or bytes; a list, a JSON string, `filepath`: one result."""
    results = []
    async with exec_tools.using(runtime):
        for contract in (
            CONTRACT,
            json.dumps(CONTRACT),
            [{"filepath": "files/report.md", "description": "Summary report"}],
        ):
            for code in (REPORT, REPORT.encode()):
                if "filepath" in contract[0]:
                    contract = [{**contract[0], "filepath": CONTRACT[0]["filename"]}]
                results.append(await exec_tools.execute_code_python(code, contract, 10.0, "p"))
                async with exec_tools.source(code):
                    results.append(
                        await exec_tools.execute_code_python(contract=contract, timeout_s=10.0, prog_name="p")
                    )
    assert len(results) == 12
    assert {comparable(result) for result in results} == {comparable(results[0])}
    assert results[0].ok


def comparable(result: isorun.RunResult) -> str:
    """All of a result but what differs between two runs of one program: ids, places, times."""
    told = {
        name: value
        for name, value in result.to_dict().items()
        if name not in ("out_dir", "timings", "usage", "isolation")
    }
    told["artifacts"] = [{**artifact, "file": ""} for artifact in told["artifacts"]]
    told.pop("infra_log_tail")
    text = json.dumps(told).replace(result.exec_id, "<id>")
    return "\n".join(line for line in text.split("\\n") if "EXECUTION <id> START" not in line)


async def test_no_code_is_refused(runtime) -> None:
    """Neither given nor set beforehand, also behind a block that has ended: `missing_code`, and the two remedies."""
    async with exec_tools.source(REPORT):
        pass
    for call in (exec_tools.execute_code_python(contract=CONTRACT), exec_tools.execute_code_python_side_effect()):
        async with exec_tools.using(runtime):
            with pytest.raises(isorun.InvalidRequest) as caught:
                await call
        assert caught.value.code == "missing_code"
        assert str(caught.value) == (
            "there is no code to run: pass `code`, or set it beforehand with `async with exec_tools.source(code):`"
        )
    assert list(runtime.root.glob("codegen_*")) == []


async def test_no_contract_is_refused_and_never_taken_for_side_effects(runtime) -> None:
    """The contract tool without a contract names the other tool; a bad one keeps its own code."""
    async with exec_tools.using(runtime):
        for contract, code in ((None, "missing_contract"), ([], "empty_contract"), ("{", "invalid_json")):
            with pytest.raises(isorun.InvalidRequest) as caught:
                await exec_tools.execute_code_python(REPORT, contract)
            assert caught.value.code == code
    assert list(runtime.root.glob("codegen_*")) == []


async def test_given_code_wins_and_blocks_nest(runtime) -> None:
    """An argument beats the block, an inner block the outer one, and each task has its own."""
    async with exec_tools.using(runtime), exec_tools.source("print('outer')"):
        assert (await exec_tools.execute_code_python_side_effect(code="print('given')")).text == "given\n"
        async with exec_tools.source("print('inner')"):
            assert (await exec_tools.execute_code_python_side_effect()).text == "inner\n"
        assert (await exec_tools.execute_code_python_side_effect()).text == "outer\n"

        async def of_task(number: int) -> str:
            async with exec_tools.source(f"print({number})"):
                return (await exec_tools.execute_code_python_side_effect()).text

        assert await asyncio.gather(*map(of_task, range(6))) == [f"{number}\n" for number in range(6)]


NESTED = """
import exec_tools as imported
for tool in (exec_tools.execute_code_python, exec_tools.execute_code_python_side_effect, imported.execute_code_python):
    by_name = agent_io_tools.tool_call(tool_id=tool.tool_id)
    for call in (tool(code="print(1)"), agent_io_tools.tool_call(fn=tool, params={}), by_name):
        try:
            await call
        except agent_io_tools.ToolDenied as error:
            print(error)
"""


async def test_from_inside_a_run_both_are_denied(runtime) -> None:
    """Also without a bundle, by every way to call them."""
    result = await runtime.execute(NESTED, timeout_s=10)
    assert set(result.stdout.splitlines()) == {"nested_execution: a program cannot start another run"}
    assert len(result.stdout.splitlines()) == 9
    assert {call["status"] for call in result.tool_calls} == {"ToolDenied"}


async def test_the_hosts_call_refuses_what_the_programs_refuses(runtime) -> None:
    """fn and tool_id that disagree, neither, no tool, an unknown one, arguments that do not fit, a deadline."""
    call = agent_io_tools.tool_call
    one, other = exec_tools.execute_code_python, "exec_tools.execute_code_python_side_effect"
    refused: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (
            TypeError,
            f"fn is exec_tools.execute_code_python and tool_id is {other}: name one tool",
            {"fn": one, "tool_id": other},
        ),
        (TypeError, "name a tool with fn or tool_id", {}),
        (
            TypeError,
            "fn must be a tool such as exec_tools.execute_code_python, not <built-in function print>",
            {"fn": print},
        ),
        (
            agent_io_tools.ToolDenied,
            "no such tool: trusted code calls the exec tools, a program the tools of its bundle",
            {"tool_id": "local_tools.write_note"},
        ),
        (
            agent_io_tools.ToolInputInvalid,
            f"{other}: got an unexpected keyword argument 'contract'",
            {"tool_id": other, "params": {"contract": CONTRACT}},
        ),
        (
            agent_io_tools.ToolTimeout,
            f"{other} took longer than 0.5 s",
            {"tool_id": other, "params": {"code": "time.sleep(30)"}, "timeout_s": 0.5},
        ),
    ]
    async with exec_tools.using(runtime):
        for kind, text, arguments in refused:
            with pytest.raises(kind) as caught:
                await call(**arguments)
            assert str(caught.value) == text
        assert (await call(tool_id=other, params={"code": "print(6)"}, call_reason="only an id")).text == "6\n"


async def test_without_a_runtime_each_call_opens_its_own(monkeypatch, tmp_path, rt, sealed) -> None:
    """Two lines of trusted code are enough; the settings of the process apply."""
    monkeypatch.setenv("ISORUN_WORKSPACE_ROOT", str(tmp_path / "own"))
    result = await exec_tools.execute_code_python(REPORT, CONTRACT)
    assert (result.ok, result.out_dir.parents[1]) == (True, tmp_path / "own")


def test_what_a_model_is_offered() -> None:
    """The contract tool always, the other one if the operator wants it; each says when to choose which."""
    settings = isorun.Settings()
    offered = exec_tools.advertised(settings)
    both = exec_tools.advertised(replace(settings, advertise_side_effect_tool=True))
    assert [tool["tool_id"] for tool in offered] == ["exec_tools.execute_code_python"]
    assert [tool["tool_id"] for tool in both] == list(exec_tools.TOOLS)
    assert "when you know beforehand which files there will be" in both[0]["description"]
    assert "when you cannot know beforehand which files there will be" in both[1]["description"]
    assert [tool["name"] for tool in both] == ["execute_code_python", "execute_code_python_side_effect"]
    assert [tool["parameters"]["required"] for tool in both] == [["code", "contract"], ["code"]]
    for tool in both:
        function = exec_tools.TOOLS[tool["tool_id"]]
        assert set(tool["parameters"]["properties"]) == set(inspect.signature(function).parameters)
        assert "timeout_s: Wall seconds" in tool["description"]
