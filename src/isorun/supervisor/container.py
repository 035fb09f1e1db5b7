"""The supervisor as the first process of a container: waits for its one host on a Unix socket.

Our code, then one frame, come over stdin: the tools, and the credentials that the host
passes on, which therefore are neither on a command line nor in what the engine tells of
the container. The socket lies in a folder that only the host and we share. When the
host's end closes, or stdin does before that, we end, and the container with us.
"""

import os
import socket
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from isorun.settings import BASE_NAMES, become_environment, process_environment
from isorun.supervisor.process import serve
from isorun.wire.frames import Frames, ProtocolError
from isorun.wire.messages import Serve, decode
from isorun.wire.session import Session, Side, State

_ACCEPT_S = 60.0
_CHUNK = 1 << 16
_HOME = Path("/tmp")  # noqa: S108 - in memory, and this container's alone


def main() -> NoReturn:
    """Serve what stdin says. Never returns: what tools left running ends with us."""
    code = 70
    try:
        code = _main()
    except BaseException:  # noqa: BLE001 - it is shown, and the container ends
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _main() -> int:
    own = {name: value for name, value in process_environment().items() if name in BASE_NAMES}
    told = _told()
    os.dup2(2, 1)  # the host reads one stream
    os.umask(0o007)  # the host may be another user of our group
    environment = {**own, **told.environment, "HOME": str(_HOME)}
    become_environment(environment)
    _write_aws(told.aws)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(told.socket)
        listener.listen(1)
        listener.settimeout(_ACCEPT_S)
        channel, _ = listener.accept()
    Path(told.socket).unlink()
    channel.setblocking(True)
    return serve(channel, told.globals_json, environment)


def _write_aws(files: Mapping[str, str]) -> None:
    folder = _HOME / ".aws"
    folder.mkdir(mode=0o700)
    for name, text in files.items():
        with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as file:
            file.write(text)


def _told() -> Serve:
    frames = Frames()
    while (frame := frames.next()) is None:
        data = os.read(0, _CHUNK)
        if not data:
            raise ProtocolError("stdin ended before it said what to serve")
        frames.feed(data)
    message = decode(*frame)
    Session(Side.SUPERVISOR, Side.HOST, State.UNTOLD).received(message)
    assert isinstance(message, Serve)
    return message
