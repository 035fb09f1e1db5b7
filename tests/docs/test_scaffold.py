"""tools/scaffold/scaffold.py: what each task of each project runs, and how its end is told."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytestmark = pytest.mark.any_user

SCAFFOLD = ROOT / "tools" / "scaffold" / "scaffold.py"
PYTEST = ".venv/bin/python -m pytest packages/sandbox_runner/tests"
LINT = [
    ".venv/bin/python -m ruff check packages/sandbox_runner",
    ".venv/bin/python -m ruff format --check packages/sandbox_runner",
    ".venv/bin/python -m mypy packages/sandbox_runner/src",
]
TASKS = {
    ("sandbox_runner", "install"): ["make setup"],
    ("sandbox_runner", "test"): ["make setup", PYTEST],
    ("sandbox_runner", "lint"): ["make setup", *LINT],
    ("isorun", "install"): ["make setup"],
    ("isorun", "test"): ["make test"],
    ("isorun", "lint"): ["make check"],
}
#: Says what it was asked for; fails, as it is told, when that has the word $FAILS in it.
STUB = """#!/bin/sh
cd {folder} && [ "$PWD" = "$OLDPWD" ] || exit 99
shown="{name} $*"
echo "$shown"
case "$shown" in *"${{FAILS:-nothing}}"*) eval "$HOW";; esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the script, whose make and whose environment's Python only say what they were asked for."""
    folder = tmp_path / "checkout"
    for name, path in (("make", folder / "bin" / "make"), (".venv/bin/python", folder / ".venv" / "bin" / "python")):
        path.parent.mkdir(parents=True)
        path.write_text(STUB.format(folder=folder, name=name), encoding="utf-8")
        path.chmod(0o755)
    script = folder / "tools" / "scaffold" / "scaffold.py"
    script.parent.mkdir(parents=True)
    script.write_bytes(SCAFFOLD.read_bytes())
    return folder


def run(checkout: Path, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """`python tools/scaffold/scaffold.py arguments…`, in a folder that is not the checkout."""
    return subprocess.run(
        # -I: it needs nothing but the standard library.
        [sys.executable, "-I", str(checkout / "tools" / "scaffold" / "scaffold.py"), *arguments],
        cwd=checkout.parent,
        env={"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}", **environ},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("project", "task"), TASKS)
def test_a_task_runs_its_commands(project, task, checkout) -> None:
    """In order, at the top of the checkout, wherever it was started."""
    done = run(checkout, "run", task, "--project", project)
    assert (done.returncode, done.stderr) == (0, "")
    shown = done.stdout.replace(f" PYTHON={sys.executable}", "").splitlines()
    assert shown == TASKS[project, task]


@pytest.mark.parametrize(("how", "code"), [("exit 7", 7), ("kill -9 $$", 137)])
def test_the_exit_code_is_that_of_the_first_command_that_fails(how, code, checkout) -> None:
    """The commands after it are not run; a signal is shown as a shell shows it."""
    done = run(checkout, "run", "lint", "--project", "sandbox_runner", FAILS="format", HOW=how)
    assert done.returncode == code
    assert done.stdout.splitlines()[1:] == LINT[:2]


@pytest.mark.parametrize(
    ("arguments", "complaint", "known"),
    [
        (("run", "build", "--project", "isorun"), "invalid choice: 'build'", ("install", "lint", "test")),
        (("run", "test", "--project", "isoruns"), "invalid choice: 'isoruns'", ("isorun", "sandbox_runner")),
        (("run", "test"), "the following arguments are required: --project", ()),
        ((), "the following arguments are required: run", ()),
    ],
)
def test_what_there_is_not_is_refused(arguments, complaint, known, checkout) -> None:
    """Exit 2, nothing is run, and a wrong name is answered with those that there are."""
    done = run(checkout, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    _, found, rest = done.stderr.partition(complaint)
    assert found, done.stderr
    assert tuple(re.findall(r"[a-z_]+", rest.partition("choose from")[2])) == known


def test_it_is_short() -> None:
    """60 lines at most."""
    assert len(SCAFFOLD.read_text(encoding="utf-8").splitlines()) <= 60
