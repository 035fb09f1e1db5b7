"""What goes wrong around a run in a container: each is said by name, nothing stays, and the next run works."""

import asyncio
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
from isorun.backends.docker.supervisor import SupervisorContainer, SupervisorOptions
from isorun.backends.executor_ids import Identity
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
    with pytest.raises(isorun.Unavailable, match="the Docker engine does not answer"):
        opened().__enter__()


def test_a_missing_image_is_said_with_its_remedy(opened) -> None:
    """Nothing is pulled: the image is ours to make."""
    with pytest.raises(isorun.Unavailable) as caught:
        opened({"PY_CODE_EXEC_IMAGE": "py-code-exec:nosuch"}).__enter__()
    assert str(caught.value) == (
        "there is no image py-code-exec:nosuch: make it with `isorun image build`, or set PY_CODE_EXEC_IMAGE"
        "; run `isorun doctor --backend docker`"
    )


def test_an_image_of_another_version_is_refused(opened, docker_engine: Engine) -> None:
    """One that is not ours at all has no version."""
    with pytest.raises(isorun.Unavailable, match=r"is of version none \(isorun.image\), and this isorun needs 1"):
        opened({"PY_CODE_EXEC_IMAGE": docker_engine.base_image}).__enter__()


def test_a_runtime_that_the_daemon_does_not_know_is_refused(opened) -> None:
    """With the ones it knows."""
    with pytest.raises(isorun.Unavailable, match=r"not know the runtime nosuch \(ISORUN_DOCKER_RUNTIME\), only .*runc"):
        opened({"ISORUN_DOCKER_RUNTIME": "nosuch"}).__enter__()


def test_a_container_that_is_killed_costs_its_run_alone(opened, docker_engine: Engine, tmp_path: Path) -> None:
    """The run in it is `killed`, as `test_ended_outside` has it in full; the next one works."""
    with opened() as runtime:
        run = runtime.start(SLEEP, timeout_s=60)
        first_output(run)
        (name,) = containers(docker_engine, tmp_path / "root")
        docker_engine("kill", name)
        assert run.result().status == "killed"
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


@pytest.mark.parametrize("asked_by", ["the same root", "another root"])
def test_cleanup_removes_what_a_killed_host_left(
    opened, docker_engine: Engine, executor_image: str, tmp_path: Path, foreign: str, asked_by: str
) -> None:
    """By itself, whatever backend is set; a host that lives keeps its containers, and its run goes on."""
    dead, alive = tmp_path / "dead", tmp_path / "alive"
    dead.mkdir()
    bundle = Path(__file__).parents[2] / "examples/bundles/with-isoruntime"
    command = [sys.executable, "-c", _HOST, executor_image, str(dead), str(bundle)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "up\n"
        host.send_signal(signal.SIGKILL)
    left = containers(docker_engine, dead)
    assert len(left) >= 2
    with opened(workspace_root=alive) as runtime:
        run = runtime.start("print('up', flush=True)\ntime.sleep(60)")
        first_output(run)
        kept = containers(docker_engine, alive)
        root = dead if asked_by == "the same root" else tmp_path / "other"
        environ = {**os.environ, "ISORUN_WORKSPACE_ROOT": str(root), "ISORUN_BACKEND": "namespace"}
        cleanup = [sys.executable, "-m", "isorun", "cleanup", "--json"]
        told = json.loads(subprocess.run(cleanup, env=environ, capture_output=True, check=True).stdout)
        assert told["problems"] == []
        assert len(told["removed_containers"]) >= 1
        assert containers(docker_engine, alive) == kept
        assert run.cancel().status == "cancelled"
    numbers = docker_engine("ps", "--all", "--quiet", "--filter", f"label=isorun.state={dead}/.isorun-{os.geteuid()}")
    assert numbers == ""
    assert [line for line in Path("/proc/mounts").read_text().splitlines() if str(dead) in line] == []
    assert list((dead / f".isorun-{os.geteuid()}/containers").iterdir()) == []
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
environ = {"PY_CODE_EXEC_IMAGE": sys.argv[1], "ISORUN_MAX_WORKSPACE_BYTES": "8388608"}
if sys.argv[3]:
    environ["ISORUN_DOCKER_RUNTIME"] = sys.argv[3]
settings = isorun.Settings.load(environ=environ)
with isorun.SyncRuntime(backend="docker", settings=settings, workspace_root=sys.argv[2], pool_size=0) as runtime:
    for _ in range(2):
        result = runtime.execute(code, timeout_s=20)
        isolation = result.isolation
        print(isolation["walls"]["workspace"], isolation["level"], result.status, result.error and result.error.code)
"""


@pytest.mark.parametrize("runtime", ["", "runsc"], ids=["runc", "runsc"])
def test_a_service_with_a_mount_namespace_of_its_own_needs_no_mount(
    docker_engine, executor_image: str, require, tmp_path: Path, runtime: str
) -> None:
    """The daemon sees nothing that isorun would mount there (PrivateTmp, say): its ceilings are the engine's.

    Also against a program that does not care for SIGTERM.
    """
    if runtime and f'"{runtime}"' not in docker_engine("info", "--format", "{{json .Runtimes}}"):
        require("gvisor", f"the engine knows no runtime {runtime}")
    alone = ["unshare", "--mount", "--propagation", "private"]
    done = subprocess.run(
        [*alone, sys.executable, "-c", _APART, executor_image, str(tmp_path), runtime],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == "sized full limit_exceeded workspace_limit\n" * 2, done.stderr
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


def test_a_supervisor_whose_start_is_given_up_leaves_nothing(executor_image: str, tmp_path: Path) -> None:
    """Neither a descriptor of ours nor a container nor a lease: a thread cannot be cancelled, so it makes all."""
    folder = tmp_path / "state"
    folder.mkdir()
    options = SupervisorOptions(
        image=executor_image,
        network="none",
        state=folder,
        bundle=Path(__file__).parents[2] / "examples/bundles/with-isoruntime",
        knowledge=None,
        ids=Identity.of_container(1001, 1001),
        host_paths={},
        cpus=1,
        aws={},
    )
    made = []

    class Noted(SupervisorContainer):
        """One that says what was made, which nobody is given."""

        def __init__(self, *parts: object) -> None:
            super().__init__(*parts)
            made.append((self.socket.fileno(), self.output))

    async def given_up() -> set[str]:
        before = set(os.listdir("/proc/self/fd"))
        starting = asyncio.ensure_future(Noted.start(options, "{}", {}))
        await asyncio.sleep(0)  # its thread is there
        starting.cancel()
        await asyncio.wait({starting})
        assert starting.cancelled()
        return set(os.listdir("/proc/self/fd")) - before

    left = asyncio.run(given_up())
    assert len(made) == 1
    assert left & {str(number) for number in made[0]} == set()
    assert list((folder / "containers").iterdir()) == []
