"""The ways in that do not name a backend."""

from __future__ import annotations

import os

from sandbox_runner.docker import container
from sandbox_runner.docker.sandbox import DockerSandbox
from sandbox_runner.instance import SandboxInstance
from sandbox_runner.namespace import instance as namespace_instance
from sandbox_runner.namespace.sandbox import NamespaceSandbox
from sandbox_runner.spec import SandboxSpec
from sandbox_runner.state import StateFolder


def start_sandbox(
    workspace: str | os.PathLike[str], artifacts: str | os.PathLike[str], spec: SandboxSpec
) -> SandboxInstance:
    """A sandbox of `spec.backend`, started. See `DockerSandbox` and `NamespaceSandbox`."""
    if spec.backend == "namespace":
        return NamespaceSandbox(workspace, artifacts, spec).start()
    return DockerSandbox(workspace, artifacts, spec).start()


def attach(name: str, *, adopt: bool = True) -> SandboxInstance:
    """Go on with a sandbox of ours that stands (`keep_container`). From now on it is this process's.

    Without *adopt* it stays its owner's, and `close` leaves it. Raises `SandboxGone` if no sandbox has the name.
    """
    state = StateFolder.find(name)
    if state is not None and state.read(namespace_instance.ABOUT) is not None:
        return namespace_instance.attach(name, adopt=adopt)
    return container.attach(name, adopt=adopt)
