"""The Docker engine of this machine, as a test sees it beside the product."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple


class Engine(NamedTuple):
    """The machine's own Docker CLI, for what a test looks at beside the product, and the base of what is built."""

    program: str
    base_image: str

    def __call__(self, *arguments: str, check: bool = True, seconds: float = 55.0) -> str:
        """What `docker arguments…` prints, without the last line break."""
        done = self.run(*arguments, seconds=seconds)
        assert not check or done.returncode == 0, f"docker {shlex.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout.rstrip("\n")

    def run(self, *arguments: str, seconds: float = 55.0, **options: object) -> "subprocess.CompletedProcess[str]":
        """`docker arguments…` to its end, whatever its exit code."""
        # Without BuildKit, where the CLI has no buildx; with it the variable is not looked at in any other command.
        environ = os.environ | {"DOCKER_BUILDKIT": "0"}
        return subprocess.run(
            [self.program, *arguments],
            **{"env": environ, "capture_output": True, "text": True, "timeout": seconds} | options,
        )

    def build(self, name: str, folder: Path, *options: str, seconds: float = 280.0) -> str:
        """`docker build -t name options… .` in *folder*, of our base image; what it prints.

        Its layers stay in the engine's cache. The image that had the name before is removed, if that was another one.
        """
        before = self("image", "ls", "--quiet", "--no-trunc", name)
        # The machine may have no registry, and its containers no way out.
        here = ["--network", "host", "--build-arg", f"BASE_IMAGE={self.base_image}", "--force-rm"]
        done = self.run("build", "-t", name, *options, *here, ".", cwd=folder, seconds=seconds)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        if before not in ("", self("image", "ls", "--quiet", "--no-trunc", name)):
            self("image", "rm", before, check=False)  # a container of another session may be made of it
        return done.stdout
