"""The worker process: runs one call at a time, as `supervisor.dispatch` does in the supervisor.

The first message names the bundle. Then each call is answered before the next is read. A module of the bundle is
imported at the first call of one of its tools. Output is sent as it is printed, so that the supervisor has it even if
the process does not survive the call. The worker must not decide anything about a call: whether it is granted, how
long it may take, what is recorded.
"""

import asyncio
import contextvars
import faulthandler
import gc
import logging
import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

from isorun.kernel import fds
from isorun.settings import BASE_NAMES, become_environment, process_environment
from isorun.supervisor.descriptor import Descriptor, from_json
from isorun.supervisor.output import INSIDE, OutputDirectory
from isorun.supervisor.prints import CALL_CHARS, current, redirect
from isorun.supervisor.registry import ArgumentsRefused, Tool
from isorun.supervisor.tool import ToolContext, ToolError
from isorun.supervisor.worker.failures import failed, raised, unsendable
from isorun.supervisor.worker.lazy import LazyTools
from isorun.wire.frames import MOST_FRAME, Frames
from isorun.wire.messages import Configure, Failed, Message, NotEncodable, Output, Reply, Result, Work, decode, encode
from isorun.wire.session import Session, Side, State
from isorun.wire.values import TOO_LARGE, Unfit

OUTPUT_CHARS = 8192  # of one message
_READ = 1 << 18


def serve(descriptor: int) -> int:
    """Run the calls that come over the socket *descriptor* until it is closed; the exit code."""
    faulthandler.enable()
    connection = _Connection(socket.socket(fileno=descriptor))
    configure = connection.receive()
    if not isinstance(configure, Configure):
        return 0
    redirect()
    base = {name: value for name, value in process_environment().items() if name in BASE_NAMES}
    become_environment({**base, **configure.environment})
    bundle = from_json(configure.globals_json)
    pid = os.getpid()
    dispatcher = _Dispatcher(connection, bundle, MappingProxyType(dict(configure.environment)))
    os.register_at_fork(after_in_child=connection.close)
    gc.freeze()
    while isinstance(work := connection.receive(), Work):
        answer = dispatcher.answer(work)
        if os.getpid() != pid:  # a child that the tool forked and that came back here
            os._exit(70)
        connection.send(*answer)
    return 0


class _Connection:
    """The socket to the supervisor: blocking, read by the main thread, written by every thread that prints."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        channel.setblocking(True)
        self._frames = Frames(MOST_FRAME)
        self._session = Session(Side.WORKER, Side.SUPERVISOR, State.UNCONFIGURED)
        self._lock = threading.Lock()
        self.descriptors: list[int] = []

    def receive(self) -> Message | None:
        while (frame := self._frames.next()) is None:
            data, descriptors, _ = fds.receive(self._channel, _READ)
            self.descriptors += descriptors
            if not data:
                return None
            self._frames.feed(data)
        message = decode(*frame)
        self._session.received(message)
        return message

    def send(self, message: Message, data: bytes | None = None) -> None:
        with self._lock:
            self._session.sent(message)
            self._channel.sendall(encode(message) if data is None else data)

    def close(self) -> None:
        """For a child that a tool forked: the socket belongs to the worker."""
        with suppress(OSError):
            os.close(self._channel.fileno())


class _Output:
    """The output of one call, sent in lines, at most as much as the supervisor keeps (see `prints.CallOutput`)."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._text = ""
        self._left = CALL_CHARS + 1  # one more, so that the supervisor sees that there was too much
        self._lock = threading.Lock()
        self._open = True

    def write(self, text: str) -> None:
        with self._lock:
            if not self._open:
                return
            text = text[: self._left]
            self._left -= len(text)
            self._text += text
            if "\n" in text or len(self._text) > OUTPUT_CHARS:
                self._flush()

    def close(self) -> None:
        with self._lock:
            self._flush()
            self._open = False

    def _flush(self) -> None:
        text, self._text = self._text.encode("utf-8", "replace").decode(), ""
        for start in range(0, len(text), OUTPUT_CHARS):
            self._connection.send(Output(level="INFO", text=text[start : start + OUTPUT_CHARS]))


class _Dispatcher:
    def __init__(self, connection: _Connection, bundle: Descriptor, env: Mapping[str, str]) -> None:
        self._connection, self._tools, self._env = connection, LazyTools(bundle), env
        self._runner = asyncio.Runner()  # one loop for all calls, made for the first coroutine

    def answer(self, work: Work) -> tuple[Message, bytes | None]:
        """The answer to a call: the message, and its frame if it is encoded already."""
        out = OutputDirectory(self._connection.descriptors.pop(0)) if self._connection.descriptors else None
        output = _Output(self._connection)
        token = current.set(output)
        try:
            return self._run(work, self._tools.tool(work.tool), out)
        except ArgumentsRefused as refused:
            return _failed(work, "ToolInputInvalid", f"{work.tool}: {refused}")
        except (NotEncodable, Unfit) as error:
            return _failed(work, "ToolFailed", unsendable(error))
        except ToolError as error:
            return _failed(work, "ToolFailed", str(error))
        except BaseException as error:  # noqa: BLE001 - boundary: any tool may fail in any way, also by SystemExit
            return self._crashed(work, error)
        finally:
            current.reset(token)
            output.close()
            if out is not None:
                out.close()

    def _run(self, work: Work, tool: Tool, out: OutputDirectory | None) -> tuple[Message, bytes | None]:
        arguments = tool.check(work.params)
        if tool.context is not None and out is not None:
            arguments[tool.context] = self._context(work, out)
        value = tool.function(**arguments)
        if tool.is_async:
            value = self._runner.run(value, context=contextvars.copy_context())
        result = Result(id=work.id, value=value)
        try:
            try:
                return result, encode(result, MOST_FRAME)
            except NotEncodable as error:
                if error.reason.startswith(TOO_LARGE):
                    raise
            result = Result(id=work.id, value=tool.result.dumped(value))
            return result, encode(result, MOST_FRAME)
        except NotEncodable:
            encode(Reply(id=work.id, value=result.value), work.frame_bytes)  # for its text: programs get a Reply
            raise

    def _context(self, work: Work, out: OutputDirectory) -> ToolContext:
        return ToolContext(
            output_dir=INSIDE,
            user_id=work.user,
            turn_id=work.turn,
            exec_id=work.exec_id,
            deadline=work.deadline,
            log=logging.getLogger(f"isorun.tool.{work.tool}"),
            env=self._env,
            opener=out.open,
        )

    def _crashed(self, work: Work, error: BaseException) -> tuple[Message, bytes | None]:
        traceback = raised(error, self._tools.where(work.tool)).encode("utf-8", "replace").decode()
        for start in range(0, len(traceback), OUTPUT_CHARS):
            self._connection.send(Output(level="ERROR", text=traceback[start : start + OUTPUT_CHARS]))
        return _failed(work, "ToolFailed", failed(work.id))


def _failed(work: Work, error: str, text: str) -> tuple[Message, None]:
    return Failed(id=work.id, error=error, text=text.encode("utf-8", "replace").decode()), None
