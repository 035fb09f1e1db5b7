# ruff: noqa: PTH102, PTH104, PTH105, PTH108 - twelve paths per run, and pathlib is slower than the kernel
"""A run's folder on the host, and the lease that says its host is alive.

Theory of operation. Each Runtime holds one lease: a locked file. The kernel drops
the lock when the host process dies, however it dies, so a folder without a result
whose lease can be locked has lost its host (`recovery` ends it). A folder is built
aside and renamed into place, so that one which can be seen names its lease. Some are built
before their run is asked for: they bear the lease's name as any half-made one, and go with it. A lease
loses its name when it is given back, unless a run of its has no result: so the leases
alone tell whether there is something to recover.

What is guaranteed: what was written is there after the host process is killed, and
`result.json` is whole or absent. There is no fsync (it costs more than the whole
run), so a power failure may lose or truncate the files of the last half minute.

It must not decide what a result says, and it never reads what a program wrote. The module is
long because each file of a folder is named, opened and written here and nowhere else.
"""

import errno
import os
import re
import secrets
import shlex
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from isorun.core.errors import InvalidRequest, SetupFailed
from isorun.core.ids import check_exec_id
from isorun.core.result import SCHEMA, as_json
from isorun.core.text import folded, one_line

PREFIX = "codegen_"
LEASE_SUFFIX = ".lease"
BUILDING = ".building"
RUN_JSON = "run.json"
RESULT_JSON = "result.json"
NEW_RESULT = "result.json.new"
INFRA_LOG = "infra.log"
EXECUTED = "executed_programs"

#: The file of one tool call (`journal`); whatever stands before the time, it would be taken for one.
RECORD = re.compile(r".*-[0-9]{8}T[0-9]{6}\.[0-9]{6}-[0-9]+\.json", re.IGNORECASE | re.DOTALL)
_INFRA_BYTES = 64 << 10  # of infra.log, for its tail in a result
_ROOM_BYTES = 1 << 20  # for the records of a run; a result may hold as much of its output
_RESERVED = frozenset((RESULT_JSON, "tool_calls_index.json", "runtime.out.log", "runtime.err.log", "logs", EXECUTED))
_LONGEST = max(map(len, _RESERVED))
_ACCESS_LIST = "system.posix_acl_access"
_MOST_LINKS = 40  # the kernel follows no more
_MOST_AHEAD = 4  # folders of runs to come
_FRESH_S = 300.0  # after that, who tidies temporary folders may have been in it
#: Files of a folder made ahead, empty as yet.
_LOGS = (f"out/logs/{INFRA_LOG}", "out/logs/user.log", "out/runtime.out.log", "out/runtime.err.log")


def state_name() -> str:
    """The folder below a root that holds this user's leases.

    The default root is the system's temporary folder. One folder for all its users
    would belong to one of them, who could remove the leases of the others.
    """
    return f".isorun-{os.geteuid()}"


def utc_now() -> str:
    """The time, as RFC 3339 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def failed(path: str, exc: OSError) -> SetupFailed:
    """The failure of a file operation at *path*, with its remedy."""
    return SetupFailed(
        "workspace",
        f"{path}: {exc.strerror or exc}; free space there, or set ISORUN_WORKSPACE_ROOT to a writable folder with room",
    )


@contextmanager
def _naming(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise failed(path, exc) from exc


def write_file(path: str, data: bytes, *, dir_fd: int | None = None) -> None:
    """Write a new file, 0600; a file or link of that name is never opened. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=dir_fd)
    try:
        _write_all(fd, data)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    # A nearly full disk takes a part and refuses the next call: a short write is not a success.
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])


def append_line(path: str, component: str, level: str, *texts: str, dir_fd: int | None = None) -> None:
    """Append a line for each of *texts* to a log: `<UTC time> <LEVEL> [<component>] <text>`. Raises OSError."""
    fd = _open_log(path, dir_fd)
    try:
        _append(fd, component, level, texts)
    finally:
        os.close(fd)


def _open_log(path: str, dir_fd: int | None = None) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600, dir_fd=dir_fd)


def _end_of(fd: int) -> str:
    start = max(0, os.fstat(fd).st_size - _INFRA_BYTES)
    return os.pread(fd, _INFRA_BYTES, start).decode("utf-8", "replace")


def _append(fd: int, component: str, level: str, texts: Sequence[str]) -> None:
    now = utc_now()
    # A newline would forge a line of another component, an escape would act on the reader's terminal.
    lines = "".join(f"{now} {one_line(f'{level.upper()} [{component}] {text}')}\n" for text in texts)
    _write_all(fd, lines.encode())


def open_root(root: Path) -> Path:
    """*root*, made if it is missing and with its links resolved.

    Raises `InvalidRequest` (invalid_root) for one that cannot be written, that is a link of another
    user, who could turn it elsewhere, or reached by one, or that another user could move away together
    with what we write there, see `movable_by_others`. Root, and root's links, are trusted.
    """
    # Before anything is made: a link of another user says where.
    if reason := _turnable_by_others(root):
        raise _bad_root(root, reason)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        real = root.resolve(strict=True)
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise failed(str(root), exc) from exc
        raise _bad_root(root, f"cannot be used: {exc.strerror or exc}") from exc
    if not os.access(real, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise _bad_root(root, "cannot be written")
    if reason := movable_by_others(real):
        raise _bad_root(root, f"is not safe: {reason}")
    return real


def _turnable_by_others(path: Path) -> str:
    """Which link on the way to *path* another user could turn elsewhere; "" if none."""
    at, left, links = Path("/"), list(path.absolute().parts[1:]), 0
    while left and links < _MOST_LINKS:
        name = left.pop(0)
        step = at.parent if name == ".." else at / name
        try:
            found = step.lstat()
        except OSError:  # it is still to be made, or the making says why not
            return ""
        if not stat.S_ISLNK(found.st_mode):
            at = step
            continue
        if found.st_uid not in (0, os.geteuid()):
            of = "is" if step == path.absolute() else f"is reached by {step},"
            return f"{of} a link that belongs to uid {found.st_uid}"
        # Somebody else's folder: its owner puts another link in the place of this one.
        if reason := movable_by_others(at):
            return f"is reached by the link {step}, which is not safe: {reason}"
        target, links = Path(step.readlink()), links + 1
        at = Path("/") if target.is_absolute() else at
        left = [part for part in target.parts if part != "/"] + left
    return ""


def movable_by_others(real: Path) -> str:
    """Who else could rename what lies in the folder *real*, which has no links in it, and what to do; "" if nobody.

    Whoever can write a folder on the way renames the next one, and puts a link in its place: what we then
    write by its path, root writes wherever that user wants. In a sticky folder only an owner renames.
    """
    for folder in (real, *real.parents):
        found = folder.stat()
        if found.st_uid not in (0, os.geteuid()):
            return f"{folder} belongs to uid {found.st_uid}, who could put another folder in its place; chown it"
        # Where there is an access list, the group's bits are the most that anybody in it has.
        is_ours = _is_own_group(found.st_gid) and not _has_access_list(folder)
        shared = stat.S_IWOTH if is_ours else stat.S_IWOTH | stat.S_IWGRP
        if found.st_mode & shared and not found.st_mode & stat.S_ISVTX:
            mode = stat.S_IMODE(found.st_mode)
            return f"others may write {folder} (mode {mode:04o}) and replace what is in it; chmod go-w {folder}"
    return ""


def _has_access_list(folder: Path) -> bool:
    try:
        return _ACCESS_LIST in os.listxattr(folder)
    except OSError as error:
        return error.errno != errno.ENOTSUP


def _is_own_group(gid: int) -> bool:
    """Whether *gid* is the group of this user alone, which many systems make with each account."""
    import grp  # here: it exists on Unix only
    import pwd

    if gid != os.getegid():
        return False
    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return group.gr_name == user.pw_name and not set(group.gr_mem) - {user.pw_name}


def _bad_root(root: Path, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"the workspace root {root} {reason}; set ISORUN_WORKSPACE_ROOT to a folder of your own",
        code="invalid_root",
    )


def open_state(root: str) -> str:
    """The path of this user's state folder below *root*, made if missing. Raises `SetupFailed`."""
    path = f"{root}/{state_name()}"
    with _naming(path):
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        # In a shared temporary folder anyone may have made it first. Another name would not do: hosts that do not
        # agree on one place for their leases take each other's runs for lost.
        raise SetupFailed(
            "workspace",
            f"{path} is not a folder of this user but belongs to uid {found.st_uid}; "
            f"have that user or root remove it (rm -r {shlex.quote(path)}), "
            "or set ISORUN_WORKSPACE_ROOT to a folder of your own",
        )
    return path


class Lease:
    """The proof that a Runtime's host process is alive: a file locked for as long as it lives.

    A lock of the kernel's needs no process id, so it holds across containers that
    share the root, and when an id is used again. A process forked from the host
    (without exec) shares the lock and keeps the lease until it ends too.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.name = path.rpartition("/")[2]
        self._fd, self._pid = fd, os.getpid()
        self.owes: set[str] = set()  # the exec ids of its runs that have no result
        self._ahead: list[tuple[str, float]] = []  # folders of runs to come, and when each was made
        self._is_over = False

    @classmethod
    def take(cls, root: Path) -> Self:
        """A new lease below *root*. Raises `SetupFailed`."""
        import fcntl  # not at the top: `import isorun` works where there is none

        state = open_state(str(root))
        while True:
            path = f"{state}/{secrets.token_hex(16)}{LEASE_SUFFIX}"
            with _naming(path):
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX)
                except OSError:  # a network file system without locks
                    os.close(fd)
                    raise
                if os.fstat(fd).st_nlink:
                    return cls(path, fd)
                # Another host's recovery met the file before it was locked, and removed it as dead.
                os.close(fd)

    def make_ahead(self) -> None:
        """Make the folder of a run to come, unless there are enough. A disk that refuses tells the run itself."""
        if self._is_over or len(self._ahead) >= _MOST_AHEAD or self._pid != os.getpid():
            return
        building = f"{self.path}.{secrets.token_hex(16)}{BUILDING}"
        try:
            _make(building)
            for log in _LOGS:
                os.close(_open_log(f"{building}/{log}"))
        except OSError:
            shutil.rmtree(building, ignore_errors=True)
        else:
            self._ahead.append((building, time.monotonic()))

    def take_ahead(self) -> str | None:
        """A folder that `make_ahead` has made, now the caller's; or None."""
        while self._ahead and self._pid == os.getpid():
            building, made = self._ahead.pop()
            if time.monotonic() - made < _FRESH_S:
                return building
            shutil.rmtree(building, ignore_errors=True)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        while self._ahead and self._pid == os.getpid():
            shutil.rmtree(self._ahead.pop()[0], ignore_errors=True)
        # First the name, then the lock: in the other order a recovery may do the same work.
        # A fork only gives up its share: without the name, its parent's runs look lost.
        if self._pid == os.getpid() and not self.owes:
            with suppress(OSError):
                os.unlink(self.path)
        os.close(self._fd)


def lease_held(name: str, state_fd: int, *, remove_dead: bool = False) -> bool:
    """Whether a living host holds the lease *name* of the state folder; False for a name that is not a lease's."""
    import fcntl  # as above

    if not name.endswith(LEASE_SUFFIX) or "/" in name or "\0" in name:
        return False
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=state_fd)
    except FileNotFoundError:
        return False
    try:
        # Shared: two hosts that ask at once must not take each other for the lease's owner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if remove_dead:
            with suppress(FileNotFoundError):
                # Under the lock: a host that made it just now sees that it is gone, and takes another.
                os.unlink(name, dir_fd=state_fd)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class RunFolder:
    """The folder of one run, written by the host alone. A failing disk raises `SetupFailed`.

    Inside a `with` block its infra.log is opened once, for all lines of the run; else for each.
    """

    def __init__(self, path: str, exec_id: str, lease: Lease) -> None:
        self.exec_id = exec_id
        self._infra: int | None = None
        self._is_entered = False
        self._was_ahead = False
        self._path, self._lease = path, lease
        self.path = Path(path)
        self.work = self.path / "work"
        self.out = self.path / "out"
        self.logs = self.out / "logs"
        self.user_log = self.logs / "user.log"
        self.infra_log = self.logs / INFRA_LOG

    @classmethod
    def create(cls, root: Path, exec_id: str, lease: Lease, about: dict[str, Any], *, conducted: bool = False) -> Self:
        """Make `<root>/codegen_<exec_id>/`, with work/, out/logs/ and a run.json.

        *about* (prog_name, turn, timeout) goes into run.json. Of a run that is *conducted* it may have been made
        ahead; then its logs are there, and empty. Raises `InvalidRequest`
        (exec_id_taken) if there is such a run.
        """
        check_exec_id(exec_id)
        path = f"{root}/{PREFIX}{exec_id}"
        told = {**about, "schema": SCHEMA, "exec_id": exec_id, "lease": lease.name, "accepted": utc_now()}
        ahead = lease.take_ahead() if conducted else None
        building = ahead or f"{lease.path}.{exec_id}{BUILDING}"
        with _naming(path):
            try:
                if ahead is None:
                    _make(building)
                write_file(f"{building}/{RUN_JSON}", as_json(told).encode() + b"\n")
                os.rename(building, path)
                lease.owes.add(exec_id)
            except OSError as exc:
                shutil.rmtree(building, ignore_errors=True)
                if exc.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise InvalidRequest(
                        f"there is a run {exec_id} already; give another exec_id, or none for a new one",
                        code="exec_id_taken",
                    ) from None
                raise
        folder = cls(path, exec_id, lease)
        folder._was_ahead = ahead is not None
        return folder

    def write_program(self, main: bytes, code: bytes) -> None:
        """Write main.py and user_code.py to work/, and copies to out/executed_programs/<exec_id>/.

        They are copies and not hard links: a program that can write one must not change the record.
        """
        executed = f"{self._path}/out/{EXECUTED}"
        with _naming(self._path):
            os.mkdir(executed, 0o700)
            os.mkdir(f"{executed}/{self.exec_id}", 0o700)
            for folder in (f"{self._path}/work", f"{executed}/{self.exec_id}"):
                write_file(f"{folder}/main.py", main)
                write_file(f"{folder}/user_code.py", code)

    def __enter__(self) -> Self:
        self._is_entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_entered = False
        if self._infra is not None:
            os.close(self._infra)
            self._infra = None

    def append_infra(self, component: str, level: str, *texts: str) -> None:
        """Append a line for each of *texts* to infra.log; characters that cannot be printed are escaped."""
        path = f"{self._path}/out/logs/{INFRA_LOG}"
        with _naming(path):
            if not self._is_entered:
                append_line(path, component, level, *texts)
                return
            if self._infra is None:
                self._infra = _open_log(path)
            _append(self._infra, component, level, texts)

    def infra_text(self) -> str:
        """The end of infra.log as it is now."""
        with _naming(self._path):
            if self._infra is not None:
                return _end_of(self._infra)
            with self.infra_log.open("rb") as file:
                return _end_of(file.fileno())

    def write_out(self, name: str, data: bytes) -> None:
        """Write a new file of the host's own to out/."""
        with _naming(self._path):
            write_file(f"{self._path}/out/{name}", data)

    def write_launcher(self, out: bytes, err: bytes) -> None:
        """Write what the launcher of the sandbox itself printed: runtime.out.log and runtime.err.log."""
        with _naming(self._path):
            for name, data in (("runtime.out.log", out), ("runtime.err.log", err)):
                if self._was_ahead and not data:
                    continue  # it is there, and empty
                if self._was_ahead:
                    os.unlink(f"{self._path}/out/{name}")
                write_file(f"{self._path}/out/{name}", data)

    def make_room(self) -> None:
        """Remove what was copied out of the run, and cut the end of a long user.log; the host's own records stay."""
        with suppress(OSError):
            length = self.user_log.stat().st_size
            if length > 2 * _ROOM_BYTES:
                os.truncate(self.user_log, length - _ROOM_BYTES)
        with os.scandir(f"{self._path}/out") as entries:
            for entry in entries:
                if entry.name in _RESERVED:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        os.unlink(entry.path)

    def discard(self) -> None:
        """Remove the folder of a run that did not take place; the caller has the error instead."""
        shutil.rmtree(self._path, ignore_errors=True)
        if not os.path.lexists(self._path):
            self._lease.owes.discard(self.exec_id)

    def write_result(self, data: bytes) -> None:
        """Write out/result.json (`RunResult.stored`), whole or not at all. With it the run has ended: write it last."""
        new = f"{self._path}/{NEW_RESULT}"
        with _naming(self._path):
            try:
                write_file(new, data)
                os.replace(new, f"{self._path}/out/{RESULT_JSON}")
                self._lease.owes.discard(self.exec_id)
            except OSError:
                with suppress(OSError):
                    os.unlink(new)  # its bytes are wanted on a full disk, and a second try needs the name
                raise

    @staticmethod
    def reserved(path: str) -> bool:
        """Whether *path*, relative to out/, is or lies below a name that the host writes there, or could have written.

        A program's file must not pass for the host's: not for the record of a call that was never made, and not on a
        disk that takes two cases of a name for one.
        """
        first = next((part for part in path.split("/") if part not in ("", ".")), "")
        # Only a short name is folded: it costs 0.1 ms for one of 255 bytes, and a program makes 10,000 of them.
        fixed = len(first) <= _LONGEST and folded(first) in _RESERVED
        return fixed or RECORD.fullmatch(first) is not None


def _make(building: str) -> None:
    for folder in ("", "/work", "/out", "/out/logs"):
        os.mkdir(f"{building}{folder}", 0o700)
