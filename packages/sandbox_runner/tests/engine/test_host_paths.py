"""A process in a container that starts siblings on the host's daemon: the real engine, our code inside.

The inner container gets the daemon's socket, the Docker CLI, this package and a workspace at a path that the host does
not have. It runs as root there: the socket gives it the host in any case.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sandbox_runner

PACKAGE = Path(sandbox_runner.__file__).parent.parent
SOCKET = Path("/var/run/docker.sock")
LABEL = "sandbox-runner-test"

#: Runs inside: what `discover` finds, what a path becomes, and what a sibling sees that gets it.
INNER = """
import json, os, sys
from sandbox_runner.docker.command import DockerCli
from sandbox_runner.errors import SandboxError
from sandbox_runner.docker.host_paths import HostPaths, prove
from sandbox_runner.spec import MountSpec

asked = json.loads(sys.argv[1])
cli = DockerCli()
said = {"hostname": os.uname().nodename}
try:
    paths = HostPaths.discover(asked.get("explicit"), cli, os.environ)
    said["described"] = paths.describe()
    os.makedirs(asked["path"], exist_ok=True)
    with open(asked["path"] + "/from-inside", "w") as file:
        file.write("written by the inner container")
    said["translated"] = paths.translate(asked["path"])
    mount = f"type=bind,source={said['translated']},target=/seen"
    label = "sandbox-runner-test=" + asked["mark"]
    run = ("run", "--detach", "--label", label, "--network", "none", "--mount", mount, asked["image"], "sleep", "600")
    started = cli.run(*run)
    assert not started.code, started.said
    sibling = started.stdout.decode().strip()

    def read_inside(path):
        answer = cli.run("exec", sibling, "cat", path)
        return None if answer.code else answer.stdout

    said["seen"] = (read_inside("/seen/from-inside") or b"").decode()
    said["unproved"] = prove([MountSpec(asked["path"], "/seen")], paths, read_inside)
except SandboxError as error:
    said["error"] = [type(error).__name__, str(error)]
finally:
    said["left"] = sorted(os.listdir(asked["path"]))
    cli.run("rm", "--force", "--volumes", sibling) if "sibling" in globals() else None
print(json.dumps(said))
"""

Inside = Callable[..., dict[str, Any]]


@pytest.fixture
def inside(docker_cli, base_image: str, require) -> Iterator[Inside]:
    """`inside(*options, path=…)`: what `INNER` says in a container that `docker run` started with these options."""
    if not SOCKET.is_socket():
        require("docker", f"the daemon has no socket {SOCKET}")
    mark = uuid.uuid4().hex
    program = shutil.which(docker_cli.program)

    def run(*options: str, network: str = "none", **asked: object) -> dict[str, Any]:
        said = docker_cli(
            "run", "--rm", "--label", f"{LABEL}={mark}", "--network", network,
            "--volume", f"{SOCKET}:{SOCKET}", "--volume", f"{program}:/usr/local/bin/docker:ro",
            "--volume", f"{PACKAGE}:/opt/package:ro", "--env", "PYTHONPATH=/opt/package",
            "--env", "PYTHONDONTWRITEBYTECODE=1", *options,
            base_image, "python3", "-c", INNER, json.dumps({"image": base_image, "mark": mark, **asked}),
        )  # fmt: skip
        return json.loads(said)

    yield run
    left = docker_cli("ps", "--all", "--quiet", "--filter", f"label={LABEL}={mark}").split()
    if left:
        docker_cli("rm", "--force", "--volumes", *left)
    assert left == []


@pytest.mark.parametrize("options", [(), ("--hostname", "box"), ("--cgroupns", "private", "--hostname", "box")])
def test_a_sibling_sees_what_the_inner_container_wrote(
    inside: Inside, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """With no word about paths: our container's own mounts are the map, and the canary is seen through it."""
    said = inside("--volume", f"{tmp_path}:/workspace", *options, path="/workspace/deep/er")
    assert said["translated"] == f"{tmp_path}/deep/er"
    assert (said["seen"], said["unproved"], said["left"]) == ("written by the inner container", [], ["from-inside"])
    assert (tmp_path / "deep/er/from-inside").read_text() == "written by the inner container"
    assert said["described"].startswith("host paths, from the mounts of our own container ")
    assert f"/workspace -> {tmp_path}" in said["described"]


def test_a_named_volume_has_a_path_of_the_host(inside: Inside, docker_cli) -> None:
    """A workspace that is a volume and no folder that anybody chose."""
    volume = f"sandbox-runner-test-{uuid.uuid4().hex[:8]}"
    try:
        said = inside("--volume", f"{volume}:/workspace", path="/workspace/a")
        mountpoint = docker_cli("volume", "inspect", "--format", "{{.Mountpoint}}", volume)
    finally:
        docker_cli("volume", "rm", volume)
    assert (said["translated"], said["seen"]) == (f"{mountpoint}/a", "written by the inner container")


def test_the_environment_names_the_folder(inside: Inside, tmp_path: Path) -> None:
    """The pair of variables, as an operator sets them."""
    pair = ("--env", "WORKSPACE_ROOT=/workspace", "--env", f"HOST_WORKSPACE_ROOT={tmp_path}")
    said = inside("--volume", f"{tmp_path}:/workspace", *pair, path="/workspace/a")
    assert said["described"] == f"host paths, from HOST_WORKSPACE_ROOT: /workspace -> {tmp_path}"
    assert (said["seen"], said["unproved"]) == ("written by the inner container", [])


def test_without_the_mount_the_error_says_which(inside: Inside, tmp_path: Path) -> None:
    """The very text: the path, the mounts there are, and the options to type."""
    said = inside("--volume", f"{tmp_path}:/elsewhere", path="/workspace/a")
    kind, text = said["error"]
    listed = text.partition("The mounts are ")[2].partition(" (from ")[0].split(", ")
    assert set(listed) >= {f"/elsewhere -> {tmp_path}", f"/opt/package -> {PACKAGE}", f"/run/docker.sock -> {SOCKET}"}
    assert kind == "SandboxStartFailed"
    assert text == (
        "/workspace/a: the engine's host has no path for it, because no mount of this container holds it. "
        f"The mounts are {', '.join(listed)} (from the mounts of our own container {said['hostname']}). "
        "If this process runs in a container, start that with `-v /host/folder:/workspace/a`, where /host/folder is "
        "the folder of the engine's host; if it has one there already, say which: "
        "`-e SANDBOX_FOLDER=/workspace/a -e HOST_SANDBOX_FOLDER=/host/folder`"
    )


def test_a_wrong_map_is_found_by_the_canary(inside: Inside, tmp_path: Path) -> None:
    """The engine mounts what it is told to: only the file that is not there shows the folder to be another one."""
    for name in ("right", "wrong"):
        (tmp_path / name).mkdir()
    explicit = {"/workspace": str(tmp_path / "wrong")}
    said = inside("--volume", f"{tmp_path}/right:/workspace", path="/workspace", explicit=explicit)
    assert said["seen"] == ""
    assert said["left"] == ["from-inside"]
    assert said["error"] == [
        "SandboxStartFailed",
        "/seen in the sandbox is not /workspace: it has no file where we have one. The engine's host mounted "
        f"its {tmp_path}/wrong (host paths, from the given host_paths: /workspace -> {tmp_path}/wrong), or the "
        "sandbox's user may not read there. If this process runs in a container, start that with "
        "`-v /host/folder:/workspace`, where /host/folder is the folder of the engine's host; if it has one there "
        "already, say which: `-e SANDBOX_FOLDER=/workspace -e HOST_SANDBOX_FOLDER=/host/folder`",
    ]


def test_the_container_whose_network_we_share_is_not_taken_for_ours(
    inside: Inside, docker_cli, base_image: str, tmp_path: Path
) -> None:
    """Its files are in our /etc; by its map a folder of another container would be mounted."""
    other = f"sandbox-runner-test-{uuid.uuid4().hex[:8]}"
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    docker_cli("run", "--detach", "--name", other, "--volume", f"{theirs}:{ours}", base_image, "sleep", "600")
    try:
        shared = ("--cgroupns", "private", "--volume", f"{ours}:{ours}")
        said = inside(*shared, network=f"container:{other}", path=str(ours))
    finally:
        docker_cli("rm", "--force", other)
    assert (said["described"], said["seen"]) == ("the engine sees our paths", "written by the inner container")
    assert list(theirs.iterdir()) == []
