"""Which path the engine's host has for a path of ours, when we run in a container ourselves.

`docker run --mount source=PATH` means PATH as the engine's host has it. A process in a container that talks to the
host's daemon (its socket is mounted) starts siblings, not children, and sees the folders to mount under other paths.
The engine takes a wrong path: it mounts another folder, or makes an empty one. Hence `prove`, which shows
with a canary file that the folder is the right one.

Nothing here mounts or starts anything; the engine is asked about our own container only.

The path is resolved in our view, and the daemon resolves the result in its own later on: a process that may write to
a mapped folder can put a link there in between. The canary is checked after the start, so it finds that too.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox_runner.docker.command import DockerCli
from sandbox_runner.errors import InvalidSpec, SandboxStartFailed
from sandbox_runner.linux.mountinfo import mounted
from sandbox_runner.spec import MountSpec

PREFIX = "HOST_"
_MARKS = ("/.dockerenv", "/run/.containerenv")  # Docker's and podman's
_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_HOSTNAME = re.compile(r"[0-9a-f]{12}")  # what an engine calls a container that has no --hostname
_ENGINE_FILES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")  # mounted from a folder named by the container


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What this process can see of its own container. A value, so that every kind of container can be tested."""

    marked: bool  # one of the files that engines put into a container is there
    hostname: str
    cgroup: str  # /proc/self/cgroup
    mountinfo: str  # /proc/self/mountinfo

    @classmethod
    def look(cls) -> Surroundings:
        """Read them."""
        return cls(any(map(os.path.exists, _MARKS)), os.uname().nodename, _text("cgroup"), _text("mountinfo"))

    def container_ids(self) -> list[str]:
        """What could be our container's id, the surest first."""
        files = (mount.root for mount in mounted(self.mountinfo) if mount.point in _ENGINE_FILES)
        # In nested containers a line of cgroup names all of them, and the last is ours.
        found = [ids[-1] for text in (*self.cgroup.splitlines(), *files) if (ids := _ID.findall(text))]
        if _HOSTNAME.fullmatch(self.hostname):
            found.append(self.hostname)
        return list(dict.fromkeys(found))

    def may_be(self, container: Mapping[str, Any]) -> bool:
        """Whether the *container* can be ours.

        A container that shares another's network (`--network container:…`) has the other's hostname and files in /etc.
        """
        theirs = ((container.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
        ours = {
            option.removeprefix("upperdir=")
            for mount in mounted(self.mountinfo)
            if mount.point == "/"
            for option in mount.options
            if option.startswith("upperdir=")
        }
        if theirs and ours:
            return theirs in ours
        points = {os.path.realpath(mount.point) for mount in mounted(self.mountinfo)}
        return all(os.path.realpath(mount["Destination"]) in points for mount in container.get("Mounts") or ())


@dataclass(frozen=True, slots=True)
class HostPaths:
    """Our paths and the engine's host's. `discover` makes it; without folders a path is the same for both."""

    folders: tuple[tuple[str, str], ...] = ()  # ours, resolved -> the host's
    hidden: tuple[str, ...] = ()  # ours, in memory: no path of the host leads there
    source: str = "the engine sees our paths"
    strict: bool = False  # a path below none of the folders is an error

    @classmethod
    def discover(
        cls,
        explicit: Mapping[str, str] | None,
        cli: DockerCli,
        environ: Mapping[str, str],
        *,
        surroundings: Surroundings | None = None,
    ) -> HostPaths:
        """From the first of these that says anything; they are never mixed.

        1. *explicit*: our path -> the host's, both absolute (else `InvalidSpec`);
        2. *environ*: each NAME and HOST_NAME that are both an absolute path (one with a colon is a list of paths);
        3. the mounts of our own container, if the daemon knows it;
        4. nothing: the engine sees our paths. Also in a container of which the daemon does not know: then it may run
           in here with us, and `prove` tells.

        *surroundings* are for tests. Raises what *cli* raises.
        """
        around = surroundings or Surroundings.look()
        if explicit:
            for ours, theirs in explicit.items():
                if not ours.startswith("/") or not theirs.startswith("/"):
                    raise InvalidSpec("host_paths", f"{ours!r}: {theirs!r} must both be absolute paths")
            return cls(_folders(explicit.items()), source="the given host_paths", strict=True)
        container = own_container(around, cli)
        if named := sorted(_pairs(environ)):
            names = ", ".join(f"{PREFIX}{name}" for name, _, _ in named)
            folders = _folders((ours, theirs) for _, ours, theirs in named)
            return cls(folders, source=names, strict=around.marked or container is not None)
        if container is None:
            return cls()
        mounts = container.get("Mounts") or []
        shared = [
            (m["Destination"], m["Source"]) for m in mounts if m["Type"] in ("bind", "volume") and m.get("Source")
        ]
        in_memory = (container.get("HostConfig") or {}).get("Tmpfs") or {}
        hidden = [*in_memory, *(m["Destination"] for m in mounts if m["Type"] == "tmpfs")]
        source = f"the mounts of our own container {container['Id'][:12]}"
        return cls(_folders(shared), tuple(map(os.path.realpath, hidden)), source, strict=True)

    def translate(self, path: str | os.PathLike[str]) -> str:
        """The daemon's host's path of *path*, links and `..` resolved in our view.

        The longest folder that holds it counts, by whole names: /bundles2 is not below /bundles. Raises
        `SandboxStartFailed`, which says what to mount, if no folder of the host holds it.
        """
        asked = os.fspath(path)
        resolved = os.path.realpath(asked)
        ours, theirs = max(
            ((ours, theirs) for ours, theirs in self.folders if _holds(ours, resolved)),
            key=lambda pair: len(pair[0]),
            default=("", ""),
        )
        cover = next((tmpfs for tmpfs in self.hidden if _holds(tmpfs, resolved) and len(tmpfs) >= len(ours)), None)
        if ours and cover is None:
            rest = os.path.relpath(resolved, ours)
            return theirs if rest == "." else f"{theirs.rstrip('/')}/{rest}"
        if not self.strict:
            return resolved
        name = asked if asked == resolved else f"{asked} ({resolved})"
        why = f"{cover} is in this container's memory" if cover else "no mount of this container holds it"
        raise SandboxStartFailed(
            f"{name}: the engine's host has no path for it, because {why}. "
            f"The mounts are {self._listed()} (from {self.source}). {_remedy(Path(resolved))}"
        )

    def describe(self) -> str:
        """One line for a log."""
        return f"host paths, from {self.source}: {self._listed()}" if self.folders or self.strict else self.source

    def _listed(self) -> str:
        return ", ".join(f"{ours} -> {theirs}" for ours, theirs in self.folders) or "none"


def prove(
    mounts: Sequence[MountSpec],
    paths: HostPaths,
    read_inside: Callable[[str], bytes | None],
    token: str = "",
    *,
    known: Mapping[str, tuple[int, int]] | None = None,
) -> list[str]:
    """Show that the sandbox has at each of *mounts* the very folder that we have.

    Writes a file of a random name and content, one line, into each folder and asks *read_inside* for it by its path
    in the sandbox (None: not there; the line break may be left out). Raises `SandboxStartFailed` with all three paths
    of the first mount that is another one. Returns our paths of the mounts that this cannot prove: files, and folders
    in which we may not write. What was written is removed in any case, and no link is followed; who is killed before
    leaves a file with *token* in its name. *known* has the device and inode of each path: what the image's own shell
    has put in the place of one since the container began is refused, and not written to.
    """
    unproved = []
    with ExitStack() as canaries:
        for mount in mounts:
            ours = os.fspath(mount.host_path)
            identity = (known or {}).get(ours)
            try:
                name, line = _canary(ours if identity else os.path.realpath(ours), token, canaries, identity)
            except OSError:
                unproved.append(os.fspath(mount.host_path))
                continue
            seen = read_inside(f"{mount.container_path}/{name}")
            if seen is None or seen.rstrip(b"\n") != line:
                raise SandboxStartFailed(_wrong_mount(mount, paths, is_there=seen is not None))
    return unproved


def _canary(ours: str, token: str, canaries: ExitStack, identity: tuple[int, int] | None = None) -> tuple[str, bytes]:
    """The name and the line of a new file in the folder *ours*, which has that *identity*. Raises `OSError`."""
    folder = os.open(ours, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    canaries.callback(os.close, folder)
    found = os.fstat(folder)
    if identity not in (None, (found.st_dev, found.st_ino)):
        raise SandboxStartFailed(f"{ours} was replaced while the sandbox started")
    name, line = f".sandbox-runner-canary-{token}{secrets.token_hex(8)}", secrets.token_hex(32).encode()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o444, dir_fd=folder)
    canaries.callback(_remove, name, folder)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o444)  # whatever our umask: the sandbox may be another user
        file.write(line + b"\n")
    return name, line


def _remove(name: str, folder: int) -> None:
    with suppress(FileNotFoundError):  # the sandbox may have removed it
        os.unlink(name, dir_fd=folder)


def _wrong_mount(mount: MountSpec, paths: HostPaths, *, is_there: bool) -> str:
    ours, what = os.fspath(mount.host_path), "not the file that" if is_there else "no file where"
    return (
        f"{mount.container_path} in the sandbox is not {ours}: it has {what} we have one. The engine's host "
        f"mounted its {paths.translate(ours)} ({paths.describe()}), or the sandbox's user may not read there. "
        f"{_remedy(Path(os.path.realpath(ours)))}"
    )


def _remedy(path: Path) -> str:
    folder = path if path.is_dir() or not path.exists() else path.parent
    return (
        f"If this process runs in a container, start that with `-v /host/folder:{folder}`, where /host/folder is the "
        f"folder of the engine's host; if it has one there already, say which: "
        f"`-e SANDBOX_FOLDER={folder} -e {PREFIX}SANDBOX_FOLDER=/host/folder`"
    )


def own_container(around: Surroundings, cli: DockerCli) -> dict[str, Any] | None:
    """The container that this process runs in, as the daemon knows it; None if the daemon knows of none."""
    for name in around.container_ids():
        found = cli.inspect("container", name)
        if found is not None and found["Id"].startswith(name) and around.may_be(found):
            return found
    return None


def _pairs(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for name, theirs in environ.items():
        ours = environ.get(name.removeprefix(PREFIX), "")
        if name.startswith(PREFIX) and all(path.startswith("/") and ":" not in path for path in (ours, theirs)):
            yield name.removeprefix(PREFIX), ours, theirs


def _folders(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    # Ours are resolved as the paths to translate are: /var/run/x is mounted at /run/x where /var/run is a link.
    return tuple((os.path.realpath(ours), os.path.normpath(theirs)) for ours, theirs in pairs)


def _holds(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _text(name: str) -> str:
    try:
        return Path(f"/proc/self/{name}").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
