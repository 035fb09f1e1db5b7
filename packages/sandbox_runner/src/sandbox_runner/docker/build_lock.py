"""One build at a time of one image, over all processes of this user."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox_runner.errors import SandboxTimeout
from sandbox_runner.state import state_root

_LOOK_S = 0.1  # how often: flock has no deadline of its own


@contextmanager
def build_lock(key: str, timeout_s: float, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of *key*, a file's name, waiting for it up to *timeout_s*; *on_wait* is called once if it waits.

    A holder that is killed gives it back at once, and leaves an empty file that `sweep` removes.
    Raises `SandboxTimeout`.
    """
    path = state_root() / f".build-{key}.lock"  # beside the folders of sandboxes, whose names have no dot in front
    until = time.monotonic() + timeout_s
    descriptor = _take(path)
    if descriptor is None:
        on_wait()
    while descriptor is None:
        if time.monotonic() > until:
            raise SandboxTimeout(f"another process is building this image, and was not done in {timeout_s:g} s")
        time.sleep(_LOOK_S)
        descriptor = _take(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def sweep(*, dry_run: bool = False) -> list[Path]:
    """Remove the lock files of builds that were killed; those that are held stay."""
    found = []
    for path in sorted(state_root().glob(".build-*.lock")):
        descriptor = _take(path) if _is_file(path) else None
        if descriptor is None:
            continue
        found.append(path)
        if not dry_run:
            path.unlink(missing_ok=True)
        os.close(descriptor)
    return found


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _take(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its holder removes the file when done: a lock on a file that is gone keeps nobody out.
        if os.path.samestat(os.fstat(descriptor), path.lstat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
