"""A folder that somebody cloned cannot act: what lies in it runs nowhere but in a sandbox."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.conftest import inherited

pytestmark = pytest.mark.any_user

COMMAND = [str(Path(sys.executable).parent / "isorun")]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cloned(tmp_path: Path) -> Path:
    """A stranger's folder: whatever of it runs on the host leaves the file `pwned` in the folder above."""
    folder = tmp_path / "cloned"
    (folder / "b").mkdir(parents=True)
    mark = f"open({str(tmp_path / 'pwned')!r}, 'a').write('x')\n"
    (folder / "b" / "tools_descriptor.py").write_text(mark + "TOOLS = []\n")
    (folder / "evil").write_text(f'#!/bin/sh\necho x >>"{tmp_path}/pwned"\nexec {sys.executable} "$@"\n')
    (folder / "evil").chmod(0o755)
    for name in ("isorun", "sandbox_runner", "sitecustomize", "dotenv", "json"):
        (folder / f"{name}.py").write_text(mark)  # what an import of the current folder would find
    (folder / ".env.backend").write_text("ISORUN_PROGRAM_PYTHON=./evil\nISORUN_RETENTION_HOURS=0.0000001\n")
    (folder / "x.py").write_text("print('ran')\n")
    return folder


@pytest.fixture
def command(cloned: Path, tmp_path: Path) -> Command:
    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        own = {"HOME": str(tmp_path / "home"), "ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs")}
        return subprocess.run(
            [*COMMAND, *words], cwd=cloned, env={**inherited(), **own}, capture_output=True, text=True, timeout=60
        )

    return run


LINES = {
    "the interpreter of programs": "ISORUN_PROGRAM_PYTHON=./evil\n",
    "a bundle": "ISORUN_BUNDLE=./b\n",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_nothing_of_a_folder_runs_on_the_host(line: str, cloned: Path, command: Command, tmp_path: Path) -> None:
    """No command executes what the folder's .env.backend names, until that file is trusted."""
    (cloned / ".env.backend").write_text(line)
    name = line.partition("=")[0]
    done = command("run", "x.py")
    assert (done.stdout, done.returncode) == ("ran\n", 0), done.stderr
    assert f"{name} ignored, because you have not trusted this file" in done.stderr
    assert done.stderr.count("isorun config trust") == 1
    for words in (("doctor",), ("config", "show"), ("tools", "ls"), ("cleanup",)):
        command(*words)
    assert not (tmp_path / "pwned").exists()
    assert command("config", "trust").returncode == 0
    command("run", "x.py")
    assert (tmp_path / "pwned").exists(), "the control: trusted, it runs"


def test_a_folder_removes_no_stored_run(cloned: Path, command: Command, tmp_path: Path) -> None:
    """A retention of no time at all in a stranger's folder would remove the results of everybody's runs."""
    (cloned / ".env.backend").write_text("ISORUN_RETENTION_HOURS=0.0000001\n")
    assert command("run", "x.py").returncode == 0
    assert command("run", "x.py").returncode == 0
    assert len(list((tmp_path / "runs").glob("codegen_*"))) == 2
    command("config", "trust")
    command("run", "x.py")
    assert len(list((tmp_path / "runs").glob("codegen_*"))) == 1, "the control: trusted, it removes them"


def test_a_notebook_in_such_a_folder_is_as_safe(cloned: Path, tmp_path: Path) -> None:
    """Plain `isorun.run` reads the same file by the same rule."""
    (cloned / ".env.backend").write_text("ISORUN_BUNDLE=./b\nISORUN_PROGRAM_PYTHON=./evil\n")
    code = "import isorun; print(isorun.run('print(1)').status)"
    own = {**os.environ, "HOME": str(tmp_path / "home"), "ISORUN_WORKSPACE_ROOT": str(tmp_path / "runs")}
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=cloned, env=own, capture_output=True, text=True)
    assert done.stdout == "ok\n", done.stderr
    assert not (tmp_path / "pwned").exists()
    assert "ISORUN_BUNDLE, ISORUN_PROGRAM_PYTHON ignored" in done.stderr
