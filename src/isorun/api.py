"""The short ways in: `run` for one program, `SyncRuntime` for code without a loop.

`SyncRuntime`, `SyncRun` and `SyncSession` name each method of `Runtime`, `Run` and `Session` with its types, so that a
type checker and an editor see them; a test holds each pair to the same methods. They must do nothing of their own but
wait. The module is long because each of those methods stands here.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from isorun.backends.base import Backend
from isorun.core.errors import Misused
from isorun.core.guard import at_end
from isorun.core.guard.caller import calling
from isorun.core.guard.life import Life
from isorun.core.limits import Limits
from isorun.core.request import NO_NETWORK, OPTIONS, OwnTool, RunOptions, RunRequest, check_known, takes
from isorun.core.result import RunResult
from isorun.runtime.accepted.handle import Run
from isorun.runtime.carried.session import Session
from isorun.runtime.events import Event
from isorun.runtime.output import InThread, OnOutput, check_on_output
from isorun.runtime.request import check_count
from isorun.runtime.runtime import HostOptions, Runtime, RuntimeOptions, names_built_in
from isorun.settings import Settings

if TYPE_CHECKING:
    from isorun.runtime.held.calls import HeldCall

_T = TypeVar("_T")
_HOST_OPTIONS, _RUNTIME_OPTIONS = frozenset(HostOptions.__annotations__), frozenset(RuntimeOptions.__annotations__)


class OneRunOptions(RunOptions, HostOptions, total=False):
    """The keywords of `run`."""


class Loop:
    """An event loop in a thread of its own, so that it works inside a notebook's running loop too.

    Usable from any thread of the process that made it; elsewhere, and once it is closed, `call` raises `Misused`.
    """

    def __init__(self) -> None:
        self._life = Life("SyncRuntime", "its loop is not there")
        self._life.begin()
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()  # a call is taken before the closing, or refused: nothing waits for ever
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="isorun-loop", daemon=True)
        self._thread.start()
        self._life.opened()

    def _run(self) -> None:
        while not self._ended.is_set():
            with suppress(BaseException):  # SystemExit of a callback ends a loop, and every caller would wait for ever
                self._loop.run_forever()

    def call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """The coroutine's result. A caller that is interrupted (Ctrl-C) cancels it, and does not wait for its end."""
        try:
            self._life.check()  # first: in a fork the lock may be held by a thread that is not there
            with self._lock:
                self._life.check()
                with calling():
                    future: Future[_T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except Misused:
            coroutine.close()
            raise
        return self._wait(future)

    def _wait(self, future: "Future[_T]") -> _T:
        try:
            return future.result()
        except BaseException:
            future.cancel()  # without effect on one that has ended
            raise

    def close(self) -> None:
        """What was called ends first. Nothing happens in a forked child, nor the second time."""
        if self._life.is_elsewhere:
            return
        with self._lock:
            if not self._life.end():
                return
            last = asyncio.run_coroutine_threadsafe(_others_done(), self._loop)
        try:
            self._wait(last)
            # Waits for its threads; closing the loop would not.
            self._wait(asyncio.run_coroutine_threadsafe(self._loop.shutdown_default_executor(), self._loop))
        finally:
            self._ended.set()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _others_done() -> None:
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.gather(*others, return_exceptions=True)


async def _called(function: Callable[[float], None], argument: float) -> None:
    function(argument)


async def _next(items: AsyncIterator[_T]) -> _T | None:
    return await anext(items, None)


def _in_thread(on_output: OnOutput | None) -> OnOutput | None:
    """*on_output*, to be called in a thread of its run's. Raises `InvalidRequest`, see `check_on_output`."""
    check_on_output(on_output)
    return InThread(on_output) if on_output else None


class SyncRun:
    """As `Run`, each method blocking."""

    def __init__(self, run: Run, loop: Loop) -> None:
        self._original = run
        self._loop = loop

    @property
    def exec_id(self) -> str:
        """The run's id."""
        return self._original.exec_id

    @property
    def program_started(self) -> bool:
        """Whether the program's first instruction was reached."""
        return self._original.program_started

    def events(self, after: int = 0) -> Iterator[Event]:
        """What happened and happens, until the outcome; see `Run.events`."""
        events = self._original.events(after)
        while (event := self._loop.call(_next(events))) is not None:
            yield event

    @property
    def held_calls(self) -> "tuple[HeldCall, ...]":
        """The calls of the caller's own tools that wait for `answer`, in the order in which they were asked."""
        return self._original.held_calls

    def answer(self, call_id: int, value: object = None, *, error: str | None = None, kind: str = "ToolFailed") -> None:
        """Give the program the result *value* of a held call, or raise there; see `Run.answer`."""
        self._loop.call(self._original.answer(call_id, value, error=error, kind=kind))

    def result(self) -> RunResult:
        """The result, once the run has ended. Raises what the sandbox raised, if it did."""
        return self._loop.call(self._original.result())

    def cancel(self) -> RunResult:
        """End the run now and return its partial result; a run that has ended keeps its outcome."""
        return self._loop.call(self._original.cancel())

    def freeze(self) -> None:
        """Stop the program where it is, and its time with it; see `Run.freeze`."""
        self._loop.call(self._original.freeze())

    def thaw(self) -> None:
        """Let a frozen program run on from where it was; see `Run.thaw`."""
        self._loop.call(self._original.thaw())

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """`with run.frozen():` the run is frozen inside of the block, and thawed behind it."""
        try:
            self.freeze()
            yield
        finally:
            self.thaw()

    def extend(self, seconds: float) -> None:
        """Put the run's deadline off by *seconds*; see `Run.extend`."""
        self._loop.call(_called(self._original.extend, seconds))


class SyncSession:
    """As `Session`, each method blocking; `SyncRuntime.session` makes it."""

    def __init__(self, session: Session, loop: Loop) -> None:
        self._original = session
        self._loop = loop
        self.name = session.name

    @property
    def path(self) -> Path:
        """The folder of its files, to be read; it is there once a run has left a file."""
        return self._original.path

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of its files below `path`, POSIX and sorted; empty before the first run."""
        return self._original.files

    @takes(RunOptions)
    def execute(self, code: str | bytes | Path | RunRequest, **options: Unpack[RunOptions]) -> RunResult:
        """Run *code* with the session's files, and keep those that it leaves; see `Session.execute`."""
        return self._loop.call(self._original.execute(code, **options))

    @takes(RunOptions)
    def start(
        self,
        code: str | bytes | Path | RunRequest,
        *,
        on_output: OnOutput | None = None,
        **options: Unpack[RunOptions],
    ) -> SyncRun:
        """As `execute`, but return at once with a handle to watch, cancel or wait for; see `SyncRuntime.start`."""
        told = _in_thread(on_output)
        return SyncRun(self._loop.call(self._original.start(code, on_output=told, **options)), self._loop)

    def close(self) -> None:
        """Return once the runs that were started here have ended. No other is started here; the files stay."""
        self._loop.call(self._original.close())

    def remove(self) -> None:
        """Remove its files. Raises `InvalidRequest`: session_in_use while a run has it, no_such_session."""
        self._loop.call(self._original.remove())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class SyncRuntime:
    """`Runtime` without `await`: `with isorun.SyncRuntime() as rt: rt.execute(code)`.

    It takes what `Runtime` takes, its methods take the same arguments and give the same results. A notebook calls
    `open()` in one cell and `close()` in another. Usable from any thread, and where a loop already runs; not in a
    forked child: open one there, or make it before the fork and open it after. Raises `Misused` otherwise.
    """

    @takes(RuntimeOptions)
    def __init__(self, **options: Unpack[RuntimeOptions]) -> None:
        check_known(options, _RUNTIME_OPTIONS, "a SyncRuntime")
        self._original = Runtime(**options)
        self._closing = asyncio.Event()
        self._life = Life("SyncRuntime", "use it as `with isorun.SyncRuntime() as rt:`, or call its open()")

    def open(self) -> Self:
        """Open it, as entering the `with` block does. Raises what entering a `Runtime` raises, and `Misused`."""
        self._life.begin()
        try:
            loop = Loop()
            try:
                loop.call(self._original.__aenter__())
            except BaseException:
                loop.close()
                raise
        except BaseException:
            self._life.failed()
            raise
        self._loop = loop
        self._life.opened()
        at_end.will_close(self)
        return self

    def close(self) -> None:
        """Cancel what still runs, and return when nothing of it exists any more. It waits for no iterator of `map`.

        Only the first call does it. Nothing happens in a forked child, nor before it is opened. If it is
        still open when the interpreter ends, it is closed before `atexit` functions are called.
        """
        if not self._life.end():
            return
        at_end.is_closed(self)
        try:
            self._loop.call(self._end())
        finally:
            self._loop.close()

    async def _end(self) -> None:
        self._closing.set()
        await self._original.__aexit__(None, None, None)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def settings(self) -> Settings:
        """The settings that it was made with."""
        return self._original.settings

    @property
    def limits(self) -> Limits:
        """The ceilings of each run."""
        return self._original.limits

    @property
    def root(self) -> Path:
        """The folder below which the runs are stored."""
        self._life.check_begun()
        return self._original.root

    @property
    def backend(self) -> Backend:
        """The backend that was chosen."""
        self._life.check_begun()
        return self._original.backend

    @property
    def tools(self) -> Mapping[str, Mapping[str, Any]]:
        """The tools of the bundle by id, each with its description and the JSON schema of its parameters."""
        self._life.check_begun()
        return self._original.tools

    def prompt(self, *, tools: Sequence[str] | Mapping[str, OwnTool] | None = None, network: str = NO_NETWORK) -> str:
        """A text for a model's prompt; see `Runtime.prompt`."""
        self._life.check()
        return self._original.prompt(tools=tools, network=network)

    @property
    def waiting_slots(self) -> int:
        """Slots that are ready now."""
        self._life.check_begun()
        return self._original.waiting_slots

    @property
    def waiting_inspectors(self) -> int:
        """Slots that are ready to look into promised files; the first is built once a contract has needed one."""
        self._life.check_begun()
        return self._original.waiting_inspectors

    @takes(RunOptions)
    def execute(self, code: str | bytes | Path | RunRequest, **options: Unpack[RunOptions]) -> RunResult:
        """Run *code* and return how it ended; see `Runtime.execute`."""
        self._life.check()
        return self._loop.call(self._original.execute(code, **options))

    @takes(RunOptions)
    def start(
        self,
        code: str | bytes | Path | RunRequest,
        *,
        on_output: OnOutput | None = None,
        **options: Unpack[RunOptions],
    ) -> SyncRun:
        """As `execute`, but return at once with a handle to watch, cancel or wait for; see `Runtime.start`.

        *on_output* is called in a thread of the run's own, one call after the other. It may take its time and use
        this Runtime; the run's result waits for it, until 5 s after the program's end.
        """
        self._life.check()
        told = _in_thread(on_output)
        return SyncRun(self._loop.call(self._original.start(code, on_output=told, **options)), self._loop)

    def session(self, name: str) -> SyncSession:
        """The session *name*, whose runs find the files that the one before has left; see `Runtime.session`."""
        self._life.check()
        return SyncSession(self._original.session(name), self._loop)

    @takes(RunOptions)
    def map(
        self,
        programs: Iterable[str | bytes | Path | RunRequest],
        *,
        at_once: int = 8,
        **options: Unpack[RunOptions],
    ) -> Iterator[RunResult]:
        """The results of *programs*, in their order; see `Runtime.map`.

        *programs* are made in another thread than the caller's, one after the other. Closing the iterator, or leaving
        the loop that has the only reference to it, cancels what runs.
        """
        from isorun.runtime.many.ordered import each_aside, ordered  # not at the top: one run needs none of it

        self._life.check()
        check_count("at_once", at_once)
        check_known(options, OPTIONS, "a run")
        execute = self._original.execute
        made = each_aside(programs, self._closing)
        return self._results(ordered(lambda code: execute(code, **options), made, at_once))

    def _results(self, results: AsyncGenerator[RunResult]) -> Iterator[RunResult]:
        try:
            while (result := self._loop.call(_next(results))) is not None:
                yield result
        finally:
            # It was closed meanwhile, and has ended them; or this was interrupted, and they are ending already.
            with suppress(Misused, RuntimeError):
                self._loop.call(results.aclose())


@takes(RunOptions, HostOptions)
def run(code: str | bytes | Path | RunRequest, **options: Unpack[OneRunOptions]) -> RunResult:
    """Run one program in a Runtime of its own and return how it ended.

    Takes what `Runtime.execute` takes, and for the Runtime what `Runtime` takes; *limits* are the run's, at most
    those of the settings. For more than one
    program keep a `SyncRuntime`: starting one costs some 200 ms, a run in it about a millisecond.
    """
    check_known(options, OPTIONS | _HOST_OPTIONS, "a run")
    given: dict[str, Any] = dict(options)
    runtime = {name: given.pop(name) for name in _HOST_OPTIONS if name in given}
    if names_built_in(given.get("tools")):  # beside a bundle, too
        runtime["settings"] = replace(runtime.get("settings") or Settings.load(), builtin_tools=True)
    with SyncRuntime(**{"pool_size": 0, **runtime}) as twin:
        return twin.execute(code, **given)
