"""docker-entrypoint.sh in containers of the chat image's first stage, which is what it needs of that image.

The socket that is mounted is one of the test's own, which passes everything on to the engine's: so its group and
its mode are what the test wants, and `docker ps` inside is answered by the engine.
"""

import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docker.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]  # gives its socket any group; builds a stage of an image

ROOT = Path(__file__).parents[2]
IMAGE = "chat-chat:test-entry"
BEGIN = "[entrypoint] Starting Docker-in-Docker setup..."
END = "[entrypoint] Switching to user appuser (UID 1000)"
VERIFIED = "[entrypoint] ✅ Docker access verified for appuser"
REFUSED = "[entrypoint] ⚠️  Warning: Docker access test failed, but continuing..."
NOBODYS = 54321  # no group of the image
VIDEO = 44  # a group of every Debian

Run = Callable[..., tuple[list[str], list[str]]]


@pytest.fixture(scope="module")
def entry_image(docker_engine: Engine) -> str:
    """The first stage of the chat image; of the same sources the engine has it in its cache the second time."""
    file = "deployment/docker/all_in_one/Dockerfile_Chat"
    docker_engine.build(IMAGE, ROOT, "-f", file, "--target", "entry", seconds=200)
    return IMAGE


def engine_address() -> str:
    """Where the engine listens on this machine."""
    return (os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock").removeprefix("unix://")


class _PassOn(socketserver.BaseRequestHandler):
    """One connection, passed on to the engine's socket until either side ends it."""

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(engine_address())
            back = threading.Thread(target=_copy, args=(engine, self.request))
            back.start()
            _copy(self.request, engine)
            back.join()


def _copy(source: socket.socket, to: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
    except OSError:  # the other side has gone first
        pass


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    pass


@contextmanager
def docker_socket(folder: Path, gid: int, mode: int = 0o660) -> Iterator[Path]:
    """A socket of that group and mode that leads to the engine."""
    path = folder / f"docker-{gid}.sock"
    with _Server(str(path), _PassOn) as server:
        os.chown(path, 0, gid)
        path.chmod(mode)
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        try:
            yield path
        finally:
            server.shutdown()
            serving.join()


@pytest.fixture
def run(docker_engine: Engine, entry_image: str) -> Run:
    """`run(options, command…)`: the lines of the entrypoint, and those of the command that it starts."""

    def begin(options: list[str], *command: str) -> tuple[list[str], list[str]]:
        shown = docker_engine("run", "--rm", "--network", "none", *options, entry_image, *command)
        lines = shown.splitlines()
        return [line for line in lines if line.startswith("[entry")], [x for x in lines if not x.startswith("[entry")]

    return begin


def mounted(path: Path) -> list[str]:
    return ["--volume", f"{path}:/var/run/docker.sock"]


WHO = ("sh", "-c", "id -u; id -G; cat /proc/1/comm; echo $HOME; docker ps --quiet >/dev/null 2>&1; echo $?")


def test_without_a_socket(run) -> None:
    """It warns and goes on: the command is the container's first process, as appuser, with no group more."""
    said, shown = run([], *WHO)
    assert said == [
        BEGIN,
        "[entrypoint] ⚠️  Docker socket not found at /var/run/docker.sock",
        "[entrypoint] Continuing without Docker-in-Docker support...",
        END,
    ]
    assert shown == ["1000", "1000", "sh", "/home/appuser", "1"]


def test_a_file_in_the_socket_s_place_is_no_socket(run, tmp_path) -> None:
    """What an engine makes of a mount whose source is missing is a folder: it is not taken for a socket."""
    (tmp_path / "folder").mkdir()
    said, _ = run(mounted(tmp_path / "folder"), "true")
    assert said[1] == "[entrypoint] ⚠️  Docker socket not found at /var/run/docker.sock"


def test_a_socket_of_a_group_that_the_image_has_not(run, tmp_path) -> None:
    """A group is made for its gid, appuser joins it and reaches the engine."""
    with docker_socket(tmp_path, NOBODYS) as path:
        said, shown = run(mounted(path), *WHO)
    assert said == [
        BEGIN,
        f"[entrypoint] Docker socket found with GID: {NOBODYS}",
        f"[entrypoint] Creating group 'dockerhost' with GID {NOBODYS}",
        "[entrypoint] Adding appuser to group 'dockerhost'",
        VERIFIED,
        END,
    ]
    assert shown == ["1000", f"1000 {NOBODYS}", "sh", "/home/appuser", "0"]


def test_a_socket_of_a_group_that_the_image_has(run, tmp_path) -> None:
    """The group with that gid is used, whatever it is called; none is made."""
    with docker_socket(tmp_path, VIDEO) as path:
        said, shown = run(mounted(path), *WHO)
    assert said[2:5] == [
        f"[entrypoint] Group 'video' (GID {VIDEO}) already exists",
        "[entrypoint] Adding appuser to group 'video'",
        VERIFIED,
    ]
    assert shown[1] == f"1000 {VIDEO}"


def test_a_socket_that_the_group_may_not_use(run, tmp_path) -> None:
    """The control of the two above: access is tested as appuser, so root's own does not count; it goes on."""
    with docker_socket(tmp_path, NOBODYS, mode=0o600) as path:
        said, shown = run(mounted(path), *WHO)
    assert said[-2:] == [REFUSED, END]
    assert (shown[0], shown[-1]) == ("1000", "1")


def test_a_system_whose_stat_is_bsd_s(run, tmp_path) -> None:
    """Where `stat` knows no -c, the gid is asked for with -f."""
    stat = tmp_path / "stat"
    stat.write_text('#!/bin/sh\n[ "$1" = -Lf ] || exit 1\nexec /usr/bin/stat -Lc "$2" "$3"\n')
    stat.chmod(0o755)
    with docker_socket(tmp_path, NOBODYS) as path:
        said, _ = run([*mounted(path), "--volume", f"{stat}:/usr/local/bin/stat:ro"], "true")
    assert said[1] == f"[entrypoint] Docker socket found with GID: {NOBODYS}"
    assert VERIFIED in said


def test_a_container_that_is_started_again(docker_engine, entry_image, tmp_path) -> None:
    """The group that the first start made is there at the second, and is used."""
    with docker_socket(tmp_path, NOBODYS) as path:
        container = docker_engine("create", "--network", "none", *mounted(path), entry_image, "true")
        try:
            docker_engine("start", "--attach", container)
            again = docker_engine("start", "--attach", container).splitlines()
        finally:
            docker_engine("rm", "--force", container)
    assert f"[entrypoint] Group 'dockerhost' (GID {NOBODYS}) already exists" in again
    assert VERIFIED in again


def test_started_as_somebody_else(run) -> None:
    """Who is not root can neither join a group nor change the user: the command runs as it is."""
    said, shown = run(["--user", "1234:1234"], "id", "-u")
    assert said == [BEGIN, "[entrypoint] ⚠️  Not started as root (UID 1234): groups and user stay as they are"]
    assert shown == ["1234"]


def test_the_command_s_exit_code_is_the_container_s(docker_engine, entry_image) -> None:
    """Whoever waits for the container learns how the service ended."""
    done = docker_engine.run("run", "--rm", "--network", "none", entry_image, "sh", "-c", "exit 7")
    assert done.returncode == 7
