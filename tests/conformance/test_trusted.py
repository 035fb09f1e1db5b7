"""SPEC B10: trusted code runs programs in folders of its own, and opens a bundle as one thing."""

import json
import os
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import isorun
from isorun.tools import exec_tools
from isorun.tools.bundles import example_bundle
from isorun.tools.subsystem import ToolSubsystem
from tests.conformance.conftest import options_for
from tests.conformance.scenes import files_below

PROMISED = [{"filename": "turn_1/files/sum.txt", "description": "The sum of data.csv"}]
SUM = """
numbers = Path(__file__).with_name("data.csv").read_text().split(",")
Path(OUTPUT_DIR, "turn_1/files/sum.txt").write_text(str(sum(map(int, numbers))))
print("summed")
"""


@pytest.fixture
async def tools(new_backend, rt, tmp_path) -> AsyncIterator[ToolSubsystem]:
    """The example's tools; `rt` finds out whether this machine has the backend."""
    async with ToolSubsystem(example_bundle(), **options_for(new_backend(), tmp_path / "runs", pool_size=0)) as opened:
        yield opened


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    (work / "data.csv").write_text("1,2,39")
    return work, out


async def test_a_run_in_folders_of_the_callers(tools, folders) -> None:
    """workdir's files are inputs and get the program; outdir gets the whole of out/; the run's folder stays too."""
    work, out = folders
    result = await exec_tools.run_exec_tool(
        SUM, PROMISED, 10, work, out, "my-own-id", runtime=tools.runtime, prog_name="sum"
    )
    assert (result.ok, result.exec_id, result.prog_name) == (True, "my-own-id", "sum")
    assert (out / "turn_1/files/sum.txt").read_text() == "42"
    assert (work / "user_code.py").read_text() == SUM
    assert files_below(work) == ["data.csv", "main.py", "user_code.py"]
    assert files_below(out) == files_below(result.out_dir)
    assert {"logs/user.log", "logs/infra.log", "result.json", "runtime.out.log"} <= set(files_below(out))
    told = json.loads((out / "result.json").read_text())
    assert told["out_dir"] == str(result.out_dir) == str(tools.runtime.root / "codegen_my-own-id" / "out")
    assert told["report_text"] == result.report_text


async def test_the_next_run_goes_on_from_there(tools, folders) -> None:
    """out/ starts as what outdir held, less the host's own files; what the program deletes is gone afterwards."""
    work, out = folders
    first = await exec_tools.run_exec_tool(SUM, PROMISED, 10, work, out, runtime=tools.runtime)
    code = """
    found = sorted(path.relative_to(OUT).as_posix() for path in OUT.rglob("*") if path.is_file())
    print(found, sorted(name for name in os.listdir(Path(__file__).parent) if name[0] != "."))
    Path("turn_1/files/sum.txt").unlink()
    Path("new.txt").write_text("new")
    """
    second = await exec_tools.run_exec_tool_no_contract(textwrap.dedent(code), 10, work, out, runtime=tools.runtime)
    expected = "['data.csv', 'turn_1/files/sum.txt'] ['data.csv', 'main.py', 'user_code.py']\n"
    assert second.stdout == expected, second.report_text
    assert dict(second.workspace_diff) == {
        "created": ("new.txt",),
        "modified": (),
        "deleted": ("turn_1/files/sum.txt",),
    }
    assert not (out / "turn_1/files/sum.txt").exists()
    assert (out / "new.txt").read_text() == "new"
    assert (first.out_dir / "turn_1/files/sum.txt").read_text() == "42"
    assert json.loads((out / "result.json").read_text())["exec_id"] == second.exec_id
    assert first.exec_id not in "".join(files_below(out))


async def test_the_result_is_that_of_the_exec_tools(tools, folders) -> None:
    """One program, by `run_exec_tool` and by `execute_code_python`: the same verdict, items and report."""
    work, out = folders
    code = "Path(OUTPUT_DIR, 'turn_1/files/sum.txt').write_text('42')\nraise SystemExit(3)"
    one = await exec_tools.run_exec_tool(code, PROMISED, 10, work, out, runtime=tools.runtime)
    async with exec_tools.using(tools.runtime):
        other = await exec_tools.execute_code_python(code, PROMISED, 10)
    assert type(one) is type(other)
    for name in ("status", "exit_code", "error", "succeeded", "missing", "items", "notices", "stdout", "turn_id"):
        assert getattr(one, name) == getattr(other, name)
    assert one.report_text.replace(one.exec_id, "") == other.report_text.replace(other.exec_id, "")


async def test_tools_are_granted_by_name(tools, folders) -> None:
    """None grants the bundle's tools, a list those, and the user's id reaches them."""
    work, out = folders
    code = "print(await local_tools.write_note(text='x'))"
    granted = await exec_tools.run_exec_tool_no_contract(code, 10, work, out, runtime=tools.runtime, user_id="alice")
    assert granted.ok, granted.report_text
    note = granted.stdout.strip().partition("/out/")[2]
    assert note.startswith("notes/")
    assert (out / note).read_text() == "x"
    record = granted.tool_calls[0]["record"]
    assert {note, record, "tool_calls_index.json"} <= set(files_below(out))
    denied = await exec_tools.run_exec_tool_no_contract(
        "await agent_io_tools.tool_call(tool_id='local_tools.write_note', params={'text': 'x'})",
        *(10, work, out),
        runtime=tools.runtime,
        tools=(),
    )
    assert denied.error.message == "the program raised ToolDenied: no such tool for this run"
    assert [call["status"] for call in denied.tool_calls] == ["ToolDenied"]
    assert record not in files_below(out)  # it told of the run before
    assert dict(denied.workspace_diff) == {"created": (), "modified": (), "deleted": ()}


async def test_a_refused_request_leaves_the_folders_as_they_were(tools, folders) -> None:
    """A bad contract, no contract, a link in workdir or outdir, folders that are none: nothing runs or changes."""
    work, out = folders
    out.mkdir()
    (out / "kept.txt").write_text("kept")
    run = exec_tools.run_exec_tool
    runtime = tools.runtime
    links = work.parent / "links"
    links.mkdir()
    os.symlink("/etc/passwd", links / "passwd")
    os.symlink(work, links / "folder")
    for code, arguments in (
        ("empty_contract", ([], 10, work, out)),
        ("missing_contract", (None, 10, work, out)),
        ("invalid_timeout", (PROMISED, 0, work, out)),
        ("link_in_input", (PROMISED, 10, links, out)),
        ("link_in_input", (PROMISED, 10, work, links)),
        ("invalid_folder", (PROMISED, 10, links / "folder", out)),
        ("invalid_folder", (PROMISED, 10, work, links / "folder")),
        ("invalid_folder", (PROMISED, 10, work, out / "kept.txt")),
        ("invalid_exec_id", (PROMISED, 10, work, out, "../x")),
    ):
        with pytest.raises(isorun.InvalidRequest) as caught:
            await run(SUM, *arguments, runtime=runtime)
        assert caught.value.code == code, caught.value
    assert files_below(work) == ["data.csv"]
    assert files_below(out) == ["kept.txt"]
    assert list(tools.runtime.root.glob("codegen_*")) == []


async def test_a_descriptor_opens_a_bundle(tools, tmp_path) -> None:
    """By the descriptor's path or its folder's; what is no bundle is refused by name."""
    assert "local_tools.write_note" in tools.runtime.tools
    assert ToolSubsystem(example_bundle() / "tools_descriptor.py").bundle == example_bundle()
    for nothing in (tmp_path, tmp_path / "tools_descriptor.py", example_bundle() / "README.md"):
        with pytest.raises(isorun.InvalidRequest, match=r"is not a bundle: it has no tools_descriptor\.py") as caught:
            ToolSubsystem(nothing)
        assert caught.value.code == "missing_bundle"


async def test_inside_the_block_exec_tools_use_its_runtime(new_backend, rt, tmp_path, folders) -> None:
    """No runtime needs to be named between `async with ToolSubsystem(...)` and its end."""
    async with ToolSubsystem(example_bundle(), **options_for(new_backend(), tmp_path / "runs", pool_size=0)) as tools:
        result = await exec_tools.run_exec_tool(SUM, PROMISED, 10, *folders)
        assert result.out_dir.parents[1] == tools.runtime.root
