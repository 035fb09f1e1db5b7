"""Callers that are killed anywhere between a start and a close, and what one `cleanup` finds of them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest

from sandbox_runner.leftovers import cleanup, listed
from sandbox_runner.state import StateFolder

CYCLES = 200
AT_ONCE = 4
_LIFE = """
import sys
from sandbox_runner import DockerSandbox, SandboxSpec
folder, image = sys.argv[1:]
spec = SandboxSpec(image_ref=image, env_overrides={"TOKEN": "secret"})
print("begun", flush=True)
with DockerSandbox(folder + "/workspace", folder + "/artifacts", spec).start() as sandbox:
    sandbox.exec(["sh", "-c", "sleep 0.1"], env={"MORE": "secret"})
print("closed", flush=True)
"""


class Engine(Protocol):
    """What the fixture `docker_cli` is."""

    def __call__(self, *arguments: str, check: bool = True) -> str: ...

    def left(self) -> set[str]: ...

    def still_left(self, before: set[str]) -> set[str]: ...


@pytest.fixture
def theirs(docker_cli: Engine, base_image: str) -> Iterator[str]:
    """The name of a container, and of its volume, that are somebody else's."""
    name = f"theirs-{os.getpid()}"
    docker_cli("volume", "create", name)
    docker_cli("run", "--detach", "--name", name, "--volume", f"{name}:/data", base_image, "sleep", "3600")
    yield name
    docker_cli("rm", "--force", name)
    docker_cli("volume", "rm", name)


@pytest.fixture
def image(docker_cli: Engine, base_image: str, tmp_path: Path) -> Iterator[str]:
    """An image whose every container makes a volume of its own, with a file in it that is named as the image is."""
    tag = f"sandbox-runner-volume-{os.getpid()}"
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {base_image}\nCOPY {tag} /data/\nVOLUME /data\n", encoding="utf-8")
    (context / tag).touch()
    docker_cli("build", "--quiet", "--tag", tag, str(context))
    yield tag
    docker_cli("rmi", "--force", tag)


def _volumes_of(docker_cli: Engine, image: str) -> list[str]:
    """Where the volumes are that its containers have made. A volume has no label that could say so."""
    names = docker_cli("volume", "ls", "--quiet").split()
    # Of others' some may be gone by now.
    found = [docker_cli("volume", "inspect", "--format", "{{.Mountpoint}}", name, check=False) for name in names]
    return [place for place in found if place and Path(place, image).exists()]


def _life(folder: Path, image: str) -> subprocess.Popen[str]:
    source = str(Path(sys.modules["sandbox_runner"].__file__ or "").parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", _LIFE, str(folder), image],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )


def _ends_somewhere(folder: Path, image: str, chance: random.Random, whole_s: float) -> subprocess.Popen[str]:
    """A life that is killed at a random moment of its own; also, now and then, not at all."""
    process = _life(folder, image)
    assert process.stdout is not None
    process.stdout.readline()
    with suppress(subprocess.TimeoutExpired):
        process.wait(chance.uniform(0, whole_s * 1.1))
    process.send_signal(signal.SIGKILL)
    return process


@pytest.mark.timeout(900)
def test_two_hundred_killed_callers_leave_nothing_after_one_cleanup(
    docker_cli: Engine, image: str, theirs: str, tmp_path: Path
) -> None:
    """No container, volume, state folder, secret or draft of theirs is left; what is somebody else's stands.

    Control: before that cleanup some of them have left a container, and some nothing but a state folder.
    """
    cleanup()
    theirs_too = docker_cli.left()  # volumes of others on this engine
    chance = random.Random(4)
    began = time.monotonic()
    with _life(tmp_path / "whole", image) as whole:
        assert whole.communicate()[0] == "begun\nclosed\n"
    whole_s = time.monotonic() - began

    ended: list[int] = []
    lasted_s = [whole_s * AT_ONCE / 2]  # one life; those that nobody ended tell it better

    def lives(number: int) -> None:
        rounds = random.Random(number)
        for cycle in range(CYCLES // AT_ONCE):
            began = time.monotonic()
            with _ends_somewhere(tmp_path / f"{number}-{cycle}", image, rounds, min(lasted_s)) as process:
                process.communicate()
                ended.append(process.returncode)
            if process.returncode == 0:
                lasted_s.append(time.monotonic() - began)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lives, [chance.randrange(1 << 30) for _ in range(AT_ONCE)]))
    assert len(ended) == CYCLES
    assert ended.count(-signal.SIGKILL) > CYCLES // 2

    assert _volumes_of(docker_cli, image)
    kinds = {one.kind for one in listed() if one.why}
    assert kinds == {"container", "folder"}
    cleanup()
    assert docker_cli("ps", "--all", "--quiet", "--filter", f"ancestor={image}") == ""  # ours, at once
    assert docker_cli.still_left(theirs_too) == set()
    assert _volumes_of(docker_cli, image) == []
    assert [path for path in tmp_path.rglob(".*") if path.is_file()] == []
    assert {state.name for state in StateFolder.all() if not state.owner_is_alive} == set()
    assert docker_cli("inspect", "--format", "{{.State.Running}}", theirs) == "true"
