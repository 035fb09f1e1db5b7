"""What the start of a sandbox has in common in both backends: its name, its folders, and its record.

Starts nothing. In which order things are made, and undone, is each backend's to say.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from sandbox_runner.errors import SandboxError, SandboxStartFailed
from sandbox_runner.records import SANDBOX, Records
from sandbox_runner.spec import MountSpec, SandboxSpec
from sandbox_runner.state import StateFolder

#: How to open a folder that somebody else may put a link in the place of.
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def new_name() -> str:
    """A name that no other sandbox has. It begins with our process number, for who reads a list of them."""
    return f"sandbox-{os.getpid()}-{secrets.token_hex(4)}"


def make_folder(folder: Path, owner: tuple[int, int] | None = None) -> None:
    """Make *folder* if it is not there, for *owner* (uid and gid) if we are root. Raises `SandboxStartFailed`."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        parent = os.open(folder.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(FileExistsError):
                os.mkdir(folder.name or ".", dir_fd=parent)
                if owner is not None and os.geteuid() == 0:
                    give_new_folder(folder.name, parent, owner)
        finally:
            os.close(parent)
    except OSError as error:
        raise SandboxStartFailed(f"{folder} cannot be made: {error.strerror}") from None


def give_new_folder(name: str, parent: int, owner: tuple[int, int]) -> None:
    """Give *owner* the folder *name*, which we have just made in the open folder *parent*.

    Raises `SandboxStartFailed` or `OSError` if it is something else by now: who may write to *parent* can put a link,
    or what is root's, in its place.
    """
    made = open_new_folder(name, parent)
    try:
        os.fchown(made, *owner)
    finally:
        os.close(made)


def open_new_folder(name: str, parent: int | None = None) -> int:
    """Open the folder *name*, which we have just made in the open folder *parent*; otherwise as `give_new_folder`."""
    made = os.open(name, FOLDER, dir_fd=parent)
    if os.fstat(made).st_uid == os.geteuid() and not os.listdir(made):  # noqa: PTH208 - of what is open, not of a path
        return made
    os.close(made)
    raise SandboxStartFailed(f"{name} was replaced by something else as soon as it was made")


def nested(mounts: Sequence[MountSpec]) -> list[str]:
    """The sources that a command could put a link in the place of, to any folder of the host, for the next command."""
    writable = [os.fspath(mount.host_path).rstrip("/") for mount in mounts if not mount.read_only]
    sources = [os.fspath(mount.host_path) for mount in mounts]
    return [source for source in sources if any(source.startswith(f"{above}/") for above in writable)]


def owner_of(folder: Path) -> tuple[int, int]:
    """Its uid and gid."""
    status = folder.stat()
    return status.st_uid, status.st_gid


def open_records(name: str, ttl_s: float, artifacts: Path) -> tuple[StateFolder, Records]:
    """The state folder of a new sandbox, and its records. Of what fails nothing is left."""
    state = StateFolder.create(name, ttl_s)
    try:
        return state, Records(state, artifacts)
    except BaseException:
        state.remove()
        raise


def described(spec: SandboxSpec, backend: str, name: str) -> dict[str, Any]:
    """What `sandbox.json` says of a sandbox of *spec* with either backend. Of variables the names, and no value."""
    told = replace(spec, env_overrides={}, build_args={})
    return {
        "backend": backend,
        "status": "running",
        "container_name": name,
        "network": spec.network_mode,
        "environment": {"allowed": list(spec.env_allowlist), "overridden": sorted(spec.env_overrides)},
        "spec": json.loads(json.dumps(asdict(told), default=_as_json)),
    }


def _as_json(value: object) -> object:
    """A set of names, or a path."""
    return sorted(value) if isinstance(value, (set, frozenset)) else os.fspath(cast("os.PathLike[str]", value))


def record_failure(records: Records, backend: str, name: str, error: BaseException) -> None:
    """Say in `sandbox.json` why the sandbox did not start, as far as that can be written."""
    with suppress(OSError, SandboxError):
        said = {"backend": backend, "status": "failed", "container_name": name}
        records.write_json(SANDBOX, {**said, "error": type(error).__name__, "message": str(error)})
