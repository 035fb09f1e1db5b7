"""What happens to run folders after their run: ending the lost ones, listing, removal, retention.

Everything here goes through directory fds, beneath the root, and follows no link:
what lies in a folder came from programs nobody has read. Only a `codegen_<exec id>`
folder of this user, directly below the root, is ever touched; a folder of that name
without a run.json may be somebody's own and is removed only when named.

Theory of operation. Any number of hosts may do this at once. A run is ended or
removed under a lock on its folder, and what was seen before is looked at again
under it. Leases are probed with a shared lock, which two probes do not refuse each
other and a living host refuses both. A removed folder is first renamed aside, so
that an interrupted removal leaves no half of a run; `recover` finishes it.
Nearly every folder has ended long ago, which one look without a lock tells. A dead
host's lease stays until each of its runs has been ended: without one, nothing is lost.

It must not judge how a run ended: that its host died is all it knows. The module is long because
ending, listing and removing take the same lock and follow the same rules against links.
"""

import json
import math
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from isorun.core.errors import CleanupFailed, InvalidRequest
from isorun.core.guard.log import log_of
from isorun.core.ids import check_exec_id, time_in
from isorun.core.outcome import Code, Status
from isorun.core.report import report_text
from isorun.core.result import MAX_READ, RunError, RunResult, as_result
from isorun.core.text import one_line
from isorun.store.folder import (
    BUILDING,
    INFRA_LOG,
    LEASE_SUFFIX,
    NEW_RESULT,
    PREFIX,
    RESULT_JSON,
    RUN_JSON,
    append_line,
    failed,
    lease_held,
    open_state,
    state_name,
    utc_now,
    write_file,
)
from sandbox_runner.linux.trees import open_any_folder, open_folder, remove_tree

RUNNING = "running"
DAMAGED = "damaged"
REMOVED = ".removed"

_LAST_SECOND = 253402300799.0  # of the year 9999
_LOOKING_S = 1.0  # that somebody may take who only looks whether a folder is locked
_ASK_AGAIN_S = 0.001
_MAX_TEXT = 200  # characters of a name that a run.json tells

log = log_of(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One stored run. `status` is a word of `Status`, `running` or `damaged`; `accepted` is RFC 3339 UTC.

    `prog_name` of a run without one is the file of the code that asked for it.
    """

    exec_id: str
    status: str
    accepted: str
    prog_name: str
    bytes_used: int


class Root(NamedTuple):
    """A workspace root, and the state folder below it."""

    path: str
    fd: int
    state_fd: int


def host_died(root: Path) -> bool:
    """Whether a host left its lease below *root*: it died, or a run of its has no result. The leases tell it alone."""
    with opened(root) as where:
        return bool(_dead_leases(where))


def _on() -> bool:
    return True


def recover(root: Path, stuck: list[str] | None = None, *, goes_on: Callable[[], bool] = _on) -> list[str]:
    """End every run below *root* whose host died, as `lost`; their exec ids, oldest first.

    A run that its caller did not want to keep is removed instead.
    Runs of living hosts are not touched. Dead leases and interrupted work are removed.
    One that cannot be ended is logged and passed over, also for want of room: it holds up
    neither the others nor a new host, *stuck*, if given, gets its exec id, and the dead leases stay. They
    do, too, if before a run it does not *goes_on*.
    """
    ended, passed, is_whole = [], [], True
    with opened(root) as where:
        dead = _dead_leases(where)  # before the runs: one that dies from here on may have a run that we are past
        for exec_id in _runs(where):
            if not (is_whole := goes_on()):
                break
            if _result_at(where, exec_id) is not None:
                continue
            try:
                with locked(where.fd, PREFIX + exec_id) as run_fd:
                    if run_fd is None:
                        passed.append(exec_id)
                    elif _end_if_lost(where, exec_id, run_fd):
                        ended.append(exec_id)
            except OSError as exc:
                log.warning("%s/%s%s cannot be recovered: %s", where.path, PREFIX, exec_id, exc)
                passed.append(exec_id)
                if stuck is not None:
                    stuck.append(exec_id)
        is_done = is_whole and not any(_is_open(where, exec_id) for exec_id in passed)
        _clear_state(where, dead if is_done else [])
    return ended


def _is_open(where: Root, exec_id: str) -> bool:
    """Whether a run that was passed over, as another host had it, is still there and without a result."""
    return _result_at(where, exec_id) is None and os.access(PREFIX + exec_id, os.F_OK, dir_fd=where.fd)


def listing(root: Path, *, status: str | None = None, most: int | None = None) -> list[RunSummary]:
    """The runs stored below *root*, newest first; what vanishes meanwhile is left out.

    *status* and *most* as of `each_listed`.
    """
    found = each_listed(root, status=status, most=most)
    return sorted(found, key=lambda run: (run.accepted, run.exec_id), reverse=True)


def each_listed(root: Path, *, status: str | None = None, most: int | None = None) -> Iterator[RunSummary]:
    """As `listing`, one by one: a run is looked into when it is asked for.

    If *status* is given, those alone that have it; of these the newest *most*: the others are not looked into, unless
    the caller named them. An id of ours tells when the run was asked for.
    """
    times: list[tuple[str, str]] = []
    count = 0
    with opened(root) as where:
        for exec_id in _runs(where):
            with suppress(FileNotFoundError):  # removed meanwhile
                times.append((time_in(exec_id) or _accepted(where, exec_id), exec_id))
        for _, exec_id in sorted(times, reverse=True):
            if count == most:
                break
            try:
                run = _summary(where, exec_id)
            except FileNotFoundError:
                continue
            if status in (None, run.status):
                count += 1
                yield run


def _accepted(where: Root, exec_id: str) -> str:
    """When the run was accepted, as `_summary` tells it."""
    with suppress(PermissionError):
        run_fd = open_folder(PREFIX + exec_id, where.fd)
        try:
            accepted = (_read_json(RUN_JSON, run_fd) or {}).get("accepted")
        finally:
            os.close(run_fd)
        if isinstance(accepted, str):
            return accepted
    return rfc3339(os.stat(PREFIX + exec_id, dir_fd=where.fd, follow_symlinks=False).st_mtime)


def remove(root: Path, exec_id: str) -> None:
    """Remove the stored run *exec_id* and all it left.

    Raises `InvalidRequest`: no_such_run, or run_is_running while its host lives and
    it has no result; `CleanupFailed` if a part of it stays.
    """
    check_exec_id(exec_id)
    with opened(root) as where:
        if not _is_ours(where, exec_id):
            raise InvalidRequest(f"there is no run {exec_id} in {where.path}", code="no_such_run")
        with locked(where.fd, PREFIX + exec_id) as run_fd:
            if run_fd is None or (not _has_result(run_fd) and _host_lives(where, run_fd)):
                raise InvalidRequest(
                    f"run {exec_id} is running; cancel it first, or wait for its end", code="run_is_running"
                )
            try:
                _remove_run(where, exec_id)
            except OSError as exc:
                raise CleanupFailed(f"run {exec_id} in {where.path} could not be removed completely: {exc}") from exc


def sweep(
    root: Path, *, older_than_s: float, now: float, by_id: bool = False, goes_on: Callable[[], bool] = _on
) -> list[str]:
    """Remove the runs that ended more than *older_than_s* seconds before *now*; their exec ids.

    *now* is in seconds since 1970. A run without a result is kept, however old. It is asked before each run whether
    it *goes_on*. *by_id*: a run whose id was made since that moment is not looked into.
    """
    gone, moment = [], now - older_than_s
    since, until = (rfc3339(min(max(when, 0.0), _LAST_SECOND)) for when in (moment, now))
    with opened(root) as where:
        for exec_id in _runs(where):
            if not goes_on():
                break
            if (
                by_id and since < (time_in(exec_id) or "") <= until
            ):  # asked for after the moment, so it has not ended before
                continue
            found = _result_at(where, exec_id)
            if found is not None and found.st_mtime >= moment:
                continue
            try:
                with locked(where.fd, PREFIX + exec_id) as run_fd:
                    if run_fd is None or not _ended_before(run_fd, moment):
                        continue
                    _remove_run(where, exec_id)
                    gone.append(exec_id)
            except OSError as exc:
                log.warning("%s/%s%s cannot be removed: %s", where.path, PREFIX, exec_id, exc)
    return gone


def exec_ids(root: Path) -> list[str]:
    """The ids of this user's stored runs below *root*, oldest first."""
    with opened(root) as where:
        return _runs(where)


def stored_file(root: Path, exec_id: str, name: str) -> bytes | None:
    """The file *name* (`result.json`, `logs/user.log`) of a stored run's out/, at most `MAX_READ` bytes of it.

    None if it is not there. Raises as `open_stored` does.
    """
    file = open_stored(root, exec_id, name)
    if file is None:
        return None
    with os.fdopen(file, "rb") as content:
        return content.read(MAX_READ)


def open_stored(root: Path, exec_id: str, name: str) -> int | None:
    """A descriptor of the file *name* of a stored run's out/, for the caller to close; None if it is not there.

    In a root that many users write to, a folder of another user is none of our runs, and no link on the way is
    followed. Raises `InvalidRequest`: no_such_run, or unreadable for a link, a special file, or a name such as `../x`.
    """
    check_exec_id(exec_id)
    *folders, last = name.split("/")
    with opened(root) as where, ExitStack() as fds:
        if not _is_ours(where, exec_id):
            raise InvalidRequest(f"there is no run {exec_id} in {where.path}", code="no_such_run")
        if "\0" in name or not {"", ".", ".."}.isdisjoint([*folders, last]):
            raise InvalidRequest(f"{one_line(name, 200)} names no file of run {exec_id}", code="unreadable")
        try:
            fd = where.fd
            for part in (PREFIX + exec_id, "out", *folders):
                fd = open_folder(part, fd)
                fds.callback(os.close, fd)
            file = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
        except FileNotFoundError:
            return None
        except (OSError, UnicodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "no file has such a name"
            raise InvalidRequest(
                f"{one_line(name, 200)} of run {exec_id} cannot be read: {reason}", code="unreadable"
            ) from None
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise InvalidRequest(f"{one_line(name, 200)} of run {exec_id} is not a file", code="unreadable")
        return file


def _is_ours(where: Root, exec_id: str) -> bool:
    """Whether this user has a folder of that run: not a look at all runs, of which there may be thousands."""
    try:
        found = os.stat(PREFIX + exec_id, dir_fd=where.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


@contextmanager
def opened(root: Path) -> Iterator[Root]:
    """*root* and its state folder, by descriptors. Raises `SetupFailed`."""
    path = os.fspath(root)
    open_state(path)
    with ExitStack() as fds:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            fds.callback(os.close, fd)
            state_fd = open_folder(state_name(), fd)
            fds.callback(os.close, state_fd)
        except OSError as exc:
            raise failed(path, exc) from exc
        yield Root(path, fd, state_fd)


def _runs(where: Root) -> list[str]:
    """The exec ids that have a folder of this user directly below the root, oldest id first."""
    found = []
    with os.scandir(where.fd) as entries:
        for entry in entries:
            exec_id = entry.name.removeprefix(PREFIX)
            if exec_id == entry.name or not _is_exec_id(exec_id) or not entry.is_dir(follow_symlinks=False):
                continue
            with suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                    found.append(exec_id)
    return sorted(found)


def _is_exec_id(text: str) -> bool:
    try:
        check_exec_id(text)
    except InvalidRequest:
        return False
    return True


@contextmanager
def locked(dir_fd: int, name: str) -> Iterator[int | None]:
    """The folder *name*, locked against other hosts; None if one of them has it or it is gone."""
    try:
        fd = open_any_folder(name, dir_fd)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            is_ours = _is_taken(fd)
            # Removed between open and lock, it has another name by now.
            found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            same = is_ours and os.path.samestat(found, os.fstat(fd))
        except FileNotFoundError:
            same = False
        yield fd if same else None
    finally:
        os.close(fd)


def _is_taken(fd: int) -> bool:
    """Whether the lock of the folder *fd* is ours now. Who only looks shares it for a moment, and is waited for."""
    import fcntl  # not at the top: `import isorun` works where there is none

    until = time.monotonic() + _LOOKING_S
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if is_locked(fd) or time.monotonic() > until:
            return False
        time.sleep(_ASK_AGAIN_S)


def is_locked(fd: int) -> bool:
    """Whether somebody has the folder *fd* `locked`. To look does not keep anybody from it."""
    import fcntl  # as above

    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _result_at(where: Root, exec_id: str) -> os.stat_result | None:
    """As `_result_stat`, without a lock: look again under a lock before you act on it."""
    try:
        run_fd = open_folder(PREFIX + exec_id, where.fd)
    except OSError:
        return None
    try:
        return _result_stat(run_fd)
    finally:
        os.close(run_fd)


def _result_stat(run_fd: int) -> os.stat_result | None:
    """What the kernel says of out/result.json; out/ may be a link by now, and is not followed."""
    try:
        out_fd = open_folder("out", run_fd)
    except OSError:
        return None
    try:
        return os.stat(RESULT_JSON, dir_fd=out_fd, follow_symlinks=False)
    except OSError:
        return None
    finally:
        os.close(out_fd)


def _has_result(run_fd: int) -> bool:
    return _result_stat(run_fd) is not None


def _ended_before(run_fd: int, moment: float) -> bool:
    found = _result_stat(run_fd)
    return found is not None and found.st_mtime < moment and _is_run(run_fd)


def _is_run(run_fd: int) -> bool:
    try:
        return stat.S_ISREG(os.stat(RUN_JSON, dir_fd=run_fd, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _read_json(name: str, dir_fd: int) -> dict[str, Any] | None:
    """The object in a file, or None for anything else: a caller may have edited it."""
    try:
        value = json.loads(_read_file(name, dir_fd) or b"")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _read_file(name: str, dir_fd: int) -> bytes | None:
    try:
        # O_NONBLOCK: a FIFO in its place would hold us for ever.
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_READ:
            return None
        return file.read(MAX_READ)


def _host_lives(where: Root, run_fd: int) -> bool:
    told = _read_json(RUN_JSON, run_fd) or {}
    lease = told.get("lease")
    # A run.json that a power failure cut short names no host, and no host of today wrote it.
    return isinstance(lease, str) and lease_held(lease, where.state_fd)


def _end_if_lost(where: Root, exec_id: str, run_fd: int) -> bool:
    if not _is_run(run_fd) or _has_result(run_fd) or _host_lives(where, run_fd):
        return False
    if _has_result(run_fd):  # written, and its lease given back, between the two looks
        return False
    told = _read_json(RUN_JSON, run_fd) or {}
    if told.get("keep") is False:
        _remove_run(where, exec_id)
        return False
    with ExitStack() as fds:
        out_fd = made_folder("out", run_fd, fds)
        logs_fd = made_folder("logs", out_fd, fds)
        message = "the host process died before the run ended"
        append_line(INFRA_LOG, "runtime", "ERROR", f"host_lost: {message}", dir_fd=logs_fd)
        with suppress(FileNotFoundError):
            os.unlink(NEW_RESULT, dir_fd=run_fd)  # the host died while writing it
        write_file(NEW_RESULT, _lost(where, exec_id, told, message), dir_fd=run_fd)
        os.replace(NEW_RESULT, RESULT_JSON, src_dir_fd=run_fd, dst_dir_fd=out_fd)
    return True


def _lost(where: Root, exec_id: str, told: dict[str, Any], message: str) -> bytes:
    """The result of a lost run, from what its run.json *told*, which somebody may have edited."""
    hint = "Run the program again. Everything logged until then is in out/logs/."
    error = RunError(code=Code.HOST_LOST, message=message, hint=hint)
    prog_name, timeout_s = _text_of(told, "prog_name"), told.get("timeout_s")
    lost = RunResult.unseen(
        exec_id=exec_id,
        turn_id=_text_of(told, "turn"),
        prog_name=prog_name,
        out_dir=Path(where.path) / f"{PREFIX}{exec_id}" / "out",
        error=error,
        timings={"accepted": _text_of(told, "accepted") or None, "ended": utc_now()},
        timeout_s=timeout_s if isinstance(timeout_s, (int, float)) and math.isfinite(timeout_s) else None,
    )
    return replace(lost, report_text=report_text(lost)).stored()


def _text_of(told: dict[str, Any], key: str) -> str:
    value = told.get(key)
    return one_line(value, _MAX_TEXT) if isinstance(value, str) else ""


def made_folder(name: str, dir_fd: int, fds: ExitStack) -> int:
    """The folder *name*, made if it is missing and open until *fds* end; a link is refused. Raises OSError."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=dir_fd)
    fd = open_folder(name, dir_fd)
    fds.callback(os.close, fd)
    return fd


def _summary(where: Root, exec_id: str) -> RunSummary:
    folder = PREFIX + exec_id
    told: dict[str, Any] | None = None
    status, size = DAMAGED, 0
    try:
        run_fd = open_folder(folder, where.fd)
    except PermissionError:
        run_fd = None
    if run_fd is not None:
        try:
            told, size = _read_json(RUN_JSON, run_fd), _size(run_fd)
            status = _status(where, run_fd) if told is not None else DAMAGED
        finally:
            os.close(run_fd)
    changed = os.stat(folder, dir_fd=where.fd, follow_symlinks=False).st_mtime
    told = told or {}
    accepted, prog_name = told.get("accepted"), told.get("prog_name") or told.get("caller")
    return RunSummary(
        exec_id=exec_id,
        status=status,
        accepted=accepted if isinstance(accepted, str) else rfc3339(changed),
        prog_name=prog_name if isinstance(prog_name, str) else "",
        bytes_used=size,
    )


def _status(where: Root, run_fd: int) -> str:
    # The lease first: a run that ends between the two looks then has a result.
    lives = _host_lives(where, run_fd)
    if not _has_result(run_fd):
        return RUNNING if lives else Status.LOST.value
    out_fd = open_folder("out", run_fd)
    try:
        result = as_result(_read_file(RESULT_JSON, out_fd) or b"")
    finally:
        os.close(out_fd)
    return DAMAGED if result is None else str(result["status"])


def rfc3339(seconds: float) -> str:
    """*seconds* since 1970 as UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _size(run_fd: int) -> int:
    """The bytes that the files below take on the disk, as far as they can be read."""
    total, waiting = 0, ["."]
    while waiting:
        name = waiting.pop()
        try:
            fd = open_folder(name, run_fd)
        except OSError:  # vanished, or closed to us, or too deep for a path
            continue
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(f"{name}/{entry.name}")
        finally:
            os.close(fd)
    return total


def _remove_run(where: Root, exec_id: str) -> None:
    aside = f"{exec_id}-{secrets.token_hex(16)}{REMOVED}"
    os.rename(PREFIX + exec_id, aside, src_dir_fd=where.fd, dst_dir_fd=where.state_fd)
    remove_tree(aside, where.state_fd)


def _dead_leases(where: Root) -> list[str]:
    with os.scandir(where.state_fd) as entries:
        names = [entry.name for entry in entries if entry.name.endswith(LEASE_SUFFIX)]
    dead = []
    for name in names:
        try:
            if not lease_held(name, where.state_fd):
                dead.append(name)
        except OSError as exc:
            log.warning("%s/%s/%s cannot be looked at: %s", where.path, state_name(), name, exc)
    return dead


def _clear_state(where: Root, leases: Sequence[str]) -> None:
    """Remove what dead hosts left in the state folder: half-made and half-removed runs, then these *leases*."""
    with os.scandir(where.state_fd) as entries:
        names = [entry.name for entry in entries if entry.name.endswith((REMOVED, BUILDING))]
    for name in (*names, *leases):
        try:
            if name.endswith(REMOVED):
                with locked(where.state_fd, name) as fd:  # its remover, if it lives, has the lock
                    if fd is not None:
                        remove_tree(name, where.state_fd)
            elif name.endswith(BUILDING):
                lease = name.partition(LEASE_SUFFIX)[0] + LEASE_SUFFIX
                if not lease_held(lease, where.state_fd):
                    remove_tree(name, where.state_fd)
            else:
                lease_held(name, where.state_fd, remove_dead=True)
        except OSError as exc:
            log.warning("%s/%s/%s cannot be removed: %s", where.path, state_name(), name, exc)
