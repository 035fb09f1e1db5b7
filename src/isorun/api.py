"""The short ways in: `run` for one program, `SyncRuntime` for code without a loop."""

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar, Unpack

from isorun.core.request import RunOptions, RunRequest, takes
from isorun.core.result import RunResult
from isorun.runtime.runtime import HostOptions, Run, Runtime, RuntimeOptions

_T = TypeVar("_T")


class OneRunOptions(RunOptions, HostOptions, total=False):
    """The keywords of `run`."""


class Loop:
    """An event loop in a thread of its own, so that it works inside a notebook's running loop too."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="isorun-loop", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """The coroutine's result; Ctrl-C in the caller cancels it and waits for its clean-up."""
        future: Future[_T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def close(self) -> None:
        self.call(_others_done())
        self.call(self._loop.shutdown_default_executor())  # waits for its threads; closing the loop would not
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _others_done() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)


def _blocking(owner: type, name: str) -> Callable[..., Any]:
    method = getattr(owner, name)
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self: "_Twin", *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the twin's own types
        result = method(self._original, *args, **kwargs)
        if inspect.isasyncgen(result) or isinstance(result, AsyncIterator):
            return _iterate(self._loop, result)
        return _twin_of(self._loop.call(result), self._loop)

    call.__signature__ = signature.replace(return_annotation=inspect.Signature.empty)  # type: ignore[attr-defined]  # inspect reads it; typeshed has no such attribute
    return call


def _iterate(loop: Loop, events: AsyncIterator[_T]) -> Iterator[_T]:
    while True:
        try:
            yield loop.call(anext(events))  # type: ignore[arg-type]  # any awaitable will do here
        except StopAsyncIteration:
            return


class _Twin:
    """A blocking view of *original*, whose coroutines run in *loop*."""

    def __init__(self, original: object, loop: Loop) -> None:
        self._original = original
        self._loop = loop

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the original has
        return getattr(self._original, name)


def _twin(original: type, name: str, doc: str) -> type:
    methods = {
        key: _blocking(original, key)
        for key, value in vars(original).items()
        if not key.startswith("_") and (inspect.iscoroutinefunction(value) or key == "events")
    }
    return type(name, (_Twin,), {"__doc__": doc, **methods})


SyncRun = _twin(Run, "SyncRun", "As `Run`, each method blocking.")
_SyncRuntime = _twin(Runtime, "_SyncRuntime", "As `Runtime`, each method blocking.")


def _twin_of(value: object, loop: Loop) -> object:
    return SyncRun(value, loop) if isinstance(value, Run) else value


class SyncRuntime(_SyncRuntime):  # type: ignore[misc,valid-type]  # the base is made at run time, from Runtime
    """`Runtime` without `await`: `with isorun.SyncRuntime() as rt: rt.execute(code)`.

    Its methods are made from `Runtime`'s own, so they take the same arguments and
    give the same results. Usable from any thread, and where a loop already runs.
    """

    @takes(RuntimeOptions)
    def __init__(self, **options: Unpack[RuntimeOptions]) -> None:
        super().__init__(None, Loop())
        self._options = options

    def __enter__(self) -> "SyncRuntime":
        try:
            self._original = self._loop.call(self._open())
        except BaseException:
            self._loop.close()
            raise
        return self

    async def _open(self) -> Runtime:
        return await Runtime(**self._options).__aenter__()

    def __exit__(self, *exc: object) -> None:
        try:
            self._loop.call(self._original.__aexit__(*exc))
        finally:
            self._loop.close()


@takes(RunOptions, HostOptions)
def run(code: str | bytes | RunRequest, **options: Unpack[OneRunOptions]) -> RunResult:
    """Run one program in a Runtime of its own and return how it ended.

    Takes what `Runtime.execute` takes, and for the Runtime what `Runtime` takes; *limits* are the run's, at most
    those of the settings. For more than one
    program keep a `SyncRuntime`: starting one costs some 200 ms, a run in it about a millisecond.
    """
    given: dict[str, Any] = dict(options)
    runtime = {name: given.pop(name) for name in HostOptions.__annotations__ if name in given}
    with SyncRuntime(**{"pool_size": 0, **runtime}) as twin:
        result: RunResult = twin.execute(code, **given)
    return result
