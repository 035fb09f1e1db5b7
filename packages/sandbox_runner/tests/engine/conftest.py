"""Sandboxes on a real engine, and an engine's CLI that does one thing wrong."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox_runner import DockerSandbox, SandboxInstance, SandboxSpec
from sandbox_runner.state import StateFolder

#: Runs the real CLI with its arguments changed by a piece of Python, which has `argv`, `real` and `here`.
_WRAPPER = """
import os, subprocess, sys, time
argv, real, here = sys.argv[1:], {real!r}, {here!r}
{code}
os.execv(real, [real, *argv])
"""


@pytest.fixture
def start(base_image: str, tmp_path: Path) -> Iterator[Callable[..., SandboxInstance]]:
    """Start a sandbox of a spec with nothing but what is given; in `tmp_path/workspace` and `tmp_path/artifacts`."""
    started: list[SandboxInstance] = []

    def begin(**changes: object) -> SandboxInstance:
        name = changes.pop("name", None)
        spec = SandboxSpec(**{"image_ref": base_image, **changes})  # type: ignore[arg-type]
        sandbox = DockerSandbox(tmp_path / "workspace", tmp_path / "artifacts", spec, name).start()  # type: ignore[arg-type]
        started.append(sandbox)
        return sandbox

    yield begin
    for sandbox in started:
        sandbox.close()


@pytest.fixture
def wrapped_docker(docker_cli, tmp_path_factory, monkeypatch) -> Callable[[str], Path]:
    """`wrapped_docker("…")`: from then on the product's CLI is the machine's, after that piece of Python."""

    def make(code: str) -> Path:
        folder = tmp_path_factory.mktemp("wrapper")
        (folder / "wrapper.py").write_text(_WRAPPER.format(real=docker_cli.program, here=str(folder), code=code))
        program = folder / "docker"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -IS {folder / "wrapper.py"} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("SANDBOX_RUNNER_DOCKER", str(program))
        return folder

    return make


@pytest.fixture
def nothing_left(docker_cli) -> Iterator[Callable[[], None]]:
    """Fails if a container, a volume or a state folder of this process is there that was not before; also at the end."""

    def left() -> set[str]:
        mine = {f"state {state.name}" for state in StateFolder.all() if state.owner and state.owner.pid == os.getpid()}
        return docker_cli.left() | mine

    before = left()

    def check() -> None:
        assert left() - before == set()

    yield check
    check()
