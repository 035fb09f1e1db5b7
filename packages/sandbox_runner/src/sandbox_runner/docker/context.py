"""The folder an image is built from: what of it is sent, in which bytes, under which hash.

We make the archive ourselves and give it to the builder on its standard input. So the
hash covers what is sent and nothing else, whichever builder it is, and
`.dockerignore` is applied here. Links are sent as links and never followed.

Of every entry count its path, kind, permission bits and content or target. Owner, times
and extended attributes neither count nor are sent: all is root's, of 1970.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from sandbox_runner.docker.dockerignore import Hits, IgnoreRules
from sandbox_runner.errors import InvalidSpec
from sandbox_runner.spec import SandboxSpec, in_context

IGNORE_FILE = ".dockerignore"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # not blocking: it may be a FIFO by now
_CHUNK = 1 << 20


class Framed:
    """SHA-256 over fields, each behind its length, so that no two sequences of fields are the same bytes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, *fields: bytes) -> None:
        """Add each of *fields*."""
        for field in fields:
            self.begin(len(field))
            self.more(field)

    def begin(self, size: int) -> None:
        """Begin a field of *size* bytes, that `more` brings."""
        self._hash.update(size.to_bytes(8, "big"))

    def more(self, part: bytes) -> None:
        """The next bytes of the field that was begun."""
        self._hash.update(part)

    def hexdigest(self) -> str:
        """Of all so far."""
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class Context:
    """A folder to build from: `dockerfile` is relative to `root`, and is not a link."""

    root: Path
    dockerfile: str
    rules: IgnoreRules

    @classmethod
    def of(cls, spec: SandboxSpec) -> Context:
        """The folder that *spec* names, else the built-in one. Raises `InvalidSpec`.

        `<dockerfile>.dockerignore` is taken before `.dockerignore`, whichever builder there is. As with
        `docker build`, neither of them nor the Dockerfile can be left out of what is sent.
        """
        root = Path(spec.image_context_path or builtin_context()).resolve()
        named = in_context(spec)
        found = (root / named).resolve()
        if not found.is_relative_to(root) or not found.is_file():
            raise InvalidSpec("dockerfile", f"{named} must be a file in {root}")
        dockerfile = found.relative_to(root).as_posix()
        always = [dockerfile]
        text = ""
        for name in (f"{named}{IGNORE_FILE}", IGNORE_FILE):
            if os.path.lexists(root / name):
                always.append(name)
                text = _read_rules(root, name)
                break
        try:
            return cls(root, dockerfile, IgnoreRules.parse(text, always))
        except ValueError as error:
            raise InvalidSpec("image_context_path", f"{root / always[-1]}: {error}") from None

    def read(self, digest: Framed, archive: IO[bytes] | None = None) -> None:
        """Add every entry that is sent to *digest*, and write them to *archive* as a tar.

        Raises `InvalidSpec` for a file that cannot be read, and for a socket, device or FIFO.
        """
        if archive is None:
            _Reading(self, digest, None).all()
            return
        # GNU: it takes any length of name and any bytes in it, and every engine reads it.
        with tarfile.open(
            fileobj=archive, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
        ) as tar:
            _Reading(self, digest, tar).all()


class _Reading:
    """One pass over a context. Each folder is opened once and its entries by that, so that a link is never followed."""

    def __init__(self, context: Context, digest: Framed, tar: tarfile.TarFile | None) -> None:
        self._root, self._rules, self._digest, self._tar = context.root, context.rules, digest, tar
        # Folders that are left out themselves; sent once something in them is kept.
        self._held: list[tarfile.TarInfo] = []
        self._path = ""  # what is read now

    def all(self) -> None:
        try:
            self._walk(os.open(self._root, _FOLDER))
        except OSError as error:
            raise self._refused(self._path, error.strerror or str(error)) from None
        self._digest.add(b"end")

    def _walk(self, descriptor: int) -> None:
        """All that is in a folder. One is open at a time, and a list says where we are: it may be of any depth."""
        try:
            within = [_Folder.of(descriptor, "", ())]
            while within:
                folder = within[-1]
                name = next(folder.names, None)
                if name is not None:
                    self._path = path = f"{folder.path}/{name}" if folder.path else name
                    hits = self._rules.hits(path, folder.hits)
                    if self._entry(descriptor, name, path, hits):
                        descriptor = _moved(descriptor, name)
                        within.append(_Folder.of(descriptor, path, hits))
                    continue
                within.pop()
                if self._held and self._held[-1].name == folder.path:
                    self._held.pop()
                if within:
                    self._path = within[-1].path
                    descriptor = _moved(descriptor, "..")
                    if _identity(descriptor) != within[-1].identity:
                        raise self._refused(folder.path, "was moved while it was read")
        finally:
            os.close(descriptor)

    def _entry(self, descriptor: int, name: str, path: str, hits: Hits) -> bool:
        """Send it, unless it is left out. Whether it is a folder to go into."""
        found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        out = self._rules.leave_out(hits)
        if stat.S_ISDIR(found.st_mode):
            if out and not self._rules.may_keep_below(path, hits):
                return False
            info = _info(path, tarfile.DIRTYPE, found)
            if out:
                self._held.append(info)
            else:
                self._send(info, b"folder")
            return True
        if out:
            return False
        if stat.S_ISLNK(found.st_mode):
            info = _info(path, tarfile.SYMTYPE, found)
            info.linkname = os.readlink(name, dir_fd=descriptor)
            self._send(info, b"link", os.fsencode(info.linkname))
        elif stat.S_ISREG(found.st_mode):
            self._file(os.open(name, _FILE, dir_fd=descriptor), path)
        else:
            raise self._refused(path, "a socket, a device or a FIFO cannot be sent: leave it out in .dockerignore")
        return False

    def _file(self, descriptor: int, path: str) -> None:
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise self._refused(path, "changed while it was read")
            info = _info(path, tarfile.REGTYPE, found)
            info.size = found.st_size
            self._send_held()
            self._digest.add(b"file", os.fsencode(path), _mode(info))
            self._digest.begin(info.size)
            content = _Content(file, self._digest)
            if self._tar:
                self._tar.addfile(info, cast("IO[bytes]", content))
            else:
                content.read_all(info.size)

    def _send(self, info: tarfile.TarInfo, kind: bytes, *fields: bytes) -> None:
        self._send_held()
        self._digest.add(kind, os.fsencode(info.name), _mode(info), *fields)
        if self._tar:
            self._tar.addfile(info)

    def _send_held(self) -> None:
        held, self._held = self._held, []
        for info in held:
            self._send(info, b"folder")

    def _refused(self, path: str, why: str) -> InvalidSpec:
        return InvalidSpec("image_context_path", f"{self._root / path}: {why}")


@dataclass(frozen=True, slots=True)
class _Folder:
    """One that we are in."""

    path: str
    hits: Hits
    names: Iterator[str]
    identity: tuple[int, int]

    @classmethod
    def of(cls, descriptor: int, path: str, hits: Hits) -> _Folder:
        return cls(path, hits, iter(sorted(os.listdir(descriptor))), _identity(descriptor))


class _Content:
    """A file's content, as `tarfile` reads it, that goes to the hash on its way."""

    def __init__(self, file: io.BufferedReader, digest: Framed) -> None:
        self._file, self._digest = file, digest

    def read(self, size: int) -> bytes:
        part = self._file.read(size)
        self._digest.more(part)
        return part

    def read_all(self, size: int) -> None:
        while size:
            part = self.read(min(size, _CHUNK))
            if not part:
                raise OSError("became shorter while it was read")
            size -= len(part)


def builtin_context() -> Path:
    """The folder `sandbox_cli`. Copy it, change its manifests or `overlay/`, and name the copy `image_context_path`."""
    return Path(__file__).parents[1] / "builtins" / "sandbox_cli"


def _info(path: str, kind: bytes, found: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)  # owner root, time 0
    info.type = kind
    info.mode = stat.S_IMODE(found.st_mode)
    return info


def _mode(info: tarfile.TarInfo) -> bytes:
    return b"%o" % info.mode


def _moved(descriptor: int, name: str) -> int:
    """The folder *name* of an open folder, open in its place."""
    found = os.open(name, _FOLDER, dir_fd=descriptor)
    os.close(descriptor)
    return found


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.stat(descriptor)
    return found.st_dev, found.st_ino


def _read_rules(root: Path, name: str) -> str:
    """The text of an ignore file. A link could make it any file of this machine, and an error's text tell of that."""
    path = root / name
    if path.is_symlink() or not path.resolve().is_relative_to(root):
        raise InvalidSpec("image_context_path", f"{path} is a link, or is reached by a link: put a file there")
    try:
        with os.fdopen(os.open(path, _FILE), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidSpec("image_context_path", f"{path} is not a file")
            return file.read().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise InvalidSpec("image_context_path", f"{path}: {error.strerror}") from None
