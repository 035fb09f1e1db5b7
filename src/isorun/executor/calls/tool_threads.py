"""How a thread waits for the answer to its call.

First it spins for a moment: the kernel takes 35 us to wake a CPU that sleeps. Then one
waiting thread, the leader, sleeps in poll on the stream, and each of the others, the
followers, on a lock. A leader that has its answer makes a follower the leader. If
somebody else (a loop, a sender) reads the leader's answer, it wakes the leader by an
eventfd.

A signal handler of the program may raise anywhere, also while a leader makes the next
one leader. So a leader that waits says so twice a second, and one that has not for two
seconds is replaced.
"""

import os
import select
import threading
from contextlib import suppress
from time import monotonic, perf_counter

from isorun.executor.calls.tool_stream import Answer, ToolStream

SPIN_S = 300e-6  # waking costs 35 us each way; a quick tool answers in 80, more when a third process wants a CPU
_BEAT_S = 0.5  # how often a leader says that it reads, and a follower looks whether one does
_SILENT_S = 2.0  # a leader that said nothing for as long was interrupted, or a signal handler of its thread runs
_BLIND_MS = 2  # how often a leader looks whom no one can wake, because no descriptor was left for it


class ThreadCall:
    """A call that a thread waits for."""

    __slots__ = ("_threads", "answer", "beneath", "thread", "turn")

    def __init__(self, threads: "ToolThreads") -> None:
        self._threads = threads
        self.answer: Answer | None = None
        self.thread = threading.get_ident()
        self.turn: threading.Lock | None = None  # a follower's: held until it is answered, or leads
        self.beneath: ThreadCall | None = None  # the leader that a signal handler of this thread interrupted

    def hand(self, answer: Answer) -> None:
        """See `Waiter.hand`."""
        self.answer = answer
        self._threads.wake(self)


class ToolThreads:
    """The calls over *stream* that threads wait for."""

    def __init__(self, stream: ToolStream) -> None:
        self._stream = stream
        self._leader: ThreadCall | None = None
        self._beat = 0.0  # when a leader last said that it reads
        self._followers: list[ThreadCall] = []
        self._wake: int | None = None

    def call(self, number: int, frame: bytes) -> Answer:
        """Send a call and wait for its answer, in this thread alone. Raises `Gone`."""
        call = ThreadCall(self)
        try:
            self._stream.send_frame(frame, number, call)
            if self._stream.in_flight == 1:  # else there is more to do than to wait for this one
                self._spin(call)
            while call.answer is None:
                self._wait(call)
            return call.answer
        finally:
            if call.answer is None or self._leader is call:
                self._leave(number, call)

    def _spin(self, call: ThreadCall) -> None:
        # Looks without the lock: a signal handler that interrupts us there may call a tool itself.
        poller = self._poller()
        until = perf_counter() + SPIN_S
        while call.answer is None:
            if poller.poll(0):
                self._stream.receive()
            elif perf_counter() > until:
                break
            else:
                os.sched_yield()  # the kernel may have put who is to answer behind us, on this CPU

    def _wait(self, call: ThreadCall) -> None:
        with self._stream.lock:
            if call.answer is not None:
                return
            leader = self._leader
            if leader is None or monotonic() - self._beat > _SILENT_S:
                self._make_leader(call)
            elif leader is not call and leader.thread == call.thread:
                call.beneath = leader  # it cannot read before our signal handler has returned
                self._make_leader(call)
            elif leader is not call and call.turn is None:
                call.turn = threading.Lock()
                call.turn.acquire()
                self._followers.append(call)
        if self._leader is call:
            self._lead(call)
        elif call.turn is not None:
            call.turn.acquire(timeout=_BEAT_S)

    def _make_leader(self, call: ThreadCall) -> None:
        if call in self._followers:
            self._followers.remove(call)
        self._beat = monotonic()
        self._leader = call

    def _lead(self, call: ThreadCall) -> None:
        poller = self._poller()
        if self._wake is None:
            with suppress(OSError):
                self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        if self._wake is not None:
            poller.register(self._wake, select.POLLIN)
        self._stream.receive()  # what another leader had taken in when it was interrupted
        while call.answer is None:
            self._beat = monotonic()
            for descriptor, _ in poller.poll(_BLIND_MS if self._wake is None else _BEAT_S * 1000):
                if descriptor == self._wake:
                    with suppress(OSError):  # the program may have closed it
                        os.eventfd_read(descriptor)
            self._stream.receive()

    def _poller(self) -> "select.poll":
        poller = select.poll()
        poller.register(self._stream.descriptor, select.POLLIN)
        return poller

    def wake(self, call: ThreadCall) -> None:
        """Let the thread of *call* see that it is answered. Called under the lock."""
        if self._leader is call:
            self._wake_leader()
        elif call.turn is not None:
            if call in self._followers:
                self._followers.remove(call)
            if call.turn.locked():
                call.turn.release()

    def _wake_leader(self) -> None:
        if self._wake is not None:
            with suppress(OSError):
                os.eventfd_write(self._wake, 1)

    def _leave(self, number: int, call: ThreadCall) -> None:
        with self._stream.lock:
            self._stream.drop(number)
            if call.answer is None:  # interrupted
                if call in self._followers:
                    self._followers.remove(call)
                self._stream.take()  # others' answers may be in what was read
            if self._leader is call:
                self._pass_on_the_lead(call)

    def _pass_on_the_lead(self, call: ThreadCall) -> None:
        self._leader = call.beneath
        if call.beneath is not None:
            self._wake_leader()  # it may have been answered meanwhile
        elif self._followers:
            # The newest: in a thread that runs a signal handler, that call is the one that can read.
            leader = self._followers[-1]
            self._make_leader(leader)
            if leader.turn is not None and leader.turn.locked():
                leader.turn.release()

    def forget(self) -> None:
        """In a child of fork, before the stream forgets."""
        self._leader = None
        self._followers = []
        if self._wake is not None:
            os.close(self._wake)
            self._wake = None
