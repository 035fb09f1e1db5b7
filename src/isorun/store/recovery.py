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

It must not judge how a run ended: that its host died is all it knows. The module is long because
ending, listing and removing take the same lock and follow the same rules against links.
"""

import json
import math
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from isorun.core.errors import CleanupFailed, InvalidRequest
from isorun.core.guard.log import log_of
from isorun.core.ids import check_exec_id
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

_MAX_TEXT = 200  # characters of a name that a run.json tells

log = log_of(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One stored run. `status` is a word of `Status`, `running` or `damaged`; `accepted` is RFC 3339 UTC."""

    exec_id: str
    status: str
    accepted: str
    prog_name: str
    bytes_used: int


class _Root(NamedTuple):
    path: str
    fd: int
    state_fd: int


def recover(root: Path, stuck: list[str] | None = None) -> list[str]:
    """End every run below *root* whose host died, as `lost`; their exec ids, oldest first.

    A run that its caller did not want to keep is removed instead.
    Runs of living hosts are not touched. Dead leases and interrupted work are removed.
    One that cannot be ended is logged and passed over, also for want of room: it holds up
    neither the others nor a new host, and *stuck*, if given, gets its exec id.
    """
    ended = []
    with _opened(root) as where:
        for exec_id in _runs(where):
            try:
                with _locked(where.fd, PREFIX + exec_id) as run_fd:
                    if run_fd is not None and _end_if_lost(where, exec_id, run_fd):
                        ended.append(exec_id)
            except OSError as exc:
                log.warning("%s/%s%s cannot be recovered: %s", where.path, PREFIX, exec_id, exc)
                if stuck is not None:
                    stuck.append(exec_id)
        _clear_state(where)
    return ended


def listing(root: Path, *, status: str | None = None, most: int | None = None) -> list[RunSummary]:
    """The runs stored below *root*, newest first; what vanishes meanwhile is left out.

    If *status* is given, those alone that have it; of these the newest *most*: of the others no size is taken.
    """
    times: list[tuple[str, str]] = []
    found: list[RunSummary] = []
    with _opened(root) as where:
        for exec_id in _runs(where):
            with suppress(FileNotFoundError):  # removed meanwhile
                times.append((_accepted(where, exec_id), exec_id))
        for _, exec_id in sorted(times, reverse=True):
            if most is not None and len(found) == most:
                break
            with suppress(FileNotFoundError):
                run = _summary(where, exec_id)
                found += [run] if status in (None, run.status) else []
    return found


def _accepted(where: _Root, exec_id: str) -> str:
    """When the run was accepted, as `_summary` tells it."""
    with suppress(PermissionError):
        run_fd = open_folder(PREFIX + exec_id, where.fd)
        try:
            accepted = (_read_json(RUN_JSON, run_fd) or {}).get("accepted")
        finally:
            os.close(run_fd)
        if isinstance(accepted, str):
            return accepted
    return _rfc3339(os.stat(PREFIX + exec_id, dir_fd=where.fd, follow_symlinks=False).st_mtime)


def remove(root: Path, exec_id: str) -> None:
    """Remove the stored run *exec_id* and all it left.

    Raises `InvalidRequest`: no_such_run, or run_is_running while its host lives and
    it has no result; `CleanupFailed` if a part of it stays.
    """
    check_exec_id(exec_id)
    with _opened(root) as where:
        if exec_id not in _runs(where):
            raise InvalidRequest(f"there is no run {exec_id} in {where.path}", code="no_such_run")
        with _locked(where.fd, PREFIX + exec_id) as run_fd:
            if run_fd is None or (not _has_result(run_fd) and _host_lives(where, run_fd)):
                raise InvalidRequest(
                    f"run {exec_id} is running; cancel it first, or wait for its end", code="run_is_running"
                )
            try:
                _remove_run(where, exec_id)
            except OSError as exc:
                raise CleanupFailed(f"run {exec_id} in {where.path} could not be removed completely: {exc}") from exc


def sweep(root: Path, *, older_than_s: float, now: float) -> list[str]:
    """Remove the runs that ended more than *older_than_s* seconds before *now*; their exec ids.

    *now* is in seconds since 1970. A run without a result is kept, however old.
    """
    gone = []
    with _opened(root) as where:
        for exec_id in _runs(where):
            try:
                with _locked(where.fd, PREFIX + exec_id) as run_fd:
                    if run_fd is None or not _ended_before(run_fd, now - older_than_s):
                        continue
                    _remove_run(where, exec_id)
                    gone.append(exec_id)
            except OSError as exc:
                log.warning("%s/%s%s cannot be removed: %s", where.path, PREFIX, exec_id, exc)
    return gone


def exec_ids(root: Path) -> list[str]:
    """The ids of this user's stored runs below *root*, oldest first."""
    with _opened(root) as where:
        return _runs(where)


def stored_file(root: Path, exec_id: str, name: str) -> bytes | None:
    """The file *name* (`result.json`, `logs/user.log`) of a stored run's out/, at most `MAX_READ` bytes of it.

    None if it is not there. In a root that many users write to, a folder of another user is none of our runs, and no
    link on the way is followed. Raises `InvalidRequest`: no_such_run, or unreadable for a link or a special file.
    """
    check_exec_id(exec_id)
    with _opened(root) as where, ExitStack() as fds:
        if exec_id not in _runs(where):
            raise InvalidRequest(f"there is no run {exec_id} in {where.path}", code="no_such_run")
        try:
            fd = where.fd
            for part in (PREFIX + exec_id, "out", *name.split("/")[:-1]):
                fd = open_folder(part, fd)
                fds.callback(os.close, fd)
            file = os.open(name.rpartition("/")[2], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
            fds.callback(os.close, file)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise InvalidRequest(f"{name} of run {exec_id} cannot be read: {exc.strerror}", code="unreadable") from None
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise InvalidRequest(f"{name} of run {exec_id} is not a file", code="unreadable")
        with os.fdopen(os.dup(file), "rb") as content:
            return content.read(MAX_READ)


@contextmanager
def _opened(root: Path) -> Iterator[_Root]:
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
        yield _Root(path, fd, state_fd)


def _runs(where: _Root) -> list[str]:
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
def _locked(dir_fd: int, name: str) -> Iterator[int | None]:
    """The folder *name*, locked against other hosts; None if one of them has it or it is gone."""
    import fcntl  # not at the top: `import isorun` works where there is none

    try:
        fd = open_any_folder(name, dir_fd)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Removed between open and lock, it has another name by now.
            found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            same = os.path.samestat(found, os.fstat(fd))
        except (BlockingIOError, FileNotFoundError):
            same = False
        yield fd if same else None
    finally:
        os.close(fd)


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


def _host_lives(where: _Root, run_fd: int) -> bool:
    told = _read_json(RUN_JSON, run_fd) or {}
    lease = told.get("lease")
    # A run.json that a power failure cut short names no host, and no host of today wrote it.
    return isinstance(lease, str) and lease_held(lease, where.state_fd)


def _end_if_lost(where: _Root, exec_id: str, run_fd: int) -> bool:
    if not _is_run(run_fd) or _has_result(run_fd) or _host_lives(where, run_fd):
        return False
    if _has_result(run_fd):  # written, and its lease given back, between the two looks
        return False
    told = _read_json(RUN_JSON, run_fd) or {}
    if told.get("keep") is False:
        _remove_run(where, exec_id)
        return False
    with ExitStack() as fds:
        out_fd = _made_folder("out", run_fd, fds)
        logs_fd = _made_folder("logs", out_fd, fds)
        message = "the host process died before the run ended"
        append_line(INFRA_LOG, "runtime", "ERROR", f"host_lost: {message}", dir_fd=logs_fd)
        with suppress(FileNotFoundError):
            os.unlink(NEW_RESULT, dir_fd=run_fd)  # the host died while writing it
        write_file(NEW_RESULT, _lost(where, exec_id, told, message), dir_fd=run_fd)
        os.replace(NEW_RESULT, RESULT_JSON, src_dir_fd=run_fd, dst_dir_fd=out_fd)
    return True


def _lost(where: _Root, exec_id: str, told: dict[str, Any], message: str) -> bytes:
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


def _made_folder(name: str, dir_fd: int, fds: ExitStack) -> int:
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=dir_fd)
    fd = open_folder(name, dir_fd)
    fds.callback(os.close, fd)
    return fd


def _summary(where: _Root, exec_id: str) -> RunSummary:
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
    accepted, prog_name = told.get("accepted"), told.get("prog_name")
    return RunSummary(
        exec_id=exec_id,
        status=status,
        accepted=accepted if isinstance(accepted, str) else _rfc3339(changed),
        prog_name=prog_name if isinstance(prog_name, str) else "",
        bytes_used=size,
    )


def _status(where: _Root, run_fd: int) -> str:
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


def _rfc3339(seconds: float) -> str:
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


def _remove_run(where: _Root, exec_id: str) -> None:
    aside = f"{exec_id}-{uuid.uuid4()}{REMOVED}"
    os.rename(PREFIX + exec_id, aside, src_dir_fd=where.fd, dst_dir_fd=where.state_fd)
    remove_tree(aside, where.state_fd)


def _clear_state(where: _Root) -> None:
    """Remove what dead hosts left in the state folder: half-made and half-removed runs, then leases."""
    with os.scandir(where.state_fd) as entries:
        names = sorted((entry.name for entry in entries), key=lambda name: name.endswith(LEASE_SUFFIX))
    for name in names:
        try:
            if name.endswith(REMOVED):
                with _locked(where.state_fd, name) as fd:  # its remover, if it lives, has the lock
                    if fd is not None:
                        remove_tree(name, where.state_fd)
            elif name.endswith(BUILDING):
                lease = name.partition(LEASE_SUFFIX)[0] + LEASE_SUFFIX
                if not lease_held(lease, where.state_fd):
                    remove_tree(name, where.state_fd)
            elif name.endswith(LEASE_SUFFIX):
                lease_held(name, where.state_fd, remove_dead=True)
        except OSError as exc:
            log.warning("%s/%s/%s cannot be removed: %s", where.path, state_name(), name, exc)
