"""What one sandbox keeps on the host while it lives: who owns it, its secrets, its records.

A folder of mode 0700 in memory (tmpfs), so that a secret is never on a disk, named as the
sandbox is. It outlives an owner that was killed: `cleanup` finds it by what it says of
that owner. A sandbox never sees it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sandbox_runner.errors import SandboxError, SandboxStartFailed

_TMPFS, _RAMFS = 0x01021994, 0x858458F6
_OWNER = "owner.json"
_KINDS: dict[str, type | tuple[type, ...]] = {
    "pid": int,
    "started": int,
    "host": str,
    "created": (int, float),
    "ttl_s": (int, float),
}
_ABANDONED = "abandoned"
_DRAFT = re.compile(r"\..*-([0-9]+)-([0-9]+)-[0-9a-f]{8}")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that started a sandbox, told from any later one with its number."""

    pid: int
    started: int  # clock ticks after boot
    host: str  # which boot of which kernel, and which pid namespace: elsewhere the number means nothing

    @classmethod
    def of(cls, pid: int) -> Owner | None:
        """Process *pid* of this machine; None if no process has the number."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        state, *rest = text.rpartition(")")[2].split()
        return None if state == "Z" else cls(pid, int(rest[18]), this_host())

    @classmethod
    def of_this_process(cls) -> Owner:
        """We. Raises `SandboxError`."""
        owner = cls.of(os.getpid())
        if owner is None:
            raise SandboxError("/proc shows no process: mount it")
        return owner

    @property
    def is_here(self) -> bool:
        """Whether we can tell if it lives."""
        return self.host == this_host()

    @property
    def is_alive(self) -> bool:
        """Whether the process lives; True for a process elsewhere, of which we know nothing."""
        return not self.is_here or Owner.of(self.pid) == self


def this_host() -> str:
    """This boot of this kernel and this pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"


class StateFolder:
    """The folder of one sandbox. Every file in it is the owner's alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    @classmethod
    def create(cls, name: str, ttl_s: float) -> StateFolder:
        """A new folder, owned by this process. Raises `SandboxStartFailed` if one of that name is in use."""
        root = state_root()
        owner = Owner.of_this_process()
        # Complete before it has its name: `cleanup` may look at any moment. A draft's own name says whose it is, so
        # that there is no moment at which its maker can die and nobody knows.
        draft = root / f".{name}-{owner.pid}-{owner.started}-{secrets.token_hex(4)}"
        try:
            draft.mkdir(mode=0o700)
        except FileNotFoundError:  # the last sandbox there was has just taken the root along
            return cls.create(name, ttl_s)
        try:
            _write(draft / _OWNER, json.dumps({**asdict(owner), "created": time.time(), "ttl_s": ttl_s}).encode())
            draft.rename(root / name)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise SandboxError(f"{root / name} cannot be made: {error.strerror}") from None
            raise SandboxStartFailed(
                f"a sandbox named {name} is there already: close it, or run `sandbox-runner cleanup`"
            ) from None
        return cls(root / name)

    @classmethod
    def all(cls) -> Iterator[StateFolder]:
        """Every one of ours, also drafts of owners that died while they made one."""
        root = state_root()
        try:
            paths = sorted(root.iterdir())
        except FileNotFoundError:  # taken along by the last sandbox there was
            return
        yield from (cls(path) for path in paths if path.is_dir() and not path.is_symlink())

    @classmethod
    def find(cls, name: str) -> StateFolder | None:
        """The state folder of that name; None if no folder has the name."""
        return next((state for state in cls.all() if state.name == name), None)

    def adopt(self, pid: int) -> None:
        """Make process *pid* the owner. What was said of the time to live stays."""
        owner, found = Owner.of(pid), self._owner()
        if owner is None or found is None:
            raise SandboxError(f"{self.name} cannot be adopted by process {pid}")
        self.write(_OWNER, json.dumps({**found, **asdict(owner)}).encode())

    def abandon(self) -> None:
        """Note that its owner, which may go on to live, has given it up with something of it left: for `cleanup`."""
        with suppress(OSError):
            self.write(_ABANDONED, b"")

    @property
    def is_abandoned(self) -> bool:
        """Whether its owner has given it up."""
        return (self.path / _ABANDONED).exists()

    @property
    def owner(self) -> Owner | None:
        """Who made it; None if its records do not say."""
        if (found := self._owner()) is not None:
            return Owner(found["pid"], found["started"], found["host"])
        draft = _DRAFT.fullmatch(self.name)
        return None if draft is None else Owner(int(draft[1]), int(draft[2]), this_host())

    @property
    def is_expired(self) -> bool:
        """Whether its time to live is over."""
        found = self._owner()
        return found is not None and time.time() > found["created"] + found["ttl_s"]

    @property
    def owner_is_alive(self) -> bool:
        """Whether the process that made it lives; of a folder without an owner, whether it is young."""
        owner = self.owner
        if owner is not None:
            return owner.is_alive
        with suppress(OSError):
            return time.time() - self.path.stat().st_mtime < 60
        return False

    def write(self, name: str, data: bytes) -> Path:
        """Write a file whole, mode 0400; it replaces one of that name."""
        draft = self.path / f".{name}-{secrets.token_hex(4)}"
        _write(draft, data)
        draft.rename(self.path / name)
        return self.path / name

    def read(self, name: str) -> bytes | None:
        """The file's content; None without a file."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self) -> None:
        """Remove it with all that is in it. Raises `OSError`."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path)
        with suppress(OSError):  # others are there
            self.path.parent.rmdir()

    def _owner(self) -> dict[str, Any] | None:
        """What is said of its owner; None if that is not there, or not ours to understand."""
        data = self.read(_OWNER)
        with suppress(ValueError):
            found = json.loads(data or b"null")
            if isinstance(found, dict) and all(isinstance(found.get(name), kind) for name, kind in _KINDS.items()):
                return found
        return None


def state_root() -> Path:
    """The folder of all state folders of this user, made if need be. Raises `SandboxError` without a tmpfs."""
    for place in _places():
        if not os.access(place, os.W_OK) or not _is_safe(place):
            continue
        root = place / f"sandbox-runner-{os.geteuid()}"
        found = None
        while found is None:
            with suppress(FileExistsError):
                root.mkdir(mode=0o700)
            with suppress(FileNotFoundError):  # the last sandbox there was has just taken it along
                found = root.lstat()
        # /dev/shm is everybody's: a folder that somebody else made there would be theirs to read.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise SandboxError(
                f"{root} must be a folder that is yours alone (mode 0700): remove it or, if it is another user's, have "
                "root remove it, or set XDG_RUNTIME_DIR to a folder of yours that is in memory (tmpfs)"
            )
        return root
    raise SandboxError("no folder in memory (tmpfs) to keep secrets in: mount one at /dev/shm or set XDG_RUNTIME_DIR")


def state_roots() -> list[Path]:
    """Every folder that is, or could come to be, the root of this user's or another one's state. Makes none."""
    mine = [place / f"sandbox-runner-{os.geteuid()}" for place in _places()]
    return [*mine, *Path("/dev/shm").glob("sandbox-runner-*"), *Path("/run/user").glob("*/sandbox-runner-*")]


def _places() -> list[Path]:
    """Where the root may be: folders in memory, the first one best. By their real names: a link may be repointed."""
    named = (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{os.geteuid()}", "/dev/shm")
    places = [Path(os.path.realpath(place)) for place in named if place]
    return [place for place in places if place.is_dir() and _is_in_memory(str(place))]


def _is_safe(place: Path) -> bool:
    """Whether no other user can move what we put there: `sudo` may keep the caller's XDG_RUNTIME_DIR."""
    found = place.stat()
    is_shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    return found.st_uid in (0, os.geteuid()) and not is_shared


def _is_in_memory(place: str) -> bool:
    buffer = (ctypes.c_long * 32)()  # larger than struct statfs; f_type is its first word
    if _libc.statfs(os.fsencode(place), ctypes.byref(buffer)) != 0:
        return False
    return buffer[0] in (_TMPFS, _RAMFS)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
