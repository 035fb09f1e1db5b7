"""SPEC D: the bundle as a folder of code, its note tool, and many runs of few users at once."""

import asyncio
import io
import os
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

import isorun
from isorun.tools.bundles import bundle_module, example_bundle
from isorun.tools.subsystem import ToolSubsystem
from isorun.tools.workspace import Workspaces
from tests.conformance.conftest import options_for
from tests.conformance.scenes import BUNDLE, SCENARIOS, WORKFLOW, Heard, files_below, settings_below

RUNS = 20
ROUND = (0, 12, 4, 11)
#: What each scenario of a round leaves below its turn's files/.
LEFT = {
    0: ["hello-iso-runtime.txt"],
    12: ["one.txt", "two.txt"],
    4: ["first.txt"],
    11: ["hello-iso-runtime.txt"],
}


@pytest.fixture
async def tools(new_backend, sealed, rt, tmp_path) -> AsyncIterator[ToolSubsystem]:
    options = options_for(new_backend(), tmp_path / "runs", settings=settings_below(tmp_path), pool_size=2)
    settings = options.pop("settings")
    async with WORKFLOW.new_subsystem(settings, **options) as opened:
        yield opened


async def test_two_users_with_20_runs_each_at_once(tools, tmp_path) -> None:
    """No file of one is with the other, no note is lost, and both workspaces are exactly what the runs left."""
    settings = settings_below(tmp_path)

    async def one(user: str, number: int) -> tuple[str, int, str]:
        heard = Heard()
        flow = WORKFLOW.Workflow(heard, user_id=user, settings=settings, subsystem=tools)
        report = await flow.run(f"scenario {number}")
        assert report.wrong == (), report.text
        assert len(heard.errors) == (number == 11)
        return user, number, report.result.turn_id

    wanted = [(user, ROUND[n % len(ROUND)]) for n in range(RUNS) for user in ("alice", "bob")]
    ended = await asyncio.gather(*(one(user, number) for user, number in wanted))
    assert len({turn for _, _, turn in ended}) == 2 * RUNS
    for user in ("alice", "bob"):
        found = files_below(tmp_path / "workspace" / user)
        notes = [path for path in found if path.startswith("out/notes/")]
        files = [f"out/{turn}/files/{name}" for who, number, turn in ended if who == user for name in LEFT[number]]
        assert sorted(set(found) - set(notes)) == sorted(files)
        assert len(notes) == RUNS // len(ROUND)
        for note in notes:
            assert (tmp_path / "workspace" / user / note).read_text() == "note from iso-runtime"
    assert sorted(os.listdir(tmp_path / "sandbox")) == [".isorun", "alice", "bob"]


async def test_notes_of_one_moment_do_not_overwrite_each_other(tools) -> None:
    """A hundred notes, ten at a time, are a hundred files, each with its own text."""
    code = """
import itertools
paths = []
for first in range(0, 100, 10):
    calls = (local_tools.write_note(text=f"note {number}") for number in range(first, first + 10))
    paths += await asyncio.gather(*calls)
assert len(set(paths)) == 100
assert [Path(path).read_text() for path in paths] == [f"note {number}" for number in range(100)]
"""
    result = await tools.runtime.execute(code, timeout_s=20, tools=["local_tools.write_note"])
    assert result.ok, result.report_text
    assert len(result.workspace_diff["created"]) == 100
    for path in result.workspace_diff["created"]:
        assert path.startswith("notes/20")
        assert path.endswith("-note.txt")


def test_a_note_whose_name_is_taken_gets_a_number() -> None:
    """Files are opened with mode x; a name that is there already is counted up, not written to."""
    opened: list[tuple[str, str]] = []

    class Context:
        output_dir = PurePosixPath("/workspace/out")

        def open_output(self, path: str, mode: str) -> io.StringIO:
            opened.append((path, mode))
            if len(opened) < 3:
                raise FileExistsError(path)
            return io.StringIO()

    returned = bundle_module(BUNDLE, "tools.local_tools").write_note("x", Context())
    (first, _), (second, _), (third, _) = opened
    assert re.fullmatch(r"notes/\d{8}T\d{6}\.\d{6}Z-note\.txt", first)
    assert (second, third) == (first.replace("-note", "-1-note"), first.replace("-note", "-2-note"))
    assert {mode for _, mode in opened} == {"x"}
    assert returned == f"/workspace/out/{third}"


async def test_seed_001s_call_runs_as_printed(tools) -> None:
    """Scenario 0's call, letter by letter."""
    code = """
await agent_io_tools.tool_call(
    fn=local_tools.write_note,
    params={"text": "note from iso-runtime"},
    call_reason="Write a simple note file",
    tool_id="local_tools.write_note",
)
"""
    assert code.strip() in SCENARIOS[0].program
    result = await tools.runtime.execute(code, timeout_s=10)
    assert result.ok, result.report_text
    assert Counter((call["tool_id"], call["reason"], call["status"]) for call in result.tool_calls) == {
        ("local_tools.write_note", "Write a simple note file", "ok"): 1
    }


async def test_the_other_tools_answer(tools) -> None:
    """A fact that the program cannot look up, and the text of a tool's own error."""
    code = """
print((await reference_tools.species(name="Gentoo"))["scientific_name"])
try:
    await reference_tools.species(name="Emperor")
except agent_io_tools.ToolFailed as error:
    print(error)
"""
    result = await tools.runtime.execute(code, timeout_s=10)
    assert result.stdout == (
        "Pygoscelis papua\nthere is no entry for 'Emperor'; there are Adelie, Chinstrap, Gentoo\n"
    ), result.report_text


def test_the_bundle_is_what_the_guide_says() -> None:
    """One alias of its own with write_note, two modules for two ways to run, and a README."""
    names = {path.name for path in BUNDLE.iterdir()}
    assert {
        "tools_descriptor.py",
        "exec.py",
        "exec_contract.py",
        "exec_side_effects.py",
        "workflow.py",
        "README.md",
    } <= names
    aliases = [entry["alias"] for entry in bundle_module(BUNDLE, "tools_descriptor").TOOLS]
    assert aliases == ["local_tools", "probe_tools", "reference_tools"]


def test_a_bundle_lies_anywhere_and_is_imported_once(tmp_path) -> None:
    """The folder's name need be no Python name; its files import each other; two bundles do not meet."""
    modules = []
    for name in ("one-bundle", "other bundle"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "exec.py").write_text(f"NAME = {name!r}\n")
        (folder / "workflow.py").write_text("from .exec import NAME\n")
        modules.append(bundle_module(folder, "workflow"))
        assert bundle_module(folder, "workflow") is modules[-1]
    assert [module.NAME for module in modules] == ["one-bundle", "other bundle"]


def test_an_example_that_is_not_there_is_one_error() -> None:
    """The error says what to do."""
    with pytest.raises(isorun.InvalidRequest, match="there is no example bundle nothing: install isorun anew"):
        example_bundle("nothing")


def test_default_roots(tmp_path, monkeypatch) -> None:
    """Settings first; then the checkout's examples, if they are ours to write; then the user's data folder."""
    data = BUNDLE.parent / "data"
    set_ = replace(isorun.Settings(), user_workspace_root=Path("/u"), sandbox_root=Path("/s"))
    spaces = Workspaces.of(set_)
    assert (spaces.workspace_root, spaces.sandbox_root) == (Path("/u"), Path("/s"))
    spaces = Workspaces.of(isorun.Settings(data_home=tmp_path))
    if os.access(BUNDLE.parent, os.W_OK) and (not data.exists() or data.stat().st_uid == os.geteuid()):
        assert (spaces.workspace_root, spaces.sandbox_root) == (data / "workspace", data / "sandbox")
    monkeypatch.setattr("isorun.tools.workspace.os.access", lambda *_: False)
    monkeypatch.setattr("isorun.tools.workspace.os.geteuid", lambda: 77)
    spaces = Workspaces.of(isorun.Settings(data_home=tmp_path))
    assert (spaces.workspace_root, spaces.sandbox_root) == (tmp_path / "isorun/workspace", tmp_path / "isorun/sandbox")
    monkeypatch.setenv("HOME", "/home/me")
    assert Workspaces.of(isorun.Settings()).workspace_root == Path("/home/me/.local/share/isorun/workspace")
