"""isorun in a container of the chat image, with the host's socket: executors are siblings, their folders the host's."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docker.engine import Engine
from tests.docker.test_chat_image import chat_image  # noqa: F401 - a fixture

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]
BUNDLES = Path(__file__).parents[2] / "examples" / "bundles"
SOCKET = "/var/run/docker.sock"


class Host(NamedTuple):
    """Folders of the daemon's host, and what runs a command of isorun in the chat container."""

    workspace: Path
    bundles: Path
    isorun: Callable[..., tuple[int, str]]


@pytest.fixture
def host(docker_engine: Engine, executor_image: str, chat_image: str, tmp_path: Path) -> Iterator[Host]:  # noqa: F811
    """A workspace that is appuser's, and a copy of the bundles that everybody may read."""
    workspace, bundles = tmp_path / "exec-workspace", tmp_path / "bundles"
    workspace.mkdir()
    os.chown(workspace, 1000, 1000)
    shutil.copytree(BUNDLES, bundles)

    def isorun(*words: str, translate: bool = True, options: tuple[str, ...] = ()) -> tuple[int, str]:
        mounts = {SOCKET: SOCKET, workspace: "/exec-workspace", bundles: "/bundles"}
        named = {"PY_CODE_EXEC_IMAGE": executor_image, "ISORUN_BACKEND": "docker"}
        if translate:
            named |= {"HOST_EXEC_WORKSPACE_PATH": str(workspace), "HOST_BUNDLES_PATH": str(bundles)}
        given = [part for ours, theirs in mounts.items() for part in ("-v", f"{ours}:{theirs}")]
        given += [part for name, value in named.items() for part in ("-e", f"{name}={value}")]
        done = docker_engine.run(
            "run", "--rm", "--network", "none", *given, *options, chat_image, "isorun", *words, seconds=150
        )
        return done.returncode, done.stdout + done.stderr

    yield Host(workspace, bundles, isorun)
    left = docker_engine("ps", "--all", "--quiet", "--filter", "label=isorun.role", "--filter", f"volume={workspace}")
    assert left == ""


@pytest.mark.parametrize("translate", [True, False], ids=["HOST_*", "own mounts"])
def test_scenario_0_ends_as_its_table_says(host: Host, translate: bool) -> None:
    """With tools, in a supervisor beside it; paths are translated by the map, and without one by our own mounts."""
    code, said = host.isorun("scenario", "0", translate=translate)
    assert code == 0, said
    assert "[entrypoint] ✅ Docker access verified for appuser" in said


def test_scenario_12_ends_as_its_table_says(host: Host) -> None:
    """As appuser, who is not root, and shares files with executors by their group."""
    code, said = host.isorun("scenario", "12")
    assert code == 0, said


def test_the_log_says_which_paths_are_whose(host: Host) -> None:
    """In the run's folder on the host, which is the caller's: appuser's."""
    (host.workspace / "program.py").write_text("open('made.txt', 'w').write('by a sibling')")
    code, said = host.isorun("run", "/exec-workspace/program.py")
    assert code == 0, said
    (folder,) = host.workspace.glob("codegen_*")
    made = folder / "out" / "made.txt"
    assert (made.read_text(), made.stat().st_uid) == ("by a sibling", 1000)
    log = (folder / "out/logs/infra.log").read_text()
    assert "[docker.exec] Running in Docker-in-Docker mode" in log
    assert "[docker.exec] Container paths: workdir=/exec-workspace/.isorun-1000/containers/host_" in log
    assert f"[docker.exec] Host paths: workdir={host.workspace}/.isorun-1000/containers/host_" in log


def test_a_workspace_that_is_watched_is_held(host: Host) -> None:
    """appuser may mount nothing: a program that fills the disk is ended, and what it left is removed."""
    code = "for n in range(500):\n    open(str(n), 'wb').write(bytes(1 << 20)); time.sleep(0.02)"
    (host.workspace / "program.py").write_text(code)
    options = ("-e", "ISORUN_MAX_WORKSPACE_BYTES=20000000")
    ended, said = host.isorun("run", "/exec-workspace/program.py", options=options)
    assert (ended, "workspace_limit" in said) == (5, True), said
    assert list((host.workspace / ".isorun-1000/containers").iterdir()) == []


def test_a_bundle_that_the_host_cannot_mount_is_said_with_the_missing_mount(host: Host) -> None:
    """It is in the image alone: the error names it, and what to set."""
    (host.workspace / "program.py").write_text("print(1)")
    packaged = "/opt/venv/lib/python3.11/site-packages/isorun/bundles/with-isoruntime"
    code, said = host.isorun("run", "/exec-workspace/program.py", "--bundle", packaged)
    assert (code, "HOST_BUNDLES_PATH" in said, packaged in said) == (4, True, True), said
