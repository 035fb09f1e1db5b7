"""A user's file under `mypy --strict`: every wrong keyword and every wrong type is found, and nothing else is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # mypy reads the whole package

_WRONG = """
import isorun
from isorun.tools import exec_tools
from isorun.tools.subsystem import ToolSubsystem

isorun.run("1", inputz=[])
isorun.run("1", timeout_s=[])
isorun.run(3)
isorun.SyncRuntime(bundel="x")
isorun.Runtime(pool_size="2")
ToolSubsystem("x", pool=3)
isorun.RunRequest.of("1", timeout=3)

def use(rt: isorun.SyncRuntime) -> None:
    rt.execute("1", timeout=3)
    rt.start("1", on_output=3)
    rt.exekute("1")
    status: int = rt.execute("1").stdout
    for event in rt.start("1").events():
        print(event.kin)
    rt.start("1").cancel(now=True)
    rt.open().execute("1", tools=3)

async def wait(rt: isorun.Runtime) -> None:
    await rt.execute("1", inputs=3)
    await (await rt.start("1")).results()
    await exec_tools.run_exec_tool("1", [], 3, "work", "out", on_outputs=print)
"""

_RIGHT = """
from collections.abc import Iterator
from pathlib import Path

import isorun
from isorun.tools.subsystem import ToolSubsystem

def show(stream: str, data: bytes) -> None: ...

def use() -> str:
    with isorun.SyncRuntime(pool_size=1, bundle=Path("x")) as rt:
        run = rt.start(Path("x.py"), on_output=show, inputs=["a", Path("b")], timeout_s=3)
        for event in run.events():
            print(event.kind)
        return run.cancel().stdout + rt.execute("1", inputs="a").stderr + isorun.run(b"1").report_text

async def wait() -> str:
    async with ToolSubsystem("x", pool_size=1) as tools:
        return (await tools.runtime.execute("1", argv=["a"])).stdout
"""


def found_in(text: str, folder: Path) -> tuple[list[int], str]:
    """The lines in which mypy finds an error, and what it says."""
    file = folder / "user_file.py"
    file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={folder}/cache", str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=280,
    )
    return [int(line) for line in re.findall(r"^user_file\.py:([0-9]+): error: ", done.stdout, re.M)], done.stdout


@pytest.mark.timeout(300)
def test_every_mistake_is_found(tmp_path) -> None:
    """Each line with a mistake has its error: through `run`, both Runtimes, their runs, a bundle, the exec tools."""
    lines = _WRONG.splitlines()
    calls = [number for number, line in enumerate(lines, 1) if re.search(r"\w\(", line) and "def " not in line]
    calls.remove(next(n for n, line in enumerate(lines, 1) if line.endswith(".events():")))
    wrong = sorted([*calls, next(n for n, line in enumerate(lines, 1) if "event.kin" in line)])
    found, said = found_in(_WRONG, tmp_path)
    assert found == sorted(set(wrong)), said
    assert len(found) >= 10


@pytest.mark.timeout(300)
def test_what_is_right_is_let_through(tmp_path) -> None:
    """The same calls without the mistakes have no error."""
    found, said = found_in(_RIGHT, tmp_path)
    assert found == [], said
