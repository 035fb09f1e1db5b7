"""Sandboxes on a real engine, and an engine's CLI that does one thing wrong."""

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
        spec = SandboxSpec(**{"image_ref": base_image, **changes})
        sandbox = DockerSandbox(tmp_path / "workspace", tmp_path / "artifacts", spec, name).start()
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
def nothing_left(docker_cli, tmp_path) -> Iterator[Callable[[], None]]:
    """Fails, also at the end, if a container or a state folder is there of a sandbox in a folder of the test's."""

    def left() -> set[str]:
        # Known by our folder, as another session may use the same engine.
        ours = f"{tmp_path.resolve()}/"
        noted = {state.name: state.read("drafts.json") or b"" for state in StateFolder.all()}
        states = {f"state {name}" for name, folders in noted.items() if ours.encode() in folders}
        names = docker_cli("ps", "--all", "--filter", "label=sandbox_runner", "--format", "{{.Names}}").split()
        return states | {name for name in names if ours in docker_cli("inspect", name, check=False)}

    def check() -> None:
        assert left() == set()

    yield check
    check()
