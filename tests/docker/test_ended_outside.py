"""A container that somebody else ends is an ending of its run, with a true reason, partial output and files."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from isorun.core.outcome import Exit, cli_exit_code
from tests.docker.engine import Engine
from tests.docker.test_faults import containers, first_output, opened  # noqa: F401 - a fixture

pytestmark = [pytest.mark.root, pytest.mark.timeout(200)]
_OUTSIDE = "the container was ended from outside: "
_PROGRAM = "open(OUT / 'kept.txt', 'w').write('kept')\nprint('up', flush=True)\ntime.sleep(60)"
End = Callable[[Engine, str], object]


def _kill_first(engine: Engine, name: str) -> None:
    os.kill(int(engine("inspect", "--format", "{{.State.Pid}}", name)), signal.SIGKILL)


def _restart(engine: Engine, name: str) -> None:
    engine("update", "--restart", "always", name)
    _kill_first(engine, name)


_DEAD = "exit 137, not out of memory"
#: Who ends it, and the ends of the reason: whoever asks may come before the engine has gone on.
ENDS: dict[str, tuple[End, tuple[str, ...]]] = {
    "kill": (lambda engine, name: engine("kill", name), (_DEAD,)),
    "stop": (lambda engine, name: engine("stop", "--time", "0", name), (_DEAD,)),
    "remove": (lambda engine, name: engine("rm", "--force", name), ("it was removed (docker rm)", _DEAD)),
    "a signal on the host": (_kill_first, (_DEAD,)),
    "a restart policy": (_restart, ("the engine restarted it", _DEAD)),
}


@pytest.mark.parametrize("how", ENDS)
def test_who_ends_a_container_ends_its_run_as_killed(
    opened,  # noqa: F811 - the fixture
    docker_engine: Engine,
    tmp_path: Path,
    how: str,
) -> None:
    """At once, with what was printed and written until then; the next start has nothing to add, and nothing is left."""
    end, reasons = ENDS[how]
    with opened() as runtime:
        run = runtime.start(_PROGRAM, timeout_s=60)
        first_output(run)
        (name,) = containers(docker_engine, tmp_path / "root")
        end(docker_engine, name)
        result = run.result()
        assert (result.status, result.error.code, result.signal) == ("killed", "signal", 9), result.report_text
        assert result.error.message in [_OUTSIDE + reason for reason in reasons]
        assert (result.stdout, [artifact.path for artifact in result.artifacts]) == ("up\n", ["kept.txt"])
        assert result.usage["wall_s"] < 30
        assert cli_exit_code(result.status, Exit(signal=result.signal)) == 137
        assert runtime.execute("print('on')", timeout_s=10).stdout == "on\n"
    assert containers(docker_engine, tmp_path / "root") == []
    with opened():
        pass
    stored = json.loads((result.out_dir / "result.json").read_text())
    assert (stored["status"], stored["error"]["message"]) == ("killed", result.error.message)


@pytest.mark.parametrize("how", ["timeout", "cancelled"])
def test_a_paused_container_is_ended_in_time(
    opened,  # noqa: F811 - the fixture
    docker_engine: Engine,
    tmp_path: Path,
    how: str,
) -> None:
    """Nothing in it can obey, so it is ended from here: the word is that of the reason, with output and files."""
    with opened() as runtime:
        run = runtime.start(_PROGRAM, timeout_s=2 if how == "timeout" else 60)
        first_output(run)
        (name,) = containers(docker_engine, tmp_path / "root")
        docker_engine("pause", name)
        result = run.result() if how == "timeout" else run.cancel()
        assert (result.status, result.stdout) == ("timed_out" if how == "timeout" else how, "up\n")
        assert [artifact.path for artifact in result.artifacts] == ["kept.txt"]
    assert containers(docker_engine, tmp_path / "root") == []


def test_a_ceiling_that_an_operator_lowers_is_out_of_memory(opened, docker_engine: Engine, tmp_path: Path) -> None:  # noqa: F811 - the fixture
    """Whoever set it: the kernel killed for memory, and that is said."""
    # Not before the ceiling is lower: the kernel refuses one below what is used.
    grows = """
print('up', flush=True)
held = []
while True:
    time.sleep(0.02)
    if os.path.exists('/tmp/go'):
        held.append(bytearray(1 << 20))
"""
    with opened() as runtime:
        run = runtime.start(grows, timeout_s=60)
        first_output(run)
        (name,) = containers(docker_engine, tmp_path / "root")
        docker_engine("update", "--memory", "64m", "--memory-swap", "64m", name)
        docker_engine("exec", name, "touch", "/tmp/go")
        assert run.result().status == "out_of_memory"


def test_a_program_cannot_pass_for_one_that_was_ended_from_outside(opened) -> None:  # noqa: F811 - the fixture
    """It ends as its own signal says, and has no reason of others."""
    with opened() as runtime:
        result = runtime.execute("os.kill(os.getpid(), 9)", timeout_s=10)
    assert (result.status, result.error.message) == ("killed", "ended by signal 9 (SIGKILL)")


def test_the_command_line_ends_as_the_table_says(executor_image: str, docker_engine: Engine, tmp_path: Path) -> None:
    """137, with the verdict on stderr."""
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    named = {"PY_CODE_EXEC_IMAGE": executor_image, "ISORUN_WORKSPACE_ROOT": str(tmp_path / "root")}
    command = [sys.executable, "-m", "isorun", "run", str(program), "--backend", "docker", "--timeout", "60"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=os.environ | named, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        docker_engine("kill", *containers(docker_engine, tmp_path / "root"))
        _, said = process.communicate(timeout=60)
    assert process.returncode == 137
    assert f"signal: {_OUTSIDE}exit 137, not out of memory" in said
    assert "kept.txt" in said
