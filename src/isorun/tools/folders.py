"""Folders of a caller, opened once and then used by descriptor: no link in them is followed.

It copies and removes; it must not decide what is kept.
"""

import json
import os
import stat
from contextlib import ExitStack, suppress
from pathlib import Path

from isorun.core.errors import InvalidRequest
from isorun.core.result import RunResult
from isorun.runtime.request import CODE_NAME, MAIN_NAME
from isorun.store.collect import Refusal, collect
from isorun.store.cursor import by_fd
from isorun.store.folder import RECORD, write_file
from isorun.store.journal import INDEX
from sandbox_runner.linux.trees import remove_tree

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OURS = (MAIN_NAME, CODE_NAME)
_INDEX_BYTES = 16 << 20
#: More than any folder holds. What a run leaves was bounded when it was collected; the rest is the caller's own.
ALL_BYTES, ALL_ENTRIES = 1 << 62, 1 << 31


def opened(name: str | Path, stack: ExitStack, dir_fd: int | None = None) -> int:
    """A descriptor of the folder *name*, closed by *stack*; a link is refused. Raises OSError."""
    fd = os.open(name, FOLDER, dir_fd=dir_fd)
    stack.callback(os.close, fd)
    return fd


def remove(name: str, dir_fd: int) -> None:
    """Remove what *name* is, if anything: a folder with all below it, a file, a link itself. Raises OSError."""
    try:
        mode = os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        remove_tree(name, dir_fd)
    else:
        os.unlink(name, dir_fd=dir_fd)


def copy_all(source: int, target: int) -> tuple[Refusal, ...]:
    """Copy every plain file beneath *source* to *target*, which must hold none of them; what was left out, by name.

    Raises OSError.
    """
    copied = collect(source, by_fd(target), reserved=lambda _: False, max_bytes=ALL_BYTES, max_entries=ALL_ENTRIES)
    return copied.refused


def inputs_of(workdir: Path) -> list[Path]:
    """What a program is to find beside itself: all of *workdir*, less the files of an earlier run.

    Raises `InvalidRequest` (link_in_input) for a link: a program may have planted it.
    """
    with os.scandir(workdir) as entries:
        found = sorted((entry for entry in entries if entry.name not in _OURS), key=lambda entry: entry.name)
        for entry in found:
            if entry.is_symlink():
                raise InvalidRequest(
                    f"{entry.path} is a symbolic link; only files can be sent in", code="link_in_input"
                )
    return [Path(entry.path) for entry in found]


def ready(folder: Path) -> Path:
    """*folder*, made if it is missing. Raises `InvalidRequest` (invalid_folder) for a link or a file."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as stack:
            opened(folder, stack)
    except OSError as exc:
        raise InvalidRequest(
            f"{folder} must be a folder, not a link or a file: {exc.strerror}", code="invalid_folder"
        ) from exc
    return folder


def drop_records(outdir: Path) -> None:
    """Remove what tells of the tool calls of the run before: the program must not find it among its files.

    A name counts if the index lists it and it looks like one. Raises OSError.
    """
    with ExitStack() as stack:
        out = opened(outdir, stack)
        try:
            with open(os.open(INDEX, _FILE, dir_fd=out), "rb") as index:  # noqa: PTH123 - by descriptor
                calls = json.loads(index.read(_INDEX_BYTES))["calls"]
            names = [call["record"] for call in calls]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return  # there is none, or it is a program's own
        for name in names:
            if isinstance(name, str) and "/" not in name and RECORD.fullmatch(name):
                remove(name, out)


def bring_back(result: RunResult, workdir: Path, outdir: Path) -> None:
    """Put the run's program into *workdir*, and replace what *outdir* holds by the run's out/. Raises OSError."""
    with ExitStack() as stack:
        run = opened(result.out_dir.parent, stack)
        out, work = opened("out", stack, run), opened("work", stack, run)
        to_out, to_work = opened(outdir, stack), opened(workdir, stack)
        for name in os.listdir(to_out):  # noqa: PTH208 - by descriptor
            remove(name, to_out)
        copy_all(out, to_out)
        for name in _OURS:
            with suppress(FileNotFoundError), open(os.open(name, _FILE, dir_fd=work), "rb") as f:  # noqa: PTH123 - by descriptor
                remove(name, to_work)
                write_file(name, f.read(), dir_fd=to_work)
