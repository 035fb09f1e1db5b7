"""The warm interpreter: imports the preloads once, then forks one program process per slot.

Single-threaded, holds no secret and nothing of any run, and never runs a program
itself. It stays outside the slots' pid namespaces, so it is the program's parent
and the one who learns, from the kernel, how the program ended. It reaps every child it has,
also a child that it did not fork: a zombie keeps its pid namespace, and so its run, from ending.
"""

import gc
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress

from isorun.executor import interior, loader, rules, slot
from isorun.executor.packets import Packets
from isorun.executor.rules import STDERR
from isorun.executor.warm import huge_pages
from isorun.executor.warm import preloads as preloading
from isorun.executor.warm.forks import Forks
from isorun.kernel import fds, mounts, namespaces
from isorun.wire.messages import BuildFailed, Exited, ForkProgram, MakeStream, Message, StreamMade, Warmed
from isorun.wire.session import Session, Side, State

_REAPED = os.WNOHANG | 0x4000_0000  # __WALL: children of any exit signal, threads' too
_PRIVATE_BYTES = 64 << 20  # matplotlib and others want a cache directory while they are imported


def main(
    channel: socket.socket, preloads: list[str], kept: list[str], sys_path: list[str], *, reaps_all: bool = True
) -> None:
    """Be the zygote. Never returns. *reaps_all* off: what a program made our child is left, for tests."""
    gc.enable()  # as a preload and a program expect it; it was off while we were imported
    channel = _leave_numbers(channel)
    environ = {name: value for name, value in os.environ.items() if name != "PWD"}  # bubblewrap sets it
    os.setsid()
    namespaces.unshare(namespaces.NEWNS)  # the writable /tmp below is ours alone: no init is forked from here
    mounts.make_private()
    mounts.tmpfs("/tmp", size=_PRIVATE_BYTES, inodes=4096, mode=0o700)
    interior.show_kept(kept)  # of the interpreter and its packages, for the preloads
    forks = Forks()
    with forks.watched():
        loaded, failed = preloading.preload(preloads)
        preloading.warm()
    program = loader.Loader(rules.WORK, rules.OUT, sys_path, environ)
    program.prepare()
    gc.collect()
    gc.freeze()  # the collector would write to, and so copy, every page the slots share
    huge_pages.collapse()
    packets = Packets(channel, Session(Side.ZYGOTE, Side.HOST, State.COLD))
    packets.send(Warmed(python=sys.version.split()[0], preloads=loaded, failed=failed))
    _Zygote(channel, packets, kept, program, forks, reaps_all=reaps_all).serve()
    os._exit(0)


def _leave_numbers(channel: socket.socket) -> socket.socket:
    """*channel* with another number: those that are a slot's own lead nowhere here, and no preload gets them.

    What a slot needs can so be made before the fork, and nothing that a slot is sent is in the way of its own.
    """
    nowhere, other = socket.socketpair()
    other.close()
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    standard = {number: number for number in (rules.STDIN, rules.STDOUT, rules.STDERR)}
    slots = {rules.TOOLS: nowhere.detach(), **dict.fromkeys(range(rules.CONTROL, rules.TRACE + 1), null)}
    fds.keep_only({**standard, **slots, rules.TRACE + 1: channel.detach()})
    return socket.socket(fileno=rules.TRACE + 1)


class _Zygote:
    """Answers the host on *channel*; every program process has a copy of *program*."""

    def __init__(
        self,
        channel: socket.socket,
        packets: Packets,
        kept: list[str],
        program: loader.Loader,
        forks: Forks,
        *,
        reaps_all: bool,
    ) -> None:
        self._channel, self._packets = channel, packets
        self._kept = kept
        self._program = program
        self._forks = forks
        self._reaps_all = reaps_all
        self._own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._own_network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._slots: dict[int, int] = {}  # by the pid of the program process
        self._ended, self._wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def serve(self) -> None:
        """Fork when asked, and tell how each child ended, until the host is gone."""
        # A preload may have set its own; a program gets that one back.
        self._sigchld = signal.signal(signal.SIGCHLD, lambda *_: None) or signal.SIG_DFL
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._ended:
                    os.read(self._ended, 4096)
                    for ended in self._reaped():
                        self._packets.send(ended)
                    continue
                received = self._packets.receive()
                if received is None:
                    return
                if isinstance(received[0], MakeStream):
                    self._make_stream(received[0].slot, *received[1])
                else:
                    self._fork(*received)

    def _make_stream(self, number: int, init: int, channel: int) -> None:
        """A socket belongs for ever to the network namespace in which it was made; this one's must be the slot's."""
        with socket.socket(fileno=channel) as answer:
            try:
                namespaces.join(init, namespaces.NEWNET)
            except OSError:  # init is dead; the answer's end says that there is no stream
                return
            finally:
                os.close(init)
            try:
                ours, theirs = socket.socketpair()
            finally:
                namespaces.join(self._own_network, namespaces.NEWNET)
            with ours, theirs, suppress(OSError):  # nobody may wait any more
                told = Packets(answer, Session(Side.ZYGOTE, Side.HOST, State.ASKED))
                told.send(StreamMade(slot=number), (ours.fileno(), theirs.fileno()))

    def _reaped(self) -> Iterator[Exited]:
        """Reap every child that has ended; how those ended that are a slot's program process."""
        own = (os.wait4(pid, _REAPED) for pid in tuple(self._slots))
        for pid, status, usage in reaped(_REAPED) if self._reaps_all else own:
            slot_number = self._slots.pop(pid, None)
            if slot_number is not None:
                yield exited(slot_number, status, usage)

    def _fork(self, message: Message, descriptors: list[int]) -> None:
        if not isinstance(message, ForkProgram) or len(descriptors) != 4:
            raise SystemExit("the fork stream carries ForkProgram and four descriptors")
        try:
            namespaces.join(descriptors[0], namespaces.NEWPID)
            pid = self._forks.fork()
            if pid == 0:
                self._become_slot(message, descriptors)
            namespaces.join(self._own_pid_namespace, namespaces.NEWPID)
        except OSError as error:
            failed = BuildFailed(slot=message.slot, step="program process", reason=str(error))
            self._packets.send(failed)
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._slots[pid] = message.slot

    def _become_slot(self, message: ForkProgram, descriptors: list[int]) -> None:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, self._sigchld)
            os._exit(slot.run(message, descriptors, self._kept, self._program))
        except BaseException as error:  # noqa: BLE001 - a forked child must never return into its parent's loop
            os.write(STDERR, f"slot {message.slot}: {error!r}\n".encode())
        finally:
            os._exit(70)


def reaped(how: int) -> Iterator[tuple[int, int, resource.struct_rusage]]:
    """Reap every child that has ended: pid, status and usage. Without `os.WNOHANG` in *how*, every child there is."""
    with suppress(ChildProcessError):
        while (found := os.wait4(-1, how))[0]:
            yield found


def exited(number: int, status: int, usage: resource.struct_rusage) -> Exited:
    """How the program of slot *number* ended."""
    code = os.waitstatus_to_exitcode(status)
    return Exited(
        slot=number,
        code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        user_s=usage.ru_utime,
        system_s=usage.ru_stime,
        max_rss_bytes=usage.ru_maxrss * 1024,
    )
