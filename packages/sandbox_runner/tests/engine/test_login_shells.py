"""What pip installs in an image of ours is found by a login shell too, which is how agents run their commands."""

import shutil
from pathlib import Path

import pytest

from sandbox_runner import DockerSandbox, SandboxSpec
from sandbox_runner.docker.context import builtin_context

CONTEXTS = {"built in": builtin_context(), "packaged": builtin_context().parent / "docker" / "contexts" / "sandbox_cli"}
#: Where pip puts a program of a package; there is no network to install one.
TOOL = (
    r"RUN cd /opt && mkdir -p venv/bin && printf '#!/bin/sh\necho found\n' > venv/bin/tool && chmod 755 venv/bin/tool"
)


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_login_shell_finds_what_pip_installed(base_image: str, tmp_path: Path, context: str) -> None:
    """`sh` and `bash`, with -l and without, and no shell at all."""
    copy = tmp_path / "context"
    shutil.copytree(CONTEXTS[context], copy)
    for manifest in copy.rglob("*.txt"):
        manifest.write_text("# nothing\n")
    with (copy / "Dockerfile").open("a") as file:
        file.write(f"\n{TOOL}\n")
    spec = SandboxSpec(image_context_path=copy, base_image=base_image)
    with DockerSandbox(tmp_path / "workspace", tmp_path / "artifacts", spec).start() as sandbox:
        for command in (["tool"], ["sh", "-c", "tool"], ["sh", "-lc", "tool"], ["bash", "-lc", "tool"]):
            done = sandbox.exec(command)
            assert (command, done.stdout, done.stderr) == (command, b"found\n", b"")
