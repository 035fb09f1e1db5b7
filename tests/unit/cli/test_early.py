"""The jail that `isorun run` starts before it has imported what talks to the jail."""

import glob
import os
import subprocess
import sys
from pathlib import Path

import pytest

import isorun
from isorun.backends.namespace import spawn
from isorun.cli.run import early
from isorun.cli.run.command import Wanted
from isorun.runtime import choose

pytestmark = pytest.mark.uid


def _left() -> tuple[str, list[str], int]:
    """Our children, root's staging folders of ours, and how many descriptors we have."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    stages = [path for place in spawn.staging_places() for path in glob.glob(f"{place}/{spawn.STAGE}{os.getpid()}-*")]
    return children, stages, len(os.listdir("/proc/self/fd"))


@pytest.fixture
def wanted(require) -> Wanted:
    """A run on the embedded backend, where it works."""
    try:
        isorun.run("pass", backend="namespace")
    except isorun.Unavailable as error:
        require("namespace", str(error))
    return Wanted(code="pass", backend="namespace")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ImportError])
def test_a_jail_that_was_not_taken_is_ended(wanted, error, monkeypatch) -> None:
    """An interrupt while the rest is imported leaves no process, no folder and no descriptor."""
    seen = []

    def interrupted(settings: isorun.Settings, spawned: spawn.Spawned) -> None:
        seen.append(Path(f"/proc/{spawned.process.pid}").exists())
        raise error

    monkeypatch.setattr(choose, "namespace_backend", interrupted)
    before = _left()
    with pytest.raises(error), early.early_start(wanted):
        pass
    assert seen == [True]
    assert _left() == before


_INTERRUPTED = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "asyncio.unix_events":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
sys.argv = ["isorun", "run", "-c", "pass"]
from isorun.cli.main import main
main()
"""


def test_an_interrupt_comes_between_two_imports_and_not_within_one(wanted) -> None:
    """Asyncio, half imported, could not end the jail: its folder would stay, and the error would be ours."""
    variables = {**os.environ, "ISORUN_BACKEND": "namespace"}
    with subprocess.Popen([sys.executable, "-c", _INTERRUPTED], stderr=subprocess.PIPE, env=variables) as command:
        said = command.communicate()[1]
    assert (command.returncode, said) == (130, b"")
    places = spawn.staging_places()
    assert not [path for place in places for path in place.glob(f"{spawn.STAGE}{command.pid}-*")]


def test_a_jail_that_is_not_used_is_ended(wanted) -> None:
    """The backend has taken it, and was not entered: a program that cannot be read, say."""
    before = _left()
    with early.early_start(wanted) as started:
        assert started is not None
        assert _left() != before
    assert _left() == before


def test_what_cannot_be_started_is_left_to_the_backend(wanted, monkeypatch) -> None:
    """Its error has every backend's reason, or names another backend; here it would have only the first one's."""

    def cannot(*given: object, **named: object) -> spawn.Spawned:
        raise isorun.Unavailable("no jail today")

    monkeypatch.setattr(spawn, "spawn", cannot)
    given = []
    monkeypatch.setattr(choose, "namespace_backend", lambda settings, spawned: given.append(spawned) or sys.exit(3))
    with pytest.raises(SystemExit), early.early_start(wanted):
        pass
    assert given == [None]


def test_a_program_has_its_collector(wanted) -> None:
    """It is off while the command and the jail import what they need, and on for what a program makes."""
    command = [sys.executable, "-m", "isorun", "run", "--no-keep", "-c", "import gc; print(gc.isenabled())"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "ISORUN_BACKEND": "namespace"})
    assert done.stdout == "True\n", done.stderr
