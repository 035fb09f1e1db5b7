"""Copies what a finished run left in `out/` to the host, and says what it would not copy.

Theory of operation. The tree was written by the program, so names, kinds, sizes and
modes are an attack, but nobody writes it any more: `Slot.kill` has returned. What is
not a plain file of that same file system becomes a `Refusal`, never an exception. An
`OSError` from here is the host's own trouble.

It must not open anything but regular files and directories, and must not parse them.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from isorun.core.contract.kinds import mime_of
from isorun.core.errors import InvalidRequest
from isorun.core.pace import rest
from isorun.core.text import file_name
from isorun.store.cursor import FILE, KINDS, Cursor, enter, enter_made, enter_unlocked, name_fault, open_file, open_root

SYMLINK = "artifact_symlink_blocked"
ESCAPE = "artifact_path_escape_blocked"
NOT_REGULAR = "artifact_not_regular_file"
TOO_LARGE = "artifact_too_large"
NAME = "artifact_name_refused"
RESERVED = "artifact_reserved_name"
EVERYTHING = "."  # the path of a refusal that speaks of the whole of out/

_CHUNK = 1 << 20
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# What the program can bring about in its own tree; any other errno is the host's trouble.
_ITS_DOING = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV}
# Some disks hold fewer names than tmpfs does: shorter ones, or of one case only.
_NO_ROOM = {
    errno.EEXIST: RESERVED,
    errno.ENOTDIR: RESERVED,
    errno.ELOOP: RESERVED,
    errno.EISDIR: RESERVED,
    errno.ENAMETOOLONG: NAME,
    errno.EILSEQ: NAME,
    errno.EINVAL: NAME,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A file that was copied. `path` is POSIX, relative to out/; `sha256` is of the bytes copied."""

    path: str
    bytes: int
    sha256: str
    mime: str  # by suffix alone: nothing has looked at the content


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What was not copied. A folder's refusal covers all beneath it. `path` is escaped, fit for a log."""

    path: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What `collect` found: the copied files by path, and every refusal in the order it was met.

    *beside*: which of the files the program made in work/; *moved*: where a file was, and where it was put
    (`store.places`).
    """

    files: dict[str, FileRecord]
    refused: tuple[Refusal, ...]
    moved: tuple[tuple[str, str], ...] = ()
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceDiff:
    """Paths of out/, each tuple sorted."""

    created: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


def collect(
    out_fd: int,
    destination: Path,
    *,
    reserved: Callable[[str], bool],
    max_bytes: int,
    max_entries: int,
    given: Mapping[str, str] | None = None,
) -> Collected:
    """Copy the regular files beneath *out_fd* to the same places in *destination*, an existing folder.

    A file that still has the sha256 that *given* names for its path is an input of the run, and passed over.
    *reserved* is asked about every file and folder by its path; what it claims is refused. At most
    *max_entries* files and folders are looked at, and at most *max_bytes* (apparent size) copied.
    Files are created anew, 0644 and 0755 less the umask; nothing that exists is written to or through.
    Raises `OSError` that names the destination if the host cannot write.
    """
    with Cursor(open_root(out_fd), enter_unlocked) as source:
        root = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with Cursor(root, enter_made) as target:
            return _Collection(source, target, destination, reserved, max_bytes, max_entries, given or {}).whole()


def fingerprints(folder: Path) -> dict[str, str]:
    """The sha256 of every file beneath *folder*, by POSIX path. Nothing in it is changed.

    Raises `InvalidRequest` that names the path for a link, a special file, a name that is
    no text or a file that cannot be read: none of them can be sent into a run.
    """
    found: dict[str, str] = {}
    with Cursor(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), enter) as source:
        pending = [b""]
        while pending:
            here = pending.pop()
            try:
                source.go(here)
                for name in source.names():
                    path = here + b"/" + name if here else name
                    info = os.stat(name, dir_fd=source.fd, follow_symlinks=False)
                    text = _given_name(path, info)
                    if stat.S_ISDIR(info.st_mode):
                        pending.append(path)
                    else:
                        found[text] = _fingerprint(name, source.fd)
            except PermissionError as exc:
                raise InvalidRequest(f"out/{file_name(here)}: {exc.strerror}", code="unreadable_input") from None
    return found


def diff(before: Mapping[str, str], after: Mapping[str, FileRecord], refused: Iterable[Refusal] = ()) -> WorkspaceDiff:
    """What a run did to out/, by content alone: times and sizes decide nothing.

    A path that was refused, or lies beneath one, is not deleted: it was only not looked at.
    """
    refusals = by_path(refused)
    return WorkspaceDiff(
        created=tuple(sorted(path for path in after if path not in before)),
        modified=tuple(sorted(p for p in after if p in before and before[p] != after[p].sha256)),
        deleted=tuple(sorted(p for p in before if p not in after and refusal_of(p, refusals) is None)),
    )


def by_path(refused: Iterable[Refusal]) -> dict[str, Refusal]:
    """The refusals by path; of two at one path, the first."""
    found: dict[str, Refusal] = {}
    for refusal in refused:
        found.setdefault(refusal.path, refusal)
    return found


def refusal_of(path: str, refusals: Mapping[str, Refusal]) -> Refusal | None:
    """The refusal that covers *path*: its own, that of the folder nearest to the root, or of all of out/."""
    for ancestor in accumulate(file_name(path).split("/"), lambda left, right: f"{left}/{right}"):
        if ancestor in refusals:
            return refusals[ancestor]
    return refusals.get(EVERYTHING)


class _Collection:
    """One pass over one tree: where it has come to, and what is left of its budgets."""

    def __init__(
        self,
        source: Cursor,
        target: Cursor,
        destination: Path,
        reserved: Callable[[str], bool],
        max_bytes: int,
        max_entries: int,
        given: Mapping[str, str],
    ) -> None:
        self._source, self._target, self._destination = source, target, destination
        self._reserved, self._given = reserved, given
        self._max_bytes, self._bytes_left = max_bytes, max_bytes
        self._max_entries, self._entries_left = max_entries, max_entries
        self._pending = [b""]
        self._files: dict[str, FileRecord] = {}
        self._refused: list[Refusal] = []

    def whole(self) -> Collected:
        while self._pending:
            folder = self._pending.pop()
            try:
                self._source.go(folder)
                names = self._source.names(self._entries_left + 1)
            except OSError as exc:
                self._blame(folder, exc)
                continue
            below: list[bytes] = []
            for name in names[: self._entries_left]:
                path = folder + b"/" + name if folder else name
                rest()
                if self._visit(path, name):
                    below.append(path)
            if len(names) > self._entries_left:
                reason = f"out/ holds more than {self._max_entries} entries; the others were left out"
                self._refused.append(Refusal(path=EVERYTHING, code=TOO_LARGE, reason=reason))
                break
            self._entries_left -= len(names)
            self._pending.extend(reversed(below))
        return Collected(files=self._files, refused=tuple(self._refused))

    def _visit(self, path: bytes, name: bytes) -> bool:
        """Copy or refuse one entry of the current folder; True for a folder that is to be entered."""
        reason = name_fault(path, name)
        if reason:
            self._refuse(path, NAME, reason)
            return False
        shown = path.decode()
        if self._reserved(shown):
            self._refuse(path, RESERVED, "the runtime writes this name itself")
            return False
        try:
            info = os.stat(name, dir_fd=self._source.fd, follow_symlinks=False)
            fault = self._fault(info)
            if fault:
                self._refuse(path, *fault)
            elif stat.S_ISDIR(info.st_mode):
                return True
            else:
                self._copy_opened(path, name)
        except _TargetRefused as exc:
            self._refuse(path, exc.code, exc.reason)
        except _TargetFailed as exc:
            raise exc.error from None
        except OSError as exc:
            self._blame(path, exc)
        return False

    def _fault(self, info: os.stat_result) -> tuple[str, str] | None:
        if stat.S_ISLNK(info.st_mode):
            return SYMLINK, "is a symbolic link"
        if info.st_dev != self._source.device:
            return ESCAPE, "lies on another file system"
        if stat.S_ISDIR(info.st_mode):
            return None
        if not stat.S_ISREG(info.st_mode):
            return NOT_REGULAR, f"is {KINDS.get(stat.S_IFMT(info.st_mode), 'not a file')}"
        # The apparent size: a sparse file of a few blocks would fill the host's disk.
        if info.st_size > self._bytes_left:
            return TOO_LARGE, (
                f"has {info.st_size} bytes, {self._bytes_left} of {self._max_bytes} for all files are left"
            )
        return None

    def _copy_opened(self, path: bytes, name: bytes) -> None:
        reader = open_file(name, self._source.fd)
        try:
            info = os.fstat(reader)  # what was opened, not what was listed
            fault = self._fault(info) if stat.S_ISREG(info.st_mode) else (NOT_REGULAR, "is not a file")
            if fault:
                self._refuse(path, *fault)
                return
            shown = path.decode()
            if shown in self._given and _digest(reader) == self._given[shown]:
                return
            with self._created(path, name) as writer:
                copied, sha256 = _copy(reader, writer, info.st_size)
            self._bytes_left -= copied
            self._files[shown] = FileRecord(path=shown, bytes=copied, sha256=sha256, mime=mime_of(shown))
        finally:
            os.close(reader)

    @contextmanager
    def _created(self, path: bytes, name: bytes) -> Iterator[int]:
        """A new file of the destination, open for writing; it is removed again if writing fails."""
        try:
            self._target.go(path[: -len(name) - 1])
            writer = os.open(name, _CREATE, 0o644, dir_fd=self._target.fd)
        except OSError as exc:
            if exc.errno in _NO_ROOM:
                reason = f"the destination cannot take this name: {exc.strerror}"
                raise _TargetRefused(_NO_ROOM[exc.errno], reason) from None
            raise self._failed(path, exc) from None
        whole = False
        try:
            yield writer
            whole = True
        except _TargetFailed as exc:
            raise self._failed(path, exc.error) from None
        finally:
            os.close(writer)
            if not whole:  # half a file must not look like an artifact
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._target.fd)

    def _failed(self, path: bytes, error: OSError) -> "_TargetFailed":
        where = self._destination / os.fsdecode(path)
        return _TargetFailed(OSError(error.errno, error.strerror, str(where)))

    def _blame(self, path: bytes, error: OSError) -> None:
        """A refusal for what the program's tree can cause; anything else is the host's, and is raised."""
        if error.errno not in _ITS_DOING:
            raise error
        code = SYMLINK if error.errno == errno.ELOOP else NOT_REGULAR
        self._refuse(path, code, f"cannot be opened: {error.strerror}")

    def _refuse(self, path: bytes, code: str, reason: str) -> None:
        self._refused.append(Refusal(path=file_name(path) or EVERYTHING, code=code, reason=reason))


class _TargetRefused(Exception):
    """The destination has no place for this name; the run's other files are not touched by that."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class _TargetFailed(Exception):
    """The host could not write; kept apart from errors of reading the program's tree."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _copy(reader: int, writer: int, size: int) -> tuple[int, str]:
    """At most *size* bytes; how many there were, and their sha256."""
    digest, left = hashlib.sha256(), size
    while left:
        chunk = os.read(reader, min(left, _CHUNK))
        if not chunk:
            break
        digest.update(chunk)
        rest()
        left -= len(chunk)
        try:
            while chunk:
                chunk = chunk[os.write(writer, chunk) :]
        except OSError as exc:
            raise _TargetFailed(exc) from None
    return size - left, digest.hexdigest()


def _digest(reader: int) -> str:
    """The sha256 of the whole file, which is then read from its beginning again."""
    digest = hashlib.sha256()
    while chunk := os.read(reader, _CHUNK):
        digest.update(chunk)
    os.lseek(reader, 0, os.SEEK_SET)
    return digest.hexdigest()


def _given_name(path: bytes, info: os.stat_result) -> str:
    if stat.S_ISLNK(info.st_mode):
        raise InvalidRequest(
            f"out/{file_name(path)} is a symbolic link; only files can be sent in", code="link_in_input"
        )
    if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
        kind = KINDS.get(stat.S_IFMT(info.st_mode), "not a file")
        raise InvalidRequest(
            f"out/{file_name(path)} is {kind}; only files can be sent in", code="input_not_regular_file"
        )
    fault = name_fault(path, path.rsplit(b"/", 1)[-1])
    if fault:
        raise InvalidRequest(f"out/{file_name(path)}: {fault}", code="invalid_filename")
    return path.decode()


def _fingerprint(name: bytes, dir_fd: int) -> str:
    with os.fdopen(os.open(name, FILE, dir_fd=dir_fd), "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
