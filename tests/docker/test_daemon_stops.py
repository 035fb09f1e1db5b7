"""A daemon that is stopped and started again under a Runtime: one of the test's own, with a bare image."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import isorun
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

    def start(self) -> None:
        """Return once it answers."""
        places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        options = [f"--{name}={self._folder / place}" for name, place in places.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "--net", "dockerd", f"--host={self.host}", "--bridge=none", "--iptables=false", *options],
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

    def docker(self, *arguments: str, **options: object) -> "subprocess.CompletedProcess[bytes]":
        """`docker arguments…` at this daemon."""
        environ = os.environ | {"DOCKER_HOST": self.host}
        return subprocess.run(["docker", *arguments], env=environ, capture_output=True, timeout=60, **options)  # type: ignore[call-overload, no-any-return]

    def take(self, image: str) -> None:
        """Have that image of the machine's own daemon."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
            assert self.docker("load", stdin=saved.stdout).returncode == 0


@pytest.fixture
def daemon(docker_engine: Engine, require) -> Iterator[Daemon]:
    """One that has an image with Python, and the label of ours."""
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
        yield made
    finally:
        made.stop()
        for line in Path("/proc/mounts").read_text().splitlines():
            if line.split()[1].startswith(f"{folder}/"):  # a daemon that was not stopped in order leaves some
                subprocess.run(["umount", "--lazy", line.split()[1]], check=True)
        subprocess.run(["rm", "-r", "--one-file-system", folder], check=True)


def test_a_daemon_that_stops_costs_what_runs_and_no_later_run(daemon: Daemon, tmp_path: Path, monkeypatch) -> None:
    """The run in flight says that its container ended, the next that no daemon answers; once it is back, all works."""
    monkeypatch.setenv("DOCKER_HOST", daemon.host)
    settings = isorun.Settings.load(environ={"PY_CODE_EXEC_IMAGE": IMAGE})
    root = tmp_path / "root"
    with isorun.SyncRuntime(backend="docker", settings=settings, workspace_root=root, pool_size=1) as runtime:
        run = runtime.start("print('up', flush=True)\ntime.sleep(60)", timeout_s=60)
        next(event for event in run.events() if event.kind == "output")
        daemon.stop()
        with pytest.raises(isorun.SetupFailed, match=r"^container: "):
            run.result()
        with pytest.raises(
            isorun.SetupFailed, match=r"(?i)cannot connect to the docker daemon|no docker daemon answers"
        ):
            runtime.execute("print(1)", timeout_s=10)
        daemon.start()
        assert runtime.execute("print('on')", timeout_s=10).stdout == "on\n"
    assert daemon.docker("ps", "--all", "--quiet").stdout == b""
    assert [line for line in Path("/proc/mounts").read_text().splitlines() if str(root) in line] == []


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
