"""Is this package whole, and does it work on this machine? For contributors: `pdm run smoke`, `pdm run smoke_extended`.

Without an argument no engine is needed. With --docker one command runs in a container. What this machine cannot do
is printed as skipped, with the reason, and is no failure; anything else that goes wrong is.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import sandbox_runner
from sandbox_runner import (
    BackendUnavailable,
    ImageBuildFailed,
    InvalidSpec,
    SandboxInstance,
    SandboxSpec,
    start_sandbox,
)
from sandbox_runner.cli.doctor import base_image
from sandbox_runner.docker.command import DockerCli
from sandbox_runner.docker.image import BASE_IMAGE_VARIABLE
from sandbox_runner.spec import check

COMMAND = ("/bin/sh", "-c", "cat note.txt; echo made inside > /artifacts/made.txt")


def main() -> int:
    """0, or an exception that says what is wrong."""
    if sys.argv[1:] == ["--docker"]:
        return attempt("docker")
    for name in sandbox_runner.__all__:
        getattr(sandbox_runner, name)
    print(f"ok: sandbox_runner {sandbox_runner.__version__}, {len(sandbox_runner.__all__)} public names")
    check(SandboxSpec())
    try:
        check(SandboxSpec(env_allowlist=("NOT A NAME",)))
    except InvalidSpec as error:
        print(f"ok: a spec that cannot be is refused ({error})")
    else:
        raise AssertionError("a spec with a variable named 'NOT A NAME' was accepted")
    return attempt("namespace")


def attempt(backend: str) -> int:
    """Run a command in a sandbox whose spec says nothing but *backend*, or say why that is not possible here."""
    spec = SandboxSpec(backend="docker") if backend == "docker" else SandboxSpec(backend="namespace")
    with tempfile.TemporaryDirectory(prefix="sandbox-smoke-") as place:
        workspace, artifacts = Path(place, "workspace"), Path(place, "artifacts")
        workspace.mkdir()
        (workspace / "note.txt").write_text("from outside\n", encoding="utf-8")
        try:
            sandbox = start_sandbox(workspace, artifacts, spec)
        except BackendUnavailable as error:
            print(f"skipped: {backend}: {error}")
            return 0
        except ImageBuildFailed as error:
            if DockerCli().inspect("image", base_image()) is not None:
                raise
            # What cannot be fetched here is no fault of the package. An image that is here must do.
            print(f"skipped: {backend}: {base_image()} is not here and could not be used: {error}")
            print(f"name an image that is here, with apt, in {BASE_IMAGE_VARIABLE}")
            return 0
        with sandbox:
            show(sandbox, artifacts)
    return 0


def show(sandbox: SandboxInstance, artifacts: Path) -> None:
    """One command reads a file of the workspace and makes an artifact."""
    result = sandbox.exec(COMMAND, timeout_s=60)
    if not result.ok or result.stdout != b"from outside\n":
        raise AssertionError(f"the command did not run as it should: {result}")
    if (artifacts / "made.txt").read_text(encoding="utf-8") != "made inside\n":
        raise AssertionError("the artifact is not on the host")
    print(f"ok: {sandbox.backend}: a command ran in {sandbox.container_name} ({' '.join(sandbox.command_prefix)})")


if __name__ == "__main__":
    sys.exit(main())
