"""Sessions on the disk: files that are carried from run to run, below a root's state folder.

Theory of operation. `<state folder>/sessions/<name>/files/` are a session's files. Who works with them holds a lock
on `<name>/`, which the kernel frees with its process, so that one run at a time has them. New files are built in
`<name>/new/`, written through to the disk, and trade places with `files/` in one system call: whenever this process
is killed, `files/` are the old ones or the new ones, whole. The next holder removes what `new/` still has. The
modification time of `<name>/` says when the session was last used.

What is carried is copied by `collect`, which leaves out links and special files. This module must not decide
whether a run's files are worth carrying.
"""

import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from isorun.core.errors import CleanupFailed, InvalidRequest, SetupFailed
from isorun.core.guard.log import log_of
from isorun.core.ids import check_session
from isorun.core.limits import Limits
from isorun.core.pace import rest
from isorun.core.text import file_name
from isorun.store.collect import TOO_LARGE, Collected, collect
from isorun.store.cursor import Cursor, by_fd, enter
from isorun.store.flush import flush
from isorun.store.folder import RunFolder, failed, state_name
from isorun.store.places import beside
from isorun.store.recovery import REMOVED, Root, is_locked, locked, made_folder, opened, rfc3339
from sandbox_runner.linux.trees import open_folder, remove_tree

SESSIONS = "sessions"
_FILES, _NEW, _PROBE = "files", "new", "probe"
_PAGE = 4096  # what a file of one byte takes in a workspace

log = log_of(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSummary:
    """One session. `last_used` is RFC 3339 UTC; `in_use` says that a run has it now."""

    name: str
    files: int
    bytes: int
    last_used: str
    in_use: bool


class HeldSession:
    """A session that others cannot work with meanwhile. Made by `take`, ended by `release`."""

    def __init__(self, name: str, path: Path, fds: ExitStack, above: int, fd: int) -> None:
        self.name = name
        self.path = path
        self._fds, self._above, self._fd = fds, above, fd
        self._pid = os.getpid()
        self._is_prepared = False

    def begin(self, *, is_new: bool) -> None:
        """Remove what a killed host left. Raises OSError, also where this disk cannot exchange two folders."""
        os.utime(self._fd)
        for left in (_NEW, _PROBE):
            remove_tree(left, self._fd)
        with suppress(FileExistsError):
            os.mkdir(_FILES, 0o700, dir_fd=self._fd)
            is_new = True
        if is_new:  # known before a run, not after it
            for name in (_NEW, _PROBE):
                os.mkdir(name, 0o700, dir_fd=self._fd)
            _exchange(_NEW, _PROBE, self._fd)
            for name in (_NEW, _PROBE):
                os.rmdir(name, dir_fd=self._fd)

    def prepare(
        self, out: int, limits: Limits, before: Mapping[str, str], *, work: int | None = None, known: Sequence[str] = ()
    ) -> str:
        """Copy what the folder *out* holds beside the session's files; names of the host's own stay behind.

        What a program made in the folder *work*, where *known* was before it, is copied as if it stood in *out*.

        *before* has the sha256 of files of the session by path: a file that still has it is the old file itself. Gives
        the reason why all this cannot be carried, "" if it can: a session that fills the workspace would leave the next
        run no room to start in. Raises OSError. The session's files are as they were in any case.
        """
        try:
            reason = self._prepared(out, limits, before, work, known)
        except BaseException:
            self._forget()
            raise
        if reason:
            self._forget()
            return f"session {self.name} was not changed: {reason}"
        self._is_prepared = True
        return ""

    def _prepared(
        self, out: int, limits: Limits, before: Mapping[str, str], work: int | None, known: Sequence[str]
    ) -> str:
        reserved = RunFolder.reserved
        room = {"max_bytes": limits.workspace_bytes, "max_entries": limits.workspace_inodes}
        os.mkdir(_NEW, 0o700, dir_fd=self._fd)
        with ExitStack() as fds:
            new = open_folder(_NEW, self._fd)
            fds.callback(os.close, new)
            copied = collect(out, by_fd(new), reserved=reserved, given=None, **room)
            if work is not None:
                copied = beside(work, by_fd(new), copied, known=known, reserved=reserved, **room)
            if reason := _no_room(copied, limits):
                return reason
            same = {path for path, file in copied.files.items() if before.get(path) == file.sha256}
            linked = {path for path in same if self._linked(path, new)}  # it is on the disk already
            flush(new, copied.files.keys() - linked, linked)
        return ""

    def _forget(self) -> None:
        """Give the room back that the copy took: the run's own files need it."""
        with suppress(OSError):  # what stays of it, the next holder removes
            remove_tree(_NEW, self._fd)

    def _linked(self, path: str, new: int) -> bool:
        """Whether the file of the session took the place of its copy in the folder *new*."""
        rest()
        try:
            os.link(f"{_FILES}/{path}", _PROBE, src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)
            os.rename(_PROBE, path, src_dir_fd=self._fd, dst_dir_fd=new)
        except OSError:  # the copy stays
            with suppress(OSError):
                os.unlink(_PROBE, dir_fd=self._fd)
            return False
        return True

    def commit(self) -> None:
        """Let what was prepared be the session's files, in one step. Raises OSError; they are then as they were."""
        if self._is_prepared:
            _exchange(_NEW, _FILES, self._fd)
            os.fsync(self._fd)

    def release(self) -> None:
        """Let others work with it. A session without files goes."""
        if self._pid != os.getpid():  # a fork: the lock is its parent's
            return
        try:
            self._forget()
            with suppress(OSError):
                os.utime(self._fd)
                os.rmdir(_FILES, dir_fd=self._fd)  # only if it is empty
                os.rmdir(self.name, dir_fd=self._above)
        finally:
            _unlock(self._fd)
            self._fds.close()


def path_of(root: Path, name: str) -> Path:
    """Where the files of the session *name* lie; the folder is there once a run has left files."""
    return root / state_name() / SESSIONS / check_session(name) / _FILES


def take(root: Path, name: str) -> HeldSession | None:
    """The session *name*, made if it is missing; None while somebody else has it. Raises `SetupFailed`."""
    path = path_of(root, name)
    with ExitStack() as fds, opened(root) as where:
        try:
            sessions = made_folder(SESSIONS, where.state_fd, fds)
            is_new = _made(name, sessions)
            with locked(sessions, name) as lock:
                if lock is None:
                    return None
                fd = os.dup(lock)  # the lock is of both, and lasts until the last is closed
            fds.callback(os.close, fd)
            held = HeldSession(name, path, fds, sessions, fd)
            try:
                held.begin(is_new=is_new)
            except BaseException:
                _unlock(fd)
                raise
        except OSError as error:
            raise failed(str(path), error) from error
        held._fds = fds.pop_all()
        return held


def files_of(root: Path, name: str) -> tuple[str, ...]:
    """The paths of the session's files, POSIX and sorted; empty before a run has left any."""
    try:
        fd = os.open(path_of(root, name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ()
    return tuple(sorted(path for path, _ in _walk(fd)))


def listing(root: Path) -> list[SessionSummary]:
    """The sessions below *root* by name; what vanishes meanwhile is left out. Raises `SetupFailed`."""
    found = []
    with opened(root) as where, ExitStack() as fds:
        sessions = _sessions(where, fds)
        for name in _names(sessions):
            with suppress(FileNotFoundError), ExitStack() as inner:
                assert sessions is not None
                fd = open_folder(name, sessions)
                inner.callback(os.close, fd)
                used = os.fstat(fd).st_mtime
                in_use = is_locked(fd)
                sizes = [size for _, size in _walk(open_folder(_FILES, fd))]
                summary = SessionSummary(
                    name=name, files=len(sizes), bytes=sum(sizes), last_used=rfc3339(used), in_use=in_use
                )
                found.append(summary)
    return found


def remove(root: Path, name: str) -> None:
    """Remove the session *name*. Raises `InvalidRequest`: no_such_session, session_in_use; `CleanupFailed`."""
    check_session(name)
    with opened(root) as where, ExitStack() as fds:
        sessions = _sessions(where, fds)
        if sessions is None or name not in _names(sessions):
            raise InvalidRequest(
                f"session {name} is not in {where.path}; `isorun sessions ls` shows what is", code="no_such_session"
            )
        try:
            if not _removed(where, sessions, name):
                raise InvalidRequest(
                    f"session {name} is used by a run; cancel the run first, or wait for its end",
                    code="session_in_use",
                )
        except OSError as error:
            raise CleanupFailed(f"session {name} in {where.path} could not be removed completely: {error}") from error


def sweep_sessions(root: Path, *, older_than_s: float, now: float) -> list[str]:
    """Remove the sessions that were last used more than *older_than_s* seconds before *now*; their names.

    *now* is in seconds since 1970. A session that a run has is kept, however old.
    """
    gone = []
    with opened(root) as where, ExitStack() as fds:
        sessions = _sessions(where, fds)
        for name in _names(sessions):
            assert sessions is not None
            try:
                if _removed(where, sessions, name, before=now - older_than_s):
                    gone.append(name)
            except OSError as error:
                log.warning("%s cannot be removed: %s", path_of(root, name).parent, error)
    return gone


def _removed(where: Root, sessions: int, name: str, *, before: float | None = None) -> bool:
    """Whether the session could be locked, was not used since *before*, and is removed. Raises OSError."""
    with locked(sessions, name) as fd:
        if fd is None or (before is not None and os.fstat(fd).st_mtime >= before):
            return False
        # First aside, so that an interrupted removal leaves no half of a session; `recover` finishes it.
        aside = f"{name}-{secrets.token_hex(16)}{REMOVED}"
        os.rename(name, aside, src_dir_fd=sessions, dst_dir_fd=where.state_fd)
        remove_tree(aside, where.state_fd)
    return True


def _sessions(where: Root, fds: ExitStack) -> int | None:
    """The folder of all sessions; None if there was none yet."""
    try:
        fd = open_folder(SESSIONS, where.state_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failed(f"{where.path}/{state_name()}/{SESSIONS}", error) from error
    fds.callback(os.close, fd)
    return fd


def _names(sessions: int | None) -> list[str]:
    if sessions is None:
        return []
    found = []
    with os.scandir(sessions) as entries:
        for entry in entries:
            with suppress(InvalidRequest):
                if entry.is_dir(follow_symlinks=False):
                    found.append(check_session(entry.name))
    return sorted(found)


def _made(name: str, sessions: int) -> bool:
    try:
        os.mkdir(name, 0o700, dir_fd=sessions)
    except FileExistsError:
        return False
    return True


def _walk(fd: int) -> Iterator[tuple[str, int]]:
    """Path and bytes of each file below the folder *fd*, which it closes. What vanishes meanwhile is left out."""
    with Cursor(fd, enter) as here:
        pending = [b""]
        while pending:
            folder = pending.pop()
            with suppress(FileNotFoundError, NotADirectoryError):
                here.go(folder)
                for name in here.names():
                    path = folder + b"/" + name if folder else name
                    info = os.stat(name, dir_fd=here.fd, follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        pending.append(path)
                    else:
                        yield file_name(path), info.st_size


def _no_room(copied: Collected, limits: Limits) -> str:
    most_bytes, most_files = limits.workspace_bytes // 8 * 7, limits.workspace_inodes // 8 * 7
    taken = sum(-(-file.bytes // _PAGE) * _PAGE for file in copied.files.values())
    folders = {parent for path in copied.files for parent in accumulate(path.split("/")[:-1], "{}/{}".format)}
    entries = len(copied.files) + len(folders)
    left_out = any(refusal.code == TOO_LARGE for refusal in copied.refused)
    if not left_out and taken <= most_bytes and entries <= most_files:
        return ""
    return (
        f"out/ has {'more than ' if left_out else ''}{taken} bytes in {entries} files and folders, and a session may "
        f"have {most_bytes} in {most_files}, so that its next run has room; leave less, or raise "
        "ISORUN_MAX_WORKSPACE_BYTES and ISORUN_MAX_WORKSPACE_INODES"
    )


def _exchange(one: str, other: str, fd: int) -> None:
    from isorun.store.exchange import exchange  # ctypes: only where a session is really used

    exchange(one, other, one_dir_fd=fd, other_dir_fd=fd)


def _unlock(fd: int) -> None:
    """A process that was forked meanwhile shares the lock: closing our descriptor would leave it to that process."""
    import fcntl  # not at the top: `import isorun` works where there is none

    fcntl.flock(fd, fcntl.LOCK_UN)


def not_kept(held: HeldSession, error: OSError, out: Path) -> SetupFailed:
    """The failure to carry a run's files, with what is left of them."""
    return SetupFailed(
        "session",
        f"the files of session {held.name} could not be replaced: {error.filename or held.path}: "
        f"{error.strerror or error}; they are as they were before the run, whose own files are in {out}",
    )
