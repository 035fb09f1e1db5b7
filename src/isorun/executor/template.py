"""The first process in the outer jail: starts the zygote, then makes one init after another.

Theory of operation. This process imports nothing that a program would want, so
cloning it is cheap. The zygote is its child and imports the preloads. For a slot the
host first asks here for an init in namespaces of its own, then asks the zygote for a
program process that joins them: one big fork a slot, not three. Both talk to the
host only, each over a SOCK_SEQPACKET of its own. When the host closes that, or the
zygote dies, this process ends, and the jail with it.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress

from isorun.executor import init
from isorun.executor.packets import Packets
from isorun.kernel import rlimits
from isorun.kernel.processes.idle import IdleProcess
from isorun.wire.messages import BuildFailed, BuildInit, InitReady
from isorun.wire.session import Session, Side, State


def main() -> None:
    """argv[1] is JSON: {"template": fd, "zygote": fd, "preloads": [...], "kept": [...], "sys_path": [...],
    "reaps_all": bool}."""
    config = json.loads(sys.argv[1])
    sys.argv = [""]
    rlimits.use_all_open_files()
    builds = socket.socket(fileno=config["template"])
    forks = socket.socket(fileno=config["zygote"])
    zygote_pid = os.fork()
    if zygote_pid == 0:
        builds.close()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        # Imported on this side of the fork: the template stays small.
        from isorun.executor import zygote

        zygote.main(forks, config["preloads"], config["kept"], config["sys_path"], reaps_all=config["reaps_all"])
    forks.close()
    inits = init.prepare()
    gc.collect()
    gc.freeze()
    inits.keep_memory_to_ourselves()
    _serve(builds, os.pidfd_open(zygote_pid), inits)
    os.kill(zygote_pid, signal.SIGKILL)
    os._exit(0)


def _serve(builds: socket.socket, zygote: int, inits: IdleProcess) -> None:
    """Until the host is gone, or the zygote (a pidfd) is dead. Dead inits are reaped by the kernel."""
    packets = Packets(builds, Session(Side.TEMPLATE, Side.HOST, State.BUILDING))
    poll = select.poll()
    poll.register(builds, select.POLLIN)
    poll.register(zygote, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == zygote:
                return
            received = packets.receive()
            if received is None:
                return
            _build(received, inits)


def _build(received: tuple[object, list[int]], inits: IdleProcess) -> None:
    message, descriptors = received
    if not isinstance(message, BuildInit) or len(descriptors) != 1:
        raise SystemExit("the build stream carries BuildInit and one descriptor")
    with socket.socket(fileno=descriptors[0]) as channel:
        answer = Packets(channel, Session(Side.TEMPLATE, Side.HOST, State.ASKED))
        try:
            pidfd = os.pidfd_open(inits.clone(init.flags(message.without)))
        except OSError as error:
            failed = BuildFailed(slot=message.slot, step="namespaces", reason=error.strerror or str(error))
            with suppress(OSError):  # nobody waits for this slot any more
                answer.send(failed)
            return
        try:
            answer.send(InitReady(slot=message.slot), (pidfd,))
        except OSError:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)  # nobody waits: the other slots must not suffer for it
        finally:
            os.close(pidfd)
