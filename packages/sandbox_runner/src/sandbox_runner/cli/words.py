"""What the library says of a failure, in the words of the command line: options and not fields, a remedy that can be
typed. Changes no exit code and no record: those keep the library's text.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from sandbox_runner.errors import BackendUnavailable, InvalidSpec, SandboxError
from sandbox_runner.records import BUILD_LOG

#: What the person typed, for the name that an `InvalidSpec` has of it.
OPTIONS = {
    "backend": "--exec-backend",
    "image_ref": "--image",
    "image_context_path": "--context",
    "dockerfile": "--dockerfile",
    "base_image": "--base-image",
    "network_mode": "--network",
    "cache_dir": "--cache",
    "env_allowlist": "--env",
    "env_overrides": "--env-file",
    "extra_mounts": "--mount",
    "mounts": "--mount",
    "workspace_dir": "--workspace",
    "artifacts_dir": "--artifacts",
    "resources.memory": "--memory",
    "resources.cpus": "--cpus",
    "resources.pids_limit": "--pids",
    "loosen": "--loosen",
    "runtime": "--runtime",
    "ttl_seconds": "--ttl",
    "container_name": "--name",
    "image_pull_policy": "--pull",
}
#: Pieces of the library's texts that name its Python interface. None can be part of a name that a person chose.
_SAID = {
    " in SandboxSpec.loosen": " with --loosen",
    'image_pull_policy="never"': "--pull never",
    "needs image_context_path,": "needs --context,",
    "an image_ref is used": "an --image is used",
    " is base_image, or ": " is --base-image, or ",
}
_CLEANUP = "`sandbox-runner cleanup`"


def complaint(error: BaseException, *, name: str | None = None, artifacts: Path | None = None) -> str:
    """*error* for who typed; *name* is the sandbox it is about, *artifacts* where the build's log is."""
    if isinstance(error, OSError) and not isinstance(error, SandboxError):
        return _of_the_system(error)
    text = str(error)
    if isinstance(error, InvalidSpec):
        text = f"{OPTIONS.get(error.field, error.field)}: {text.removeprefix(f'{error.field}: ')}"
    for said, typed in _SAID.items():
        text = text.replace(said, typed)
    if name is not None:
        text = text.replace(_CLEANUP, f"{_CLEANUP[:-1]} {name}`")
    if artifacts is not None:
        # The first one alone: what follows is what a builder printed.
        text = text.replace(f" is in {BUILD_LOG},", f" is in {artifacts / BUILD_LOG},", 1)
    if isinstance(error, BackendUnavailable):
        text += " (sandbox-runner doctor shows what works here)"
    return text


def _of_the_system(error: OSError) -> str:
    why = error.strerror or str(error)
    text = f"{os.fsdecode(error.filename)}: {why}" if isinstance(error.filename, (str, bytes)) else why
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{text}: make room, or name folders on another disk with --workspace and --artifacts (and TMPDIR, "
            "where output is kept while a command runs)"
        )
    return text
