"""What goes wrong around a run in a container: each is said by name, nothing stays, and the next run works."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import isorun
from isorun.runtime.events import Event
from tests.docker.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
SLEEP = "print('up', flush=True)\ntime.sleep(60)"
Opened = Callable[..., isorun.SyncRuntime]


@pytest.fixture
def opened(executor_image: str, tmp_path: Path) -> Opened:
    """`opened(**options)`: a Runtime on Docker with a root of the test's own; nothing of this machine's settings."""

    def make(environ: dict[str, str] | None = None, **options: object) -> isorun.SyncRuntime:
        settings = isorun.Settings.load(environ={"PY_CODE_EXEC_IMAGE": executor_image, **(environ or {})})
        given = {"pool_size": 0, "workspace_root": tmp_path / "root", **options}
        return isorun.SyncRuntime(backend="docker", settings=settings, **given)

    return make


def containers(engine: Engine, root: Path, *, also_dead: bool = True) -> list[str]:
    """The names of all containers that a Runtime with that root has started and that are there."""
    leases = [path.name for path in (root / f".isorun-{os.geteuid()}/containers").glob("host_*")]
    names = []
    for lease in leases:
        shown = engine(
            "ps", *(["--all"] if also_dead else []), "--format", "{{.Names}}", "--filter", f"label=isorun.lease={lease}"
        )
        names += shown.split()
    return names


def first_output(run: isorun.Run) -> Event:
    """Wait until the program has printed."""
    return next(event for event in run.events() if event.kind == "output")


def test_without_a_daemon_nothing_starts(opened, monkeypatch) -> None:
    """The refusal names the daemon; no weaker backend is taken."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(isorun.Unavailable, match="no Docker daemon answers"):
        opened().__enter__()


def test_a_missing_image_is_said_with_its_remedy(opened) -> None:
    """Nothing is pulled: the image is ours to make."""
    with pytest.raises(isorun.Unavailable) as caught:
        opened({"PY_CODE_EXEC_IMAGE": "py-code-exec:nosuch"}).__enter__()
    assert str(caught.value) == (
        "there is no image py-code-exec:nosuch: make it with `isorun image build`, or set PY_CODE_EXEC_IMAGE"
    )


def test_an_image_of_another_version_is_refused(opened, docker_engine: Engine) -> None:
    """One that is not ours at all has no version."""
    with pytest.raises(isorun.Unavailable, match=r"is of version none \(isorun.image\), and this isorun needs 1"):
        opened({"PY_CODE_EXEC_IMAGE": docker_engine.base_image}).__enter__()


def test_a_runtime_that_the_daemon_does_not_know_is_refused(opened) -> None:
    """With the ones it knows."""
    with pytest.raises(isorun.Unavailable, match=r"knows no runtime nosuch \(ISORUN_DOCKER_RUNTIME\), only .*runc"):
        opened({"ISORUN_DOCKER_RUNTIME": "nosuch"}).__enter__()


def test_a_container_that_is_killed_costs_its_run_alone(opened, docker_engine: Engine, tmp_path: Path) -> None:
    """The run in it says that its container ended; the next one works."""
    with opened() as runtime:
        run = runtime.start(SLEEP, timeout_s=60)
        first_output(run)
        (name,) = containers(docker_engine, tmp_path / "root")
        docker_engine("kill", name)
        with pytest.raises(isorun.SetupFailed) as caught:
            run.result()
        assert caught.value.step == "container"
        assert runtime.execute("print('on')", timeout_s=10).stdout == "on\n"
    assert containers(docker_engine, tmp_path / "root") == []


def test_a_slot_that_dies_waiting_is_not_handed_out(opened, docker_engine: Engine, tmp_path: Path) -> None:
    """The pool notices, and the run gets another one."""
    with opened(pool_size=2) as runtime:
        until = time.monotonic() + 30
        while runtime.waiting_slots < 2 and time.monotonic() < until:
            time.sleep(0.05)
        docker_engine("kill", *containers(docker_engine, tmp_path / "root"))
        assert [runtime.execute("print('on')", timeout_s=10).stdout for _ in range(3)] == ["on\n"] * 3


@pytest.mark.parametrize("how", ["timeout", "cancelled"])
def test_an_ending_from_outside_leaves_no_container(opened, docker_engine: Engine, tmp_path: Path, how: str) -> None:
    """With what was printed before, also by processes that ignore SIGTERM."""
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.fork()\n" + SLEEP
    with opened() as runtime:
        run = runtime.start(code, timeout_s=1 if how == "timeout" else 60)
        first_output(run)
        result = run.result() if how == "timeout" else run.cancel()
        assert (result.status, result.stdout[:2]) == ("timed_out" if how == "timeout" else how, "up")
    assert containers(docker_engine, tmp_path / "root") == []


def test_memory_that_is_full_is_said(opened) -> None:
    """As on every backend: the program died of it."""
    with opened(limits=isorun.Limits(memory_bytes=400 << 20, workspace_bytes=32 << 20)) as runtime:
        result = runtime.execute("x = bytearray(1 << 30)\nprint(len(x))", timeout_s=30)
        assert (result.status, result.error.code) == ("out_of_memory", "out_of_memory"), result.report_text
        assert runtime.execute("print('on')", timeout_s=10).stdout == "on\n"


def runs_until_it_is_full(runtime: isorun.SyncRuntime) -> None:
    """Each run takes some of the twelve inodes."""
    for _ in range(12):
        runtime.execute("pass", timeout_s=10)


def test_a_disk_that_is_full_is_said(opened, tmp_path: Path) -> None:
    """By the folder that has no room; no container is left behind it."""
    root = tmp_path / "small"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=12", "tmpfs", root], check=True)
    try:
        with opened(workspace_root=root) as runtime, pytest.raises(isorun.SetupFailed, match=str(root)):
            runs_until_it_is_full(runtime)
    finally:
        subprocess.run(["umount", "-l", root], check=True)


_HOST = """
import isorun, sys
settings = isorun.Settings.load(environ={"PY_CODE_EXEC_IMAGE": sys.argv[1]})
_, _, root, bundle = sys.argv
runtime = isorun.SyncRuntime(
    backend="docker", settings=settings, workspace_root=root, pool_size=2, bundle=bundle
)
runtime.__enter__()
run = runtime.start("print('up', flush=True)\\ntime.sleep(120)", timeout_s=120)
next(event for event in run.events() if event.kind == "output")
print("up", flush=True)
run.result()
"""


@pytest.fixture
def foreign(docker_engine: Engine) -> Iterator[str]:
    """A container that is nobody's of ours."""
    number = docker_engine("run", "--detach", "--network", "none", docker_engine.base_image, "sleep", "300")
    yield number
    docker_engine("rm", "--force", number)


def test_a_killed_host_leaves_nothing_that_the_next_one_does_not_remove(
    opened, docker_engine: Engine, executor_image: str, tmp_path: Path, foreign: str
) -> None:
    """Executors in use and waiting, the supervisor, mounts and folders; its run is `lost`, and others' stand."""
    root, bundle = tmp_path / "root", Path(__file__).parents[2] / "examples/bundles/with-isoruntime"
    root.mkdir()
    command = [sys.executable, "-c", _HOST, executor_image, str(root), str(bundle)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "up\n"
        host.send_signal(signal.SIGKILL)
    assert len(containers(docker_engine, root)) >= 2
    (run,) = root.glob("codegen_*")
    with opened() as runtime:
        assert runtime.execute("print('on')", timeout_s=10).stdout == "on\n"
    assert containers(docker_engine, root) == []
    assert [line for line in Path("/proc/mounts").read_text().splitlines() if str(root) in line] == []
    assert list((root / f".isorun-{os.geteuid()}/containers").iterdir()) == []
    assert json.loads((run / "out/result.json").read_text())["status"] == "lost"
    assert docker_engine("inspect", "--format", "{{.State.Running}}", foreign) == "true"


_APART = """
import isorun, sys
code = '''
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for n in range(10_000):
    open(str(n), "wb").write(bytes(1 << 20))
    time.sleep(0.1)
'''
settings = isorun.Settings.load(environ={"PY_CODE_EXEC_IMAGE": sys.argv[1], "ISORUN_MAX_WORKSPACE_BYTES": "8388608"})
with isorun.SyncRuntime(backend="docker", settings=settings, workspace_root=sys.argv[2], pool_size=0) as runtime:
    for _ in range(2):
        result = runtime.execute(code, timeout_s=20)
        print(result.isolation["walls"]["workspace"], result.status, result.error and result.error.code)
"""


def test_a_mount_that_the_daemon_does_not_see_is_found_out(docker_engine, executor_image: str, tmp_path: Path) -> None:
    """isorun in a mount namespace of its own, as a service may be: the workspace is watched instead, and held.

    Also against a program that does not care for SIGTERM.
    """
    alone = ["unshare", "--mount", "--propagation", "private"]
    done = subprocess.run(
        [*alone, sys.executable, "-c", _APART, executor_image, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == "watched limit_exceeded workspace_limit\n" * 2, done.stderr
    assert containers(docker_engine, tmp_path) == []


@pytest.fixture
def wrapped(tmp_path: Path, monkeypatch) -> Callable[[str], None]:
    """`wrapped(script)`: the CLI behind a script of sh, which may do something first; "$DOCKER" is the real one."""

    def make(script: str) -> None:
        program = tmp_path / "docker"
        program.write_text(f'#!/bin/sh\nDOCKER={shutil.which("docker")}\n{script}\nexec "$DOCKER" "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("SANDBOX_RUNNER_DOCKER", str(program))

    return make


def test_a_slow_daemon_is_waited_for(opened, wrapped) -> None:
    """Three seconds for each container are no failure."""
    wrapped('[ "$1" = run ] && sleep 3')
    with opened() as runtime:
        result = runtime.execute("print('late')", timeout_s=1)
    assert (result.status, result.stdout) == ("ok", "late\n")


def test_a_daemon_that_ignores_a_wall_is_found_out(opened, wrapped, docker_engine: Engine, tmp_path: Path) -> None:
    """A container without its read-only root is never handed out, and does not stay."""
    wrapped('for word; do shift; [ "$word" = --read-only ] || set -- "$@" "$word"; done')
    with opened() as runtime, pytest.raises(isorun.SetupFailed, match="read_only"):
        runtime.execute("print(1)")
    assert containers(docker_engine, tmp_path / "root") == []
