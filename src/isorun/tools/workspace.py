"""A user's files between runs: a workspace that is kept, and a sandbox made anew for each run.

Theory of operation. `<workspace root>/<user>/` and `<sandbox root>/<user>/` hold `work/`
and `out/`. Opening a workspace takes the user's locks (of both roots: other processes may
share only one), removes what a killed sync left, empties the sandbox and copies the
workspace there. A sync builds the new `out/` aside, in `<workspace root>/.isorun/<user>/`,
writes it through to the disk, and lets it trade places with the old one in one system
call: whenever this process is killed, `out/` is the old one or the new one.

Everything is reached through directory descriptors and no link is followed, so nothing
that lies in a workspace can lead a write out of it. It must not decide whether a run's
files are worth keeping.
"""

import asyncio
import os
import re
import stat
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from isorun.core.errors import InvalidRequest, SetupFailed
from isorun.core.text import shown
from isorun.runtime.aside import in_thread
from isorun.settings import Settings
from isorun.store.collect import RESERVED, Refusal, collect
from isorun.store.cursor import by_fd
from isorun.store.flush import flush
from isorun.store.folder import RunFolder
from isorun.tools.folders import ALL_BYTES, ALL_ENTRIES, FOLDER, copy_all, opened, remove
from sandbox_runner import SandboxError
from sandbox_runner.docker.command import DockerCli, own_environment
from sandbox_runner.docker.host_paths import HostPaths

MAX_USER_ID = 128  # bytes; a part of a path
STATE = ".isorun"  # no user id begins with a dot
WORKSPACE_SETTING = "ISO_RUNTIME_USER_WORKSPACE_ROOT"
SANDBOX_SETTING = "ISO_RUNTIME_SANDBOX_ROOT"

_USER_ID = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._@+-]{{0,{MAX_USER_ID - 1}}}")
_NEW = "new"  # the tree that is being built; after the exchange, the old one
_PROBE = ("probe-a", "probe-b")
_ASK_AGAIN_S = 0.01  # a blocking wait would hold a thread that the run before us needs to end


def check_user_id(user_id: object) -> str:
    """*user_id* if it may name a folder; else `InvalidRequest` (invalid_user_id)."""
    if not isinstance(user_id, str) or not _USER_ID.fullmatch(user_id):
        raise InvalidRequest(
            f"user_id must be 1 to {MAX_USER_ID} characters of a-z, A-Z, 0-9 and '._@+-', and begin with a letter, "
            f"a digit or '_', got {shown(user_id)}",
            code="invalid_user_id",
        )
    return user_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """What a sync brought back. `refused`: what was left out, because it is not a plain file."""

    files: int
    bytes: int
    refused: tuple[Refusal, ...] = ()


class Workspaces:
    """The two roots, and the way to one user's folders below them."""

    def __init__(self, workspace_root: Path, sandbox_root: Path) -> None:
        self.workspace_root, self.sandbox_root = workspace_root.absolute(), sandbox_root.absolute()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Below the roots that *settings* name; else in the checkout, else in the user's data folder."""
        return cls(
            settings.user_workspace_root or _data_folder(settings) / "workspace",
            settings.sandbox_root or _data_folder(settings) / "sandbox",
        )

    def check_shared(self, settings: Settings) -> None:
        """Raise `InvalidRequest` (invalid_root) where the sandbox root would go with our own container.

        That is in Docker-in-Docker, if no folder that this container shares with the engine's host holds the root. An
        engine that does not answer is not this check's to tell.
        """
        try:
            paths = HostPaths.discover(settings.host_paths() or None, DockerCli(), own_environment())
        except SandboxError:
            return
        try:
            paths.translate(self.sandbox_root)
        except SandboxError as error:
            shared = ", ".join(ours for ours, _ in paths.folders) or "none"
            raise InvalidRequest(
                f"the sandbox root {self.sandbox_root} lies in this container alone, and would go with it: set "
                f"{SANDBOX_SETTING} to a folder below those that the host shares: {shared}",
                code="invalid_root",
            ) from error

    @asynccontextmanager
    async def open(self, user_id: str) -> AsyncIterator["Workspace"]:
        """The user's folders; every other turn with them waits until the block is left.

        Waits for another run of the same user, in this process or in any. Raises
        `InvalidRequest` (invalid_user_id, invalid_root, workspace_not_a_folder) or
        `SetupFailed` if this file system cannot exchange folders; nothing was started.
        """
        async with self._locked(user_id) as space:
            await in_thread(space.begin)
            yield space

    async def clear(self, user_id: str) -> None:
        """Remove all that is kept of the user, once no run of the user is under way. Raises as `open` does."""
        async with self._locked(user_id) as space:
            await in_thread(space.remove)

    async def forget(self, user_id: str, paths: Collection[str]) -> None:
        """Remove *paths* of the user's out/, and the sandbox, which is made anew for each run.

        A path that is not there, or leads over a link or `..`, is passed over.

        Waits and raises as `open` does.
        """
        async with self._locked(user_id) as space:
            await in_thread(lambda: space.forget(paths))

    @asynccontextmanager
    async def _locked(self, user_id: str) -> AsyncIterator["Workspace"]:
        check_user_id(user_id)
        async with AsyncExitStack() as stack:
            workspace_fd, sandbox_fd = self._open_roots(stack)
            roots = {self.workspace_root: workspace_fd, self.sandbox_root: sandbox_fd}
            states = {}
            for root in sorted(roots):  # one order for everybody, so that no two can wait for each other
                states[root] = _state(root, roots[root], user_id, stack)
                await _lock(root, states[root], stack)
            yield Workspace(self, user_id, workspace_fd, sandbox_fd, states[self.workspace_root])

    def _open_roots(self, stack: AsyncExitStack) -> tuple[int, int]:
        workspace_fd = _open_root(self.workspace_root, WORKSPACE_SETTING, stack)
        sandbox_fd = _open_root(self.sandbox_root, SANDBOX_SETTING, stack)
        one, other = self.workspace_root.resolve(), self.sandbox_root.resolve()
        if one.is_relative_to(other) or other.is_relative_to(one):
            # A sandbox is emptied before each run, and must not hold a workspace.
            raise InvalidRequest(
                f"the workspace root {one} and the sandbox root {other} lie in each other; set {WORKSPACE_SETTING} and "
                f"{SANDBOX_SETTING} to folders side by side",
                code="invalid_root",
            )
        return workspace_fd, sandbox_fd


class Workspace:
    """One user's folders, while the locks are held. Made by `Workspaces.open`."""

    def __init__(self, roots: Workspaces, user_id: str, workspace_fd: int, sandbox_fd: int, state_fd: int) -> None:
        self.user_id = user_id
        self.workspace = roots.workspace_root / user_id
        self.sandbox = roots.sandbox_root / user_id
        self.work, self.out = self.sandbox / "work", self.sandbox / "out"
        self.refused: tuple[Refusal, ...] = ()  # of the workspace: links and the like, which no run is given
        self._workspace_fd, self._sandbox_fd, self._state_fd = workspace_fd, sandbox_fd, state_fd

    def begin(self) -> None:
        """Remove leftovers, empty the sandbox, and copy the workspace into it."""
        with _failing("prepare", self.workspace):
            for name in (_NEW, *_PROBE):
                remove(name, self._state_fd)
            self._probe()
            remove(self.user_id, self._sandbox_fd)
            os.mkdir(self.user_id, 0o700, dir_fd=self._sandbox_fd)
            with ExitStack() as stack:
                kept = _made(self.user_id, self._workspace_fd, self.workspace, stack)
                fresh = opened(self.user_id, stack, self._sandbox_fd)
                for part in ("work", "out"):
                    source = _made(part, kept, self.workspace / part, stack)
                    os.mkdir(part, 0o700, dir_fd=fresh)
                    target = opened(part, stack, fresh)
                    self.refused += copy_all(source, target)

    def remove(self) -> None:
        """Remove the workspace and the sandbox; the locks' own files stay."""
        with _failing("clear", self.workspace):
            for name, place in ((self.user_id, self._workspace_fd), (self.user_id, self._sandbox_fd)):
                remove(name, place)

    def forget(self, paths: Collection[str]) -> None:
        """Remove the sandbox, and *paths* of the workspace's out/."""
        with _failing("clear", self.workspace):
            remove(self.user_id, self._sandbox_fd)
            for path in paths:
                *folders, last = path.split("/")
                if not {"", ".", ".."}.isdisjoint([*folders, last]):
                    continue
                with ExitStack() as stack, suppress(FileNotFoundError, NotADirectoryError):
                    fd = self._workspace_fd
                    for folder in (self.user_id, "out", *folders):
                        fd = opened(folder, stack, fd)
                    remove(last, fd)

    def _probe(self) -> None:
        """Find out before a run, not after it, that its files could not be brought back in one step."""
        for name in _PROBE:
            os.mkdir(name, 0o700, dir_fd=self._state_fd)
        _exchange(_PROBE[0], _PROBE[1], self._state_fd, self._state_fd)
        for name in _PROBE:
            os.rmdir(name, dir_fd=self._state_fd)

    async def sync(self, *, without: Collection[str] = ()) -> Synced:
        """Replace the workspace's out/ by the sandbox's, in one step.

        The runtime's own files stay behind: logs, result.json, executed programs, and
        the paths *without* (the records of the run's tool calls). They tell of one run.
        Raises `SetupFailed`; the workspace is then as it was.
        """
        return await in_thread(lambda: self._sync(frozenset(without)))

    def _sync(self, without: Collection[str]) -> Synced:
        with _failing("sync", self.workspace), ExitStack() as stack:
            user = opened(self.user_id, stack, self._workspace_fd)
            sandbox = opened(self.user_id, stack, self._sandbox_fd)
            source = opened("out", stack, sandbox)
            os.mkdir(_NEW, 0o700, dir_fd=self._state_fd)
            new = opened(_NEW, stack, self._state_fd)
            copied = collect(
                source,
                by_fd(new),
                reserved=lambda path: RunFolder.reserved(path) or path in without,
                max_bytes=ALL_BYTES,
                max_entries=ALL_ENTRIES,
            )
            flush(new, copied.files)
            _exchange(_NEW, "out", self._state_fd, user)
            os.fsync(user)
            os.fsync(self._state_fd)
            remove(_NEW, self._state_fd)
        refused = tuple(refusal for refusal in copied.refused if refusal.code != RESERVED)
        size = sum(file.bytes for file in copied.files.values())
        return Synced(files=len(copied.files), bytes=size, refused=refused)


def _data_folder(settings: Settings) -> Path:
    """Where data lies if no setting says so: the checkout's examples if they are ours to write, else a home's."""
    examples = Path(__file__).parents[3] / "examples" / "bundles"
    data = examples / "data"
    try:
        ours = data.stat().st_uid == os.geteuid() if data.exists() else os.access(examples, os.W_OK | os.X_OK)
    except OSError:
        ours = False
    if ours:
        return data
    try:
        return (settings.data_home or Path("~/.local/share").expanduser()) / "isorun"
    except RuntimeError:
        raise InvalidRequest(
            f"this user has no home; set {WORKSPACE_SETTING} and {SANDBOX_SETTING}", code="invalid_root"
        ) from None


def _open_root(root: Path, setting: str, stack: AsyncExitStack) -> int:
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # a root's own links are the operator's
    except OSError as exc:
        raise InvalidRequest(
            f"{root} cannot be used: {exc.strerror or exc}; set {setting} to a folder of your own", code="invalid_root"
        ) from exc
    stack.callback(os.close, fd)
    return fd


def _state(root: Path, root_fd: int, user_id: str, stack: AsyncExitStack) -> int:
    """The folder with the user's lock below a root, opened; made if it is missing."""
    with _failing("lock", root / STATE):
        above = root_fd
        for name in (STATE, user_id):
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=above)
            above = os.open(name, FOLDER, dir_fd=above)
            stack.callback(os.close, above)
            if os.fstat(above).st_uid != os.geteuid():
                raise InvalidRequest(
                    f"{root / STATE} belongs to another user of this machine; set {WORKSPACE_SETTING} and "
                    f"{SANDBOX_SETTING} to folders of your own",
                    code="invalid_root",
                )
    return above


async def _lock(root: Path, state_fd: int, stack: AsyncExitStack) -> None:
    """Hold the lock of a state folder until *stack* ends. The kernel frees it when a process dies."""
    import fcntl  # not at the top: `import isorun.tools` works where there is none

    with _failing("lock", root / STATE):
        lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=state_fd)
        stack.callback(os.close, lock)
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(_ASK_AGAIN_S)
            else:
                return


@contextmanager
def _failing(step: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        where = f"{path}: {exc.filename}" if exc.filename else str(path)
        raise SetupFailed(
            step,
            f"{where}: {exc.strerror or exc}; correct that, or set {WORKSPACE_SETTING} and {SANDBOX_SETTING}",
        ) from exc


def _exchange(one: str, other: str, one_fd: int, other_fd: int) -> None:
    from isorun.store.exchange import exchange  # ctypes: only where a workspace is really used

    exchange(one, other, one_dir_fd=one_fd, other_dir_fd=other_fd)


def _made(name: str, dir_fd: int, path: Path, stack: ExitStack) -> int:
    """The folder *name*, made if it is missing; refused if something else has its place."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=dir_fd)
    if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
        raise InvalidRequest(
            f"{path} must be a folder and is a link or a file; isorun did not follow it: remove it",
            code="workspace_not_a_folder",
        )
    return opened(name, stack, dir_fd)
