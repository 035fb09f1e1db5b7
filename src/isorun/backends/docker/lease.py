"""The folder that a host process shares with its containers, and what becomes of both once that process is dead.

A lease is a folder whose lock the kernel drops when its holder dies, however it dies, in
whatever container. Each container carries the lease's name as a label, as does a volume. So
whoever comes later finds leases that nobody holds, removes their containers and volumes, and
then what is mounted and stored below them.
"""

import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from isorun.backends.docker import folder as slot_folder
from isorun.core.errors import CleanupFailed
from isorun.core.guard.log import log_of
from isorun.core.text import one_line
from sandbox_runner.docker.attached import AttachedSpec, run_to_end
from sandbox_runner.docker.command import DockerCli
from sandbox_runner.errors import SandboxError
from sandbox_runner.linux import trees
from sandbox_runner.spec import MountSpec

_log = log_of("isorun")
LABEL = "isorun.lease"
ROLE_LABEL = "isorun.role"  # executor, workspace, supervisor or helper: for who looks at `docker ps`
STATE_LABEL = "isorun.state"  # the folder that the lease is below, as its host sees it
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


@dataclass(frozen=True, slots=True)
class Emptier:
    """Empties a slot's folder from a container that has the executor's ids: what a program made its own is theirs."""

    cli: DockerCli
    image: str
    user: tuple[int, int]
    translate: Callable[[Path], str]

    def __call__(self, folder: Path) -> None:
        """Remove all that is in the folders of *folder*, as far as it can."""
        names = [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        code = Path(trees.__file__).read_text(encoding="utf-8") + _EMPTY
        spec = small(self.image, self.user, MountSpec(self.translate(folder), _LEFT), code, *names)
        done = run_to_end(self.cli, spec, _EMPTY_S)
        if done.code:
            _log.warning("%s could not be emptied: %s", folder, one_line(done.said))


def small(image: str, user: tuple[int, int], mount: MountSpec, code: str, *words: str) -> AttachedSpec:
    """A container of *image* for a short program of ours, which sees one folder of the engine's host."""
    return AttachedSpec(
        image=image,
        command=("python3", "-I", "-S", "-c", code, *words),
        user=user,
        memory_bytes=128 << 20,
        pids=32,
        cpus=1,
        nofile=None,
        mounts=(mount,),
        labels={ROLE_LABEL: "helper"},
    )


_LEFT, _EMPTY_S = "/left", 60.0
_EMPTY = f"""
import sys
left = os.open("{_LEFT}", os.O_PATH | os.O_DIRECTORY)
for folder in sys.argv[1:]:
    top = open_any_folder(folder, left)
    with os.scandir(top) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        remove_tree(name, top) if is_folder else os.unlink(name, dir_fd=top)
"""


def recover(state: Path, cli: DockerCli, empty: Callable[[Path], None] | None = None) -> list[str]:
    """Remove what dead holders left, containers first; the names of the leases of which nothing is left.

    *empty* gets each folder first, as a program may have made its own what is in it. If one stays, that is said, and it
    holds nothing up. Raises `CleanupFailed` for a container that stays.
    """
    found = []
    for folder in sorted(_leases(state).glob(f"{_PREFIX}*")):
        lock = _locked(folder)
        if lock is None:
            continue
        try:
            remove_containers(folder.name, cli)
            for path in folder.glob(f"{slot_folder.PREFIX}*"):
                _remove_slot(path, empty)
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                found.append(folder.name)
        finally:
            os.close(lock)
    return found


def dead(state: Path) -> list[str]:
    """The leases below *state* whose host is dead."""
    found = []
    for folder in (state / _LEASES).glob(f"{_PREFIX}*"):
        lock = _locked(folder)
        if lock is not None:
            os.close(lock)
            found.append(folder.name)
    return sorted(found)


def labels(lease: Path) -> dict[str, str]:
    """What the containers of *lease* carry, so that a later process finds them."""
    return {LABEL: lease.name, STATE_LABEL: str(lease.parents[1])}


def states(cli: DockerCli) -> list[Path]:
    """The folders of state that this daemon's containers and volumes name, as far as they are this user's and here.

    Raises `SandboxError` if the daemon does not answer.
    """
    form = ("--filter", f"label={LABEL}", "--format", f'{{{{.Label "{STATE_LABEL}"}}}}')
    answers = [cli.run("ps", "--all", *form), cli.run("volume", "ls", *form)]
    lines = [line for answer in answers for line in answer.stdout.decode(errors="replace").splitlines()]
    return sorted(path for path in {Path(line) for line in lines if line.startswith("/")} if _is_ours(path))


def _is_ours(state: Path) -> bool:
    try:
        found = state.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _remove_slot(path: Path, empty: Callable[[Path], None] | None) -> None:
    try:
        if empty is not None and any(path.iterdir()):
            empty(path)
        slot_folder.remove(path)
    except (CleanupFailed, OSError, SandboxError) as error:
        _log.warning("%s", one_line(str(error)))


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
    """Remove all containers of the lease *name*, and the volumes that outlived theirs. Raises `CleanupFailed`."""
    try:
        _remove_all(cli, name, ("ps", "--all", "--no-trunc"), ("rm", "--force", "--volumes"))
        # A start that was cut off has made a volume and no container.
        _remove_all(cli, name, ("volume", "ls"), ("volume", "rm", "--force"))
    except SandboxError as error:
        raise _stay(name, str(error)) from error


def _remove_all(cli: DockerCli, name: str, listing: tuple[str, ...], removing: tuple[str, ...]) -> None:
    answer = cli.run(*listing, "--quiet", "--filter", f"label={LABEL}={name}")
    if not answer.code and (found := answer.stdout.decode().split()):
        answer = cli.run(*removing, *found)
    if answer.code:
        raise _stay(name, answer.said)


def _stay(name: str, said: str) -> CleanupFailed:
    return CleanupFailed(f"containers or volumes of {name} stay until isorun is started here again: {said}")
