"""The workspace of a container: what a program finds of how it was handed over, and what is left of it."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import isorun
from isorun.backends.docker import lease as container_lease
from sandbox_runner.docker.attached import AttachedSpec, Tmpfs, run_arguments
from sandbox_runner.docker.command import DockerCli
from tests.docker.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
RUNTIMES = pytest.mark.parametrize("runtime", ["", "runsc"], ids=["runc", "runsc"])
Settings = Callable[[str], isorun.Settings]


@pytest.fixture
def settings(docker_engine: Engine, executor_image: str, require) -> Settings:
    """`settings(runtime)`: for executors under that runtime; empty: the engine's own."""

    def make(runtime: str) -> isorun.Settings:
        environ = {"PY_CODE_EXEC_IMAGE": executor_image}
        if runtime:
            if f'"{runtime}"' not in docker_engine("info", "--format", "{{json .Runtimes}}"):
                require("gvisor", f"the engine knows no runtime {runtime}")
            environ["ISORUN_DOCKER_RUNTIME"] = runtime
        return isorun.Settings.load(environ=environ)

    return make


#: Each would let a program take the host's folders away, speak for init, or write where nothing is counted.
TAKEN = """
import socket, stat
def tried(action):
    try:
        return str(action())
    except OSError as error:
        return type(error).__name__
def connected():
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect("/run/isorun/workspace.sock")
def bound():
    with socket.socket(socket.AF_UNIX) as channel:
        channel.bind("/run/isorun/workspace.sock")
answers = {
    "connect": tried(connected),
    "bind": tried(bound),
    "file beside the socket": tried(lambda: open("/run/isorun/x", "w")),
    "file in the root": tried(lambda: open("/workspace/x", "w")),
    "folder in the root": tried(lambda: os.mkdir("/workspace/x")),
    "root opened to all": tried(lambda: os.chmod("/workspace", 0o777)),
    "out taken away": tried(lambda: os.rename("/workspace/out", "/workspace/work/out")),
    "out replaced": tried(lambda: os.rmdir("/workspace/out")),
    "link in its place": tried(lambda: os.symlink("/etc", "/workspace/out2")),
}
held = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")]
answers["held"] = [path for path in held if path.rstrip("/") == "/workspace" or "isorun/" in path]
os.chmod("/workspace/out", 0)
os.chmod("/workspace/out", 0o755)
open("made", "w").write("kept")
print(json.dumps(answers))
"""


@RUNTIMES
def test_a_program_cannot_act_on_how_its_workspace_was_handed_over(settings, tmp_path: Path, runtime: str) -> None:
    """Nobody listens, nothing of init's is held, and the root of the workspace is the host's.

    Control: what it makes in out/, which is its own, is collected.
    """
    with isorun.SyncRuntime(
        backend="docker", settings=settings(runtime), workspace_root=tmp_path, pool_size=0
    ) as opened:
        result = opened.execute(TAKEN, timeout_s=30)
    answers = json.loads(result.stdout)
    assert answers.pop("held") == []
    done = {name: answer for name, answer in answers.items() if not answer.endswith("Error")}
    assert done == {}, result.report_text
    assert [(artifact.path, artifact.bytes) for artifact in result.artifacts] == [("made", 4)]


_HOST = """
import isorun, os, sys
settings = isorun.Settings.load(environ=dict(zip(sys.argv[2::2], sys.argv[3::2])))
runtime = isorun.SyncRuntime(backend="docker", settings=settings, workspace_root=sys.argv[1], pool_size=0)
runtime.__enter__()
code = '''
os.mkdir("own", 0o700)
open("own/file", "wb").write(bytes(30 << 20))
print("up", flush=True)
time.sleep(120)
'''
run = runtime.start(code, timeout_s=120)
next(event for event in run.events() if event.kind == "output")
print("up", flush=True)
run.result()
"""


def volumes(engine: Engine, lease: str) -> set[str]:
    """The volumes of the engine's that containers of *lease* have."""
    numbers = engine("ps", "--all", "--quiet", "--filter", f"label=isorun.lease={lease}").split()
    mounts = [mount for container in json.loads(engine("inspect", *numbers)) for mount in container["Mounts"]]
    return {mount["Name"] for mount in mounts if mount["Type"] == "volume"}


@RUNTIMES
def test_nothing_of_a_killed_hosts_workspace_is_left(
    settings, docker_engine: Engine, executor_image: str, tmp_path: Path, runtime: str
) -> None:
    """No file of the program's is on the host's disk, and the next host leaves neither folder nor volume behind."""
    given, root = settings(runtime), tmp_path / "root"
    root.mkdir()
    environ = ["PY_CODE_EXEC_IMAGE", executor_image, *(["ISORUN_DOCKER_RUNTIME", runtime] if runtime else [])]
    with subprocess.Popen(
        [sys.executable, "-c", _HOST, str(root), *environ], stdout=subprocess.PIPE, text=True
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == "up\n"
        leases = root / f".isorun-{os.geteuid()}/containers"
        (slot,) = leases.glob("host_*/slot_*")
        ours = volumes(docker_engine, slot.parent.name)
        assert len(ours) == (1 if runtime else 0)
        named = docker_engine("volume", "ls", "--quiet", "--filter", f"label=isorun.lease={slot.parent.name}").split()
        assert set(named) == ours
        host.send_signal(signal.SIGKILL)
    assert list(slot.iterdir()) == []
    with isorun.SyncRuntime(backend="docker", settings=given, workspace_root=root, pool_size=0) as opened:
        assert opened.execute("print('on')", timeout_s=30).stdout == "on\n"
    assert list(leases.iterdir()) == []
    shown = docker_engine("ps", "--all", "--quiet", "--filter", f"label=isorun.lease={slot.parent.name}")
    assert (shown, ours & set(docker_engine("volume", "ls", "--quiet").split())) == ("", set())


_CUT_OFF = AttachedSpec(
    image="",
    command=("true",),
    user=(1001, 1001),
    memory_bytes=64 << 20,
    pids=8,
    cpus=1,
    nofile=64,
    shared=("/workspace", Tmpfs(1 << 20, 64)),
)


@pytest.mark.parametrize("asked_by", ["the same root", "another root"])
def test_a_volume_whose_container_never_came_is_removed(
    docker_engine: Engine, executor_image: str, tmp_path: Path, asked_by: str
) -> None:
    """An engine makes it first: a start cut off between them leaves it alone, and it is found by its labels.

    Control: that of a host that lives stays, although no container has it either.
    """
    state = tmp_path / "dead" / f".isorun-{os.geteuid()}"
    dead = f"host_{secrets.token_hex(8)}"
    lost = _volume_alone(docker_engine, executor_image, state / "containers" / dead)
    root = tmp_path / ("dead" if asked_by == "the same root" else "other")
    with container_lease.take(_made(tmp_path / "alive" / state.name), DockerCli()) as lease:
        kept = _volume_alone(docker_engine, executor_image, lease)
        environ = {**os.environ, "ISORUN_WORKSPACE_ROOT": str(root), "ISORUN_BACKEND": "namespace"}
        cleanup = [sys.executable, "-m", "isorun", "cleanup", "--json"]
        told = json.loads(subprocess.run(cleanup, env=environ, capture_output=True, check=True).stdout)
        assert (told["problems"], dead in told["removed_containers"]) == ([], True)
        assert {lost, kept} & set(docker_engine("volume", "ls", "--quiet").split()) == {kept}
    assert kept not in docker_engine("volume", "ls", "--quiet").split()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _volume_alone(engine: Engine, image: str, lease: Path) -> str:
    """A slot's volume of *lease*, without the container that it was made for."""
    spec = replace(_CUT_OFF, image=image, labels=container_lease.labels(_made(lease)))
    arguments = run_arguments(spec, f"cut-off-{secrets.token_hex(4)}", "")
    arguments = ["create", *(argument for argument in arguments[1:] if argument != "--sig-proxy=false")]
    number = engine(*arguments)
    (mount,) = json.loads(engine("inspect", number))[0]["Mounts"]
    engine("rm", number)
    return str(mount["Name"])
