"""`cleanup` leaves alone what it cannot tell: without an engine, or with labels that are not ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_runner.docker_run import EXPIRES, KEPT, LABEL, NONCE, OWNER
from sandbox_runner.leftovers import cleanup, listed
from sandbox_runner.state import Owner, StateFolder

_MAKE = """
import sys
from sandbox_runner.state import StateFolder
state = StateFolder.create(sys.argv[1], 3600)
state.write("sandbox_runner.nonce", b"n0")
"""


@pytest.fixture
def left(tmp_path: Path) -> Iterator[StateFolder]:
    """The state folder of a Docker sandbox whose owner is dead."""
    name = f"sr-unsure-{os.getpid()}"
    subprocess.run([sys.executable, "-c", _MAKE, name], check=True, env={**os.environ, "PYTHONPATH": _source()})
    state = StateFolder.find(name)
    assert state is not None
    yield state
    state.remove()


def _source() -> str:
    return str(Path(sys.modules["sandbox_runner"].__file__ or "").parents[1])


def test_without_a_daemon_a_state_folder_of_a_container_stays(
    left: StateFolder, stub_docker: Callable[..., Any]
) -> None:
    """Its container may stand, and the folder is all that says whose it is; once an engine answers, it goes.

    Control: the same folder without the mark of a container is removed.
    """
    stub_docker({"ps": {"code": 1, "stderr": "Cannot connect to the Docker daemon at unix:///x. Is it running?"}})
    (one,) = (one for one in listed() if one.name == left.name)
    assert (one.state, one.why) == ("unknown: no Docker daemon answers", "")
    cleanup()
    assert left.path.is_dir()

    stub_docker({"ps": {"stdout": ""}})
    assert left.name in [one.name for one in cleanup()]
    assert not left.path.exists()


@pytest.mark.parametrize(
    ("owner", "expires", "seen"),
    [
        ("1 1 elsewhere", "tomorrow", False),
        ("one two three", "", False),
        ("", str(time.time() + 3600), False),
        ("0 0 here", str(time.time() + 3600), True),
    ],
)
def test_labels_that_do_not_read_as_ours_are_not_ours(
    owner: str, expires: str, seen: bool, stub_docker: Callable[..., Any]
) -> None:
    """Anybody with the engine can set labels; those that we would not write make no leftover, and stop no cleanup."""
    labels = {LABEL: "1", NONCE: "x", OWNER: owner, EXPIRES: expires, KEPT: "no"}
    found = [{"Name": "/theirs", "State": {"Status": "running"}, "Config": {"Labels": labels}}]
    stub_docker({"ps": {"stdout": "theirs\n"}, "inspect": {"stdout": json.dumps(found)}})
    assert ("theirs" in [one.name for one in listed()]) == seen
    assert "theirs" not in [one.name for one in cleanup()]


def test_a_folder_of_the_same_name_says_nothing_of_another_start(
    left: StateFolder, stub_docker: Callable[..., Any]
) -> None:
    """A container whose nonce is not the folder's is judged by its own labels: here its owner lives."""
    me = Owner.of(os.getpid())
    assert me is not None
    labels = {LABEL: "1", NONCE: "other", OWNER: f"{me.pid} {me.started} {me.host}", KEPT: "no"}
    labels[EXPIRES] = str(time.time() + 3600)
    found = [{"Name": f"/{left.name}", "State": {"Status": "running"}, "Config": {"Labels": labels}}]
    stub_docker({"ps": {"stdout": f"{left.name}\n"}, "inspect": {"stdout": json.dumps(found)}})
    (one,) = (one for one in listed() if one.kind == "container")
    assert one.why == ""
