"""The threads in which the plain functions of one run's caller answer its held calls."""

import asyncio
import contextvars
import functools
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from isorun.supervisor.session import Refusal

_T = TypeVar("_T")
MAX_ABANDONED = 32  # threads of one run that did not return in time; with these no further call is started
_Thread = queue.SimpleQueue[Callable[[], None] | None]


class Threads:
    """Threads for plain functions, one for each call. A thread cannot be ended, so a call may abandon its own.

    An idle thread is used again: to start one takes longer than most functions.
    """

    def __init__(self) -> None:
        self._abandoned = 0
        self._idle: list[_Thread] = []
        self._is_closed = False
        self._lock = threading.Lock()  # for both

    async def run(self, function: Callable[[], _T], then: Callable[[_T], object] | None = None) -> Any:  # noqa: ANN401 - what *then* gives
        """The result of *function*, called in the context of this task; if this is cancelled, its thread goes on.

        *then* is called in the thread and makes another result of it. It must not wait: the thread counts as idle.
        """
        if self._abandoned >= MAX_ABANDONED:
            text = f"{MAX_ABANDONED} calls whose time was over have not come back; this run gets no other"
            raise Refusal("ToolUnavailable", text)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()
        with self._lock:
            thread = self._idle.pop() if self._idle else _start_thread()
        called = functools.partial(contextvars.copy_context().run, function)
        thread.put(functools.partial(self._work, thread, called, then, loop, done))
        try:
            return await done
        except asyncio.CancelledError:
            if done.cancelled():
                self._abandoned += 1
            raise

    def close(self) -> None:
        """End the idle threads now, and each other one when its function returns."""
        with self._lock:
            self._is_closed = True
            while self._idle:
                self._idle.pop().put(None)

    def _work(
        self,
        thread: _Thread,
        called: Callable[[], _T],
        then: Callable[[_T], object] | None,
        loop: asyncio.AbstractEventLoop,
        done: "asyncio.Future[object]",
    ) -> None:
        value: object = None
        raised: BaseException | None = None
        try:
            try:
                value = result = called()
            finally:
                self._release(thread)  # before the program can make its next call
            if then is not None:
                value = then(result)
        except (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration) as error:
            raised = Left(repr(error))
        except BaseException as error:  # noqa: BLE001 - the call raises it
            raised = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._returned, done, value, raised)

    def _release(self, thread: _Thread) -> None:
        with self._lock:
            if self._is_closed:
                thread.put(None)
            else:
                self._idle.append(thread)

    def _returned(self, done: "asyncio.Future[object]", value: object, raised: BaseException | None) -> None:
        if done.cancelled():
            self._abandoned -= 1
        elif raised is not None:
            done.set_exception(raised)
        else:
            done.set_result(value)


def _start_thread() -> _Thread:
    """The queue of a new thread. It runs each function that is put there, and ends at None."""
    tasks: _Thread = queue.SimpleQueue()

    def work() -> None:
        while (task := tasks.get()) is not None:
            task()

    threading.Thread(target=work, name="isorun-tool", daemon=True).start()
    return tasks


class Left(Exception):
    """A function raised what would end the process, or what a future does not carry: the call would hang."""
