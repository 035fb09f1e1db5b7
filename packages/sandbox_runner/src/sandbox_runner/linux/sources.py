"""What of this machine may not be mounted into a sandbox: an engine's socket, the kernel's own files, our state.

Looks at the disk, changes nothing.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sandbox_runner.errors import InvalidSpec
from sandbox_runner.linux.mountinfo import mounted
from sandbox_runner.state import state_roots

_SOCKETS = ("docker.sock", "containerd/containerd.sock", "podman/podman.sock")  # below /run and its like
#: Filesystems whose files are the kernel's own: processes, settings, devices, namespaces.
_MADE_UP = frozenset((
    "proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "cpuset", "nsfs", "mqueue", "debugfs", "tracefs",
    "securityfs", "selinuxfs", "bpf", "configfs", "efivarfs", "pstore", "binfmt_misc", "fusectl", "hugetlbfs",
    "resctrl",
))  # fmt: skip
_HARMLESS = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9)}  # null, zero, full, random, urandom: each sandbox has them


def check_source(where: str, source: str | os.PathLike[str]) -> None:
    """Raise `InvalidSpec` if *source*, mounted, would give the sandbox the engine, the host's kernel, or our state.

    That is one which is or holds an engine's socket, which the kernel makes up (/proc, /sys, a device), or is, holds or
    lies in a folder of our state. Compared by device and inode, too: a bind mount gives a folder a second name.
    """
    real = Path(os.path.realpath(source))
    own = _identity(real)
    for socket in _engine_sockets():
        if real in (socket, *socket.parents) or own in map(_identity, (socket, *socket.parents)):
            raise InvalidSpec(
                where, f"{os.fspath(source)} would give the sandbox the whole host: {socket} is the socket of an engine"
            )
    _check_kernels(where, source, real)
    above = {*map(_identity, (real, *real.parents))}
    for root in (Path(os.path.realpath(root)) for root in state_roots()):
        holds = real in (root, *root.parents) or own in map(_identity, (root, *root.parents))
        if holds or root in real.parents or (root.exists() and _identity(root) in above):
            raise InvalidSpec(
                where, f"{os.fspath(source)} would give the sandbox the secrets of others, which are in {root}"
            )


def _check_kernels(where: str, source: str | os.PathLike[str], real: Path) -> None:
    try:
        found = os.stat(source)  # noqa: PTH116 - a link of /proc leads where its text does not
    except OSError:
        return  # it is made later, as a folder
    if stat.S_ISCHR(found.st_mode) and divmod(found.st_rdev, 256) in _HARMLESS:
        return
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        raise InvalidSpec(where, f"{os.fspath(source)} would give the sandbox a device of the host")
    # The last of several mounts at one place hides the others.
    mounts = {Path(mount.point): mount.kind for mount in mounted(_own_mounts())}
    own = {point for point, kind in mounts.items() if kind in _MADE_UP} | {Path("/dev")}
    covering = next((place for place in (real, *real.parents) if place in mounts or place in own), None)
    if not real.exists() or covering in own or any(real in point.parents for point in own):
        raise InvalidSpec(where, f"{os.fspath(source)} would give the sandbox what the host's kernel shows of itself")


def _own_mounts() -> str:
    return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")


def _identity(path: Path) -> tuple[int, int] | str:
    """Device and inode; its own name where there is nothing."""
    try:
        found = path.stat()
    except OSError:
        return str(path)
    return found.st_dev, found.st_ino


def _engine_sockets() -> set[Path]:
    """Where an engine listens on this machine, as far as that is usual or said by the environment."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    paths = [f"{place}/{name}" for place in ("/run", "/var/run", runtime) for name in _SOCKETS]
    paths += [f"{os.environ.get('HOME', '')}/.docker/{place}/docker.sock" for place in ("run", "desktop")]
    told = (os.environ.get(name, "") for name in ("DOCKER_HOST", "CONTAINER_HOST"))
    paths += [host.removeprefix("unix://") for host in told if host.startswith("unix://")]
    return {Path(os.path.realpath(path)) for path in paths if os.path.lexists(path)}
