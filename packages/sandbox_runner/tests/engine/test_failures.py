"""Whatever fails after `docker run`, nothing is left; and what the engine did is never shown as what a command did."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from sandbox_runner import (
    DockerSandbox,
    DockerUnavailable,
    SandboxError,
    SandboxGone,
    SandboxSpec,
    SandboxStartFailed,
    SandboxTimeout,
    attach,
    cleanup,
)
from sandbox_runner.docker import container as container_module
from sandbox_runner.docker import sandbox as docker_module
from sandbox_runner.records import Records
from sandbox_runner.state import StateFolder, state_root

#: Each step of a start that comes after `docker run`, by the name that `docker` calls it by.
STEPS = ["probe", "has_subreapers", "prove", "missing_walls", "DockerInstance"]
ERRORS = [SandboxStartFailed("it failed"), OSError(28, "No space left on device"), KeyboardInterrupt()]


@pytest.mark.parametrize(
    ("step", "error"),
    [*((step, ERRORS[0]) for step in STEPS), *(("prove", error) for error in ERRORS[1:])],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_step_that_fails_leaves_nothing(start, nothing_left, monkeypatch, tmp_path, step, error) -> None:
    """The error is the step's own, and the record tells of it."""

    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(docker_module, step, fail)
    with pytest.raises(type(error)) as raised:
        start()
    assert raised.value is error
    nothing_left()
    found = json.loads((tmp_path / "artifacts" / "sandbox.json").read_text())
    assert (found["status"], found["error"], found["message"]) == ("failed", type(error).__name__, str(error))


@pytest.mark.parametrize("name", ["container.json", "sandbox.json"])
def test_a_file_that_cannot_be_written_leaves_nothing(start, nothing_left, monkeypatch, name) -> None:
    """The last steps of all: what is kept of the sandbox, and its record."""
    write = StateFolder.write

    def refuse(self: StateFolder, wanted: str, data: bytes) -> Path:
        if wanted == name:
            raise OSError(28, "No space left on device")
        return write(self, wanted, data)

    monkeypatch.setattr(StateFolder, "write", refuse)
    with pytest.raises(OSError, match="No space left"):
        start()
    nothing_left()


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ('if argv[0] == "exec": sys.exit("Error response from daemon: no exec")', SandboxTimeout, "no exec"),
        (
            'if argv[0] == "run":\n    subprocess.run([real, *argv])\n    sys.exit("lost it")',
            SandboxStartFailed,
            "lost it",
        ),
        (
            'if argv[0] == "run": subprocess.run([real, *argv]); argv = ["rm", "-f", argv[3]]',
            SandboxStartFailed,
            "is not",
        ),
        (
            'if argv[0] == "run": subprocess.run([real, *argv]); argv = ["kill", argv[3]]',
            SandboxStartFailed,
            "exit code",
        ),
        ('if argv[0] in ("exec", "logs"): sys.exit("Error response from daemon: no")', SandboxTimeout, "no"),
    ],
    ids=["exec fails", "run fails but has run", "removed", "killed", "exec and logs fail"],
)
def test_an_engine_that_fails_leaves_nothing(start, nothing_left, wrapped_docker, wrong, error, said) -> None:
    """One subcommand of the real engine's CLI goes wrong; the others clean up."""
    wrapped_docker(wrong)
    with pytest.raises(error, match=said):
        start(docker_timeout_seconds=10)
    nothing_left()


def test_a_container_that_comes_after_the_timeout_is_removed(start, nothing_left, wrapped_docker, monkeypatch) -> None:
    """The engine goes on with what it was asked for, when the CLI was killed: that is waited for."""
    monkeypatch.setattr(container_module, "_SETTLE_S", 60.0)
    folder = wrapped_docker(
        'if argv[0] == "run":\n'
        '    late = "sleep 13; \\"$@\\" >$0/said 2>&1; touch $0/done"\n'
        '    subprocess.Popen(["sh", "-c", late, here, real, *argv], start_new_session=True, stdout=-3, stderr=-3)\n'
        "    time.sleep(60)"
    )
    with pytest.raises(SandboxTimeout, match=r"^`docker run` took longer than 10 s$"):
        start(docker_timeout_seconds=10)
    until = time.monotonic() + 60
    while not (folder / "done").exists():
        assert time.monotonic() < until
        time.sleep(0.1)
    nothing_left()


IMAGES = {
    "without a shell": ("FROM scratch\nCOPY nothing /nothing\n", "exec /bin/sh failed: No such file or directory"),
    "whose shell ends at once": (
        'FROM {base}\nRUN ["/bin/ln", "-sf", "/bin/false", "/bin/sh"]\n',
        "ended with exit code 1",
    ),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_that_cannot_run_is_told(docker_cli, base_image, nothing_left, tmp_path, kind) -> None:
    """`docker run` returned, or not; the sandbox was not ready, the reason is in the text, and nothing is left."""
    text, said = IMAGES[kind]
    (tmp_path / "nothing").touch()
    (tmp_path / "Dockerfile").write_text(text.format(base=base_image))
    tag = f"sr-test-{os.getpid()}-{len(kind)}"
    environ = {**os.environ, "DOCKER_BUILDKIT": "0"}
    subprocess.run([docker_cli.program, "build", "--quiet", "-t", tag, tmp_path], check=True, env=environ)
    try:
        with pytest.raises(SandboxStartFailed) as raised:
            DockerSandbox(tmp_path / "w", tmp_path / "a", SandboxSpec(image_ref=tag)).start()
        assert said in str(raised.value)
        nothing_left()
    finally:
        docker_cli("rmi", tag)


@pytest.mark.parametrize("host", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"])
def test_a_daemon_that_does_not_answer_is_told(monkeypatch, docker_cli, tmp_path, nothing_left, host) -> None:
    """Before anything is made; by each CLI that is here, whatever words it has for it."""
    clis = {
        docker_cli.program,
        *(path for path in ("/usr/bin/docker", "/usr/local/bin/docker") if os.path.exists(path)),
    }
    monkeypatch.setenv("DOCKER_HOST", host)
    for program in clis:
        monkeypatch.setenv("SANDBOX_RUNNER_DOCKER", program)
        with pytest.raises(DockerUnavailable) as raised:
            DockerSandbox(tmp_path / "w", tmp_path / "a", SandboxSpec(image_ref="x")).start()
        assert str(raised.value).startswith("the Docker engine does not answer: ")
        assert host in str(raised.value)
    assert not (tmp_path / "w").exists()
    monkeypatch.delenv("DOCKER_HOST")


def test_a_cli_that_is_not_there_is_told(monkeypatch, tmp_path) -> None:
    """With what to do."""
    monkeypatch.setenv("SANDBOX_RUNNER_DOCKER", "/nowhere/docker")
    with pytest.raises(DockerUnavailable) as raised:
        DockerSandbox(tmp_path / "w", tmp_path / "a", SandboxSpec(image_ref="x")).start()
    assert str(raised.value) == (
        "there is no /nowhere/docker on PATH: install a Docker CLI, or name one in SANDBOX_RUNNER_DOCKER"
    )


def test_an_image_that_is_not_there_is_told(start, nothing_left) -> None:
    """And not fetched, if it may not be."""
    with pytest.raises(SandboxError, match="sr-test-no-such-image"):
        start(image_ref="sr-test-no-such-image:1", image_pull_policy="never")
    nothing_left()


def test_a_removal_that_fails_is_told_and_can_be_repeated(start, wrapped_docker, docker_cli, nothing_left) -> None:
    """By `close` again, once the engine can."""
    sandbox = start()
    folder = wrapped_docker(
        'if argv[0] == "rm" and not os.path.exists(here + "/may"): sys.exit("device or resource busy")'
    )
    sandbox._cli.program = str(folder / "docker")
    with pytest.raises(SandboxError) as raised:
        sandbox.close()
    said = "cannot be removed, run `sandbox-runner cleanup` later: device or resource busy"
    assert str(raised.value) == f"{sandbox.container_name} {said}"
    assert docker_cli("ps", "--quiet", "--filter", f"name={sandbox.container_name}")
    (folder / "may").touch()
    sandbox.close()
    nothing_left()


@pytest.mark.parametrize("when", ["close", "start"])
def test_a_removal_that_fails_is_found_by_cleanup(
    base_image, tmp_path, wrapped_docker, monkeypatch, nothing_left, when
) -> None:
    """Also while the process that could not remove it lives on."""
    wrapped_docker('if argv[0] == "rm" and not os.path.exists(here + "/may"): sys.exit("device or resource busy")')
    sandbox = DockerSandbox(tmp_path / "w", tmp_path / "a", SandboxSpec(image_ref=base_image))
    if when == "close":
        instance = sandbox.start()
        name = instance.container_name
        with pytest.raises(SandboxError, match="device or resource busy"):
            instance.close()
    else:
        monkeypatch.setattr(docker_module, "prove", lambda *_, **options: [][1])
        with pytest.raises(IndexError) as raised:
            sandbox.start()
        assert any("device or resource busy" in note for note in raised.value.__notes__)
        (name,) = (state.name for state in StateFolder.all() if state.is_abandoned)
    monkeypatch.delenv("SANDBOX_RUNNER_DOCKER")
    (found,) = (one for one in cleanup() if one.name == name)
    assert (found.kind, found.why) == ("container", "it could not be removed before")
    nothing_left()


# Within a command


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        (["rm", "--force"], SandboxGone, "ended while a command ran in it: something ended all of its processes"),
        (["kill"], SandboxGone, "ended while a command ran in it: something ended all of its processes"),
        (["stop", "--time", "0"], SandboxGone, "ended while a command ran in it: something ended all of its processes"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_container_that_ends_under_a_command_is_no_result(start, docker_cli, how, error, said) -> None:
    """Nor what the CLI says of it the command's output."""
    sandbox = start()
    passed: list[bytes] = []

    def end(stream: str, data: bytes) -> None:
        passed.append(data)
        if len(passed) == 1:
            docker_cli(*how, sandbox.container_name)

    with pytest.raises(error) as raised:
        sandbox.exec(["sh", "-c", "echo begun; exec sleep 60"], on_output=end, timeout_s=50)
    assert str(raised.value).startswith(f"{sandbox.container_name} {said}")
    assert passed == [b"begun\n"]
    with pytest.raises(SandboxGone):
        sandbox.exec(["true"])


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ('sys.exit("Error response from daemon: boom")', SandboxError, "Error response from daemon: boom"),
        ('print("Error response from daemon: boom", flush=True); sys.exit(126)', SandboxError, "it did not say why"),
        ('print("OCI runtime exec failed", file=sys.stderr); sys.exit(127)', SandboxError, "OCI runtime exec failed"),
        ("sys.exit(0)", SandboxError, "it did not say why"),
        ("os.kill(os.getpid(), 9)", SandboxError, "it did not say why"),
        (
            "line = subprocess.Popen([real, *argv], stderr=subprocess.PIPE).stderr.readline(); "
            'sys.stderr.buffer.write(line); sys.stderr.flush(); sys.exit("connection lost")',
            SandboxError,
            "did not run the command to its end",
        ),
    ],
    ids=["an error", "an error on stdout", "127", "success", "killed", "lost in the middle"],
)
def test_an_engine_that_fails_is_not_the_commands_failure(start, wrapped_docker, wrong, error, said) -> None:
    """It is raised, with the engine's own words; a CLI that says all is well, without our marks, is not believed."""
    sandbox = start(docker_timeout_seconds=20)
    first = 'argv[0] == "exec" and not os.path.exists(here + "/once")'
    folder = wrapped_docker(f'if {first}:\n    open(here + "/once", "w").close()\n    {wrong}')
    sandbox._cli.program = str(folder / "docker")
    passed: list[bytes] = []
    with pytest.raises(error) as raised:
        sandbox.exec(["sleep", "3"], on_output=lambda _, data: passed.append(data))
    assert str(raised.value).startswith("the engine did not run the command to its end: ")
    assert said in str(raised.value)
    assert not any(b"boom" in data and b"Error" not in data for data in passed)
    assert sandbox.exec(["true"]).ok


def test_a_daemon_that_goes_away_under_a_command_is_told(start, monkeypatch) -> None:
    """`DockerUnavailable`, and no result."""
    sandbox = start()
    with monkeypatch.context() as changed:
        changed.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
        with pytest.raises(DockerUnavailable, match=r"^the Docker engine does not answer: "):
            sandbox.exec(["true"])
    assert sandbox.exec(["true"]).ok


def test_a_paused_container_does_not_harm_the_commands_of_others(start, docker_cli) -> None:
    """What cannot begin is an error, and no reason to restart what runs."""
    sandbox = start(docker_timeout_seconds=20)
    assert sandbox.exec(["sh", "-c", "echo kept > /tmp/kept"]).ok
    docker_cli("pause", sandbox.container_name)
    try:
        with pytest.raises(SandboxError, match="is paused"):
            sandbox.exec(["true"])
    finally:
        docker_cli("unpause", sandbox.container_name)
    assert sandbox.exec(["cat", "/tmp/kept"]).stdout == b"kept\n"


def test_after_a_restart_the_sandbox_is_what_it_was(start, docker_cli, wrapped_docker) -> None:
    """What cannot be ended from inside ends by a restart; the next commands, and `attach`, go on."""
    sandbox = start()
    folder = wrapped_docker(
        'if argv[0] == "exec" and "token=$1 keeper=$2" in " ".join(argv): sys.exit("no more processes")'
    )
    sandbox._cli.program = str(folder / "docker")
    first = docker_cli("inspect", "--format", "{{.State.StartedAt}}", sandbox.container_name)
    assert sandbox.exec(["sleep", "3600"], timeout_s=2).timed_out
    assert docker_cli("inspect", "--format", "{{.State.StartedAt}}", sandbox.container_name) != first
    left = "setsid sleep 3600 & exit 3"
    assert sandbox.exec(["sh", "-c", left]).exit_code == 3
    other = attach(sandbox.container_name)
    assert other.exec(["sh", "-c", left]).exit_code == 3
    assert sandbox.exec(["sh", "-c", "ulimit -n; grep CapEff /proc/self/status"]).stdout.split() == [
        b"4096",
        b"CapEff:",
        b"0000000000000000",
    ]


def test_a_record_that_cannot_be_written_while_closing_keeps_nothing(start, monkeypatch, nothing_left) -> None:
    """The container goes all the same."""
    sandbox = start()

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Records, "write", refuse)
    monkeypatch.setattr(Records, "publish_all", refuse)
    with pytest.raises(SandboxError, match=r"^the records of .* cannot be written: No space left on device$"):
        sandbox.close()
    nothing_left()
    assert not (state_root() / sandbox.container_name).exists()


def test_a_start_takes_no_longer_than_it_may(start, wrapped_docker, nothing_left) -> None:
    """An engine that hangs is an error after `docker_timeout_seconds`."""
    wrapped_docker('if argv[0] == "version": time.sleep(60)')
    began = time.monotonic()
    with pytest.raises(SandboxTimeout, match=r"^`docker version` took longer than 1 s$"):
        start(docker_timeout_seconds=1)
    assert time.monotonic() - began < 20
    nothing_left()
