"""The fixture for people who write tools, used as they use it."""

import subprocess
import sys
from pathlib import Path

import pytest

import isorun
from isorun.executor.calls.agent_io_tools import ToolFailed, ToolInputInvalid
from isorun.tools.bundles import example_bundle

pytestmark = pytest.mark.any_user

_DESCRIPTOR = 'TOOLS = [{"ref": "mine.py", "alias": "mine"}]\n'
_TOOL = '''
import isorun

@isorun.tool
def greet(name: str, ctx: isorun.ToolContext) -> str:
    """Greet somebody.

    Args:
        name: Who it is.
    """
    print("greeting", name)
    if name == "nobody":
        raise isorun.ToolError("there is nobody to greet")
    with ctx.open_output("greetings.txt", "a") as file:
        file.write(f"{name} {ctx.env.get('GREETING', '')}\\n")
    return f"hello {name}"
'''


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "tools_descriptor.py").write_text(_DESCRIPTOR)
    (folder / "mine.py").write_text(_TOOL)
    return folder


def test_a_tool_is_called_as_a_program_would(isorun_bundle, bundle) -> None:
    """Result, files, prints and the allowed environment are all there to be looked at."""
    tools = isorun_bundle(bundle, env={"GREETING": "ahoy"})
    assert tools.call("mine.greet", name="Ada") == "hello Ada"
    assert tools.read("greetings.txt") == b"Ada ahoy\n"
    assert "greeting Ada" in tools.log
    assert tools.described["mine.greet"]["parameters"]["required"] == ["name"]


def test_what_goes_wrong_is_what_a_program_gets(isorun_bundle, bundle) -> None:
    """A wrong argument and a ToolError arrive as the program's own exceptions."""
    tools = isorun_bundle(bundle)
    with pytest.raises(ToolInputInvalid, match="name: Input should be a valid string"):
        tools.call("mine.greet", name=5)
    with pytest.raises(ToolFailed, match="there is nobody to greet"):
        tools.call("mine.greet", name="nobody")


async def test_it_works_where_a_loop_runs(isorun_bundle) -> None:
    """Tests of async code can use it too; the example bundle loads."""
    tools = isorun_bundle(example_bundle())
    path = tools.call("local_tools.write_note", text="a note")
    assert tools.read(path) == b"a note"


def test_a_bundle_that_cannot_be_loaded_says_where(isorun_bundle, bundle) -> None:
    """The error names file, line and tool."""
    (bundle / "mine.py").write_text("import isorun\n\n@isorun.tool\ndef greet(name):\n    '''Greet.'''\n")
    with pytest.raises(isorun.InvalidRequest) as caught:
        isorun_bundle(bundle)
    assert str(caught.value) == f"{bundle}/mine.py:3: mine.greet: the parameter name has no type hint"
    assert caught.value.code == "invalid_bundle"


def test_it_is_there_without_a_conftest(bundle, tmp_path) -> None:
    """In a project of somebody's own, the fixture needs no import."""
    test = tmp_path / "test_mine.py"
    test.write_text(
        f"def test_greet(isorun_bundle):\n    assert isorun_bundle({str(bundle)!r}).call('mine.greet', name='x')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(test)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout
