"""Making and joining namespaces, and a network namespace's loopback. Which ones, and when, is the caller's business."""

import os

from isorun.kernel.libc import check, libc

NEWNS = 0x00020000
NEWCGROUP = 0x02000000
NEWUTS = 0x04000000
NEWIPC = 0x08000000
NEWUSER = 0x10000000
NEWPID = 0x20000000
NEWNET = 0x40000000
_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 0x1, 0x40

#: The names under /proc/<pid>/ns of the namespaces that a slot has for itself.
KINDS = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")


def unshare(flags: int) -> None:
    """Leave the namespaces named by *flags* for new ones."""
    check(libc.unshare(flags), f"unshare({flags:#x})")


def join(descriptor: int, flags: int) -> None:
    """Enter the namespaces *flags* of the process or namespace behind *descriptor* (a pidfd or ns fd)."""
    check(libc.setns(descriptor, flags), f"setns({flags:#x})")


def map_identity(uid: int, gid: int) -> None:
    """Map this user namespace's *uid* and *gid* to the same numbers outside; refuse setgroups for good."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        _write(f"/proc/self/{name}", text)


def leave_network() -> None:
    """Go to a network namespace of our own, with nothing in it that is up; who is not root makes a user namespace."""
    uid, gid = os.geteuid(), os.getegid()
    unshare(NEWNET if uid == 0 else NEWNET | NEWUSER)
    if uid != 0:
        map_identity(uid, gid)


def raise_loopback() -> None:
    """Bring `lo` of this network namespace up: 127.0.0.0/8, and ::1 where the kernel has IPv6. Needs CAP_NET_ADMIN."""
    import fcntl  # not at the top: other systems have none, and a process that starts cold needs none of the three
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP | _IFF_RUNNING))


def identifiers(pid: int | str = "self") -> dict[str, int]:
    """The inode number of each namespace of *pid*: two processes share one if the numbers agree."""
    return {kind: os.stat(f"/proc/{pid}/ns/{kind}").st_ino for kind in KINDS}


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
