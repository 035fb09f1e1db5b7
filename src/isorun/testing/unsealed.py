"""The children of the `fake` backend: the real loader in plain processes, without a single wall.

For tests of the runtime, which must not depend on what this machine can seal. Only
`testing.forks` starts it, and no setting leads there: it must never run a program
that you have not read.

Theory of operation. One interpreter imports everything once, then forks a process for each program, as the zygote does.
It is their parent, so it is the one who learns how they ended; it reaps one when it is asked to, so that the pid of a
process that has ended is not given to another one while the host looks for its family.
"""

import gc
import json
import os
import socket
import sys

from isorun.executor import loader, rules, slot
from isorun.executor.packets import Stream
from isorun.executor.warm import preloads
from isorun.kernel import fds
from isorun.wire.messages import Ready, Started
from isorun.wire.session import Session, Side, State


def main() -> None:
    """argv[1] is JSON: {"channel": fd, "sys_path": [...]}. Never returns: a program's process gets out of `_serve` and
    runs it from here, so that no more of our frames are below it than below a sealed one.
    """
    config = json.loads(sys.argv[1])
    sys.argv = [""]
    root, (control_fd, stdout, stderr, tools) = _serve(socket.socket(fileno=config["channel"]))
    os.setsid()
    os.chdir(root)
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
    program.prepare()
    program.enter()
    program.rehearse(slot.rehearsed(root))
    control.send(Ready(isolation={}))
    go = slot.store_until_go(control, root)
    if go is None:
        os._exit(70)
    control.send(Started())
    control.close()
    os._exit(program.run(go))


def _serve(channel: socket.socket) -> tuple[str, list[int]]:
    """Answer the host until it is gone. Returns in a process that was forked: its folder, and control, stdout, stderr
    and tools.
    """
    preloads.warm()
    gc.collect()
    gc.freeze()
    channel.send(b"{}")
    while True:
        data, descriptors, _ = fds.receive(channel, 1 << 16)
        if not data:
            os._exit(0)
        asked = json.loads(data)
        if "reap" in asked:
            _, status, used = os.wait4(asked["reap"], 0)
            usage = {"cpu_s": used.ru_utime + used.ru_stime, "max_rss_bytes": used.ru_maxrss * 1024}
            answer = {"status": status, **usage}
        else:
            pid = os.fork()
            if pid == 0:
                channel.detach()  # its number will be another file's
                return asked["root"], descriptors
            answer = {"pid": pid}
            for descriptor in descriptors:
                os.close(descriptor)
        channel.send(json.dumps(answer).encode())
