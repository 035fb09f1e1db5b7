# ruff: noqa: PTH102, PTH104, PTH105, PTH106, PTH108 - twelve paths per run, and pathlib is slower than the kernel
"""A run's folder on the host, and the lease that says its host is alive.

Theory of operation. Each Runtime holds one lease: a locked file. The kernel drops
the lock when the host process dies, however it dies, so a folder without a result
whose lease can be locked has lost its host (`recovery` ends it). A folder is built
aside and renamed into place, so that one which can be seen names its lease.

What is guaranteed: what was written is there after the host process is killed, and
`result.json` is whole or absent. There is no fsync (it costs more than the whole
run), so a power failure may lose or truncate the files of the last half minute.

It must not decide what a result says, and it never reads what a program wrote.
"""

import errno
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from isorun.core.errors import InvalidRequest, SetupFailed
from isorun.core.ids import check_exec_id

SCHEMA = 1  # of run.json and result.json
PREFIX = "codegen_"
LEASE_SUFFIX = ".lease"
BUILDING = ".building"
RUN_JSON = "run.json"
RESULT_JSON = "result.json"
NEW_RESULT = "result.json.new"
INFRA_LOG = "infra.log"
EXECUTED = "executed_programs"

_RESERVED = frozenset((RESULT_JSON, "tool_calls_index.json", "runtime.out.log", "runtime.err.log", "logs", EXECUTED))


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
    now = utc_now()
    lines = "".join(f"{now} {_one_line(f'{level.upper()} [{component}] {text}')}\n" for text in texts)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o600, dir_fd=dir_fd)
    try:
        _write_all(fd, lines.encode())
    finally:
        os.close(fd)


def _one_line(line: str) -> str:
    if line.isprintable():
        return line
    # A newline would forge a line of another component, an escape would act on the reader's terminal.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def open_root(root: Path) -> Path:
    """*root*, made if it is missing and with its links resolved.

    Raises `InvalidRequest` (invalid_root) for one that cannot be written, or that is
    a link of another user, who could turn it elsewhere. Root's links are trusted.
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.lstat(root)
        real = root.resolve(strict=True)
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise failed(str(root), exc) from exc
        raise _bad_root(root, f"cannot be used: {exc.strerror or exc}") from exc
    if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
        raise _bad_root(root, f"is a link that belongs to uid {found.st_uid}")
    if not os.access(real, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise _bad_root(root, "cannot be written")
    return real


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
        # In a shared temporary folder anyone may have made it first.
        raise SetupFailed("workspace", f"{path} is not a folder of this user; remove it, or set ISORUN_WORKSPACE_ROOT")
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
        self._fd = fd

    @classmethod
    def take(cls, root: Path) -> Self:
        """A new lease below *root*. Raises `SetupFailed`."""
        import fcntl  # not at the top: `import isorun` works where there is none

        state = open_state(str(root))
        while True:
            path = f"{state}/{uuid.uuid4()}{LEASE_SUFFIX}"
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        # First the name, then the lock: in the other order a recovery may do the same work.
        with suppress(OSError):
            os.unlink(self.path)
        os.close(self._fd)


def lease_held(name: str, state_fd: int, *, remove_dead: bool = False) -> bool:
    """Whether a living host holds the lease *name* of the state folder; False for what is no lease."""
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
    """The folder of one run, written by the host alone. A failing disk raises `SetupFailed`."""

    def __init__(self, path: str, exec_id: str) -> None:
        self.exec_id = exec_id
        self._path = path
        self.path = Path(path)
        self.work = self.path / "work"
        self.out = self.path / "out"
        self.logs = self.out / "logs"
        self.user_log = self.logs / "user.log"
        self.infra_log = self.logs / INFRA_LOG

    @classmethod
    def create(cls, root: Path, exec_id: str, lease: Lease, about: dict[str, Any]) -> Self:
        """Make `<root>/codegen_<exec_id>/`, with work/, out/logs/ and a run.json.

        *about* (prog_name, turn, timeout) goes into run.json. Raises `InvalidRequest`
        (exec_id_taken) if there is such a run.
        """
        check_exec_id(exec_id)
        path = f"{root}/{PREFIX}{exec_id}"
        told = {**about, "schema": SCHEMA, "exec_id": exec_id, "lease": lease.name, "accepted": utc_now()}
        building = f"{lease.path}.{exec_id}{BUILDING}"
        with _naming(path):
            try:
                os.mkdir(building, 0o700)
                os.mkdir(f"{building}/work", 0o700)
                os.mkdir(f"{building}/out", 0o700)
                os.mkdir(f"{building}/out/logs", 0o700)
                write_file(f"{building}/{RUN_JSON}", _json(told))
                os.rename(building, path)
            except OSError as exc:
                _undo(building)
                if exc.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise InvalidRequest(f"there is a run {exec_id} already", code="exec_id_taken") from None
                raise
        return cls(path, exec_id)

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

    def append_infra(self, component: str, level: str, *texts: str) -> None:
        """Append a line for each of *texts* to infra.log; whatever is not printable is escaped."""
        path = f"{self._path}/out/logs/{INFRA_LOG}"
        with _naming(path):
            append_line(path, component, level, *texts)

    def infra_text(self) -> str:
        """What infra.log holds now."""
        with _naming(self._path):
            return self.infra_log.read_text(encoding="utf-8", errors="replace")

    def write_out(self, name: str, data: bytes) -> None:
        """Write a new file of the host's own to out/."""
        with _naming(self._path):
            write_file(f"{self._path}/out/{name}", data)

    def write_launcher(self, out: bytes, err: bytes) -> None:
        """Write what the launcher of the sandbox itself printed: runtime.out.log and runtime.err.log."""
        with _naming(self._path):
            write_file(f"{self._path}/out/runtime.out.log", out)
            write_file(f"{self._path}/out/runtime.err.log", err)

    def discard(self) -> None:
        """Remove the folder of a run that did not take place; the caller has the error instead."""
        shutil.rmtree(self._path, ignore_errors=True)

    def write_result(self, result: dict[str, Any]) -> None:
        """Write out/result.json, whole or not at all. With it the run has ended: write it last.

        Strict JSON: NaN and infinity are a ValueError.
        """
        new = f"{self._path}/{NEW_RESULT}"
        data = _json(result)
        with _naming(self._path):
            try:
                write_file(new, data)
                os.replace(new, f"{self._path}/out/{RESULT_JSON}")
            except OSError:
                with suppress(OSError):
                    os.unlink(new)  # its bytes are wanted on a full disk, and a second try needs the name
                raise

    @staticmethod
    def reserved(path: str) -> bool:
        """Whether *path*, relative to out/, is or lies below a name that the host writes there.

        The records of tool calls, `<tool_id>-<time>-<n>.json`, are known only later and are not in it.
        """
        first = next((part for part in path.split("/") if part not in ("", ".")), "")
        return first in _RESERVED


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _undo(building: str) -> None:
    """Remove a folder that was not finished; it holds what `create` makes and nothing else."""
    with suppress(OSError):
        os.unlink(f"{building}/{RUN_JSON}")
    for folder in (f"{building}/out/logs", f"{building}/out", f"{building}/work", building):
        with suppress(OSError):
            os.rmdir(folder)
