"""One `isorun run` from its options to its exit code: live output, interrupts, the verdict.

It must not judge the run (the result says how it ended), and must leave nothing
behind whatever ends this process, short of a second interrupt.
"""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any

from isorun.cli.run.command import Wanted
from isorun.cli.run.early import Early, settings_for
from isorun.cli.run.given import read_request
from isorun.cli.run.live import Live, Spinner, write
from isorun.core.errors import CleanupFailed, Unavailable
from isorun.core.guard.signals import INTERRUPTED
from isorun.core.outcome import Exit, cli_exit_code
from isorun.core.request import RunRequest
from isorun.core.result import RunResult
from isorun.core.text import one_line
from isorun.runtime.accepted.handle import Run
from isorun.runtime.runtime import Runtime, names_built_in
from isorun.settings import Settings

_PATIENCE_S = 0.4  # without output before the spinner appears
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def conduct(wanted: Wanted, early: Early | None) -> int:
    """Run what is *wanted* and return the exit code. Raises `IsorunError` if there was no run."""
    settings = early.settings if early else settings_for(wanted)
    for warning in settings.warnings:
        print("isorun: warning:", one_line(warning), file=sys.stderr)  # noqa: T201 - for the user
    request = read_request(wanted, settings.limits())
    work = _Conducting(wanted, settings, request, early)
    try:
        if early is not None:
            return early.runner.run(work.conducted())
        with asyncio.Runner() as runner:
            return runner.run(work.conducted())
    except asyncio.CancelledError:  # interrupted before there was a run
        return INTERRUPTED


class _Conducting:
    def __init__(self, wanted: Wanted, settings: Settings, request: RunRequest, early: Early | None) -> None:
        self._wanted, self._settings, self._request, self._early = wanted, settings, request, early
        self._spinner = Spinner()
        self._live: Live | None = None
        self._interrupts: _Interrupts

    async def conducted(self) -> int:
        loop = asyncio.get_running_loop()
        self._interrupts = _Interrupts(loop, self._spinner)
        if not self._wanted.json:
            self._live = Live(
                before=self._spinner.stop,
                on_gone=lambda: self._stop_soon(loop),
            )
        loop.call_later(_PATIENCE_S, self._spinner.start)
        try:
            result = await self._result()
        finally:
            # In a thread, and after the run: an interrupt must still reach us while a pager holds the output.
            if self._live is not None:
                await asyncio.to_thread(self._live.finish)
            self._spinner.stop()
        self._report(result)
        return cli_exit_code(result.status, _exit_of(result))

    def _stop_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """From the writer's thread: nobody reads what the program prints."""
        with suppress(RuntimeError):  # the loop is closed: the run is over
            loop.call_soon_threadsafe(self._interrupts.cancel_run)

    async def _result(self) -> RunResult:
        if self._early is None:
            return await self._run_on(self._wanted.backend)
        try:
            if (self._wanted.backend or self._settings.backend) == "auto" and self._has_bundle:
                # Before a supervisor is started: on another backend its place is another.
                await self._early.ready()
            return await self._run_on(self._early)
        except Unavailable:
            return await self._run_on(self._wanted.backend)  # whose error names every backend's reason

    @property
    def _has_bundle(self) -> bool:
        return self._wanted.bundle is not None or self._settings.bundle is not None

    async def _run_on(self, backend: Any) -> RunResult:  # noqa: ANN401 - a name, a Backend or None
        preload = self._wanted.preload or None  # asked for by name: what is set stays a wish
        bundle, settings = self._wanted.bundle, self._settings
        if names_built_in(self._request.tools):  # beside a bundle, too
            settings = replace(settings, builtin_tools=True)
        runtime = Runtime(backend=backend, settings=settings, bundle=bundle, preload=preload, pool_size=0)
        result = None
        try:
            async with runtime:
                on_output = self._live.take if self._live is not None else None
                run = await runtime.start(self._request, on_output=on_output)
                self._interrupts.run = run
                result = await run.result()
        except CleanupFailed:
            if result is not None:  # what could not be removed is the error, and the run is still to be told
                self._report(result)
            raise
        return result

    def _report(self, result: RunResult) -> None:
        if self._wanted.json:
            write(1, result.to_json().encode() + b"\n")
            return
        from isorun.cli.verdict import print_verdict

        # A terminal echoes ^C into the line where its cursor is.
        mid_line = self._live is not None and self._live.mid_line
        mid_line |= self._interrupts.interrupted and sys.stderr.isatty()
        print_verdict(result.to_dict(), sys.stderr, new_line=mid_line)


class _Interrupts:
    """The first signal cancels the run, or what leads to it; the second ends this process at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spinner: Spinner) -> None:
        self.run: Run | None = None
        self._task = asyncio.current_task()
        self._spinner = spinner
        self._cancelling: asyncio.Task[RunResult] | None = None
        self.interrupted = False
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._happened)

    def _happened(self) -> None:
        if self.interrupted:
            # The kernel takes the jail down with us; its folder and cgroup are cleaned by the next start.
            os._exit(INTERRUPTED)
        self.interrupted = True
        self._spinner.stop()
        if self.run is not None:
            self.cancel_run()
        elif self._task is not None:
            self._task.cancel()

    def cancel_run(self) -> None:
        """Cancel the run, if there is one; its partial result is then its result."""
        if self.run is not None and self._cancelling is None:
            self._cancelling = asyncio.ensure_future(self.run.cancel())
            # Whoever waits for the run has its error too.
            self._cancelling.add_done_callback(lambda task: task.cancelled() or task.exception())


def _exit_of(result: RunResult) -> Exit | None:
    if result.exit_code is None and result.signal is None:
        return None
    return Exit(code=result.exit_code, signal=result.signal)
