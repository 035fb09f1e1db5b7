"""A machine that can make namespace sandboxes, and sandboxes on it that are gone at the end."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sandbox_runner import NamespaceSandbox, SandboxInstance, SandboxSpec
from sandbox_runner.namespace.bubblewrap import find_bubblewrap

Start = Callable[..., SandboxInstance]


@pytest.fixture(scope="session")
def bubblewrap(require, control_group) -> str:
    """bubblewrap, on a machine where it works for this user."""
    program = find_bubblewrap()
    if program is None:
        require("namespace", "there is no bubblewrap")
    tried = subprocess.run(
        [program, "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "true"],
        capture_output=True,
        text=True,
    )
    if tried.returncode:
        require("namespace", tried.stderr.strip())
    return program


@pytest.fixture(scope="session")
def python(require) -> str:
    """A Python that a sandbox sees too, for attacks that need system calls."""
    program = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
    if program is None:
        require("namespace", "there is no python3 in /usr, for the attacks to be written in")
    return program


@pytest.fixture
def start(bubblewrap, tmp_path: Path) -> Iterator[Start]:
    """`start(**fields of the spec)`: a sandbox of the folders workspace and artifacts of `tmp_path`."""
    with ExitStack() as stack:

        def begin(**fields: Any) -> SandboxInstance:  # noqa: ANN401 - those of SandboxSpec
            spec = SandboxSpec(backend="namespace", **fields)
            instance = NamespaceSandbox(tmp_path / "workspace", tmp_path / "artifacts", spec).start()
            return stack.enter_context(instance)

        yield begin


@pytest.fixture
def sandbox(start: Start) -> SandboxInstance:
    """The sandbox of a spec that says nothing."""
    return start()
