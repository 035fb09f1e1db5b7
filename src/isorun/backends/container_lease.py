"""The folder that a host process shares with its containers, and what becomes of both once that process is dead.

A lease is a folder whose lock the kernel drops when its holder dies, however it dies, in
whatever container. Each container carries the lease's name as a label. So whoever comes
later finds leases that nobody holds, removes their containers, and then what is mounted
and stored below them.
"""

import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from isorun.backends import slot_folder
from isorun.core.errors import CleanupFailed
from sandbox_runner.docker_cli import DockerCli
from sandbox_runner.errors import SandboxError

_log = logging.getLogger("isorun")
LABEL = "isorun.lease"
_LEASES = "containers"
_PREFIX = "host_"


@contextmanager
def take(state: Path, cli: DockerCli) -> Iterator[Path]:
    """A new lease below *state*, whose name is for `LABEL`. Behind the block its containers are gone, and the folder.

    Raises `CleanupFailed` there if a container stays; then so does the folder, for `recover`.
    """
    folder = _leases(state) / f"{_PREFIX}{secrets.token_hex(8)}"
    # Locked before it has a name that `recover` looks at.
    draft = folder.with_name(f".{folder.name}")
    draft.mkdir(mode=0o711)
    lock = _locked(draft)
    try:
        draft.rename(folder)
        yield folder
    finally:
        try:
            remove_containers(folder.name, cli)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            if lock is not None:
                os.close(lock)


def recover(state: Path, cli: DockerCli) -> list[str]:
    """Remove what dead holders left, containers first; the names of their leases. Raises `CleanupFailed`.

    A folder that cannot be removed, since a program has made it its own, is said and left: it holds nothing up.
    """
    found = []
    for folder in sorted(_leases(state).glob(f"{_PREFIX}*")):
        lock = _locked(folder)
        if lock is None:
            continue
        try:
            remove_containers(folder.name, cli)
            for path in folder.glob(f"{slot_folder.PREFIX}*"):
                try:
                    slot_folder.remove(path)
                except CleanupFailed as error:
                    _log.warning("%s", error)
            shutil.rmtree(folder, ignore_errors=True)
            found.append(folder.name)
        finally:
            os.close(lock)
    return found


def _leases(state: Path) -> Path:
    leases = state / _LEASES
    leases.mkdir(mode=0o711, exist_ok=True)
    return leases


def _locked(folder: Path) -> int | None:
    """The open folder, locked by us; None if somebody else holds it, or it has just gone."""
    with suppress(FileNotFoundError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(opened)
            return None
        return opened
    return None


def remove_containers(name: str, cli: DockerCli) -> None:
    """Remove all containers of the lease *name*. Raises `CleanupFailed`."""
    try:
        answer = cli.run("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL}={name}")
        if numbers := answer.stdout.decode().split():
            answer = cli.run("rm", "--force", "--volumes", *numbers)
    except SandboxError as error:
        raise _stay(name, str(error)) from error
    if answer.code:
        raise _stay(name, answer.said)


def _stay(name: str, said: str) -> CleanupFailed:
    return CleanupFailed(f"containers of {name} stay until isorun is started here again: {said}")
