"""A frozen run in a container: its init, whose clock goes on, does not end it, and it outlives no host for long."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import isorun
from isorun.backends.docker import slot
from tests.docker.engine import Engine
from tests.docker.test_faults import containers, first_output, opened  # noqa: F401 - a fixture

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
SPIN = "print('up', flush=True)\nwhile True: pass"


def test_init_does_not_count_what_it_was_frozen(opened, monkeypatch) -> None:  # noqa: F811 - the fixture
    """Frozen for longer than all that its run had left, it ends by the host's deadline and no other."""
    monkeypatch.setattr(slot, "_SPARE_S", 3.0)
    with opened(limits=isorun.Limits(grace_s=0.5)) as runtime:
        run = runtime.start(SPIN, timeout_s=6)
        first_output(run)
        with run.frozen():
            time.sleep(12)
        result = run.result()
    assert result.status == "timed_out", result.report_text
    assert 6 <= result.timings["run_s"] < 9


def test_a_deadline_that_is_put_off_is_inits_as_well(opened, monkeypatch) -> None:  # noqa: F811 - the fixture
    """Else it would end the program in the host's place."""
    monkeypatch.setattr(slot, "_SPARE_S", 1.0)
    with opened(limits=isorun.Limits(grace_s=0.5)) as runtime:
        run = runtime.start("print('up', flush=True)\ntime.sleep(10)\nprint('done')", timeout_s=3)
        first_output(run)
        run.extend(60)
        result = run.result()
    assert (result.status, result.stdout) == ("ok", "up\ndone\n"), result.report_text


def test_a_frozen_container_uses_nothing_and_is_cancelled_in_time(
    opened,  # noqa: F811 - the fixture
    docker_engine: Engine,
    tmp_path: Path,
) -> None:
    """By the word of the engine it is paused; the program gets its SIGTERM once it is not, and nothing is left."""
    code = "import signal, sys\nsignal.signal(15, lambda *_: (print('told', flush=True), sys.exit(3)))\n" + SPIN
    with opened() as runtime:
        run = runtime.start(code, timeout_s=60)
        first_output(run)
        run.freeze()
        (name,) = containers(docker_engine, tmp_path / "root")
        assert docker_engine("inspect", "--format", "{{.State.Paused}}", name).strip() == "true"
        began = time.monotonic()
        result = run.cancel()
        assert time.monotonic() - began < 40
        assert (result.status, result.stdout) == ("cancelled", "up\ntold\n")
    assert containers(docker_engine, tmp_path / "root") == []


_HOST = """
import isorun, os, signal, sys
settings = isorun.Settings.load(environ={"PY_CODE_EXEC_IMAGE": sys.argv[1]})
runtime = isorun.SyncRuntime(backend="docker", settings=settings, workspace_root=sys.argv[2], pool_size=0).open()
run = runtime.start("print('up', flush=True)\\nwhile True: pass", timeout_s=120)
next(event for event in run.events() if event.kind == "output")
run.freeze()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_frozen_container_of_a_killed_host_is_removed_by_the_next_one(
    opened,  # noqa: F811 - the fixture
    docker_engine: Engine,
    executor_image: str,
    tmp_path: Path,
) -> None:
    """Its init, which would end with its host, cannot hear that; the lease tells."""
    root = tmp_path / "root"
    root.mkdir()
    with subprocess.Popen([sys.executable, "-c", _HOST, executor_image, str(root)], env=os.environ) as host:
        assert host.wait(120) == -signal.SIGKILL
    (left,) = containers(docker_engine, root)
    assert docker_engine("inspect", "--format", "{{.State.Paused}}", left).strip() == "true"
    with opened() as runtime:
        assert runtime.execute("print('on')", timeout_s=10).stdout == "on\n"
    assert containers(docker_engine, root) == []
