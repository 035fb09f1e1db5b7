"""pid 1 of a slot: builds the mounts, hands their descriptors to the host, then reaps.

It is ours, in a place that is not: non-dumpable, so that the program can neither
trace nor read it; without handlers, so that no signal from inside its pid
namespace reaches it; and without any right, since it needs none after the mounts.
When the host kills it, the kernel kills every process of the slot with it.
"""

import os
import signal
import socket
from typing import Any

from isorun.executor import rules
from isorun.executor.packets import send_packet
from isorun.executor.steps import StepFailed, enter
from isorun.kernel import caps, fds, mounts, namespaces
from isorun.wire.messages import BuildFailed, Mounted

_ALWAYS = namespaces.NEWUSER | namespaces.NEWPID | namespaces.NEWNS | namespaces.NEWCGROUP
_OPTIONAL = {"network": namespaces.NEWNET, "ipc": namespaces.NEWIPC, "uts": namespaces.NEWUTS}
KEPT = "/.isorun/kept"  # what lies under /tmp on the host, shown again once /tmp is the slot's own


def flags(limits: dict[str, Any]) -> int:
    """The namespaces that init is cloned into; the program joins all of them."""
    chosen = _ALWAYS
    for wall, flag in _OPTIONAL.items():
        if wall not in limits["without"]:
            chosen |= flag
    return chosen


def run(slot: int, limits: dict[str, Any], channel: socket.socket, kept: list[str]) -> None:
    """Be init. Never returns."""
    try:
        enter(
            (
                ("user namespace", lambda: namespaces.map_identity(rules.UID, rules.GID)),
                ("session", os.setsid),
                ("hostname", lambda: _hostname(limits)),
                ("private mounts", mounts.make_private),
                ("inotify", lambda: _inotify(limits)),  # before /proc: ours does not show /proc/sys
                ("/proc", lambda: _proc(limits)),
                ("/workspace", lambda: _workspace(limits)),
                ("/tmp", lambda: _tmp(limits, kept)),
                ("/dev/shm", lambda: _sized("/dev/shm", _bytes(limits, "shm_bytes"))),
                ("devices", lambda: _devices(limits)),
            )
        )
        _hand_over(slot, channel)
        enter((("init's descriptors", lambda: fds.keep_only({})), ("init's capabilities", caps.drop_held)))
        caps.no_new_privileges()
        caps.set_dumpable(False)
    except StepFailed as failure:
        send_packet(channel, BuildFailed(slot=slot, step=failure.step, reason=failure.reason))
        os._exit(1)
    _reap_for_ever()


#: Of 128 instances and some ten thousand watches that all processes of one real uid share: every
#: slot's, and for an ordinary user those of the whole session.
_INOTIFY = {"instances": 16, "watches": 4096}


def _inotify(limits: dict[str, Any]) -> None:
    """Bound what this slot's user namespace may take of the kernel's per-user inotify pools."""
    if "rlimits" in limits["without"]:
        return
    for what, most in _INOTIFY.items():
        try:
            descriptor = os.open(f"/proc/sys/user/max_inotify_{what}", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # a kernel without inotify
        try:
            os.write(descriptor, b"%d" % most)
        finally:
            os.close(descriptor)


_HUGE = 1 << 40  # no ceiling, for a slot that is made without that wall
_PROC_FLAGS = mounts.NOSUID | mounts.NODEV | mounts.NOEXEC


def _hostname(limits: dict[str, Any]) -> None:
    if "uts" not in limits["without"] and "hostname" not in limits["without"]:
        namespaces.set_hostname(rules.HOSTNAME)


def _proc(limits: dict[str, Any]) -> None:
    options = None if "proc" in limits["without"] else "hidepid=2,subset=pid"
    mounts.mount("proc", "/proc", "proc", _PROC_FLAGS, options)


def _bytes(limits: dict[str, Any], name: str) -> int:
    return _HUGE if "sizes" in limits["without"] else int(limits[name])


def _workspace(limits: dict[str, Any]) -> None:
    """One sized filesystem; its root is read-only, its two directories are not."""
    inodes = _HUGE if "sizes" in limits["without"] else limits["workspace_inodes"] + 3
    mounts.tmpfs(rules.WORKSPACE, size=_bytes(limits, "workspace_bytes"), inodes=inodes, mode=0o755)
    for path in (rules.WORK, rules.OUT):
        os.mkdir(path, 0o755)  # noqa: PTH102 - pathlib would be one more module in every init
        mounts.bind(path, path)
    if "read_only" not in limits["without"]:
        mounts.read_only(rules.WORKSPACE)


def _tmp(limits: dict[str, Any], kept: list[str]) -> None:
    _sized("/tmp", _bytes(limits, "tmp_bytes"))  # noqa: S108 - the slot's own tmpfs
    for number, path in enumerate(kept):
        source = f"{KEPT}/{number}"
        _mount_point(path, os.path.isdir(source))  # noqa: PTH112
        mounts.bind(source, path)


def _mount_point(path: str, directory: bool) -> None:
    os.makedirs(path if directory else os.path.dirname(path), 0o755, exist_ok=True)  # noqa: PTH103, PTH120
    if not directory:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _devices(limits: dict[str, Any]) -> None:
    """The nodes are the host's: through a writable mount anybody may set their times, a message to other slots."""
    if "read_only" not in limits["without"]:
        for path in rules.DEVICES:
            mounts.read_only_device(path)


def _sized(path: str, size: int) -> None:
    # A file needs a block, so this many inodes never is what runs out first.
    mounts.tmpfs(path, size=size, inodes=max(size // 4096, 64), mode=0o1777)


def _hand_over(slot: int, channel: socket.socket) -> None:
    # Held by the host, the mount namespace outlives us, and our death need not wait for it to be undone.
    held = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    opened = [
        os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for path in (rules.WORK, rules.OUT, "/tmp", "/dev/shm")  # noqa: S108 - the slot's own tmpfs
    ]
    send_packet(channel, Mounted(slot=slot), (*opened, held))


def _reap_for_ever() -> None:
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            # No child yet, or no more: sleep until one is reparented to us and ends.
            signal.sigwait({signal.SIGCHLD})
