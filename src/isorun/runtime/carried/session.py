"""A session as its caller holds it: the runs of one name, and their files. What it does is done by the Runtime."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from isorun.core.errors import InvalidRequest, Misused
from isorun.core.ids import check_session
from isorun.core.request import RunOptions, RunRequest, takes
from isorun.core.result import RunResult
from isorun.runtime.accepted.handle import Run, ended
from isorun.runtime.aside import in_thread
from isorun.runtime.output import OnOutput
from isorun.store.sessions import files_of, path_of, remove

if TYPE_CHECKING:
    from isorun.runtime.runtime import Runtime


class Session:
    """Files that are carried from run to run under a name; `Runtime.session` makes it.

    Each run starts with the files that the one before left in `out/`, and its own take their place in one step once
    it has ended, well or not. Its runs go one after the other, also those of other processes on the same workspace
    root. Files are carried, variables are not: a program that wants a table again writes it to a file.
    """

    def __init__(self, runtime: "Runtime", name: str) -> None:
        self.name = check_session(name)
        self._runtime = runtime
        self._runs: set[Run] = set()
        self._closed = False

    @property
    def path(self) -> Path:
        """The folder of its files, to be read; it is there once a run has left a file."""
        return path_of(self._runtime.root, self.name)

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of its files below `path`, POSIX and sorted; empty before the first run."""
        return files_of(self._runtime.root, self.name)

    @takes(RunOptions)
    async def execute(self, code: str | bytes | Path | RunRequest, **options: Unpack[RunOptions]) -> RunResult:
        """Run *code* with the session's files, and keep those that it leaves; see `Runtime.execute`.

        Waits for the session's other runs. Raises also `InvalidRequest` (session_busy) if another process has the
        session for longer than `timeout_s`, and `SetupFailed` if the files cannot be kept: they are then as before.
        """
        return await ended(await self.start(code, **options))

    @takes(RunOptions)
    async def start(
        self,
        code: str | bytes | Path | RunRequest,
        *,
        on_output: OnOutput | None = None,
        **options: Unpack[RunOptions],
    ) -> Run:
        """As `execute`, but return at once with a handle to watch, cancel or wait for; see `Runtime.start`."""
        if self._closed:
            raise Misused(f"this object of session {self.name} is closed; make another with session({self.name!r})")
        request = RunRequest.of(code, **options)
        if request.session not in (None, self.name):
            raise InvalidRequest(
                f"the run names session {request.session}, and this is session {self.name}; leave out one",
                code="invalid_session",
            )
        run = await self._runtime.start(replace(request, session=self.name), on_output=on_output)
        self._runs.add(run)
        run.when_done(self._runs.discard)
        return run

    async def close(self) -> None:
        """Return once the runs that were started here have ended. No other is started here; the files stay."""
        self._closed = True
        await asyncio.gather(*(run.result() for run in tuple(self._runs)), return_exceptions=True)

    async def remove(self) -> None:
        """Remove its files. Raises `InvalidRequest`: session_in_use while a run has it, no_such_session."""
        await in_thread(lambda: remove(self._runtime.root, self.name))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: Any) -> None:  # noqa: ANN401 - as `with` hands it over
        await self.close()
