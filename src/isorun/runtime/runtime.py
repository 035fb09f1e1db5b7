"""Runs, from request to result: the one object that an edge holds.

A `Runtime` owns a backend, a pool of waiting slots and a workspace root. Runs are
independent of each other: nothing that is writable is shared, and a failure of one
is its own. Leaving the `async with` block cancels what still runs and returns when
nothing of it exists any more.
"""

import asyncio
import functools
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from isorun.backends.base import Backend
from isorun.core.errors import IsorunError, Misused
from isorun.core.guard.caller import caller, calling
from isorun.core.guard.life import Life
from isorun.core.guard.log import log_of
from isorun.core.ids import is_built_in
from isorun.core.limits import Limits, own_limits, with_own
from isorun.core.request import NO_NETWORK, OPTIONS, OwnTool, RunOptions, RunRequest, check_known, check_network, takes
from isorun.core.result import RunResult
from isorun.core.share import Owing
from isorun.core.signatures import about
from isorun.runtime.accepted.course import Course, check_preloads, options_under
from isorun.runtime.accepted.handle import Run, ended
from isorun.runtime.aside import Aside
from isorun.runtime.carried.session import Session
from isorun.runtime.carried.sessions import Sessions
from isorun.runtime.choose import Chosen, choose_backend, named_backend
from isorun.runtime.events import Feed
from isorun.runtime.held.tools import host_tools
from isorun.runtime.inspection.inspection import Inspection
from isorun.runtime.many.turns import Turns
from isorun.runtime.output import OnOutput, check_on_output
from isorun.runtime.pool import Pool
from isorun.runtime.request import (
    Offered,
    accept,
    check_count,
    check_preload,
    fingerprint_before,
    granted,
)
from isorun.runtime.run import Options, check_room
from isorun.runtime.services import Supervisors, built_in_tools, by_default, open_supervisor
from isorun.settings import Settings, get_exec_workspace_root
from isorun.store.folder import Lease as HostLease
from isorun.store.folder import open_root
from isorun.store.upkeep import Room, Upkeep

_log = log_of("isorun")


def names_built_in(tools: object) -> bool:
    """Whether *tools*, as a run takes them, name a built-in tool."""
    return isinstance(tools, Iterable) and any(isinstance(one, str) and is_built_in(one) for one in tools)


class _HostOptions(TypedDict, total=False):
    backend: str | Backend | None
    settings: Settings | None
    preload: Sequence[str] | None
    python: str | Path | None
    pool_size: int | None
    max_runs: int | None
    workspace_root: str | Path | None


class HostOptions(_HostOptions, total=False):
    """The keywords of `Runtime` that no run has too."""

    bundle: str | Path | None


class BundledOptions(_HostOptions, total=False):
    """The keywords of `Runtime` beside the bundle, which a `ToolSubsystem` names by itself."""

    limits: Limits | Mapping[str, Any] | None


class RuntimeOptions(HostOptions, BundledOptions, total=False):
    """The keywords of `Runtime`, which says what each means."""


class Runtime:
    """Runs programs. Use it as `async with isorun.Runtime() as rt:`.

    *backend* is `auto` (namespace, else docker with a notice that says why, else
    `Unavailable` with both reasons), `namespace`, `docker`, or a `Backend`. *bundle* is
    the folder whose tools programs may call. *limits* are the ceilings of every run: a `Limits`, or a dict of those
    fields that the settings do not decide. It, *limits*, *preload*, *python*, *pool_size*,
    *max_runs* (programs at once; more of them wait, and who came first runs first) and *workspace_root*
    default to the settings (`isorun config show`). A module of *preload* that cannot be imported is
    `InvalidRequest` (invalid_preload); of the settings it is a notice in each result. Entering raises
    `InvalidRequest` for a bundle or a root that cannot be used, `Unavailable` if this host
    cannot build a sandbox, and `SetupFailed`. It is opened once, and used in the event loop and the
    process that opened it: everything else raises `Misused`. A forked child touches nothing of it.
    """

    def __init__(
        self,
        *,
        backend: str | Backend | None = None,
        settings: Settings | None = None,
        limits: Limits | Mapping[str, Any] | None = None,
        bundle: str | Path | None = None,
        preload: Sequence[str] | None = None,
        python: str | Path | None = None,
        pool_size: int | None = None,
        max_runs: int | None = None,
        workspace_root: str | Path | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "preload": None if preload is None else check_preload(preload),
            "bundle": None if bundle is None else Path(bundle).absolute(),
            "program_python": None if python is None else Path(python),
            "pool_size": pool_size,
            "max_runs": None if max_runs is None else check_count("max_runs", max_runs),
            "workspace_root": None if workspace_root is None else Path(workspace_root).absolute(),
        }
        named = {name: value for name, value in given.items() if value is not None}
        settings = replace(settings or Settings.load(), **named)
        self.settings = settings
        self.limits = limits if isinstance(limits, Limits) else with_own(settings.limits(), own_limits(limits))
        self._wanted = backend if backend is not None else settings.backend
        self._needed = () if preload is None else settings.preload  # asked for by name, not by the settings
        self._stack = AsyncExitStack()
        self._runs: set[Run] = set()
        self._turns = Turns(settings.max_runs)
        self._sessions = Sessions()
        self._life = Life("Runtime", "use it as `async with isorun.Runtime() as rt:`")

    async def __aenter__(self) -> "Runtime":
        self._life.begin()
        try:
            await self._enter()
        except BaseException:
            self._life.failed()
            raise
        self._life.opened()
        return self

    async def _enter(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            self.root = open_root(get_exec_workspace_root(self.settings))
            host = stack.enter_context(HostLease.take(self.root))
            room = Room(bytes=self.limits.workspace_bytes, files=self.limits.workspace_inodes)
            upkeep = Upkeep(
                self.root,
                older_than_s=self.settings.retention_hours * 3600,
                sessions_older_than_s=self.settings.session_retention_hours * 3600,
                room=room,
            )
            await stack.enter_async_context(upkeep)
            await self._open(stack)
            self._pool = await stack.enter_async_context(Pool(self.backend, self.limits, self.settings.pool_size))
            self._course = Course(
                root=self.root,
                host=host,
                life=self._life,
                limits=self.limits,
                options=self._run_options(),
                needed=self._needed,
                backend=self.backend,
                fallback=self._fallback,
                supervisors=await stack.enter_async_context(Supervisors(self.settings, self._supervisor)),
                greeting=self._greeting,
                owing=Owing(),
                turns=self._turns,
                sessions=self._sessions,
                pool=self._pool,
                aside=await stack.enter_async_context(Aside(lambda: len(self._runs))),
                inspection=await stack.enter_async_context(Inspection(self.backend, self.settings)),
                upkeep=upkeep,
            )
            stack.push_async_callback(self._end_runs)
            check_preloads(self.backend, self._needed)
            upkeep.begin()
            self._stack = stack.pop_all()

    async def _open(self, stack: AsyncExitStack) -> None:
        """The backend and its supervisor: where the one runs follows from the other, never from what was wished for."""
        named = named_backend(self._wanted, self.settings)
        choosing = asyncio.ensure_future(choose_backend(named, self.settings, stack))
        place = choosing if named is None else Chosen(named)
        supervisor = asyncio.ensure_future(open_supervisor(self.settings, stack, place))  # beside the backend
        try:
            chosen = await choosing
        except BaseException:
            choosing.cancel()
            supervisor.cancel()
            await asyncio.wait({choosing, supervisor})
            raise
        self.backend, self._fallback = chosen.backend, chosen.fallback
        if self._fallback:
            _log.warning("%s", self._fallback)
        self._supervisor, self._greeting = await supervisor

    def _run_options(self) -> Options:
        """Those of every run under the limits of this Runtime."""
        options = Options(
            log_mode=self.settings.user_log_mode,
            traceback_remap=self.settings.traceback_remap,
            keep_value=self.settings.keep_value,
            save_figures=self.settings.save_figures,
            about=about(self._supervisor.tools) if self._supervisor else {},
        )
        return options_under(options, self.limits, has_tools=self._supervisor is not None)

    async def __aexit__(self, *exc: object) -> None:
        if self._life.end():
            await self._stack.aclose()

    async def _end_runs(self) -> None:
        """All of them, also after one raised: a backend of the caller's may raise any exception."""
        self._turns.give_up_all()  # first: else one of them is started for each that ends
        self._sessions.give_up_all()
        endings = await asyncio.gather(*(run.cancel() for run in tuple(self._runs)), return_exceptions=True)
        unknown = [error for error in endings if isinstance(error, Exception) and not isinstance(error, IsorunError)]
        if len(unknown) > 1:
            raise ExceptionGroup("runs that could not be ended", unknown)
        if unknown:
            raise unknown[0]

    @property
    def tools(self) -> Mapping[str, Mapping[str, Any]]:
        """The tools of the bundle by id, each with its description and the JSON schema of its parameters."""
        self._life.check_begun()
        return self._supervisor.tools if self._supervisor else {}

    def _offered(self, tools: Iterable[str] | None) -> Offered:
        """What a run that names *tools* may be granted. The built-in tools are there if they are named."""
        known = self.tools
        named = self.settings.builtin_tools if tools is None else names_built_in(tools)
        if named and self._supervisor is None:
            known = {**known, **built_in_tools()}
        return Offered(tools=known, by_default=by_default(known), has_bundle=self._supervisor is not None)

    def prompt(self, *, tools: Sequence[str] | Mapping[str, OwnTool] | None = None, network: str = NO_NETWORK) -> str:
        """A text for a model's prompt: paths, limits, packages that are there, and the tools with their signatures.

        *tools* and *network*: as its runs will be asked for. Raises `InvalidRequest` for an unknown id or network.
        """
        from isorun.model import packages_in, prompt_text  # not at the top: a run needs none of it

        own = host_tools(tools) if isinstance(tools, Mapping) else {}
        known = self._offered(tools)
        given = granted(tools, own, known)
        found = self.backend.environment
        python = found.version or found.python  # of an image, what is in it is not known here
        offered = {one: own[one].described if one in own else known.tools[one] for one in given}
        return prompt_text(self.limits, python, packages_in(found.sys_path), offered, check_network(network))

    @property
    def waiting_slots(self) -> int:
        """Slots that are ready now."""
        self._life.check_begun()
        return self._pool.waiting

    @property
    def waiting_inspectors(self) -> int:
        """Slots that are ready to look into promised files; the first is built once a contract has needed one."""
        self._life.check_begun()
        return self._course.inspection.waiting

    @takes(RunOptions)
    async def execute(self, code: str | bytes | Path | RunRequest, **options: Unpack[RunOptions]) -> RunResult:
        """Run *code* and return how it ended; a program that fails is a result, never an exception.

        *contract*: the promised files; None compares `out/` before and after. *timeout_s*: wall seconds from the
        program's first instruction. *inputs*: files and folders, found by the program beside user_code.py.
        *start_from*: a folder that `out/` starts as a copy of. *save_to*: a folder that gets what the run wrote,
        however it ended; files of the same names are replaced, each in one step. *session*: a name; the run starts with
        the files that the last run of that name left in `out/`, see `session`. *out*: as *save_to*, for a new or empty
        folder, with logs and result.json. *tools*: the ids of those that it may call, None for all of the bundle's; or
        an object from ids to functions of the caller's that answer its calls, to descriptions of tools whose calls
        `Run.answer` answers, or to True for the bundle's. *user_id* is for the tools to know. *exec_id*: an id of the
        caller's own. *limits*: lower limits of this run alone, a dict such as `{"memory_bytes": "256M"}`, or a `Limits`
        of which only what is not the default counts. *network*: `"loopback"` lets the program start servers that it
        alone reaches; nothing leads out. *keep*: False removes the run's folder once the result is made, which holds 16
        MiB of its artifacts. Instead of code and options a `RunRequest` may be given. Raises `InvalidRequest` (nothing
        was started), `Unavailable`, `SetupFailed`; for *save_to* it names the files that could not be saved, and the
        run's folder, which has them. If the caller is cancelled, so is the run.
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
        """As `execute`, but return at once with a handle to watch, cancel or wait for.

        *on_output* gets every byte that is printed, as it arrives, with `stdout` or `stderr`. It is a
        plain function, called in the event loop, and must return at once: the other runs wait for it.
        What it raises is told in `notices` and changes nothing else.
        """
        self._life.check()
        if asyncio.get_running_loop() is not self._loop:
            raise Misused("this Runtime was opened in another event loop; open one here, or use isorun.SyncRuntime")
        check_on_output(on_output)
        asked = RunRequest.of(code, **options)
        offered = self._offered(asked.tools)
        check = functools.partial(accept, asked, self.limits, offered, allow_loopback=self.settings.allow_loopback)
        looks = asked.inputs or asked.save_to or asked.out  # at a folder, whose disk may answer late
        with calling():
            request = await asyncio.to_thread(check) if looks else check()
        if request.before is not None:
            request = replace(request, sent=await asyncio.to_thread(fingerprint_before, request.before))
        request = check_room(request)
        feed = Feed()
        self._life.check()  # a folder was read meanwhile
        run = Run(request, feed, self._life)
        turn = self._turns.ask() if request.session is None else self._sessions.ask(request.session)
        run.waits_for(turn)
        task = asyncio.create_task(self._course.run(request, run, turn, feed, on_output), name=f"run-{request.exec_id}")
        run.started(task)
        self._runs.add(run)
        run.when_done(self._runs.discard)
        return run

    def session(self, name: str) -> Session:
        """The session *name*, whose runs find the files that the one before has left; see `Session`.

        Nothing is made before its first run. Raises `InvalidRequest` (invalid_session) for what cannot be a name: 1 to
        64 characters of a-z, 0-9, `_` and `-`, beginning with a letter or a digit.
        """
        self._life.check()
        return Session(self, name)

    @takes(RunOptions)
    def map(
        self,
        programs: Iterable[str | bytes | Path | RunRequest],
        *,
        at_once: int = 8,
        **options: Unpack[RunOptions],
    ) -> AsyncGenerator[RunResult]:
        """The results of *programs*, in their order; each is one as `execute` takes it, *options* are for all.

        At most *at_once* run at once. *programs* may be endless: one is taken when there is room for it. What
        `execute` would raise is raised in its place in the order, and ends the rest. Leaving the loop early cancels
        what runs; `contextlib.aclosing` does that at once. Raises `InvalidRequest` (invalid_at_once).
        """
        from isorun.runtime.many.ordered import each, ordered  # not at the top: one run needs none of it

        self._life.check()
        check_count("at_once", at_once)
        check_known(options, OPTIONS, "a run")
        name = caller()

        async def work(code: str | bytes | Path | RunRequest) -> RunResult:
            with calling(name):
                return await self.execute(code, **options)

        return ordered(work, each(programs), at_once)
