"""Commands that lie about their end, hide what they leave, or touch what the engine looks up again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox_runner import DockerSandbox, InvalidSpec, MountSpec, SandboxGone, SandboxInstance, SandboxSpec
from sandbox_runner.start import attach

#: Prints the command line of each process inside that is none of ours.
_OTHERS = r"""
for p in /proc/[0-9]*; do
    line=$(tr '\0' ' ' < $p/cmdline 2>/dev/null)
    case $line in 'sleep 4'[0-9][0-9]*) echo "$line" ;; esac
done
"""
#: Prints the mark of its own end, with the token that stands in its shell's command line, then ends shell and reaper.
_FORGES = r"""
setsid sleep 401 > /dev/null 2>&1 &
token=$(tr '\0' '\n' < /proc/$PPID/cmdline | grep -m 1 '^sandbox-')
read -r _ _ _ reaper _ < /proc/$PPID/stat
printf '%s end 0 0 0\n' "$token" >&2
kill -9 $PPID $reaper
sleep 402
"""
#: Makes a process beside itself: CLONE_PARENT | SIGCHLD.
_BESIDE = """
import ctypes, os, time
if ctypes.CDLL(None).syscall(56, 0x8000 | 17, 0, 0, 0, 0) == 0:
    for number in range(3):
        os.close(number)
    os.execvp("sleep", ["sleep", "403"])
time.sleep(0.3)
"""


@pytest.fixture
def sandbox(base_image: str, tmp_path: Path) -> Iterator[SandboxInstance]:
    spec = SandboxSpec(image_ref=base_image)
    with DockerSandbox(tmp_path / "workspace", tmp_path / "artifacts", spec).start() as instance:
        yield instance


def _left(sandbox: SandboxInstance) -> str:
    return sandbox.exec(["sh", "-c", _OTHERS]).stdout.decode()


def test_others_are_seen_as_long_as_they_run(sandbox: SandboxInstance) -> None:
    """Control for the tests below: what looks for processes finds one that its own command began."""
    shown = sandbox.exec(["sh", "-c", f"sleep 404 & {_OTHERS}"]).stdout.decode()
    assert shown == "sleep 404 \n"
    assert _left(sandbox) == ""


def test_a_forged_end_is_not_believed(sandbox: SandboxInstance) -> None:
    """A mark counts if our shell then exits with 0; else what the command left is ended from outside."""
    result = sandbox.exec(["sh", "-c", _FORGES], timeout_s=20)
    assert (result.exit_code, result.signal) == (None, 9)
    assert _left(sandbox) == ""


def test_a_process_beside_the_command_ends_with_it(sandbox: SandboxInstance) -> None:
    """A child whose parent is our shell (CLONE_PARENT) is no orphan of the reaper's, and is ended all the same."""
    assert sandbox.exec(["python3", "-c", _BESIDE], timeout_s=20).ok
    assert _left(sandbox) == ""


def test_a_stopped_shell_is_ended_after_the_timeout(sandbox: SandboxInstance) -> None:
    """A command that stops the shell above it leaves neither shell nor reaper."""
    result = sandbox.exec(["sh", "-c", "kill -STOP $PPID; sleep 405"], timeout_s=2)
    assert (result.timed_out, result.signal) == (True, 9)
    count = "n=0; for p in /proc/[0-9]*; do n=$((n + 1)); done; echo $n"
    assert sandbox.exec(["sh", "-c", count]).stdout == b"5\n"  # init, the one that waits; reaper, shell, this


def test_a_container_of_a_committed_image_is_somebody_elses(
    sandbox: SandboxInstance, docker_cli: Callable[..., str]
) -> None:
    """It has every label of ours; closing the sandbox leaves it."""
    image, name = f"sr-committed-{os.getpid()}:1", f"theirs-{os.getpid()}"
    docker_cli("commit", sandbox.container_name, image)
    try:
        docker_cli("run", "--detach", "--name", name, "--network", "none", "--entrypoint", "sleep", image, "600")
        sandbox.close()
        assert docker_cli("inspect", "--format", "{{.State.Running}}", name) == "true"
    finally:
        docker_cli("rm", "--force", name, check=False)
        docker_cli("rmi", image, check=False)


def test_no_mount_lies_in_another_that_can_be_written(base_image: str, tmp_path: Path) -> None:
    """A command could put a link in its place, and the engine follows it when the container starts again."""
    inner = tmp_path / "workspace" / "data"
    inner.mkdir(parents=True)
    said = "mounts: {} lies in a folder that the sandbox can write and could replace with a link: move it out"
    spec = SandboxSpec(image_ref=base_image, extra_mounts=(MountSpec(inner, "/data", read_only=True),))
    with pytest.raises(InvalidSpec) as refused:
        DockerSandbox(tmp_path / "workspace", tmp_path / "artifacts", spec).start()
    assert str(refused.value) == said.format(inner)
    assert not (tmp_path / "artifacts").exists()


def test_a_folder_that_was_replaced_is_not_taken_up_again(base_image: str, tmp_path: Path) -> None:
    """A kept sandbox whose artifacts directory became a link is not attached to, so no record is written behind it.

    Control: with the folder in its place it is.
    """
    artifacts, victim = tmp_path / "artifacts", tmp_path / "victim"
    victim.mkdir()
    spec = SandboxSpec(image_ref=base_image, keep_container=True)
    kept = DockerSandbox(tmp_path / "workspace", artifacts, spec).start()
    kept.close()
    artifacts.rename(tmp_path / "moved")
    artifacts.symlink_to(victim)
    try:
        with pytest.raises(SandboxGone, match="has other folders than it was started with"):
            attach(kept.container_name)
        assert list(victim.iterdir()) == []
    finally:
        artifacts.unlink()
        (tmp_path / "moved").rename(artifacts)
        attach(kept.container_name).close()
        _remove(kept.container_name)


def _remove(name: str) -> None:
    from sandbox_runner.leftovers import listed, remove

    remove(one for one in listed() if one.name == name)
