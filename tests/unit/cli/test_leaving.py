"""The end of the process `isorun run`: what the interpreter would have done, but for taking itself apart."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.any_user

_RUN = "import sys; from isorun.cli.main import main; sys.argv = ['isorun', *{words!r}]; main()"
_LEFT = "class Left:\n    def __del__(self): print('taken apart')\nleft = Left()\n"


def _ended(before: str, *words: str, **options: object) -> "subprocess.CompletedProcess[str]":
    code = before + _RUN.format(words=words)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run([sys.executable, "-c", code], text=True, stderr=subprocess.PIPE, env=variables, **options)


def _said(before: str, *words: str) -> tuple[str, int]:
    done = _ended(before, *words, stdout=subprocess.PIPE)
    return done.stdout, done.returncode


def test_what_is_registered_for_the_exit_is_done() -> None:
    """And what it prints is flushed."""
    said, code = _said("import atexit; atexit.register(print, 'bye')\n", "run", "--help")
    assert said.startswith("Usage: isorun run")
    assert said.endswith("bye\n")
    assert code == 0


def test_the_interpreter_is_left_as_it_is() -> None:
    """Control: after another command it is taken apart, with every object."""
    assert not _said(_LEFT, "run", "--help")[0].endswith("taken apart\n")
    assert _said(_LEFT, "--version")[0].endswith("taken apart\n")


def test_a_thread_is_waited_for() -> None:
    """As at any end of an interpreter."""
    thread = "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.5), print('done'))).start()\n"
    said, code = _said(thread, "run", "--help")
    assert said.endswith("done\n")
    assert code == 0


def test_the_exit_code_is_the_commands() -> None:
    """Of one that could not be run, here."""
    assert _said("", "run") == ("", 2)


def test_output_that_cannot_be_written_is_told() -> None:
    """With the interpreter's own exit code for that, and its own words."""
    full = os.open("/dev/full", os.O_WRONLY)
    done = _ended("import atexit; atexit.register(print, 'lost')\n", "run", stdout=full)
    os.close(full)
    assert done.returncode == 120
    assert "No space left on device" in done.stderr
