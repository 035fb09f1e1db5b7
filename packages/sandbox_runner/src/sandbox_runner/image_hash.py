"""The hash of the image that a folder would be built into, for who wants it without a sandbox. Starts nothing."""

from __future__ import annotations

import os

from sandbox_runner.docker.image import image_hash
from sandbox_runner.spec import SandboxSpec, check_context


def compute_image_hash(context_dir: str | os.PathLike[str], dockerfile: str | os.PathLike[str] | None = None) -> str:
    """64 hex digits of all that goes into the image: files, modes, links, and which file is the Dockerfile.

    *dockerfile* is in *context_dir*, by its whole path or by its path there; None: `Dockerfile`. Raises `InvalidSpec`.
    """
    spec = SandboxSpec(image_context_path=context_dir, dockerfile=dockerfile)
    check_context(spec)
    return image_hash(spec)
