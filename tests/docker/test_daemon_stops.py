"""A daemon that is stopped and started again under a Runtime: one of the test's own, with a bare image."""

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

import isorun
from isorun.backends.docker import backend as docker
from isorun.backends.docker import slot as docker_slot
from isorun.backends.docker.ending import AWAY
from isorun.store.recovery import listing, recover
from tests.bundles import write_bundle
from tests.docker.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(200)]
IMAGE = "py-code-exec:bare"
_SUMS = '''
@isorun.tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b
'''
_CALL = "print(agent_io_tools.tool_call_sync(tool_id='sums.add', params={'a': 40, 'b': 2}))"


class Daemon:
    """A dockerd with its own socket, images and network namespace, in which it may do as it likes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.host = f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        """Return once it answers."""
        places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        options = [f"--{name}={self._folder / place}" for name, place in places.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "unshare",
                    "--net",
                    "dockerd",
                    f"--host={self.host}",
                    "--bridge=none",
                    "--iptables=false",
                    *options,
                    *more,
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + 30
        while self.docker("version").returncode:
            assert time.monotonic() < until, (self._folder / "log").read_text()[-2000:]
            time.sleep(0.1)

    def stop(self) -> None:
        """End it, and with it every container, as a daemon without live-restore does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
            self._process = None

    def kill(self) -> None:
        """End the daemon at once, and its containerd: its containers live on, as their shims do."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None
        self._kill_all(f"{self._folder}/exec/containerd/containerd.toml")

    def _kill_all(self, named: str) -> None:
        """Every process that has that on its command line: the folder is a random one of ours."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                pidfd = os.pidfd_open(int(process.name))
                if named.encode() in (process / "cmdline").read_bytes():
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    select.select([pidfd], [], [], 20)
                os.close(pidfd)
            except OSError:  # it has ended
                continue

    def end(self) -> None:
        """Leave no process, no mount and no container of it, however it was left. Its images stay."""
        self.stop()
        self._kill_all(f"{self._folder}/")
        # A daemon that was not stopped in order leaves some; the end of its processes takes some away.
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if line.split()[1].startswith(f"{self._folder}/"):
                subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
        # What a daemon that was killed knows of containers keeps the next one from its start.
        for name in ("exec", "pid", "data/containers", "data/containerd"):
            subprocess.run(["rm", "-rf", "--one-file-system", self._folder / name], check=True)

    def docker(self, *arguments: str, **options: object) -> "subprocess.CompletedProcess[bytes]":
        """`docker arguments…` at this daemon."""
        environ = os.environ | {"DOCKER_HOST": self.host}
        return subprocess.run(["docker", *arguments], env=environ, capture_output=True, timeout=180, **options)

    def take(self, image: str) -> None:
        """Have that image of the machine's own daemon."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
            assert self.docker("load", stdin=saved.stdout).returncode == 0


@pytest.fixture(scope="module")
def stored(docker_engine: Engine, require) -> Iterator[Daemon]:
    """A daemon that is not running, and has an image with Python, and the label of ours."""
    if shutil.which("dockerd") is None:
        require("docker", "there is no dockerd to start a second one of")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # a socket has 107 bytes of path
    made = Daemon(folder)
    try:
        made.start()
        name = docker_engine("create", "--network", "none", docker_engine.base_image, "true")
        with subprocess.Popen(["docker", "export", name], stdout=subprocess.PIPE) as exported:
            change = ["--change", "LABEL isorun.image=1", "--change", "ENV PATH=/usr/bin:/bin"]
            assert made.docker("import", *change, "-", IMAGE, stdin=exported.stdout).returncode == 0
        docker_engine("rm", name)
        made.stop()
        yield made
    finally:
        made.end()
        subprocess.run(["rm", "-r", "--one-file-system", folder], check=True)


@pytest.fixture
def daemon(stored: Daemon) -> Iterator[Daemon]:
    """The same, running, with no container."""
    try:
        stored.start()
        yield stored
    finally:
        stored.end()


def test_a_daemon_that_stops_costs_what_runs_and_no_later_run(daemon: Daemon, tmp_path: Path, monkeypatch) -> None:
    """The run in flight is lost by name, the next says that no daemon answers; once it is back, all works."""
    monkeypatch.setenv("DOCKER_HOST", daemon.host)
    settings = isorun.Settings.load(environ={"PY_CODE_EXEC_IMAGE": IMAGE})
    root = tmp_path / "root"
    with isorun.SyncRuntime(backend="docker", settings=settings, workspace_root=root, pool_size=1) as runtime:
        run = runtime.start("print('up', flush=True)\ntime.sleep(60)", timeout_s=60)
        next(event for event in run.events() if event.kind == "output")
        daemon.stop()
        result = run.result()
        assert (result.status, result.error.code, result.error.message) == ("lost", "sandbox_lost", AWAY)
        assert (result.stdout, result.out_dir.joinpath("result.json").is_file()) == ("up\n", True)
        with pytest.raises(
            isorun.SetupFailed, match=r"(?i)cannot connect to the docker daemon|no docker daemon answers"
        ):
            runtime.execute("print(1)", timeout_s=10)
        daemon.start()
        assert runtime.execute("print('on')", timeout_s=10).stdout == "on\n"
    assert daemon.docker("ps", "--all", "--quiet").stdout == b""
    assert [line for line in Path("/proc/mounts").read_text().splitlines() if str(root) in line] == []


_WRITES = (
    "open(OUT / 'kept.txt', 'w').write('kept')\nprint(os.readlink('/proc/self/ns/pid'), flush=True)\ntime.sleep(60)"
)


def living(namespace: str) -> list[str]:
    """The processes of that pid namespace; what its shim has not reaped yet is dead."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            if (process / "ns/pid").readlink().name == namespace and state not in "ZX":
                found.append(process.name)
        except OSError:
            continue
    return found


@contextmanager
def run_beside(daemon: Daemon, root: Path, **options: float) -> Iterator[tuple[isorun.Run, str]]:
    """A run that sleeps for a minute on a Runtime of that daemon's, and its pid namespace.

    Where the daemon is not there at the end, what it has of containers stays and is said.
    """
    runtime = isorun.SyncRuntime(backend="docker", settings=_settings(), workspace_root=root, pool_size=0).__enter__()
    try:
        run = runtime.start(_WRITES, **options)
        yield run, next(event for event in run.events() if event.kind == "output").data["text"].strip()
    finally:
        is_away = daemon.docker("version").returncode != 0
        with pytest.raises(isorun.CleanupFailed) if is_away else nullcontext():
            runtime.__exit__(None, None, None)


def test_a_program_does_not_outlive_its_daemon(daemon: Daemon, tmp_path: Path, monkeypatch) -> None:
    """A killed daemon kills nothing: we do, and the result has what was printed and written, and why."""
    monkeypatch.setenv("DOCKER_HOST", daemon.host)
    root = tmp_path / "root"
    with run_beside(daemon, root, timeout_s=60) as (run, namespace):
        assert living(namespace)
        daemon.kill()
        result = run.result()
        assert living(namespace) == []
    assert (result.status, result.error.code, result.error.message) == ("lost", "sandbox_lost", AWAY)
    assert (result.stdout, [artifact.path for artifact in result.artifacts]) == (f"{namespace}\n", ["kept.txt"])
    assert result.usage["wall_s"] < 30
    assert [run.status for run in listing(root)] == ["lost"]
    assert recover(root) == []  # as the next start does it
    assert json.loads((result.out_dir / "result.json").read_text())["error"]["message"] == AWAY


def test_where_we_may_kill_nothing_init_ends_the_program_in_time(daemon: Daemon, tmp_path: Path, monkeypatch) -> None:
    """As in Docker-in-Docker, whose processes we do not see; without that word of ours it goes on."""
    monkeypatch.setenv("DOCKER_HOST", daemon.host)
    monkeypatch.setattr(docker, "_pidfd", lambda *_: None)
    monkeypatch.setattr(docker_slot, "_SPARE_S", 1.0)
    monkeypatch.setattr(docker_slot, "_SEND_S", 1.0)
    with run_beside(daemon, tmp_path / "root", timeout_s=15) as (run, namespace):
        daemon.kill()
        with pytest.raises(isorun.SetupFailed, match=AWAY):
            run.result()
        assert living(namespace)
        until = time.monotonic() + 60
        while living(namespace) and time.monotonic() < until:
            time.sleep(0.1)
        assert living(namespace) == []


def test_a_daemon_that_comes_back_under_its_containers_is_one_that_went_away(
    daemon: Daemon, tmp_path: Path, monkeypatch
) -> None:
    """With live-restore they live through it, their streams do not: the program is ended, and nothing is left."""
    monkeypatch.setenv("DOCKER_HOST", daemon.host)
    daemon.stop()
    daemon.start("--live-restore")
    with run_beside(daemon, tmp_path / "root", timeout_s=60) as (run, namespace):
        daemon.stop()
        daemon.start("--live-restore")
        result = run.result()
        assert living(namespace) == []
        assert (result.status, result.error.message.startswith(AWAY), result.stdout) == ("lost", True, f"{namespace}\n")
    assert daemon.docker("ps", "--all", "--quiet").stdout == b""


def _settings() -> isorun.Settings:
    return isorun.Settings.load(environ={"PY_CODE_EXEC_IMAGE": IMAGE})


def test_a_daemon_that_stops_costs_the_tools_only_as_long_as_it_is_away(
    daemon: Daemon, executor_image: str, tmp_path: Path, monkeypatch
) -> None:
    """A supervisor that went with its daemon is started anew by the next run that can be; none is left."""
    daemon.take(executor_image)
    monkeypatch.setenv("DOCKER_HOST", daemon.host)
    bundle = write_bundle(tmp_path / "tooled", sums=_SUMS)
    named = {"PY_CODE_EXEC_IMAGE": executor_image, "PY_CODE_EXEC_NETWORK_MODE": "none"}
    settings, root = isorun.Settings.load(environ=named), tmp_path / "root"
    options = {"settings": settings, "workspace_root": root, "pool_size": 0, "bundle": bundle}
    with pytest.raises(isorun.CleanupFailed), isorun.SyncRuntime(backend="docker", **options) as runtime:
        _calls_while_it_goes_and_comes(runtime, daemon)
    daemon.start()
    with isorun.SyncRuntime(backend="docker", **options) as runtime:
        assert runtime.execute(_CALL).stdout == "42\n"
    assert daemon.docker("ps", "--all", "--quiet").stdout == b""
    assert list(root.glob(".isorun-*/containers/*")) == []
    assert [line for line in Path("/proc/mounts").read_text().splitlines() if str(root) in line] == []


def _calls_while_it_goes_and_comes(runtime: isorun.SyncRuntime, daemon: Daemon) -> None:
    assert runtime.execute(_CALL).stdout == "42\n"
    daemon.stop()
    with pytest.raises(isorun.IsorunError):
        runtime.execute(_CALL, timeout_s=10)
    daemon.start()
    assert runtime.execute(_CALL).stdout == "42\n"
    daemon.stop()
