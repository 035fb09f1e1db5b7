"""A sandbox's jail that warms up while this process still imports what it needs next.

It must not change what is run: it starts the backend that the command line and the
settings name. Left without being used, it leaves nothing behind.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TYPE_CHECKING = False  # not from typing, which costs 10 ms
if TYPE_CHECKING:
    import asyncio

    from isorun.backends.base import Backend
    from isorun.backends.namespace.spawn import Spawned
    from isorun.cli.run.command import Wanted
    from isorun.core.process import StartProcess
    from isorun.settings import Settings


class Early:
    """The loop of this process and, in it, a backend that is being entered. A backend to `Runtime`."""

    name = "namespace"

    def __init__(self, settings: Settings, backend: Backend, runner: asyncio.Runner) -> None:
        self.settings = settings
        self.runner = runner
        self._backend = backend
        self._entering: asyncio.Task[Backend] | None = None

    async def begin(self) -> None:
        """Return as soon as the jail's process was started and there is only waiting left."""
        import asyncio

        self._entering = asyncio.create_task(self._backend.__aenter__())
        for _ in range(3):  # one turn starts the jail, the next find that there is nothing to read yet
            await asyncio.sleep(0)
        _keep_bytecode()

    async def __aenter__(self) -> Backend:
        entering, self._entering = self._entering, None
        assert entering is not None
        return await entering

    async def __aexit__(self, *exc: object) -> None:
        await self._backend.__aexit__(*exc)

    def supervisor(self, settings: Settings, bundle: Path) -> StartProcess | None:
        """See `Backend.supervisor`."""
        return self._backend.supervisor(settings, bundle)

    async def ready(self) -> None:
        """Return once the jail stands. Raises what entering it raises: then another backend may be chosen."""
        import asyncio

        if self._entering is not None:
            await asyncio.shield(self._entering)

    async def abandon(self) -> None:
        """Take down what nobody has entered."""
        import asyncio

        if self._entering is None:
            return
        self._entering.cancel()
        await asyncio.wait({self._entering})
        # Nobody will use it, so that it could not be entered is no news.
        if not self._entering.cancelled() and self._entering.exception() is None:
            await self._backend.__aexit__(None, None, None)


def _keep_bytecode() -> None:
    """The jail cannot keep any, everything is read-only there: what runs in it is imported here, once."""
    from importlib.util import cache_from_source

    from isorun.backends.environment import own_package

    if not Path(cache_from_source(str(own_package() / "isorun/executor/zygote.py"))).exists():
        import isorun.executor.template
        import isorun.executor.zygote
        import isorun.kernel.stage  # noqa: F401 - for its bytecode


def settings_for(wanted: Wanted) -> Settings:
    """The settings of this process, with what the command line says of them. Raises `InvalidRequest`."""
    from dataclasses import replace

    from isorun.settings import Settings

    settings = Settings.load(wanted.env_file)
    if wanted.preload:
        settings = replace(settings, preload=wanted.preload)
    if wanted.python is not None:
        settings = replace(settings, program_python=wanted.python)
    return settings


@contextmanager
def early_start(wanted: Wanted) -> Iterator[Early | None]:
    """An `Early` for the backend that is *wanted*; None if that is not, or cannot be, the embedded one."""
    settings = settings_for(wanted)
    backend = wanted.backend or settings.backend
    if backend not in ("auto", "namespace") or (backend == "auto" and not settings.suits_embedded()):
        yield None
        return
    settings.check_embedded()
    with _spawned(settings) as spawned:
        with _uninterrupted():
            import asyncio

            from isorun.runtime.choose import namespace_backend

            embedded = namespace_backend(settings, spawned)
        with asyncio.Runner() as runner:
            early = Early(settings, embedded, runner)
            try:
                runner.run(early.begin())
                yield early
            finally:
                runner.run(early.abandon())


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """An interrupt in this block comes after it: what is half imported could not end the jail that has been started."""
    waiting = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, waiting)


@contextmanager
def _spawned(settings: Settings) -> Iterator[Spawned | None]:
    """The jail's process, for which asyncio and the backend are not needed yet; None where it cannot be started."""
    from isorun.backends.environment import describe
    from isorun.backends.executor_ids import Identity, of_settings
    from isorun.backends.release import check_release
    from isorun.core.errors import IsorunError

    try:
        check_release()  # before anything of sandbox_runner is imported
        from isorun.backends.namespace.spawn import spawn

        python = str(settings.program_python) if settings.program_python else None
        identity = Identity.of_jail(*of_settings(settings))
        spawned = spawn(describe(python), identity, settings.preload, may_fork=True)
    except (IsorunError, OSError):  # the backend meets it again, and is asked in a place that may choose another
        yield None
        return
    try:
        yield spawned
    finally:
        if not spawned.is_taken:
            import asyncio

            from isorun.backends.namespace.jail import give_up

            asyncio.run(give_up(spawned))
