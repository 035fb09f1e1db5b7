"""The host's end of the process that watches its runs (`loop`): started with the backend, and ended with it.

An unwatched run has no ceiling. If that process dies, every run that it watched is killed at once, its result
says why, and the next run waits for a new one.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from isorun.backends.environment import own_package
from isorun.backends.watch import told
from isorun.backends.watch.loop import PACKET, THAW
from isorun.core.errors import SetupFailed
from isorun.core.limits import MAX_LOCKS
from isorun.kernel.readiness import wait_readable, wait_writable

_START_S = 30.0
_END_S = 5.0
_RECORDS = 1 << 16  # of one file: a number is used again after as many other runs
_SAID = 4096
_LOCK_BYTES = 208  # struct file_lock of Linux 6, to tell what was held
_MODULE = "isorun.backends.watch.loop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A run to watch: *pids* and *pidfds* are those of its first process, which ends all of it, and of its program.

    *memory_bytes*: None where a control group holds it. *socket_bytes*: what its sockets may hold where a control
    group holds memory; None: nothing more. *devices*: of the file systems that are the run's alone.
    *tell*: called once there are too many file locks, some looks before the run is killed for them; None: it is
    killed at the first such look.
    """

    pids: tuple[int, int]
    pidfds: tuple[int, int]
    memory_bytes: int | None
    socket_bytes: int | None = None
    devices: Iterable[int] = ()
    tell: Callable[[], None] | None = None


class Watched:
    """One run that is being watched."""

    def __init__(self, records: int, number: int, init: int, tell: Callable[[], None] | None) -> None:
        self._records, self.number, self._init, self._tell = records, number, init, tell
        self._last = (0, 0, 0, 0)
        self.thaw: Callable[[], None] | None = None  # of a run that is frozen, or was
        self.failure: SetupFailed | None = None

    def _read(self) -> tuple[int, int, int, int]:
        if self._records >= 0:
            found = os.pread(self._records, told.RECORD.size, self.number * told.RECORD.size)
            self._last = told.RECORD.unpack(found.ljust(told.RECORD.size, b"\0"))
        return self._last

    @property
    def peak_bytes(self) -> int:
        """The most that it was seen to hold, file locks not counted; 0 where a control group counts."""
        return self._read()[0]

    @property
    def lock_bytes(self) -> int:
        """What its file locks took of the kernel's memory, where they were so many that they were counted."""
        return self._read()[1] * _LOCK_BYTES

    @property
    def kills(self) -> int:
        """How many of its processes were killed for memory."""
        return self._read()[2]

    @property
    def has_too_many_locks(self) -> bool:
        """Whether it was ended for them."""
        return self._read()[3] == told.LOCKS

    def confirm(self) -> None:
        """Raise `SetupFailed` if it was not watched to its end."""
        if self._read()[3] == told.BROKEN:
            raise SetupFailed("watcher", f"it cannot watch the run, which was killed: {_UNWATCHED}")
        if self.failure is not None:
            raise self.failure

    def told(self) -> None:
        """The process says that it has too many file locks."""
        if self._tell is not None:
            self._tell()

    def lose(self, failure: SetupFailed) -> None:
        """The watcher has gone: kill the run."""
        self.failure = failure
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self._init, signal.SIGKILL)
        if self.thaw is not None:
            with suppress(OSError):
                self.thaw()
        self.told()

    def close(self) -> None:
        """Its last process is dead, and its figures are final."""
        if self._records >= 0:
            self._read()
            self._records = -1
            os.close(self._init)


_UNWATCHED = "nothing else would have held the limits of the run"


class Watcher:
    """Keeps one such process, from `start` to `close`."""

    def __init__(self) -> None:
        self._process: _Process | None = None
        self._records = -1
        self._number = 0
        self._watched: dict[int, Watched] = {}
        self._starting = asyncio.Lock()

    def start(self) -> None:
        """Start the process; `watch` waits until it is there."""
        if self._records < 0:
            self._records = os.memfd_create("isorun-watched", os.MFD_CLOEXEC)
        self._process = _Process.start(self._records, self._tell, self._lost)

    async def watch(self, subject: Subject) -> Watched:
        """From now on *subject* is watched, until its first process is dead. Raises `SetupFailed`."""
        async with self._starting:
            if self._process is None:
                self.start()
            process = self._process
            assert process is not None
            await process.wait_ready()
        number = self._next_number()
        os.pwrite(self._records, bytes(told.RECORD.size), number * told.RECORD.size)
        # A copy: the slot closes its own before it closes this, and its number may then be another's.
        watched = Watched(self._records, number, os.dup(subject.pidfds[0]), subject.tell)
        self._watched[number] = watched
        try:
            await process.send(number, subject)
        except BaseException:
            self.forget(watched)
            raise
        return watched

    async def entrust(self, watched: Watched, path: str, text: str, thaw: Callable[[], None]) -> None:
        """Before a run is frozen: if we are killed, the process ends it, and writes *text* to *path* to thaw it.

        If the process dies, *thaw* is called. Raises `SetupFailed`.
        """
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SetupFailed("freeze", f"{path}: {error.strerror}") from error
        try:
            watched.thaw = thaw
            if self._process is None:
                raise SetupFailed("watcher", "it has gone")
            await self._process.send_packet(f"{THAW} {watched.number} {text}".encode(), [descriptor])
        finally:
            os.close(descriptor)

    def forget(self, watched: Watched) -> None:
        """Its last process is dead."""
        self._watched.pop(watched.number, None)
        watched.close()

    async def close(self) -> None:
        """End the process. No run is left."""
        process, self._process = self._process, None
        if process is not None:
            await process.end()
        if self._records >= 0:
            os.close(self._records)
            self._records = -1

    def _next_number(self) -> int:
        self._number = next(
            number for step in range(1, _RECORDS) if (number := (self._number + step) % _RECORDS) not in self._watched
        )
        return self._number

    def _tell(self, number: int) -> None:
        if number in self._watched:
            self._watched[number].told()

    def _lost(self, process: "_Process", said: str) -> None:
        if self._process is process:
            self._process = None
        failure = SetupFailed("watcher", f"it ended, and the run was killed: {_UNWATCHED}{said and f' ({said})'}")
        for watched in self._watched.values():
            watched.lose(failure)


class _Process:
    """One such process."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        tell: Callable[[int], None],
        lost: Callable[["_Process", str], None],
    ) -> None:
        self._process, self._control, self._tell, self._lost = process, control, tell, lost
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        self._loop.add_reader(control, self._hear)

    @classmethod
    def start(cls, records: int, tell: Callable[[int], None], lost: Callable[["_Process", str], None]) -> "_Process":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        boot = f"import sys; sys.path.insert(0, {str(own_package())!r}); from {_MODULE} import main; main()"
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", boot, *map(str, (theirs.fileno(), records, MAX_LOCKS))],
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(), records),
                cwd="/",
                start_new_session=True,  # Ctrl-C at our terminal is for us to handle
            )
        return cls(process, ours, tell, lost)

    async def wait_ready(self) -> None:
        """Raises `SetupFailed` if it does not come up."""
        if not (self._ready.done() and self._ready.exception() is None):
            async with asyncio.timeout(_START_S):
                await asyncio.shield(self._ready)

    async def send(self, number: int, subject: Subject) -> None:
        """Return once the kernel has the packet."""
        most = subject.memory_bytes or 0, subject.socket_bytes or 0
        words = (number, *most, *subject.pids, int(subject.tell is not None), *subject.devices)
        await self.send_packet(" ".join(map(str, words)).encode(), subject.pidfds)

    async def send_packet(self, packet: bytes, descriptors: Sequence[int]) -> None:
        """Return once the kernel has *packet* and its *descriptors*. Raises `SetupFailed`."""
        while True:
            try:
                socket.send_fds(self._control, [packet], descriptors)
            except BlockingIOError:
                await wait_writable(self._control.fileno())
            except OSError as error:
                raise SetupFailed("watcher", f"it cannot be asked: {error.strerror}") from error
            else:
                return

    def _hear(self) -> None:
        try:
            packet = self._control.recv(PACKET)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet == b"ready":
            self._ready.set_result(None)
        elif packet:
            self._tell(int(packet))
        else:
            self._die()

    def _die(self) -> None:
        """It is gone, or as good as that: it hears us no more."""
        self._loop.remove_reader(self._control)
        self._process.kill()
        self._process.wait()
        said = self._said()
        if not self._ready.done():
            self._ready.set_exception(SetupFailed("watcher", f"it did not start: {said or 'no reason given'}"))
            self._ready.exception()  # retrieved here: nobody may be waiting
        self._control.close()
        self._lost(self, said)

    def _said(self) -> str:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            os.set_blocking(stderr.fileno(), False)
            lines = (stderr.read(_SAID) or b"").decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    async def end(self) -> None:
        """Kill it, and return once it is gone."""
        if self._process.returncode is not None:
            return
        self._loop.remove_reader(self._control)
        self._control.close()
        pidfd = os.pidfd_open(self._process.pid)
        try:
            self._process.kill()
            async with asyncio.timeout(_END_S):
                await wait_readable(pidfd)
        finally:
            os.close(pidfd)
        self._process.wait()
        self._said()
