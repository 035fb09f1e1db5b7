"""The first process of an executor container: makes the program's process, and speaks for it to the host.

Theory of operation. The host has sent our code over stdin, and goes on with frames
(`wire.multiplex`). We become unreadable for the program, import the preloads, fork the
program's process, which seals itself as in any slot (`slot`), and from then on move
bytes between its pipes and our own stdin and stdout. The engine's log has a copy of what
we print: our stdout is without line breaks (`wire.unbroken`), our stderr is for people.
Once the program has ended every other process is killed, without waiting for the host to say so: its `Finish` would
have the way through the engine before it. The same at `Finish`; when we end, as when the host is gone, the
engine ends the container. A daemon that dies tells us nothing, so a run's time is known here too (`Until`).

As pid 1 of its pid namespace this process is reached by no signal of the program's. It
is in an untrusted place: the host believes its word only where nothing else could tell.
"""

import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from typing import NoReturn

from isorun.executor import loader, rules, slot, zygote
from isorun.executor.container.facts import count_tasks, facts_of, final_facts, has_too_many_locks
from isorun.executor.container.handing import hand_over
from isorun.executor.packets import Stream
from isorun.executor.status import line_of_status
from isorun.executor.steps import StepFailed
from isorun.executor.warm import preloads
from isorun.kernel import caps, fds
from isorun.kernel.locks import Listing
from isorun.wire.frames import ProtocolError
from isorun.wire.messages import (
    BuildFailed,
    Finish,
    ForkProgram,
    Look,
    Message,
    Prepare,
    Ready,
    Replaced,
    Sealed,
    SetupError,
    Started,
    Terminate,
    Until,
    Warmed,
)
from isorun.wire.multiplex import CHUNK, Multiplexer
from isorun.wire.session import Session, Side, State
from isorun.wire.unbroken import unbroken

_WATCH_MS = 20
_LOCKS_MS = 100  # the list is everybody's: a look can wait 10 ms for the kernel, and nothing is moved meanwhile
_SOCKETS = ("control", "tools")
_SAID = ("tools", "stdout", "stderr")  # what a dead program may have left for the host to read
CHANNELS = ("control", "tools", "stdout", "stderr")
_BEHIND = 1 << 20  # bytes that the host has not read: nothing is read from the program until it has


def main() -> NoReturn:
    """Be the container, with the host at the other end of stdin and stdout. Never returns."""
    try:
        _Init().serve()
    except BaseException as error:  # noqa: BLE001 - it is shown, and the container ends
        os.write(rules.STDERR, f"[init] {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(70)  # also where nobody reads what it says


class _Init:
    def __init__(self) -> None:
        caps.set_dumpable(False)
        caps.no_new_privileges()
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a handler would let the program's SIGINT through
        self._streams = Multiplexer(CHANNELS)
        self._session = Session(Side.INIT, Side.HOST, State.BARE)
        self._unwritten = b""  # of what the host is being sent, as it goes out
        self._ends: dict[str, int] = {}  # our end of each channel, until it is over
        self._program = 0  # its pid, while it lives
        self._is_asked, self._is_unasked = False, False  # the program, to end; whether it ended before it was
        self._is_finishing = False
        self._is_shared = False  # the workspace, with a host who is not root
        self._most_tasks: int | None = None  # None: the container's control group refuses, and counts what it refuses
        self._refused_tasks = 0
        self._most_locks: int | None = None  # None: the host counts them
        self._too_many_locks = False
        self._listing, self._listing_due = Listing(), 0.0
        self._until = inf  # on the monotonic clock: nobody has ended the run by then who should have
        self._woken = _wake_on_child()
        for descriptor in (rules.STDIN, rules.STDOUT):
            os.set_blocking(descriptor, False)

    def serve(self) -> None:
        """Until the host is gone or has had the last word."""
        while True:
            poll = select.poll()
            poll.register(rules.STDIN, select.POLLIN)
            poll.register(self._woken, select.POLLIN)
            if self._streams.out or self._unwritten:
                poll.register(rules.STDOUT, select.POLLOUT)
            for descriptor, events in self._interests():
                poll.register(descriptor, events)
            ready = {descriptor for descriptor, _ in poll.poll(self._pause_ms())}
            # Frozen and thawed late, it has first to hear that it was: what the host says comes before the clock.
            if time.monotonic() > self._until and rules.STDIN not in ready:
                os.write(rules.STDERR, b"[init] its time is over, and nobody has ended it\n")
                return
            self._count_tasks()
            self._count_locks()
            if rules.STDIN in ready and not self._read_host():
                return
            if self._woken in ready:
                os.read(self._woken, CHUNK)
                self._reap()
                if self._session.state is State.FINISHING and not self._is_finishing:
                    self._end_others()
            for name in [name for name, descriptor in self._ends.items() if descriptor in ready]:
                self._move(name)
            if self._is_finishing and not any(self._streams.is_open(name) for name in _SAID):
                self._say_the_last()
            self._write_host()

    # The host

    def _read_host(self) -> bool:
        try:
            data = os.read(rules.STDIN, CHUNK)
        except BlockingIOError:
            return True
        if not data:
            return False
        for message in self._streams.feed(data):
            self._obey(message)
        for name in _SOCKETS:
            if name in self._ends and self._streams.is_over(name):
                with suppress(OSError), socket.socket(fileno=os.dup(self._ends[name])) as end:
                    end.shutdown(socket.SHUT_WR)
        return True

    def _write_host(self) -> None:
        out = self._streams.out
        with suppress(BlockingIOError):
            while out or self._unwritten:
                if not self._unwritten:
                    self._unwritten = unbroken(bytes(out[:CHUNK]))
                    del out[:CHUNK]
                self._unwritten = self._unwritten[os.write(rules.STDOUT, self._unwritten) :]

    def _say(self, message: Message) -> None:
        self._session.sent(message)
        self._streams.send(message)

    def _obey(self, message: Message) -> None:
        if not isinstance(message, Replaced):
            self._session.received(message)
        match message:
            case Prepare():
                self._prepare(message)
            case Look():
                facts = facts_of(self._program)
                os.write(rules.STDERR, f"{line_of_status(facts.status)}\n".encode())
                self._say(Sealed(facts=facts))
            case Until():
                self._until = time.monotonic() + message.seconds
            case Terminate():
                if self._program > 0:
                    self._is_asked = True
                    os.kill(self._program, signal.SIGTERM)
            case Replaced(channel="tools"):
                self._replace_tools()
            case Finish():
                self._is_asked, self._until = True, inf
                self._end_others()
                self._streams.widen()
            case _:
                raise ProtocolError(f"the host does not send {type(message).__name__}")

    # The program

    def _prepare(self, message: Prepare) -> None:
        environ = {name: os.environ[name] for name in message.environment if name in os.environ}
        sys_path = [path for path in sys.path if path]
        if message.hand_over and (reason := hand_over()):
            self._say(BuildFailed(slot=0, step="workspace", reason=reason))
            return
        loaded, failed = preloads.preload(message.preloads)
        preloads.warm()
        program = loader.Loader(rules.WORK, rules.OUT, sys_path, environ)
        theirs = self._make_ends()
        gc.collect()
        gc.freeze()
        self._say(Warmed(python=sys.version.split()[0], preloads=loaded, failed=failed))
        try:
            pid = os.fork()
        except OSError as error:
            self._say(BuildFailed(slot=0, step="program process", reason=str(error)))
            return
        if pid == 0:
            _become_program(message, theirs, program)
        sys.path[:] = sys_path  # nothing that we import from here on may be the program's
        for descriptor in theirs.values():
            os.close(descriptor)
        self._program = pid
        self._is_shared = message.share_with_group
        self._most_tasks = message.most_tasks
        self._most_locks = message.most_locks

    def _count_tasks(self) -> None:
        """Where no kernel refuses a process too many (gVisor's), end the program that has them."""
        if self._most_tasks and not self._is_finishing and count_tasks(self._most_tasks) > self._most_tasks:
            self._refused_tasks += 1
            with suppress(ProcessLookupError, PermissionError):
                os.kill(-1, signal.SIGKILL)

    def _pause_ms(self) -> float | None:
        if self._most_tasks:
            return _WATCH_MS
        if self._most_locks:
            return _LOCKS_MS
        return None if self._until == inf else max(self._until - time.monotonic(), 0) * 1000 + 1

    def _count_locks(self) -> None:
        """Where the host does not see our processes: no control group counts file locks."""
        if not self._most_locks or self._is_finishing or time.monotonic() < self._listing_due:
            return
        if has_too_many_locks(self._listing, self._most_locks):
            self._too_many_locks = True
            self._listing.start_again()
            with suppress(ProcessLookupError, PermissionError):
                os.kill(-1, signal.SIGKILL)
        self._listing_due = time.monotonic() + _LOCKS_MS / 1000

    def _make_ends(self) -> dict[int, int]:
        """Our end of every channel is kept; theirs, by the number that it gets in the program."""
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        theirs = {rules.STDIN: null}
        for name, number in (("control", rules.CONTROL), ("tools", rules.TOOLS)):
            ours, other = socket.socketpair()
            ours.setblocking(False)
            self._ends[name], theirs[number] = ours.detach(), other.detach()
        for name, number in (("stdout", rules.STDOUT), ("stderr", rules.STDERR)):
            self._ends[name], theirs[number] = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._ends[name], False)
        return theirs

    def _interests(self) -> Iterator[tuple[int, int]]:
        behind = len(self._streams.out) > _BEHIND
        for name, descriptor in self._ends.items():
            events = select.POLLIN if self._streams.wants(name) and not behind else 0
            if self._streams.waiting(name):
                events |= select.POLLOUT
            if events:
                yield descriptor, events

    def _move(self, name: str) -> None:
        descriptor, streams = self._ends[name], self._streams
        if streams.waiting(name):
            try:
                streams.delivered(name, os.write(descriptor, streams.waiting(name)[:CHUNK]))
            except BlockingIOError:
                pass
            except OSError:  # nobody reads it any more
                streams.delivered(name, len(streams.waiting(name)))
        if most := streams.wants(name):
            with suppress(BlockingIOError):
                streams.push(name, _read(descriptor, most))

    def _replace_tools(self) -> None:
        """The supervisor is a new one: so is the program's stream, see PROTOCOL.md."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with socket.socket(fileno=self._ends["tools"]) as old, theirs:
            with suppress(OSError):
                old.send(self._streams.waiting("tools"))
            with suppress(OSError):  # it reads nothing, or is gone: then it has no use for tools
                socket.send_fds(old, [b"\0"], [theirs.fileno()])
        self._ends["tools"] = ours.detach()
        self._streams.replace("tools", ask=False)

    def _reap(self, how: int = os.WNOHANG) -> None:
        """The program's own end is told; of all others we only take the remains."""
        for pid, status, usage in zygote.reaped(how):
            if pid == self._program:
                self._program = 0
                self._is_unasked = not self._is_asked
                self._say(zygote.exited(0, status, usage))

    def _end_others(self) -> None:
        """Leave no process but this one; what the others left in their pipes has an end then.

        One that an operator began by `docker exec` may be another user's: it ends with the container, when we do.
        """
        with suppress(ProcessLookupError, PermissionError):
            while True:
                os.kill(-1, signal.SIGKILL)  # all but ourselves
                self._write_host()  # the program's end: it does not wait for theirs
                self._reap(0)
        self._is_finishing = True

    def _say_the_last(self) -> NoReturn:
        if self._is_shared:
            for folder in (rules.WORK, rules.OUT):
                _give_to_group(folder)
        counted = {"too_many_locks": self._too_many_locks, "unasked": self._is_unasked}
        self._say(final_facts(self._refused_tasks, **counted))
        os.set_blocking(rules.STDOUT, True)
        self._write_host()
        os._exit(0)


def _wake_on_child() -> int:
    """A descriptor that can be read once a child has died. The one handler here; a program's SIGCHLD only wakes us."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader


def _read(descriptor: int, most: int) -> bytes:
    try:
        return os.read(descriptor, most)
    except BlockingIOError:
        raise
    except OSError:
        return b""


def _become_program(message: Prepare, theirs: dict[int, int], program: loader.Loader) -> NoReturn:
    code = 70
    try:
        code = _run(message, theirs, program)
    except BaseException as error:  # noqa: BLE001 - a forked child must never return into its parent's loop
        os.write(rules.STDERR, f"the program's process: {error!r}\n".encode())
    finally:
        os._exit(code)


def _run(message: Prepare, theirs: dict[int, int], program: loader.Loader) -> int:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    fds.keep_only(theirs)
    control = Stream(socket.socket(fileno=rules.CONTROL), Session(Side.SLOT, Side.HOST, State.ATTACHED))
    caps.set_dumpable(True)  # init is not; a program that is not could not read its own /proc
    fork = ForkProgram(
        slot=0,
        sealing=message.sealing,
        filter=message.filter,
        cpu=None,
    )
    _die_first()
    try:
        abi = slot.seal(fork, give_up_capabilities=caps.demand_none)
    except StepFailed as failure:
        control.send(SetupError(step=failure.step, reason=failure.reason))
        return 70
    program.prepare()
    program.enter()
    program.rehearse(slot.rehearsed(rules.WORKSPACE))
    control.send(
        Ready(isolation={"landlock_abi": abi, "hostname": os.uname().nodename, "sockets": slot.socket_answers()})
    )
    go = slot.store_until_go(control, rules.WORKSPACE)
    if go is None:
        return 70
    control.send(Started())
    control.close()
    return program.run(go)


def _die_first() -> None:
    """Out of memory, the program and its children are killed and not init."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")


def _give_to_group(root: str) -> None:
    """What the program made private is the host's to read and remove, who has our group. No link is followed.

    Nor is anything kept but permissions: a sticky bit would keep the host from removing what is in a folder.
    """
    waiting = [root]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                if entry.is_symlink() or found.st_uid != os.geteuid():
                    continue
                is_folder = entry.is_dir(follow_symlinks=False)
                os.chmod(entry.path, (found.st_mode & 0o777) | (0o770 if is_folder else 0o660))
                if is_folder:
                    waiting.append(entry.path)
