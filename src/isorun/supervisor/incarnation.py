"""One incarnation of the supervisor process, as the host holds it: started, heard, killed.

The process gets the environment it is given and nothing else of ours. Its own output
(what C code and the children of tools print) is read here, line by line.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from isorun.core.errors import InvalidRequest, SetupFailed, Unavailable
from isorun.core.process import Process
from isorun.kernel.readiness import Channel
from isorun.supervisor.descriptor import GLOBALS, GLOBALS_BYTES
from isorun.wire.frames import ProtocolError
from isorun.wire.messages import Loaded, LoadFailed, Message, OpenRun, Place, Placed, encode
from isorun.wire.session import Session, Side, State

_LOAD_S = 120.0
_END_S = 2.0
_PRINTED_BYTES = 1 << 20  # of what the process itself prints, kept between two log lines
#: -I, so that nothing in the environment or the folder we stand in is imported; ours from where we have it ourselves.
_BOOT = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r}); "
    "from isorun.supervisor.process import main; main()"
)
NewStream = Callable[[], Awaitable[tuple[socket.socket, socket.socket]]]


async def a_pair() -> tuple[socket.socket, socket.socket]:
    """A stream for who is in no sandbox."""
    return socket.socketpair()


class LocalProcess:
    """See `Process`: a child of ours, on this machine. Without *globals_json* it waits for `tell`."""

    def __init__(self, globals_json: str | None, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        small = globals_json is not None and len(globals_json.encode()) <= GLOBALS_BYTES
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            with theirs:
                self._popen = subprocess.Popen(
                    [sys.executable, "-I", "-c", _BOOT, str(theirs.fileno())],
                    env={**environment, **({GLOBALS: globals_json} if small and globals_json else {})},
                    stdin=subprocess.DEVNULL if small else subprocess.PIPE,
                    stdout=writer,
                    stderr=writer,
                    pass_fds=[theirs.fileno()],
                    cwd="/",
                    start_new_session=True,  # Ctrl-C at our terminal is for us to handle; and its group is killed
                )
        except BaseException:
            ours.close()
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self.socket, self.output = ours, reader
        if globals_json is not None and not small:
            self.tell(globals_json)

    def tell(self, globals_json: str) -> None:
        """Give it its bundle."""
        assert self._popen.stdin is not None
        with suppress(BrokenPipeError), self._popen.stdin as stdin:
            stdin.write(globals_json.encode())

    @classmethod
    async def start(cls, globals_json: str, environment: Mapping[str, str]) -> "LocalProcess":
        """A `StartProcess`."""
        return cls(globals_json, environment)

    def kill(self) -> None:
        """See `Process.kill`."""
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def wait(self, timeout_s: float | None) -> bool:
        """See `Process.wait`."""
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def ending(self) -> str:
        """See `Process.ending`."""
        code = self._popen.returncode
        return f"exit code {code}" if code >= 0 else f"signal {-code}"

    def close(self) -> None:
        """See `Process.close`."""


class Ahead:
    """A local process that is started before it is known whether tools run on this machine.

    It imports what is ours and waits: none of a bundle's code runs before `start`, which may never come.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._waiting: LocalProcess | None = LocalProcess(None, environment)

    async def start(self, globals_json: str, environment: Mapping[str, str]) -> LocalProcess:
        """A `StartProcess`: the waiting process, with the environment that it has; after that new ones."""
        process, self._waiting = self._waiting, None
        if process is None:
            return LocalProcess(globals_json, environment)
        process.tell(globals_json)
        return process

    def abandon(self) -> None:
        """End the waiting process, if it still waits."""
        process, self._waiting = self._waiting, None
        if process is not None:
            process.kill()
            process.tell("")  # closes its stdin
            process.wait(None)
            process.socket.close()
            os.close(process.output)


class Incarnation:
    """One incarnation of the supervisor process."""

    def __init__(self, process: Process, printed: Callable[[str], None]) -> None:
        self._printed = printed
        self._rest, self._said = b"", ""
        self._ended: asyncio.Future[str] | None = None
        self.is_killed = False  # by us, and so takes no run any more
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._socket, self._output = process.socket, process.output
        self._session = Session(Side.HOST, Side.SUPERVISOR, State.LOADING)
        self._control = Channel(self._socket, self._session)
        self._unsent: deque[tuple[memoryview, list[int]]] = deque()  # bytes, and descriptors of ours that go with them
        self._sending = threading.Lock()  # for the socket and what was not sent: threads answer calls
        os.set_blocking(self._output, False)
        self._loop.add_reader(self._output, self._read_output)

    async def load(self) -> Loaded:
        """The bundle's tools, and which services answer. Raises `InvalidRequest` (invalid_bundle), `SetupFailed`."""
        try:
            message = await asyncio.wait_for(self._control.receive(), _LOAD_S)
        except TimeoutError as error:
            text = f"the bundle is not loaded after {_LOAD_S:.0f} s: its modules must not wait when they are imported"
            raise SetupFailed("supervisor", text) from error
        except ProtocolError as error:
            raise SetupFailed("supervisor", f"what it said when it should have loaded the bundle: {error}") from error
        if isinstance(message, LoadFailed):
            raise InvalidRequest(message.reason, code="invalid_bundle")
        if not isinstance(message, Loaded):
            self._read_output()
            raise SetupFailed("supervisor", f"it died while it loaded the bundle: {self._said}")
        return message

    async def place(self, modes: Mapping[str, str]) -> None:
        """Say where its tools run. Raises `Unavailable` if one cannot, and `SetupFailed`."""
        self.send(Place(modes=dict(modes)))
        try:
            message = await asyncio.wait_for(self._control.receive(), _LOAD_S)
        except (TimeoutError, ProtocolError, OSError) as error:
            raise SetupFailed("supervisor", f"it does not say whether its tools can run: {error}") from error
        if not isinstance(message, Placed):
            self._read_output()
            raise SetupFailed("supervisor", f"it died when it was told where its tools run: {self._said}")
        if message.refused:
            raise Unavailable(message.refused)

    async def hear(self, take: Callable[[Message], object]) -> None:
        """Hand each message to *take* as it comes; return once the process is gone. Raises `ProtocolError`."""
        await self._control.hear(take)

    def hand_over(self, request: OpenRun, descriptors: Sequence[int]) -> bool:
        """Send `OpenRun` with its descriptors; False if the process reads nothing any more."""
        data = memoryview(encode(request))
        with self._sending:
            self._session.sent(request)
            if self._unsent:  # a large answer is on its way
                self._unsent.append((data, [os.dup(descriptor) for descriptor in descriptors]))
                return True
            try:
                self._keep(data[socket.send_fds(self._socket, [data], list(descriptors)) :])
            except BlockingIOError:
                return False
            except OSError:
                return True  # it died: whoever hears of it hands the run to the next one
            return True

    def send(self, message: Message) -> None:
        """Send a message without descriptors, now or when there is room; from any thread. Raises `NotEncodable`."""
        data = memoryview(encode(message))
        with self._sending:
            self._session.sent(message)
            if self._unsent:
                self._unsent.append((data, []))
                return
            try:
                self._keep(data[self._socket.send(data) :])
            except BlockingIOError:
                self._keep(data)
            except OSError:
                return  # it died: whoever hears of it says so

    def _keep(self, rest: memoryview) -> None:
        if rest:
            self._unsent.append((rest, []))
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        with self._sending:
            try:
                while self._unsent:
                    data, descriptors = self._unsent[0]
                    sent = socket.send_fds(self._socket, [data], descriptors)
                    _close(descriptors)
                    self._unsent[0] = data[sent:], []
                    if sent == len(data):
                        self._unsent.popleft()
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._flush)
                return
            except OSError:
                self._forget()
            if self._socket.fileno() >= 0:
                self._loop.remove_writer(self._socket.fileno())

    def _forget(self) -> None:
        """Drop what was not sent."""
        while self._unsent:
            _close(self._unsent.popleft()[1])

    def kill(self) -> None:
        """End the process now."""
        self.is_killed = True
        self._process.kill()

    async def end(self) -> str:
        """Close the socket, wait a little, kill, with all that its tools started; how it ended, also if asked again."""
        if self._ended is None:
            self._ended = asyncio.ensure_future(self._end())
        return await asyncio.shield(self._ended)

    async def _end(self) -> str:
        self._loop.remove_reader(self._output)
        self._loop.remove_writer(self._socket.fileno())
        with self._sending:
            self._forget()
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        try:
            await asyncio.wait_for(asyncio.to_thread(self._process.wait, _END_S), _END_S + 1)
        except TimeoutError:
            pass
        finally:
            self.kill()
            await asyncio.to_thread(self._process.wait, None)
        self._read_output()
        self._control.stop()
        self._loop.remove_writer(self._socket.fileno())
        with self._sending:  # or a thread would send to whom its number belongs then
            self._socket.close()
        os.close(self._output)
        how = self._process.ending()
        await asyncio.to_thread(self._process.close)
        return how

    def _read_output(self) -> None:
        try:
            data = os.read(self._output, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._output)
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_PRINTED_BYTES:]
        for line in lines:
            self._said = line.decode(errors="replace")[:2000]
            self._printed(self._said)


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
