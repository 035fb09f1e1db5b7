"""The chat service's image, whole: isorun and all that the service needs are in it, and the service is its command."""

import json
from pathlib import Path

import pytest

from tests.docker.engine import Engine

pytestmark = pytest.mark.timeout(400)  # fonts are 80 MB, and a cold build fetches them

ROOT = Path(__file__).parents[2]
IMAGE = "chat-chat:test"
PACKAGES = ("fonts-noto", "fonts-noto-cjk", "fonts-noto-color-emoji", "libmagic1", "file", "gosu")

LOOK = """
import json, os, pwd, shutil, subprocess, sys
from importlib.util import find_spec
from pathlib import Path
import isorun
from isorun.cli.image import context
from isorun.settings import Settings, get_exec_workspace_root
place = Path("/exec-workspace").stat()
print(json.dumps({
    "version": isorun.__version__,
    "in": [sys.prefix, os.getcwd(), str(Path(isorun.__file__).parents[4]), str(context().parents[1].name)],
    "ids": [os.getuid(), os.getgid(), pwd.getpwuid(os.getuid()).pw_name, place.st_uid, place.st_gid],
    "root": str(get_exec_workspace_root(Settings.load())),
    "programs": [shutil.which(name) is not None for name in ("docker", "file", "gosu", "dockerd", "chromium")],
    "browser": find_spec("playwright") is not None,
    "recognised": subprocess.run(["file", "-b", "--mime-type", sys.executable], capture_output=True, text=True).stdout,
}))
"""


@pytest.fixture(scope="module")
def chat_image(docker_engine: Engine) -> str:
    """The image, of the checkout; its layers stay in the engine's cache."""
    docker_engine.build(IMAGE, ROOT, "-f", "deployment/docker/all_in_one/Dockerfile_Chat", seconds=380)
    return IMAGE


def test_it_has_isorun_and_what_the_service_needs(docker_engine, chat_image) -> None:
    """isorun is in /opt/venv, appuser has /exec-workspace; Docker is there as a client alone, and no browser."""
    import isorun

    shown = docker_engine("run", "--rm", "--network", "none", chat_image, "python", "-c", LOOK)
    assert json.loads(shown.splitlines()[-1]) == {
        "version": isorun.__version__,
        "in": ["/opt/venv", "/app", "/opt/venv", "isorun"],
        "ids": [1000, 1000, "appuser", 1000, 1000],
        "root": "/exec-workspace",
        "programs": [True, True, True, False, False],
        "browser": False,
        "recognised": "inode/symlink\n",
    }


def test_the_packages_of_documents_are_there(docker_engine, chat_image) -> None:
    """Fonts, file types, gosu: by the names that the operations guide prints."""
    show = ["dpkg-query", "--show", "--showformat", "${db:Status-Status}\n", *PACKAGES]
    shown = docker_engine("run", "--rm", "--network", "none", "--entrypoint", show[0], chat_image, *show[1:])
    assert shown.splitlines() == ["installed"] * len(PACKAGES)


def test_its_default_command_is_the_service(docker_engine, chat_image) -> None:
    """At port 8000 of every address. What it says is on standard output: here, that without an engine nothing runs."""
    (found,) = json.loads(docker_engine("image", "inspect", chat_image))
    command = ["isorun", "serve", "--host", "0.0.0.0", "--port", "8000"]
    assert (found["Config"]["Cmd"], list(found["Config"]["ExposedPorts"])) == (command, ["8000/tcp"])
    done = docker_engine.run("run", "--rm", "--network", "none", chat_image)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "[entrypoint] Switching to user appuser (UID 1000)\n" in done.stdout
    assert "isorun: neither backend works here" in done.stdout
    assert done.stderr == ""


def test_another_command_keeps_its_two_outputs_apart(docker_engine, chat_image) -> None:
    """The control: only the service's standard error goes where `docker logs NAME | grep` looks."""
    words = ("sh", "-c", "echo out; echo err >&2")
    done = docker_engine.run("run", "--rm", "--network", "none", chat_image, *words)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("out", "err\n")
