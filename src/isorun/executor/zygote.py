"""The warm interpreter: imports the preloads once, then forks one program process per slot.

Single-threaded, holds no secret and nothing of any run, and never runs a program
itself. It stays outside the slots' pid namespaces, so it is the program's parent
and the one who learns, from the kernel, how the program ended.
"""

import gc
import importlib
import os
import select
import socket
import sys
import time
from dataclasses import dataclass

from isorun.executor import loader, rules, slot
from isorun.executor.packets import receive_packet, send_packet
from isorun.executor.rules import STDERR
from isorun.kernel import mounts, namespaces
from isorun.wire.messages import BuildFailed, Exited, ForkProgram, Message, Warmed

_PRIVATE_BYTES = 64 << 20  # matplotlib and others want a cache directory while they are imported


def main(channel: socket.socket, preloads: list[str], kept: list[str], sys_path: list[str]) -> None:
    """Be the zygote. Never returns."""
    environ = {name: value for name, value in os.environ.items() if name != "PWD"}  # bubblewrap sets it
    os.setsid()
    namespaces.unshare(namespaces.NEWNS)  # the writable /tmp below is ours alone: no init is forked from here
    mounts.make_private()
    mounts.tmpfs("/tmp", size=_PRIVATE_BYTES, inodes=4096, mode=0o700)
    loaded, failed = preload(preloads)
    warm()
    program = loader.Loader(rules.WORK, rules.OUT, sys_path, environ)
    gc.collect()
    gc.freeze()  # the collector would write to, and so copy, every page the slots share
    send_packet(channel, Warmed(python=sys.version.split()[0], preloads=loaded, failed=failed))
    _Zygote(channel, kept, program).serve()
    os._exit(0)


def preload(names: list[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Import *names*: seconds that each took, and the reason of each that failed."""
    loaded, failed = {}, {}
    for name in names:
        started = time.monotonic()
        try:
            importlib.import_module(name)
            _WARMERS.get(name, lambda: None)()
        except Exception as error:  # noqa: BLE001 - a preload is only a convenience: the program will see the error itself
            failed[name] = f"{type(error).__name__}: {error}"[:500]
        else:
            loaded[name] = time.monotonic() - started
    return loaded, failed


def warm() -> None:
    """What costs a millisecond the first time after a fork is done once, before."""
    exec(compile("async def f(): await g()\n", "warm", "exec", flags=0), {})  # noqa: S102
    importlib.import_module("asyncio")
    importlib.import_module("logging")
    importlib.import_module("faulthandler")
    importlib.import_module("traceback")
    importlib.import_module("fcntl")


def _warm_pandas() -> None:
    import io

    import pandas  # type: ignore[import-not-found,import-untyped,unused-ignore]

    pandas.read_csv(io.StringIO(pandas.DataFrame({"a": [1.5], "b": ["x"]}).to_csv()))


def _warm_pyplot() -> None:
    import io

    from matplotlib import pyplot  # type: ignore[import-not-found,import-untyped,unused-ignore]

    figure, axes = pyplot.subplots()
    axes.plot([1, 2])
    figure.savefig(io.BytesIO(), format="png")
    pyplot.close(figure)


_WARMERS = {"pandas": _warm_pandas, "matplotlib.pyplot": _warm_pyplot}


@dataclass(slots=True)
class _Child:
    slot: int
    pid: int


class _Zygote:
    """Answers the host on *channel*; every program process has a copy of *program*."""

    def __init__(self, channel: socket.socket, kept: list[str], program: loader.Loader) -> None:
        self._channel = channel
        self._kept = kept
        self._program = program
        self._own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._children: dict[int, _Child] = {}  # by pidfd

    def serve(self) -> None:
        """Fork when asked, and tell how each child ended, until the host is gone."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor != self._channel.fileno():
                    poll.unregister(descriptor)
                    os.close(descriptor)
                    send_packet(self._channel, _reap(self._children.pop(descriptor)))
                    continue
                received = receive_packet(self._channel)
                if received is None:
                    return
                child = self._fork(*received)
                if child is not None:
                    pidfd = os.pidfd_open(child.pid)
                    self._children[pidfd] = child
                    poll.register(pidfd, select.POLLIN)

    def _fork(self, message: Message, descriptors: list[int]) -> _Child | None:
        if not isinstance(message, ForkProgram) or len(descriptors) != 5:
            raise SystemExit("the fork stream carries ForkProgram and five descriptors")
        try:
            namespaces.join(descriptors[0], namespaces.NEWPID)
            pid = os.fork()
            if pid == 0:
                self._become_slot(message, descriptors)
            namespaces.join(self._own_pid_namespace, namespaces.NEWPID)
        except OSError as error:
            failed = BuildFailed(slot=message.slot, step="program process", reason=str(error))
            send_packet(self._channel, failed)
            return None
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return _Child(message.slot, pid)

    def _become_slot(self, message: ForkProgram, descriptors: list[int]) -> None:
        try:
            os._exit(slot.run(message, descriptors, self._kept, self._program))
        except BaseException as error:  # noqa: BLE001 - a forked child must never return into its parent's loop
            os.write(STDERR, f"slot {message.slot}: {error!r}\n".encode())
        finally:
            os._exit(70)


def _reap(child: _Child) -> Exited:
    _, status, usage = os.wait4(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return Exited(
        slot=child.slot,
        code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        user_s=usage.ru_utime,
        system_s=usage.ru_stime,
        max_rss_bytes=usage.ru_maxrss * 1024,
    )
