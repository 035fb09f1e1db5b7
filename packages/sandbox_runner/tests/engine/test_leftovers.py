"""What a killed owner leaves is found and removed by one `cleanup`; what is not ours, or in use, stands."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox_runner import DockerSandbox, SandboxGone, SandboxSpec, SandboxStartFailed, attach, cleanup
from sandbox_runner.docker import inside
from sandbox_runner.leftovers import listed
from sandbox_runner.state import StateFolder, state_root

SOURCE = str(Path(sys.modules["sandbox_runner"].__file__ or "").parents[1])
#: Starts a sandbox, says its name, and waits to be killed.
_OWNER = """
import sys, json
sys.path.insert(0, {source!r})
from sandbox_runner import DockerSandbox, SandboxSpec
spec = SandboxSpec(image_ref={image!r}, env_overrides={{"A": "secret"}}, **json.loads(sys.argv[2]))
instance = DockerSandbox(sys.argv[1] + "/w", sys.argv[1] + "/a", spec).start()
print(instance.container_name, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner(base_image, tmp_path) -> Iterator[Callable[..., tuple["subprocess.Popen[str]", str]]]:
    """Another process that has started a sandbox, and its name."""
    owners = []

    def make(**changes: object) -> tuple["subprocess.Popen[str]", str]:
        program = _OWNER.format(source=SOURCE, image=base_image)
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), json.dumps(changes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        owners.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield make
    for process in owners:
        process.kill()
        process.communicate()
    cleanup()


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_a_sandbox_whose_owner_was_killed_is_found_and_removed(owner, docker_cli, nothing_left) -> None:
    """With its state; and not before its owner is dead."""
    process, name = owner()
    (mine,) = (one for one in listed() if one.name == name)
    assert (mine.kind, mine.state, mine.why) == ("container", "running", "")
    assert name not in [one.name for one in cleanup()]
    assert docker_cli("inspect", "--format", "{{.State.Running}}", name) == "true"
    kill(process)
    (would,) = (one for one in cleanup(dry_run=True) if one.name == name)
    assert would.why == "its owner is dead"
    assert docker_cli("inspect", "--format", "{{.State.Running}}", name) == "true"
    assert name in [one.name for one in cleanup()]
    assert docker_cli("inspect", name, check=False) == "[]"
    assert not (state_root() / name).exists()
    nothing_left()


def test_a_container_without_its_state_is_found(owner, docker_cli) -> None:
    """The labels are enough: the owner's number and its start."""
    process, name = owner()
    StateFolder(state_root() / name).remove()
    assert name not in [one.name for one in cleanup()]
    kill(process)
    assert name in [one.name for one in cleanup()]
    assert docker_cli("inspect", name, check=False) == "[]"


def test_a_state_without_its_container_is_found(owner, docker_cli) -> None:
    """Somebody removed the container."""
    process, name = owner()
    docker_cli("rm", "--force", name)
    kill(process)
    (one,) = (one for one in cleanup() if one.name == name)
    assert (one.kind, one.why) == ("folder", "its owner is dead")
    assert not (state_root() / name).exists()


def test_a_time_to_live_ends_it_whoever_owns_it(start) -> None:
    """Also if that is this process, and lives."""
    sandbox = start(ttl_seconds=1)
    until = time.monotonic() + 30
    while not (found := [one for one in cleanup() if one.name == sandbox.container_name]):
        assert time.monotonic() < until
        time.sleep(0.2)
    assert found[0].why == "its time to live is over"
    with pytest.raises(SandboxGone):
        sandbox.exec(["true"])


def test_a_kept_sandbox_outlives_its_owner_and_is_attached(owner, docker_cli, nothing_left) -> None:
    """By name; the files in /tmp, the environment and the walls are what they were. Its time to live ends it."""
    process, name = owner(keep_container=True)
    kill(process)
    assert name not in [one.name for one in cleanup()]
    sandbox = attach(name)
    assert sandbox.exec(["sh", "-c", "echo $A; echo kept > /tmp/x"]).stdout == b"secret\n"
    prefixed = subprocess.run([*sandbox.command_prefix, "sh", "-c", "echo $A"], capture_output=True)
    assert prefixed.stdout == b"secret\n"
    sandbox.close()
    with pytest.raises(SandboxGone, match=f"^{name} is closed$"):
        sandbox.exec(["true"])
    again = attach(name)
    assert again.exec(["cat", "/tmp/x"]).stdout == b"kept\n"
    again.close()
    docker_cli("rm", "--force", name)
    with pytest.raises(SandboxGone) as raised:
        attach(name)
    remedy = f"`sandbox-runner cleanup {name}` removes what is left of it"
    assert str(raised.value) == f"{name} does not run any more: {remedy}"
    StateFolder(state_root() / name).remove()


def test_a_container_ends_by_itself_where_nobody_cleans_up(start, docker_cli, monkeypatch) -> None:
    """With the command of an owner that is gone, which nobody else would end.

    Its label names a later time: whatever is beyond its own is removed by every `cleanup`, and a neighbour may call it.
    """
    monkeypatch.setattr(inside, "_SPARE_S", 11.0 - 3600)
    sandbox = start(ttl_seconds=3600)
    docker_cli("exec", "--detach", sandbox.container_name, "sleep", "300")
    state = ("inspect", "--format", "{{.State.Running}}", sandbox.container_name)
    until = time.monotonic() + 60
    while docker_cli(*state).strip() == "true":
        assert time.monotonic() < until
        time.sleep(0.2)


def test_a_kept_sandbox_ends_with_its_time(owner, docker_cli) -> None:
    """It is nobody's, and is not forgotten."""
    process, name = owner(keep_container=True, ttl_seconds=2)
    kill(process)
    until = time.monotonic() + 30
    while name not in [one.name for one in cleanup()]:
        assert time.monotonic() < until
        time.sleep(0.2)
    assert docker_cli("inspect", name, check=False) == "[]"


def test_who_attaches_is_the_owner_from_then_on(owner) -> None:
    """The end of the one that started it is no reason to clean up."""
    process, name = owner()
    sandbox = attach(name)
    kill(process)
    assert name not in [one.name for one in cleanup()]
    assert sandbox.exec(["true"]).ok
    sandbox.close()
    assert name not in [one.name for one in listed()]


def test_there_is_nothing_to_attach_under_another_name() -> None:
    """The text says how to find the right one."""
    with pytest.raises(SandboxGone) as raised:
        attach("no-such-sandbox")
    assert str(raised.value) == "there is no sandbox named no-such-sandbox: `sandbox-runner ps` lists them"


def test_a_container_of_somebody_else_keeps_its_name(docker_cli, base_image, tmp_path, nothing_left) -> None:
    """A start under its name is refused, and leaves it as it is."""
    name = f"sr-test-foreign-{os.getpid()}"
    number = docker_cli("run", "--detach", "--name", name, "--network", "none", base_image, "sleep", "3600")
    try:
        with pytest.raises(SandboxStartFailed) as raised:
            DockerSandbox(tmp_path / "w", tmp_path / "a", SandboxSpec(image_ref=base_image), name).start()
        assert str(raised.value) == f"a container named {name} is there already, and stays as it is"
        cleanup()
        assert docker_cli("inspect", "--format", "{{.Id}} {{.State.Running}}", name) == f"{number} true"
        nothing_left()
    finally:
        docker_cli("rm", "--force", name)


def test_a_name_that_is_taken_in_the_last_moment(
    docker_cli, base_image, tmp_path, wrapped_docker, nothing_left
) -> None:
    """Between our look and `docker run` somebody else takes it: theirs stands, ours is not begun."""
    name = f"sr-test-race-{os.getpid()}"
    wrapped_docker(
        f'if argv[0] == "run": subprocess.run([real, "run", "-d", "--name", {name!r}, {base_image!r}, "sleep", "3600"])'
    )
    try:
        with pytest.raises(SandboxStartFailed, match="is already in use by container"):
            DockerSandbox(tmp_path / "w", tmp_path / "a", SandboxSpec(image_ref=base_image), name).start()
        assert docker_cli("inspect", "--format", "{{.State.Running}}", name) == "true"
        nothing_left()
    finally:
        docker_cli("rm", "--force", name)


def test_a_leftover_does_not_take_a_later_sandbox_of_its_name_along(owner, docker_cli, tmp_path) -> None:
    """A container without its state, and a new sandbox in a namespace that has the name since: that one lives on."""
    process, name = owner()
    StateFolder(state_root() / name).remove()
    kill(process)
    later = StateFolder.create(name, 60)
    try:
        assert name in [one.name for one in cleanup()]
        assert docker_cli("inspect", name, check=False) == "[]"
        assert later.path.exists()
    finally:
        later.remove()
