"""Attached containers on a real engine: three streams, an end, and nothing left of either."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from sandbox_runner import cleanup
from sandbox_runner.docker.attached import AttachedContainer, AttachedSpec, Tmpfs
from sandbox_runner.docker.command import DockerCli
from sandbox_runner.errors import SandboxStartFailed

ECHO = ("sh", "-c", 'echo ready >&2; while read -r line; do echo "$line back"; done; exit 3')
Begin = Callable[..., AttachedContainer]


@pytest.fixture
def begin(base_image: str) -> Iterator[Begin]:
    """`begin(command, **changes)`: a container of the base image; removed at the end."""
    started: list[AttachedContainer] = []

    def start(*command: str, **changes: object) -> AttachedContainer:
        container = AttachedContainer.start(DockerCli(), replace(spec_of(base_image, *command), **changes))
        started.append(container)
        return container

    yield start
    for container in started:
        container.remove()


def spec_of(image: str, *command: str) -> AttachedSpec:
    """Small, and sealed."""
    return AttachedSpec(
        image=image,
        command=command or ECHO,
        user=(1001, 1000),
        memory_bytes=64 << 20,
        pids=20,
        cpus=1,
        nofile=256,
        file_bytes=1 << 20,
        tmpfs={"/tmp": Tmpfs(1 << 20, 100)},
    )


def read(descriptor: int, seconds: float = 30.0) -> bytes:
    """What comes next; b"" at the end."""
    assert select.select([descriptor], [], [], seconds)[0], "nothing came"
    return os.read(descriptor, 4096)


@pytest.mark.parametrize("runtime", ["runc", "runsc"])
def test_three_streams_and_an_end(begin: Begin, runtime: str, request) -> None:
    """Each is what it is; at the end of stdin the command ends, and its exit code is told."""
    if runtime == "runsc":
        request.getfixturevalue("gvisor")
    container = begin(runtime=runtime, memory_bytes=256 << 20, pids=300)  # gVisor's own kernel needs them
    assert read(container.stderr) == b"ready\n"
    for word in (b"one", b"two"):
        os.write(container.stdin, word + b"\n")
        assert read(container.stdout) == word + b" back\n"
    os.close(container.stdin)
    container.stdin = os.open(os.devnull, os.O_WRONLY)
    assert read(container.stdout) == b""
    assert container.wait(30) == 3


def test_every_wall_stands_by_the_engines_word(begin: Begin, base_image: str) -> None:
    """`confirm` gives what it inspected, and refuses another spec than the one that was started."""
    container = begin()
    read(container.stderr)
    spec = spec_of(base_image)
    assert container.confirm(spec)["State"]["Running"] is True
    with pytest.raises(SandboxStartFailed, match=r"^these walls do not stand: pids_limit, user; "):
        container.confirm(replace(spec, pids=21, user=(0, 0)))


def test_no_terminal_can_be_made(begin: Begin, docker_cli, base_image: str) -> None:
    """Terminals are counted over the whole machine. Control: with the devpts that an engine mounts one can be."""
    look = "import os\ntry: print(os.open('/dev/ptmx', os.O_RDONLY))\nexcept OSError as error: print(error.strerror)"
    assert read(begin("python3", "-c", look).stdout) == b"No such file or directory\n"
    assert docker_cli("run", "--rm", "--network", "none", "--user", "1001", base_image, "python3", "-c", look) == "3"


def test_a_second_removal_closes_nothing(begin: Begin) -> None:
    """The numbers of its descriptors are others' by then."""
    container = begin()
    container.remove()
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    container.remove()
    for other in others:
        os.close(other)


def test_what_the_engine_refuses_is_told_on_stderr(begin: Begin, docker_cli) -> None:
    """The streams end, and nothing is left."""
    container = begin(image="nosuch:nosuch")
    assert read(container.stdout) == b""
    assert b"No such image: nosuch:nosuch" in read(container.stderr)
    assert container.wait(30) == 125


def test_what_is_removed_is_gone_whatever_it_did(begin: Begin, docker_cli) -> None:
    """Also one that ignores signals and reads nothing."""
    container = begin("sh", "-c", "trap '' TERM; echo up >&2; while :; do sleep 1; done")
    read(container.stderr)
    container.remove()
    assert docker_cli("ps", "--all", "--quiet", "--filter", f"name={container.name}") == ""
    container.stdin, container.stdout, container.stderr = (os.open(os.devnull, os.O_RDWR) for _ in range(3))


def test_one_that_was_inspected_is_not_searched_for(base_image: str, docker_cli, stub_docker) -> None:
    """It is removed by its number: four commands of the CLI in its life."""
    stub = stub_docker(real=docker_cli.program)
    container = AttachedContainer.start(DockerCli(), spec_of(base_image))
    read(container.stderr)
    container.inspect()
    container.remove()
    assert [call.argv[0] for call in stub.calls] == ["run", "inspect", "rm", "inspect"]
    assert docker_cli("ps", "--all", "--quiet", "--filter", f"name={container.name}") == ""


def test_another_that_has_taken_its_name_is_left_alone(begin: Begin, base_image: str, docker_cli) -> None:
    """Whether ours was inspected or not: it goes by what no other container has."""
    for inspects in (True, False):
        container = begin()
        read(container.stderr)
        if inspects:
            container.inspect()
        docker_cli("rm", "--force", container.name)
        other = docker_cli("create", "--name", container.name, base_image, "true")
        try:
            container.remove()
            assert docker_cli("inspect", "--format", "{{.Id}}", container.name) == other
        finally:
            docker_cli("rm", "--force", other)


_OWNER = """
import os, sys, time
from sandbox_runner.docker.attached import AttachedContainer
from sandbox_runner.docker.command import DockerCli
from tests.engine.test_attached import spec_of
container = AttachedContainer.start(DockerCli(), spec_of(sys.argv[1]))
os.read(container.stderr, 100)
print(container.name, flush=True)
time.sleep(60)
"""


def test_a_killed_owner_ends_it_and_cleanup_removes_it(base_image: str, docker_cli) -> None:
    """Its stdin ends with the owner, however that ended."""
    where = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([where, *filter(None, sys.path)])}
    command = [sys.executable, "-c", _OWNER, base_image]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as owner:
        assert owner.stdout is not None
        name = owner.stdout.readline().strip()
        owner.send_signal(signal.SIGKILL)
    until = time.monotonic() + 30
    while (
        state := docker_cli("inspect", "--format", "{{.State.Running}}", name)
    ) == "true" and time.monotonic() < until:
        time.sleep(0.05)
    assert state == "false"
    assert name in {one.name for one in cleanup()}
    assert docker_cli("ps", "--all", "--quiet", "--filter", f"name={name}") == ""
