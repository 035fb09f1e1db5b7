"""Hands a container's workspace to the host, once, before there is a program.

init does it for itself. Of a kernel of its own nothing can be handed out: there a container
beside it, on the host's kernel, has the same workspace and does nothing else (`main`).
"""

import os
import socket
from typing import NoReturn

from isorun.executor import rules
from isorun.executor.packets import Stream
from isorun.kernel import caps, rlimits
from isorun.wire.frames import ProtocolError
from isorun.wire.messages import Attached, Joined
from isorun.wire.session import Session, Side, State

_CHUNK = 4096


def hand_over() -> str:
    """Return once the host has made its folders, with nothing of it left open; else why it has not."""
    reason = "the host took nothing"
    rlimits.use_all_open_files()
    try:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(f"{rules.HANDOVER}/{rules.HANDOVER_SOCKET}")
            stream = Stream(channel, Session(Side.SLOT, Side.HOST, State.NEW))
            stream.send(Joined(), [os.open(rules.WORKSPACE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)])
            if isinstance(stream.receive(), Attached):
                return ""
    except (OSError, ProtocolError) as error:
        reason = str(error)
    return f"it cannot be handed over: {reason}; is {rules.HANDOVER} the folder that isorun made?"


def main() -> NoReturn:
    """Hand over, and keep the workspace mounted until the host closes our stdin."""
    caps.set_dumpable(False)
    caps.no_new_privileges()
    if reason := hand_over():
        os.write(rules.STDERR, f"workspace: {reason}\n".encode())
        os._exit(70)
    while os.read(rules.STDIN, _CHUNK):
        pass
    os._exit(0)
