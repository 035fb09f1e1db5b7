"""isorun in a container of the chat image, with the host's socket: executors are siblings, their folders the host's."""

import json
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
    """Folders of the engine's host, and what runs a command of isorun in the chat container."""

    workspace: Path
    bundles: Path
    isorun: Callable[..., tuple[int, str]]


@pytest.fixture
def host(docker_engine: Engine, executor_image: str, chat_image: str, tmp_path: Path) -> Iterator[Host]:  # noqa: F811 - the fixture
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
    assert list(host.workspace.glob("sandbox/*/out/logs/user.log"))  # the example's folders outlive the container


@pytest.mark.parametrize("translate", [True, False], ids=["HOST_*", "own mounts"])
@pytest.mark.parametrize("folder", ["/home/appuser/sandbox", "/exec-workspace2", "/exec-workspace/../tmp/sandbox"])
def test_a_sandbox_root_of_the_container_alone_is_refused(host: Host, folder: str, translate: bool) -> None:
    """Before anything starts, with the setting's name and the folders that the host shares."""
    options = ("-e", f"ISO_RUNTIME_SANDBOX_ROOT={folder}")
    code, said = host.isorun("scenario", "0", translate=translate, options=options)
    assert code == 2, said
    assert "set ISO_RUNTIME_SANDBOX_ROOT to a folder below those that the host shares: " in said
    assert "/exec-workspace" in said.split("shares: ")[1]
    assert not list(host.workspace.glob("codegen_*"))
    assert "[supervisor]" not in said


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
    assert f"[docker.exec] Container paths: workdir=/exec-workspace/{folder.name}\n" in log
    assert f"[docker.exec] Host paths: workdir={folder}\n" in log


#: What no watcher sees: a folder that is the program's own, files without a name, holes that are filled later.
HIDDEN = """
import os
held, kept = 0, []
def fill(path, unlinked):
    global held
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    kept.append(file)
    if unlinked:
        os.unlink(path)
    os.ftruncate(file, 4 << 20)
    for part in range(4):
        held += os.pwrite(file, b"x" * (1 << 20), part << 20)
os.mkdir("own", 0o700)
try:
    for number in range({files}):
        fill(f"own/{{number}}", number % 2)
except OSError as error:
    print(error.strerror)
print("held", held)
"""


@pytest.mark.parametrize("runtime", ["", "runsc"], ids=["runc", "runsc"])
def test_files_that_nobody_sees_are_within_the_ceiling(host: Host, docker_engine, require, runtime: str) -> None:
    """appuser may mount nothing: the workspace is the engine's, sized, and no file of it is on the host's disk."""
    if runtime and f'"{runtime}"' not in docker_engine("info", "--format", "{{json .Runtimes}}"):
        require("gvisor", f"the engine knows no runtime {runtime}")
    named = ("-e", f"ISORUN_DOCKER_RUNTIME={runtime}") if runtime else ()
    (host.workspace / "program.py").write_text(HIDDEN.format(files=100))
    options = (*named, "-e", "ISORUN_MAX_WORKSPACE_BYTES=20000000")
    ended, said = host.isorun("run", "--json", "/exec-workspace/program.py", options=options)
    assert (ended, "No space left on device" in said) == (0, True), said
    result = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert 16_000_000 < int(result["stdout"].split("held ")[1]) <= 20_000_000
    assert (result["isolation"]["level"], result["isolation"]["walls"]["workspace"]) == ("full", "sized")
    # What has a name is collected, from a folder of mode 0700 of another user.
    assert {artifact["path"] for artifact in result["artifacts"]} >= {"own/0", "own/2"}
    assert list((host.workspace / ".isorun-1000/containers").iterdir()) == []
    # Control: with room for them, all of them are written.
    (host.workspace / "program.py").write_text(HIDDEN.format(files=12))
    ended, said = host.isorun("run", "/exec-workspace/program.py", options=named)
    assert (ended, f"held {48 << 20}\n" in said) == (0, True), said


def _left_by_a_killed_service(host: Host, owner: int) -> Path:
    """A slot's folder that a program of uid *owner* has made its own, in a lease that nobody holds."""
    lease = host.workspace / ".isorun-1000/containers/host_dead"
    out = lease / "slot_1/out"
    for folder in (out, lease / "slot_1/work"):
        folder.mkdir(parents=True)
        os.chown(folder, 1000, 1000)
        folder.chmod(0o2770)
    for path in (lease, lease.parent, lease.parent.parent, lease / "slot_1"):
        os.chown(path, 1000, 1000)
        path.chmod(0o710)
    deep = [out / "own" / "/".join("d" * depth) for depth in (1, 2, 300)]
    deep[-1].mkdir(parents=True)
    for path in [out / "own", *(out / "own").rglob("*")]:
        os.chown(path, owner, 1000)
        path.chmod(0o700)
    (out / "own").chmod(0)
    (out / "link").symlink_to(host.bundles)
    return lease


@pytest.mark.parametrize("owner", [1001, 4711], ids=["executor", "somebody else"])
def test_what_a_killed_service_left_is_removed_or_said_to_stay(host: Host, owner: int) -> None:
    """appuser cannot remove what is in a program's own folder; a container with the executor's ids can."""
    lease = _left_by_a_killed_service(host, owner)
    (host.workspace / "program.py").write_text("print('ran')")
    code, said = host.isorun("run", "/exec-workspace/program.py")
    assert (code, "ran" in said) == (0, True), said
    told = ("what host_dead had left was removed" in said, "slot_1 stays behind" in said)
    assert (lease.exists(), *told) == ((False, True, False) if owner == 1001 else (True, False, True)), said
    assert any(host.bundles.iterdir())


def test_the_checklist_finds_the_ceiling(host: Host) -> None:
    """In the deployment that the operations guide calls production."""
    said = host.isorun("doctor", "--production", "--verbose")[1]
    row = next(line for line in said.splitlines() if "ceiling of the workspace" in line)
    assert ("ok" in row.split(), "held by a file system of its own" in row) == (True, True), said


def test_a_bundle_that_the_host_cannot_mount_is_said_with_the_missing_mount(host: Host) -> None:
    """It is in the image alone: the error names it, and what to set."""
    (host.workspace / "program.py").write_text("print(1)")
    packaged = "/opt/venv/lib/python3.11/site-packages/isorun/bundles/with-isoruntime"
    code, said = host.isorun("run", "/exec-workspace/program.py", "--bundle", packaged)
    assert (code, "HOST_BUNDLES_PATH" in said, packaged in said) == (4, True, True), said
