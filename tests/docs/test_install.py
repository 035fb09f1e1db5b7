"""isorun from its sources, as somebody installs it who has just cloned them: one command, in a path with a blank.

Needs pip's index, as `make setup` does.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.pages import ROOT

pytestmark = [pytest.mark.any_user, pytest.mark.timeout(280)]  # fetches isorun's dependencies, and builds it

NOT_CLONED = shutil.ignore_patterns(".git", ".venv", "dist", "__pycache__", ".*_cache", ".hypothesis")
GIT = ("git", "-c", "user.name=somebody", "-c", "user.email=somebody@example.org")


class Clone(NamedTuple):
    """A clone, and an environment of its own with isorun in it; both lie in `place`."""

    place: Path

    @property
    def checkout(self) -> Path:
        return self.place / "my clone"

    def run(self, program: str, *words: str) -> "subprocess.CompletedProcess[str]":
        """A command of the environment, in an empty folder, with nothing of this process's settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ISORUN_", "PYTHON"))}
        return subprocess.run(
            [str(self.place / "venv" / "bin" / program), *words],
            cwd=self.place / "empty",
            env=kept | {"ISORUN_WORKSPACE_ROOT": str(self.place / "runs")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def pip(self, *words: str) -> None:
        """Have pip do it; what it said is told if it cannot."""
        done = self.run("python", "-m", "pip", "-q", *words)
        assert done.returncode == 0, done.stdout + done.stderr

    def answer(self) -> "subprocess.CompletedProcess[str]":
        """Run a program of one line."""
        program = self.place / "empty" / "answer.py"
        program.write_text("print(6 * 7)\n", encoding="utf-8")
        return self.run("isorun", "run", str(program))


@pytest.fixture(scope="module")
def clone() -> Iterator[Clone]:
    """A clone of this checkout's files as they are now, and `pip install .` in it, into a new environment."""
    # Not pytest's own folder, which is closed to the uid that programs run as.
    with tempfile.TemporaryDirectory(prefix="isorun install ") as name:
        place = Path(name)
        place.chmod(0o755)
        made = Clone(place)
        (place / "empty").mkdir()
        shutil.copytree(ROOT, made.checkout, ignore=NOT_CLONED)
        for command in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "all of it")):
            subprocess.run([*GIT, *command], cwd=made.checkout, check=True)
        subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
        made.pip("install", str(made.checkout))
        yield made


def test_pip_install_is_enough(clone, require) -> None:
    """`pip install .` gives an isorun that runs a program."""
    done = clone.answer()
    if done.returncode == 4:
        require("namespace", done.stderr)
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


def test_doctor_finds_every_wall(clone, require) -> None:
    """`isorun doctor` of that environment says that programs run sealed."""
    done = clone.run("isorun", "doctor")
    if done.returncode == 4:
        require("namespace", done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_demo_needs_nothing_installed_beside_it(clone, require) -> None:
    """`isorun demo`, the README's first line, works without the extras, and says what it leaves out: a PDF."""
    assert clone.run("python", "-c", "import pandas").returncode == 1
    done = clone.run("isorun", "demo")
    if done.returncode == 4:
        require("namespace", done.stderr)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.splitlines()[-1].startswith("every wall held (")
    assert "A report with sources is left out; it needs typst, mdit-py-plugins" in " ".join(done.stdout.split())
    (report,) = [line.removeprefix("report ") for line in done.stdout.splitlines() if line.startswith("report ")]
    assert "data:image/png;base64," in Path(report).read_text(encoding="utf-8")


def test_an_address_of_the_repository_is_enough(clone, require) -> None:
    """pip installs from `git+file://…`, as uvx and pipx do."""
    address = f"git+file://{str(clone.checkout).replace(' ', '%20')}"
    clone.pip("install", "--force-reinstall", "--no-deps", address)
    done = clone.answer()
    if done.returncode == 4:
        require("namespace", done.stderr)
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


def test_sandbox_runner_may_be_installed_beside_it_and_removed(clone, require) -> None:
    """The other distribution has its own files: isorun runs with it, and after it was removed."""
    where = ("-c", "import sandbox_runner; print(sandbox_runner.__file__)")
    clone.pip("install", "--no-deps", str(clone.checkout / "packages" / "sandbox_runner"))
    assert "/carried/" not in clone.run("python", *where).stdout
    with_it = clone.answer()
    if with_it.returncode == 4:
        require("namespace", with_it.stderr)
    clone.pip("uninstall", "-y", "sandbox_runner")
    assert "/isorun/carried/sandbox_runner/" in clone.run("python", *where).stdout
    without = clone.answer()
    assert [with_it.stdout, without.stdout] == ["42\n", "42\n"], with_it.stderr + without.stderr


def test_isorun_may_be_removed_from_beside_sandbox_runner(clone) -> None:
    """Removing isorun leaves every file of the other distribution."""
    clone.pip("install", "--no-deps", str(clone.checkout / "packages" / "sandbox_runner"))
    clone.pip("uninstall", "-y", "isorun")
    try:
        done = clone.run("sandbox-runner", "--help")
        assert done.returncode == 0, done.stderr
    finally:
        clone.pip("uninstall", "-y", "sandbox_runner")
        clone.pip("install", "--no-deps", str(clone.checkout))


@pytest.mark.parametrize("command", ["doctor", "cleanup", "attack-matrix", "run -"])
def test_without_the_path_file_every_command_says_why(clone, command) -> None:
    """Where Python reads no .pth file (`pip install --target`), commands refuse with a remedy, and no traceback."""
    (file,) = (clone.place / "venv").rglob("isorun_carried.pth")
    kept = file.rename(clone.place / "kept")
    try:
        done = clone.run("isorun", *command.split())
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.startswith("isorun: sandbox_runner is missing")
        assert "install isorun into a virtual environment" in done.stderr
    finally:
        kept.rename(file)


def test_a_sandbox_runner_of_another_version_is_refused(clone, tmp_path) -> None:
    """The outer wall is of isorun's own version, or nothing starts; the message says how to get it back."""
    other = shutil.copytree(clone.checkout / "packages" / "sandbox_runner", tmp_path / "other")
    source = other / "src" / "sandbox_runner" / "__init__.py"
    source.write_text(source.read_text("utf-8").replace('__version__ = "0.1.0"', '__version__ = "9.9.9"'), "utf-8")
    clone.pip("install", "--no-deps", str(other))
    try:
        done = clone.answer()
        assert done.returncode == 4
        assert "found sandbox_runner 9.9.9" in done.stderr
        assert "pip uninstall sandbox_runner" in done.stderr
    finally:
        clone.pip("uninstall", "-y", "sandbox_runner")
