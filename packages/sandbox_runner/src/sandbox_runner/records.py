"""The files that say what a sandbox was, in its artifacts directory.

A sandbox can write in that directory, so a record is made elsewhere (`state`) and put
there as a new file under a name of its own: a link or a file that was planted under
that name is replaced and never followed. What stands there while a sandbox lives is for
reading; the last word is said when it is dead.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from sandbox_runner.errors import SandboxGone
from sandbox_runner.state import StateFolder

SCHEMA = 1
SANDBOX = "sandbox.json"
BUILD_LOG = "docker_build.log"
PROGRESS = "docker_progress.txt"
CONTAINER_LOGS = "container_logs.txt"
CONTAINER_INSPECT = "container_inspect.json"
_NAMES = (SANDBOX, BUILD_LOG, PROGRESS, CONTAINER_LOGS, CONTAINER_INSPECT)
_DRAFTS = "drafts.json"  # in the state folder: where we write for a moment, and by which part of a name that is known
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Records:
    """The records of one sandbox: made in *state*, published to *directory*, which is opened now and only once.

    Raises `SandboxGone` if *state* knows another folder by that path: a kept sandbox may have put a link, or a folder,
    in the place of its own.
    """

    def __init__(self, state: StateFolder, directory: Path) -> None:
        self._state = state
        self._directory = os.open(directory, _FOLDER)
        self.token = secrets.token_hex(8)
        noted = [entry[2:] for entry in _noted(state) if entry[1] == str(directory)]
        if not all(identity in ([], _identity(self._directory)) for identity in noted):
            self.close()
            raise SandboxGone(
                f"{state.name} has other folders than it was started with: "
                f"`sandbox-runner cleanup {state.name}` ends it"
            )
        self.will_write_in([directory])

    def will_write_in(self, folders: Iterable[Path]) -> None:
        """Note that we write in *folders*, for a moment, files of hidden names with `token` in them.

        Who is killed in that moment leaves one; `remove_drafts` finds it.
        """
        noted = _noted(self._state)
        noted += [[self.token, str(folder), *_identity(folder)] for folder in folders]
        self._state.write(_DRAFTS, json.dumps(noted).encode())

    def are_in(self, source: tuple[str, int, int]) -> bool:
        """Whether the directory that was opened is *source*: a path, its device and its inode."""
        return _identity(self._directory) == list(source[1:])

    def write(self, name: str, data: bytes) -> None:
        """Keep the record *name*, and publish it."""
        self._state.write(name, data)
        publish(self._directory, name, data, self.token)

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """As `write`, with the schema's version in front."""
        self.write(name, as_json({"schema": SCHEMA, **value}))

    @contextmanager
    def growing(self, name: str) -> Iterator[BinaryIO]:
        """A file to write the record *name* to, for everybody to read meanwhile; kept once it is whole."""
        descriptor = _place(self._directory, name, b"", self.token)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            try:
                yield file
            finally:
                file.seek(0)
                self._state.write(name, file.read())

    def publish_all(self, *, is_closed: bool = True) -> None:
        """Publish every record again, over each change that the sandbox has made, and say whether it is closed."""
        if is_closed and (data := self._state.read(SANDBOX)) is not None:
            self._state.write(SANDBOX, as_json({**json.loads(data), "status": "closed"}))
        for name in _NAMES:
            if (data := self._state.read(name)) is not None:
                publish(self._directory, name, data, self.token)

    def close(self) -> None:
        """Let go of the directory."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1


def _noted(state: StateFolder) -> list[list[Any]]:
    """What `will_write_in` noted: token, folder and, if that was there, its device and inode."""
    noted: list[list[Any]] = json.loads(state.read(_DRAFTS) or b"[]")
    return noted


def _identity(folder: Path | int) -> list[int]:
    """Device and inode of a folder, or of what is open; nothing of what is not there. No link is followed."""
    try:
        found = os.fstat(folder) if isinstance(folder, int) else folder.lstat()
    except FileNotFoundError:
        return []
    return [found.st_dev, found.st_ino]


def as_json(value: dict[str, Any]) -> bytes:
    """*value* as a record's bytes; what is not UTF-8 text (a part of `argv` may be so) is escaped."""
    return json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def remove_drafts(state: StateFolder) -> None:
    """Remove what was left, by who was killed, in the folders that the sandbox of *state* was to write in."""
    for token, folder, *identity in _noted(state):
        with suppress(OSError):
            directory = os.open(folder, _FOLDER)
            try:
                if identity not in ([], _identity(directory)):
                    continue  # a command has put another folder in its place
                for name in os.listdir(directory):  # noqa: PTH208 - of the folder that was opened, and not of a path
                    if name.startswith(".") and token in name:
                        os.unlink(name, dir_fd=directory)
            finally:
                os.close(directory)


def publish(directory: int, name: str, data: bytes | IO[bytes], token: str = "") -> None:
    """Write a new file *name* in the open *directory*, following no link; what had the name is replaced.

    *data* may be an open file, which is copied from where it stands.

    A folder of that name is moved aside, to a name that ends in `.planted`. *token* is in the draft's name.
    """
    os.close(_place(directory, name, data, token))


def _place(directory: int, name: str, data: bytes | IO[bytes], token: str) -> int:
    """As `publish`; the new file, open. To open it by its name again could open what was planted there since."""
    draft = f".{name}-{token}{secrets.token_hex(8)}"
    descriptor = os.open(
        draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=directory
    )
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            if isinstance(data, bytes):
                file.write(data)
            else:
                shutil.copyfileobj(data, file)
        try:
            os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            aside = f"{name}-{secrets.token_hex(4)}.planted"
            os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
            os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.close(descriptor)
        with suppress(OSError):
            os.unlink(draft, dir_fd=directory)
        raise
    return descriptor
