"""The child of the `fake` backend: the real loader in a plain process, without a single wall.

For tests of the runtime, which must not depend on what this machine can seal. Only
`testing.fake` starts it, and no setting leads there: it must never run a program
that nobody has read.
"""

import json
import os
import socket
import sys

from isorun.executor import loader, rules
from isorun.executor.packets import Stream
from isorun.executor.slot import store_until_go
from isorun.kernel import fds
from isorun.wire.messages import Ready, Started
from isorun.wire.session import Session, Side, State


def main() -> None:
    """argv[1] is JSON: {"root": folder, "fds": [control, stdout, stderr, tools], "sys_path": [...]}. Never returns."""
    config = json.loads(sys.argv[1])
    root: str = config["root"]
    control_fd, stdout, stderr, tools = config["fds"]
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    fds.keep_only(
        {
            rules.STDIN: null,
            rules.STDOUT: stdout,
            rules.STDERR: stderr,
            rules.TOOLS: tools,
            rules.CONTROL: control_fd,
        }
    )
    control = Stream(socket.socket(fileno=rules.CONTROL), Session(Side.SLOT, Side.HOST, State.ATTACHED))
    program = loader.Loader(f"{root}/work", f"{root}/out", config["sys_path"], dict(os.environ))
    program.enter()
    control.send(Ready(isolation={}))
    go = store_until_go(control, root)
    if go is None:
        os._exit(70)
    control.send(Started())
    control.close()
    os._exit(program.run(go))
