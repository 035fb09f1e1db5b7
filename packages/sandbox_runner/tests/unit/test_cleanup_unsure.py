"""`cleanup` leaves alone what it cannot tell: without an engine, or with labels that are not ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_runner import leftovers
from sandbox_runner.docker.line import EXPIRES, KEPT, LABEL, NAME, NONCE, OWNER, ROOT
from sandbox_runner.errors import SandboxError
from sandbox_runner.leftovers import cleanup, listed
from sandbox_runner.namespace import instance as namespace_instance
from sandbox_runner.state import Owner, StateFolder, state_root

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
    assert (one.state, one.why) == ("unknown: the Docker engine does not answer", "")
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
        ("", "in an hour", False),
        ("0 0 here", "in an hour", True),
    ],
)
def test_labels_that_do_not_read_as_ours_are_not_ours(
    owner: str, expires: str, seen: bool, stub_docker: Callable[..., Any]
) -> None:
    """Anybody with the engine can set labels; those that we would not write make no leftover, and stop no cleanup."""
    expires = str(time.time() + 3600) if expires == "in an hour" else expires
    labels = {LABEL: "1", NAME: "theirs", NONCE: "x", OWNER: owner, EXPIRES: expires, KEPT: "no"}
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
    labels = {LABEL: "1", NAME: left.name, NONCE: "other", OWNER: f"{me.pid} {me.started} {me.host}", KEPT: "no"}
    labels[EXPIRES] = str(time.time() + 3600)
    found = [{"Name": f"/{left.name}", "State": {"Status": "running"}, "Config": {"Labels": labels}}]
    stub_docker({"ps": {"stdout": f"{left.name}\n"}, "inspect": {"stdout": json.dumps(found)}})
    (one,) = (one for one in listed() if one.kind == "container")
    assert one.why == ""


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in memory of this test's own, for the state of its own sandboxes."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="sandbox-test-") as place:
        monkeypatch.setenv("XDG_RUNTIME_DIR", place)
        monkeypatch.setattr(leftovers, "_SETTLE_S", 0)  # no owner is killed while these run
        yield Path(place)


def _engine_with(stub_docker: Callable[..., Any], root: object, kept: str, expires: float) -> None:
    """An engine with one container, whose owner is dead, and whose state is in *root*."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        started = Owner.of(process.pid)
        process.wait()
    assert started is not None
    labels = {LABEL: "1", NAME: "kept", NONCE: "x", KEPT: kept}
    labels |= {OWNER: f"{started.pid} {started.started} {started.host}", EXPIRES: str(expires), ROOT: str(root)}
    found = [{"Name": "/kept", "Id": "1", "State": {"Status": "running"}, "Config": {"Labels": labels}}]
    stub_docker({"ps": {"stdout": "kept\n"}, "inspect": {"stdout": json.dumps(found)}, "rm": {}})


@pytest.mark.parametrize("kept", ["yes", "no"])
def test_a_container_of_another_state_root_stays_until_its_time_is_over(
    memory: Path, stub_docker: Callable[..., Any], kept: str
) -> None:
    """Of another user, or a session with another XDG_RUNTIME_DIR: that it is kept, or adopted, is said only there.

    Control: with our root, or at the end of its time, the same container is a leftover.
    """
    later = time.time() + 3600
    _engine_with(stub_docker, "/run/user/4242/sandbox-runner-4242", kept, later)
    (one,) = listed()
    assert (one.state, one.why) == ("another user's or session's", "")
    assert cleanup() == []

    _engine_with(stub_docker, state_root(), kept, later)
    (one,) = listed()
    assert (one.state, one.why) == ("running", "its owner is dead")
    _engine_with(stub_docker, "/run/user/4242/sandbox-runner-4242", kept, time.time() - 1)
    (one,) = listed()
    assert (one.state, one.why) == ("running", "its time to live is over")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyError("x"), RecursionError("deep")])
def test_one_that_cannot_be_removed_does_not_keep_the_others(
    memory: Path, stub_docker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Whatever is the matter with it; all of those that stay are named at the end."""
    stub_docker({"ps": {"stdout": ""}})
    states = {name: StateFolder.create(name, 1e-9) for name in ("sr-a", "sr-b", "sr-c", "sr-d")}
    real = namespace_instance.remove_leftovers

    def remove_leftovers(state: StateFolder) -> None:
        if state.name in ("sr-a", "sr-c"):
            raise error
        real(state)

    monkeypatch.setattr(namespace_instance, "remove_leftovers", remove_leftovers)
    with pytest.raises(SandboxError) as raised:
        cleanup()
    said = str(error) if isinstance(error, OSError) else repr(error)
    assert str(raised.value) == f"not everything could be removed: sr-a: {said}; sr-c: {said}"
    assert [name for name, state in states.items() if state.path.exists()] == ["sr-a", "sr-c"]


@pytest.mark.parametrize("file", ["owner.json", "drafts.json", "namespace.json", "sandbox.json"])
@pytest.mark.parametrize("said", [b"", b"{", b"[]", b"5", b'{"of": "another version"}'])
def test_a_state_that_cannot_be_read_is_in_nobodys_way(
    memory: Path, stub_docker: Callable[..., Any], file: str, said: bytes
) -> None:
    """Half a file, or another version's: it is listed, and what else is left is removed."""
    stub_docker({"ps": {"stdout": ""}})
    odd, other = StateFolder.create("odd", 3600), StateFolder.create("other", 1e-9)
    odd.write(file, said)
    assert [one.name for one in listed()] == ["odd", "other"]
    assert [one.name for one in cleanup()] == ["other"]
    assert not other.path.exists()
    odd.abandon()
    try:
        cleanup()
    except SandboxError as error:
        assert str(error).startswith("not everything could be removed: odd ")  # noqa: PT017 - one of both
        assert odd.path.exists()
    else:
        assert not odd.path.exists()
