"""The first process in the outer jail: starts the zygote, then makes one init after another.

Theory of operation. This process imports nothing that a program would want, so the
inits forked from it are small. The zygote is its child and imports the preloads.
For a slot the host first asks here for an init in namespaces of its own, then asks
the zygote for a program process that joins them: one big fork a slot, not three.
Both talk to the host only, each over a SOCK_SEQPACKET of its own. When the host
closes that, or the zygote dies, this process ends, and the jail with it.
"""

import gc
import json
import os
import select
import signal
import socket
import sys

from isorun.executor import init
from isorun.executor.packets import receive_packet, send_packet
from isorun.executor.rules import STDERR
from isorun.executor.steps import StepFailed
from isorun.kernel import namespaces, rlimits
from isorun.wire.messages import BuildFailed, BuildInit, InitReady


def main() -> None:
    """argv[1] is JSON: {"template": fd, "zygote": fd, "preloads": [...], "kept": [...]}."""
    config = json.loads(sys.argv[1])
    sys.argv = [""]
    # Only handlers reach pid 1 of a pid namespace; Python's own for SIGINT would be one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    rlimits.use_all_open_files()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    builds = socket.socket(fileno=config["template"])
    forks = socket.socket(fileno=config["zygote"])
    zygote_pid = os.fork()
    if zygote_pid == 0:
        builds.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        # Imported on this side of the fork: what the template has not imported, no init has to copy.
        from isorun.executor import zygote

        zygote.main(forks, config["preloads"], config["kept"])
    forks.close()
    gc.collect()
    gc.freeze()
    _serve(builds, zygote_pid)
    os.kill(zygote_pid, signal.SIGKILL)
    os._exit(0)


def _serve(builds: socket.socket, zygote_pid: int) -> None:
    poll = select.poll()
    poll.register(builds, select.POLLIN)
    children = signal_descriptor()
    poll.register(children, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == builds.fileno():
                received = receive_packet(builds)
                if received is None:
                    return
                _build(builds, received)
            elif not _reap(children, zygote_pid):
                return


def signal_descriptor() -> int:
    """A descriptor that is readable when a child has ended (SIGCHLD must be blocked or handled)."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    return reader


def _reap(children: int, zygote_pid: int) -> bool:
    """Reap every dead child; False if the zygote was among them."""
    os.read(children, 4096)
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if pid == zygote_pid:
            return False
        if pid == 0:
            return True


def _build(builds: socket.socket, received: tuple[object, list[int]]) -> None:
    message, descriptors = received
    if not isinstance(message, BuildInit) or len(descriptors) != 1:
        raise SystemExit("the build stream carries BuildInit and one descriptor")
    with socket.socket(fileno=descriptors[0]) as channel:
        try:
            pidfd = _make_init(message)
        except StepFailed as failure:
            send_packet(channel, BuildFailed(slot=message.slot, step=failure.step, reason=failure.reason))
            return
        send_packet(channel, InitReady(slot=message.slot), (pidfd,))
        os.close(pidfd)


def _make_init(message: BuildInit) -> int:
    """The pidfd of an init that has given up everything; until it has, nobody hears of it."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid = namespaces.clone(init.flags(message.limits))
        except OSError as error:
            raise StepFailed("namespaces", error.strerror or str(error)) from error
        if pid == 0:
            _become_init(tell)
        os.close(tell)
        tell = -1
        said = os.read(told, 1000)
        if said != init.READY:
            step, _, reason = said.decode(errors="replace").partition("\0")
            raise StepFailed(step or "init", reason or "it died")
        return os.pidfd_open(pid)
    finally:
        os.close(told)
        if tell != -1:
            os.close(tell)


def _become_init(tell: int) -> None:
    try:
        signal.set_wakeup_fd(-1)
        init.run(tell)
    except BaseException as error:  # noqa: BLE001 - a forked child must never return into its parent's loop
        os.write(STDERR, f"init: {error!r}\n".encode())
    finally:
        os._exit(1)
