"""The program's end of the tool stream: frames out, answers in, for any number of threads and loops.

Theory of operation. No thread of ours exists: whoever waits for an answer reads, and
hands each answer to the call it belongs to, whoever's it is (`tool_threads` and
`tool_loops` wait). One lock guards all of it and is never held while waiting. A signal
handler of the program may raise in the main thread between any two of our instructions,
so what is read or sent is recorded by the C call that does it, and every step from there
can be done twice: answers are handed out before they are forgotten, and a second
handing out changes nothing.

It must not know what an error of a tool is called: a call that gets no answer is
handed a `Refused` of our own.
"""

import itertools
import os
import select
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from isorun.wire.frames import MAX_FRAME, PREFIX_BYTES, ProtocolError, cut
from isorun.wire.messages import Call, Message, NotEncodable, Refused, Reply, decode, encode
from isorun.wire.values import CALL_VALUES

Answer = Reply | Refused
_ANSWERS = (Reply, Refused)

_CLOSED = "no tool stream: a child process has none, and a closed stream stays closed"
_GONE = "the supervisor is gone"
_REPLACED = "the supervisor was restarted: this call may or may not have been carried out"
_DESCRIPTOR_BYTES = 4
# Arguments of recvmsg, as one-element iterables for `map`. CMSG_SPACE would have room for two descriptors:
# what does not fit is closed by the kernel.
_RECEIVE = ((1 << 16,), (socket.CMSG_LEN(_DESCRIPTOR_BYTES),), (socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC,))
_DONT_WAIT = (socket.MSG_DONTWAIT,)  # not O_NONBLOCK, which a program's own dup of the descriptor would share
_Arrived = tuple[bytes, list[tuple[int, int, bytes]], int, Any]


class Gone(Exception):
    """Nothing can be sent any more; the text says why."""


class Waiter(Protocol):
    """Somebody whose call is in flight."""

    def hand(self, answer: Answer) -> None:
        """Take the answer, in the thread that read it; a second answer changes nothing."""


class _Outgoing:
    """The one frame that is being sent, and how much of it the kernel has taken."""

    __slots__ = ("frame", "taken")

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.taken: list[int] = []

    def rest(self) -> memoryview:
        return memoryview(self.frame)[sum(self.taken) :]


class ToolStream:
    """One end of the tool stream, shared by every thread of the program's process.

    *descriptor* is a connected Unix stream socket and stays the stream, also when the host sends
    a new one over it (PROTOCOL.md). `max_frame` is the largest body that the supervisor takes,
    `max_values` how many values of a call.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self.max_frame = MAX_FRAME
        self.max_values = CALL_VALUES
        self.descriptor = descriptor
        self.is_forgotten = False  # in a child of fork
        self.generation = 0  # goes up when the socket behind the descriptor is replaced
        self.on_change: Callable[[], None] = _tell_nobody  # called when it is replaced or lost, in any thread
        self._socket = socket.socket(fileno=descriptor)
        self._numbers = itertools.count(1)
        self._begin_empty()

    def _begin_empty(self) -> None:
        self.lock = threading.RLock()
        self._gone: str | None = None
        self._calls: dict[int, Waiter] = {}
        self._arrived: list[_Arrived] = []
        self._looked_at = 0  # of _arrived: these hold no whole frame
        self._outgoing: _Outgoing | None = None

    # Sending

    def frame(self, tool: str, params: dict[str, Any], reason: str, timeout_s: float | None) -> tuple[int, bytes]:
        """A new call's number, and its frame. Raises `NotEncodable`."""
        number = next(self._numbers)
        call = Call(id=number, tool=tool, params=params, reason=reason, timeout_s=timeout_s)
        return number, encode(call, self.max_frame, self.max_values)

    def push(self, frame: bytes, number: int = 0, waiter: Waiter | None = None) -> bool:
        """Begin to send *frame* without waiting; False, and nothing was sent, if there is no room.

        Once begun, `flush` sends what is left of it, and *waiter* gets the answer to call *number*.
        Raises `Gone`.
        """
        if self.lock._is_owned():  # type: ignore[attr-defined]  # an RLock has it; typeshed does not know
            # A signal handler, or a finalizer, that interrupted us between two instructions.
            raise Gone("a tool cannot be called from code that interrupted another call")
        with self.lock:
            while self.flush():
                if self._gone is not None:
                    raise Gone(self._gone)
                generation = self.generation
                self._outgoing = _Outgoing(frame)
                self.flush()
                if self.generation == generation and self._gone is None:
                    if waiter is not None:
                        self._calls[number] = waiter
                    return True
                # The old supervisor has not got it whole, so the new one may have it.
            return False

    def flush(self) -> bool:
        """Send what is left of a frame that was begun, without waiting; True if nothing is left."""
        with self.lock:
            while (out := self._outgoing) is not None:
                rest = out.rest()
                if not rest:
                    self._outgoing = None
                    break
                try:
                    out.taken.extend(map(self._socket.send, (rest,), _DONT_WAIT))
                except BlockingIOError:
                    return False
                except OSError as error:
                    self._find_out(error)
            return True

    def lose(self, error: OSError) -> None:
        """The descriptor is closed, as *error* shows: the program closed it."""
        with self.lock:
            self._lose(_why(error))

    def _find_out(self, error: OSError) -> None:
        """The supervisor does not read what we send: a new socket may be waiting behind the last answers."""
        generation = self.generation
        while self._gone is None and self.generation == generation:
            if not self.take():
                self._lose(_why(error))

    @property
    def is_sending(self) -> bool:
        """Whether a frame was begun that the kernel had no room for."""
        return self._outgoing is not None

    def send(self, message: Message) -> None:
        """Send a message that has no answer, if anybody is there to read it and it fits; waits for room."""
        with suppress(Gone, NotEncodable):
            self.send_frame(encode(message, self.max_frame))

    def send_frame(self, frame: bytes, number: int = 0, waiter: Waiter | None = None) -> None:
        """`push`, and return when all of *frame* is sent; waits for room."""
        while not self.push(frame, number, waiter):
            self._wait_for_room()
        while (out := self._outgoing) is not None and out.frame is frame and not self.flush():
            self._wait_for_room()

    def _wait_for_room(self) -> None:
        """Reads meanwhile: the peer may take no more until we have taken its answers."""
        poller = select.poll()
        poller.register(self.descriptor, select.POLLIN | select.POLLOUT)
        poller.poll()
        self.receive()

    def drop(self, number: int) -> None:
        """Forget call *number*: its caller has gone."""
        self._calls.pop(number, None)

    @property
    def in_flight(self) -> int:
        """How many calls have no answer yet."""
        return len(self._calls)

    # Receiving

    def receive(self) -> None:
        """Take what has arrived, without waiting, and hand out the answers in it."""
        with self.lock:
            self.take()

    def take(self) -> bool:
        """`receive`, for who holds the lock; False if nothing new had arrived."""
        arrived = self._arrived
        if self._gone is not None:
            return False
        try:
            # One C call from the kernel to the list: an exception of a signal handler comes before or after.
            arrived.extend(map(self._socket.recvmsg, *_RECEIVE))
        except BlockingIOError:
            if self._looked_at == len(arrived):
                return False
        except OSError as error:
            self._lose(_why(error))
            return False
        self._look()
        return True

    def _look(self) -> None:
        arrived = self._arrived
        data, ancillary, _, _ = arrived[-1]
        ended = not data
        received = _descriptors(ancillary) if ancillary else []
        if received:
            data = data[:-1]  # without the byte beside the descriptor
        if len(arrived) > 1:
            if not ended and not received and _is_partial(arrived):
                self._looked_at = len(arrived)
                return
            data = b"".join([*(before for before, *_ in arrived[:-1]), data])
        used = self._hand_out(data)
        if ended:
            self._lose(_GONE)
        if received:
            self._replace(received)
        rest = b"" if ended or received else data[used:]
        self._looked_at = 0  # before the list changes: interrupted in between, all of it is looked at again
        arrived[:] = [(rest, [], 0, None)] if rest else []
        self._looked_at = len(arrived)
        for descriptor in received:
            os.close(descriptor)

    def _hand_out(self, data: bytes) -> int:
        try:
            frames, used = cut(data)
            for header, blobs in frames:
                message = decode(header, blobs)
                if not isinstance(message, _ANSWERS):
                    raise ProtocolError(f"a supervisor does not send {type(message).__name__}")
                waiter = self._calls.get(message.id)
                if waiter is not None:  # else its caller has given up
                    waiter.hand(message)
                    del self._calls[message.id]
        except ProtocolError as error:
            self._lose(f"the supervisor broke the protocol: {error}")
            return 0
        return used

    def _replace(self, received: list[int]) -> None:
        """From now on the descriptor is the socket that was received, and nobody has the calls in flight."""
        self.generation += 1
        self._outgoing = None
        os.dup2(received[0], self.descriptor, inheritable=False)
        self._refuse_all(_REPLACED)

    def _lose(self, text: str) -> None:
        self._gone = self._gone or text
        self._outgoing = None
        self._refuse_all(self._gone)

    def _refuse_all(self, text: str) -> None:
        for number, waiter in list(self._calls.items()):
            waiter.hand(Refused(id=number, error="ToolUnavailable", text=text))
            self._calls.pop(number, None)
        self.on_change()

    # Ending

    def forget(self) -> None:
        """In a child of fork: the stream is the parent's. What its calls wait for will not come."""
        calls = self._calls
        self._socket.close()
        self._begin_empty()
        self._gone = _CLOSED
        self.is_forgotten = True
        self.on_change = _tell_nobody
        for number, waiter in calls.items():
            waiter.hand(Refused(id=number, error="ToolUnavailable", text=_CLOSED))


def _tell_nobody() -> None:
    """Until a loop makes a call."""


def _why(error: OSError) -> str:
    if isinstance(error, BrokenPipeError | ConnectionResetError):
        return _GONE
    return f"the tool stream cannot be used: {error.strerror}"


def _is_partial(arrived: list[_Arrived]) -> bool:
    """Whether more is needed, told without joining what is here: a large frame comes in hundreds of parts."""
    first = arrived[0][0]
    needed = PREFIX_BYTES + int.from_bytes(first[:4], "big")
    return len(first) >= PREFIX_BYTES and sum(len(data) for data, *_ in arrived) < needed


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    return [
        int.from_bytes(payload[:_DESCRIPTOR_BYTES], sys.byteorder)
        for level, kind, payload in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and len(payload) >= _DESCRIPTOR_BYTES
    ]
