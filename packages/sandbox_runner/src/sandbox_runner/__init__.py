"""Run any command in a sandbox: a Docker container, or namespaces by bubblewrap. Standard library only.

The only code of this repository that starts the Docker CLI or writes a bubblewrap
command line. It knows nothing of isorun: no runs, tools or contracts.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "BackendUnavailable": "errors",
    "DockerSandbox": "docker.sandbox",
    "DockerUnavailable": "errors",
    "ExecResult": "execution",
    "ImageBuildFailed": "errors",
    "InvalidSpec": "errors",
    "MountSpec": "spec",
    "NamespaceSandbox": "namespace.sandbox",
    "ResourceSpec": "spec",
    "SandboxError": "errors",
    "SandboxGone": "errors",
    "SandboxInstance": "instance",
    "SandboxSpec": "spec",
    "SandboxStartFailed": "errors",
    "SandboxTimeout": "errors",
    "attach": "start",
    "cleanup": "leftovers",
    "start_sandbox": "start",
}
__all__ = ["__version__", *sorted(_WHERE)]

if TYPE_CHECKING:
    from sandbox_runner.docker.sandbox import DockerSandbox as DockerSandbox
    from sandbox_runner.errors import BackendUnavailable as BackendUnavailable
    from sandbox_runner.errors import DockerUnavailable as DockerUnavailable
    from sandbox_runner.errors import ImageBuildFailed as ImageBuildFailed
    from sandbox_runner.errors import InvalidSpec as InvalidSpec
    from sandbox_runner.errors import SandboxError as SandboxError
    from sandbox_runner.errors import SandboxGone as SandboxGone
    from sandbox_runner.errors import SandboxStartFailed as SandboxStartFailed
    from sandbox_runner.errors import SandboxTimeout as SandboxTimeout
    from sandbox_runner.execution import ExecResult as ExecResult
    from sandbox_runner.instance import SandboxInstance as SandboxInstance
    from sandbox_runner.leftovers import cleanup as cleanup
    from sandbox_runner.namespace.sandbox import NamespaceSandbox as NamespaceSandbox
    from sandbox_runner.spec import MountSpec as MountSpec
    from sandbox_runner.spec import ResourceSpec as ResourceSpec
    from sandbox_runner.spec import SandboxSpec as SandboxSpec
    from sandbox_runner.start import attach as attach
    from sandbox_runner.start import start_sandbox as start_sandbox


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    """Each name is imported when it is first used: isorun's cold start needs one module of this package."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
