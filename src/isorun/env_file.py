"""Files of settings, and which of them this user has trusted.

A file that was named is the caller's word. `./.env.backend` is read because it lies in the current folder,
and that folder may be a stranger's: until its user says `isorun config trust`, it may only say what is harmless.
What was trusted is one text in one place. The record is a file whose name is the digest of both, so a file that
changes, moves or is replaced must be trusted again, and nothing has to be looked up or rewritten.

It reads and keeps records; what is harmless is decided in `settings`.
"""

import io
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from isorun.core.errors import InvalidRequest

MAX_CHARS = 1 << 20  # such a file has some thousands; a device given by mistake never ends
_MAX_BYTES = 4 * MAX_CHARS


@dataclass(frozen=True, slots=True)
class EnvFile:
    """What one file says. `digest` is of its text and its place."""

    path: Path  # absolute, links resolved
    values: Mapping[str, str] = field(repr=False)  # may hold secrets
    digest: str


def read_named(path: Path) -> EnvFile:
    """The file at *path*, which the caller named. Raises `InvalidRequest` if it cannot be read."""
    try:
        return _read(path, os.open(path, os.O_RDONLY | _CLOEXEC))
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from None


def read_found(path: Path) -> EnvFile | None:
    """The regular file at *path*, which you did not name; None without a file. Raises `InvalidRequest`."""
    try:
        # Without O_NONBLOCK a FIFO with that name would hold up whoever runs anything in its folder.
        descriptor = os.open(path, os.O_RDONLY | _CLOEXEC | _NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refused(path, "is not a regular file; remove it, or name a file with --env-file")
    return _read(path, descriptor)


def trust(path: Path, environ: Mapping[str, str]) -> EnvFile:
    """Let the file at *path*, as it is now, say everything. Raises `InvalidRequest`."""
    file = read_found(path)
    if file is None:
        raise _refused(path, "is not there; name the file to trust")
    records = _records(environ)
    if records is None:
        raise InvalidRequest(
            "set XDG_DATA_HOME or HOME: neither names a folder for the record of trusted files", code="env_file"
        )
    try:
        records.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _ours(records.stat()):
            raise InvalidRequest(
                f"{records}: others may write there; run `chown {_uid()} {records}` and `chmod 700 {records}`",
                code="env_file",
            )
        (records / file.digest).write_bytes(os.fsencode(file.path) + b"\n")
    except OSError as error:
        raise InvalidRequest(f"{records}: cannot be written: {error.strerror}", code="env_file") from None
    return file


def forget(path: Path, environ: Mapping[str, str]) -> int:
    """Take back what `trust` said of *path*, for every content. Returns how many records went."""
    records, wanted, gone = _records(environ), os.fsencode(path.resolve()) + b"\n", 0
    if records is None or not records.is_dir():
        return 0
    for record in records.iterdir():
        with suppress(OSError):
            if record.read_bytes() == wanted:
                record.unlink()
                gone += 1
    return gone


def is_trusted(file: EnvFile, environ: Mapping[str, str]) -> bool:
    """Whether this user has trusted *file* as it is. A record that another user could have made does not count."""
    records = _records(environ)
    if records is None:
        return False
    try:
        return _ours(records.stat()) and _ours((records / file.digest).lstat())
    except OSError:
        return False


# Windows has neither; its descriptors are not inherited.
_CLOEXEC, _NONBLOCK = getattr(os, "O_CLOEXEC", 0), getattr(os, "O_NONBLOCK", 0)


def _records(environ: Mapping[str, str]) -> Path | None:
    """The folder of what was trusted. *environ* is the process's own: a file must not say where."""
    data = environ.get("XDG_DATA_HOME") or (f"{environ['HOME']}/.local/share" if environ.get("HOME") else "")
    return Path(data) / "isorun" / "trusted" if Path(data).is_absolute() else None


def _ours(status: os.stat_result) -> bool:
    return status.st_uid == _uid() and not status.st_mode & 0o022


def _uid() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


def _read(path: Path, descriptor: int) -> EnvFile:
    with open(descriptor, "rb") as stream:
        owner = os.fstat(descriptor).st_uid
        if owner not in (_uid(), 0):
            raise _refused(
                path, f"belongs to uid {owner}, neither to you nor to root; run `chown {_uid()}` on it, or copy it"
            )
        try:
            content = stream.read(_MAX_BYTES + 1)
        except OSError as error:
            raise _refused(path, f"cannot be read: {error.strerror}") from None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise _refused(path, "is not UTF-8 text") from None
    if len(text) > MAX_CHARS:
        raise _refused(path, f"longer than {MAX_CHARS} characters")
    place = path.resolve()
    import hashlib  # 2 ms of every cold start, and most have no such file

    digest = hashlib.sha256(os.fsencode(place) + b"\0" + content).hexdigest()
    return EnvFile(place, _parsed(path, text), digest)


def _parsed(path: Path, text: str) -> dict[str, str]:
    """The values of a dotenv file, as written: nothing in them is expanded."""
    # Here, and not above: 20 ms that a start without such a file does not pay.
    from dotenv.parser import parse_stream

    bindings = list(parse_stream(io.StringIO(text)))
    for binding in bindings:
        if binding.error:  # its number and not its text, which may be a secret
            raise InvalidRequest(
                f"{path}, line {binding.original.line}: not NAME=value, or a quote that never ends", code="env_file"
            )
    return {b.key: b.value for b in bindings if b.key is not None and b.value is not None}


def _refused(path: Path, why: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: {why}", code="env_file")
