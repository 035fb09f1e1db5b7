"""The inside of a slot as its program sees it: hostname, /proc, and the filesystems it may write.

Done by the program's own process after it has joined the slot's namespaces, while it
still has the capabilities that these give it; `slot` then gives them up. init could
do it as well, but every page that one more interpreter touches is paid for by each run.
"""

import os
import socket

from isorun.core.sent.sealing import Sealing
from isorun.executor import rules
from isorun.executor.steps import Step
from isorun.kernel import landlock, mounts, namespaces

KEPT = "/.isorun/kept"  # what lies under /tmp on the host, shown again once /tmp is the slot's own


def steps(sealing: Sealing, kept: list[str]) -> tuple[Step, ...]:
    """In order. *kept* are the host paths below /tmp that the program's Python needs."""
    return (
        ("user namespace", lambda: namespaces.map_identity(rules.UID, rules.GID)),
        ("hostname", lambda: _hostname(sealing)),
        ("private mounts", mounts.make_private),
        ("per-user ceilings", lambda: _per_user(sealing)),  # before /proc: ours does not show /proc/sys
        ("loopback", lambda: _loopback(sealing)),  # as the line above
        ("/proc", lambda: _proc(sealing)),
        ("/workspace", lambda: _workspace(sealing)),
        ("/tmp", lambda: _tmp(sealing, kept)),
        ("/dev/shm", lambda: _sized("/dev/shm", _bytes(sealing, sealing.shm_bytes))),
        ("devices", lambda: _devices(sealing)),
    )


def open_for_host() -> list[int]:
    """What the host needs of the inside: work, out, /tmp, /dev/shm, and the mount namespace.

    Held by the host, the mount namespace outlives us, and our death need not wait for it to be undone.
    """
    directories = (rules.WORK, rules.OUT, "/tmp", "/dev/shm")
    opened = [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in directories]
    return [*opened, os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)]


#: What this slot's user namespace may have of things that the kernel counts per user.
_PER_USER = {
    # Of 128 instances and some ten thousand watches that all processes of one real uid share: every
    # slot's, and for an ordinary user those of the whole session.
    "max_inotify_instances": 16,
    "max_inotify_watches": 4096,
    # seccomp refuses it as well: a new user namespace is full of capabilities.
    "max_user_namespaces": 0,
}


def _per_user(sealing: Sealing) -> None:
    if "rlimits" in sealing.without:
        return
    for name, most in _PER_USER.items():
        try:
            descriptor = os.open(f"/proc/sys/user/{name}", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # a kernel without it
        try:
            os.write(descriptor, b"%d" % most)
        finally:
            os.close(descriptor)


#: Of a network namespace with loopback. What its sockets hold belongs to no process, and an unaccepted connection has
#: no descriptor either: each holds little, a listener few of them, and the dead ones go soon.
LOOPBACK = {
    "net.core.somaxconn": "128",
    "net.ipv4.tcp_rmem": "4096 32768 65536",
    "net.ipv4.tcp_wmem": "4096 16384 65536",
    "net.ipv4.tcp_max_syn_backlog": "128",
    "net.ipv4.tcp_max_tw_buckets": "1024",
    "net.ipv4.tcp_fastopen": "0",  # its cookies stay in a table that all namespaces share
    "net.ipv4.tcp_no_metrics_save": "1",  # the same table
}


def _loopback(sealing: Sealing) -> None:
    if not sealing.loopback or "network" in sealing.without:  # without it the network is the jail's, not ours to change
        return
    for name, value in LOOPBACK.items() if "sizes" not in sealing.without else ():
        descriptor = os.open(f"/proc/sys/{name.replace('.', '/')}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    namespaces.raise_loopback()


_HUGE = 1 << 40  # no ceiling, for a slot that is made without that wall
_PROC_FLAGS = mounts.NOSUID | mounts.NODEV | mounts.NOEXEC


def _hostname(sealing: Sealing) -> None:
    if "uts" not in sealing.without and "hostname" not in sealing.without:
        socket.sethostname(rules.HOSTNAME)


def _proc(sealing: Sealing) -> None:
    options = None if "proc" in sealing.without else "hidepid=2,subset=pid"
    mounts.mount("proc", "/proc", "proc", _PROC_FLAGS, options)


def _bytes(sealing: Sealing, size: int) -> int:
    return _HUGE if "sizes" in sealing.without else size


def _workspace(sealing: Sealing) -> None:
    """One sized filesystem; its root is read-only, its two directories are not."""
    inodes = _HUGE if "sizes" in sealing.without else sealing.workspace_inodes + 3
    mounts.tmpfs(rules.WORKSPACE, size=_bytes(sealing, sealing.workspace_bytes), inodes=inodes, mode=0o755)
    for path in (rules.WORK, rules.OUT):
        os.mkdir(path, 0o755)
        mounts.bind(path, path)
    if "read_only" not in sealing.without:
        mounts.read_only(rules.WORKSPACE)


def _tmp(sealing: Sealing, kept: list[str]) -> None:
    _sized("/tmp", _bytes(sealing, sealing.tmp_bytes))
    show_kept(kept)


def show_kept(kept: list[str]) -> None:
    """Show what lies below /tmp on the host, the *kept* paths, in a /tmp of our own."""
    for number, path in enumerate(kept):
        source = f"{KEPT}/{number}"
        _mount_point(path, os.path.isdir(source))
        mounts.bind(source, path)


def _mount_point(path: str, directory: bool) -> None:
    os.makedirs(path if directory else os.path.dirname(path), 0o755, exist_ok=True)
    if not directory:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _devices(sealing: Sealing) -> None:
    """The nodes are the host's: through a writable mount anybody may set their times, a message to other slots.

    Who may write to /dev/zero may map it as shared memory, which without a cgroup nothing counts. Landlock leaves it
    to be read only; without Landlock, it cannot be opened.
    """
    if not sealing.cgroup and landlock.abi() == 0:
        _close(rules.ZERO)
    if "read_only" not in sealing.without:
        for path in rules.DEVICES:
            mounts.read_only_device(path)


def _close(device: str) -> None:
    """Show a file in its place that cannot be opened or changed: no other path leads to it."""
    closed = "/dev/shm/closed"
    os.close(os.open(closed, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0))
    mounts.bind(closed, device)
    os.unlink(closed)


def _sized(path: str, size: int) -> None:
    inodes = _HUGE if size == _HUGE else rules.scratch_inodes(size)
    mounts.tmpfs(path, size=size, inodes=inodes, mode=0o1777)
