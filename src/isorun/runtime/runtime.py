"""Runs, from request to result: the one object that an edge holds.

A `Runtime` owns a backend, a pool of waiting slots and a workspace root. Runs are
independent of each other: nothing that is writable is shared, and a failure of one
is its own. Leaving the `async with` block cancels what still runs and returns when
nothing of it exists any more.

The module is long because opening, running and leaving undo each other, step by step.
"""

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

from isorun.backends.base import Backend
from isorun.core.errors import IsorunError, Misused, SetupFailed
from isorun.core.guard.life import Life
from isorun.core.guard.log import log_of
from isorun.core.limits import Limits, own_limits, with_own
from isorun.core.outcome import Stop
from isorun.core.request import OPTIONS, RunOptions, RunRequest, check_known, takes
from isorun.core.result import Artifact, RunResult
from isorun.core.share import Owing
from isorun.core.signatures import told
from isorun.runtime.aside import Aside
from isorun.runtime.choose import Chosen, choose_backend, named_backend
from isorun.runtime.events import Event, Feed
from isorun.runtime.finish import DeadRun, finish
from isorun.runtime.inspection.inspection import Inspection
from isorun.runtime.lost import LostRun, store_lost
from isorun.runtime.many.turns import Turns, unstarted
from isorun.runtime.output import OnOutput, check_on_output
from isorun.runtime.pool import Lease, Pool
from isorun.runtime.request import AcceptedRun, accept, check_count, check_grants, fingerprint_before
from isorun.runtime.run import Conduct, Options, digests_in_out, program_for
from isorun.runtime.services import open_supervisor
from isorun.runtime.toolstream import call_limits
from isorun.settings import Settings, get_exec_workspace_root
from isorun.store.folder import Lease as HostLease
from isorun.store.folder import RunFolder, failed, open_root, utc_now
from isorun.store.recovery import recover, sweep
from isorun.store.unkept import without_folder

_log = log_of("isorun")
_TOLD_AT_ONCE = 100  # artifacts, between two turns of the loop


class Run:
    """A run that was started. Its result stays available; its events can be watched by many."""

    def __init__(self, request: AcceptedRun, feed: Feed, life: Life) -> None:
        self.exec_id = request.exec_id
        self._feed = feed
        self._life = life
        self._conduct: Conduct | None = None
        self._cancelled = False
        self._turn: asyncio.Future[bool] | None = None
        self._task: asyncio.Task[RunResult] | None = None

    def events(self) -> AsyncIterator[Event]:
        """What happened and happens, until the outcome."""
        self._life.check_here()
        return self._feed.subscribe()

    async def result(self) -> RunResult:
        """The result, once the run has ended. Raises what the sandbox raised, if it did."""
        self._life.check_here()
        if self._task is None:
            raise RuntimeError("the run was not started")
        return await asyncio.shield(self._task)

    async def cancel(self) -> RunResult:
        """End the run now and return its partial result; a run that has ended keeps its outcome."""
        self._life.check_here()
        self._cancelled = True
        if self._conduct is not None:
            self._conduct.stop(Stop.CANCELLED)
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(False)
        return await self.result()

    @property
    def program_started(self) -> bool:
        """Whether the program's first instruction was reached."""
        return self._conduct is not None and self._conduct.program_started

    def waits_for(self, turn: "asyncio.Future[bool]") -> None:
        """Its program starts once *turn* has come; a cancellation gives it up."""
        self._turn = turn

    def started(self, task: "asyncio.Task[RunResult]") -> None:
        """*task* produces the result."""
        self._task = task

    def conducted_by(self, conduct: Conduct) -> None:
        """The slot is there; a cancellation that came before takes effect now."""
        self._conduct = conduct
        if self._cancelled:
            conduct.stop(Stop.CANCELLED)


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
    default to the settings (`isorun config show`). Entering raises
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
            "preload": None if preload is None else tuple(preload),
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
        self._options = Options(
            log_mode=settings.user_log_mode,
            traceback_remap=settings.traceback_remap,
            keep_value=settings.keep_value,
            save_figures=settings.save_figures,
        )
        self._fallback = ""
        self._owing = Owing()
        self._stack = AsyncExitStack()
        self._runs: set[Run] = set()
        self._turns = Turns(settings.max_runs)
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
            self._host = stack.enter_context(HostLease.take(self.root))
            await asyncio.to_thread(self._tidy)
            await self._open(stack)
            about = told(self._supervisor.tools) if self._supervisor else {}
            self._options = replace(self._options_under(self.limits), about=about)
            self._pool = await stack.enter_async_context(Pool(self.backend, self.limits, self.settings.pool_size))
            self._aside = await stack.enter_async_context(Aside(lambda: len(self._runs)))
            self._inspection = await stack.enter_async_context(Inspection(self.backend, self.settings))
            stack.push_async_callback(self._end_runs)
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

    def _options_under(self, limits: Limits) -> Options:
        calls = call_limits(limits, has_tools=self._supervisor is not None)
        return replace(self._options, frame_bytes=calls.frame_bytes, frame_values=calls.values, cpus=limits.cpus)

    async def __aexit__(self, *exc: object) -> None:
        if self._life.end():
            await self._stack.aclose()

    def _tidy(self) -> None:
        # First what makes room: ending a lost run writes.
        sweep(self.root, older_than_s=self.settings.retention_hours * 3600, now=time.time())
        for exec_id in recover(self.root):
            _log.warning("run %s was lost: its host died", exec_id)

    async def _end_runs(self) -> None:
        self._turns.give_up_all()  # first: else one of them is started for each that ends
        for run in tuple(self._runs):
            with suppress(IsorunError):
                await run.cancel()

    @property
    def tools(self) -> Mapping[str, Mapping[str, Any]]:
        """The tools of the bundle by id, each with its description and the JSON schema of its parameters."""
        self._life.check_begun()
        return self._supervisor.tools if self._supervisor else {}

    def prompt(self, *, tools: Sequence[str] | None = None) -> str:
        """A text for a model's prompt: paths, limits, packages that are there, and the tools with their signatures.

        *tools*: ids of those that its programs may call, None for all. Raises `InvalidRequest` for an unknown id.
        """
        from isorun.model import packages_in, prompt_text  # not at the top: a run needs none of it

        given = check_grants(tools, self.tools)
        found = self.backend.environment
        python = found.version or found.python  # of an image, what is in it is not known here
        return prompt_text(self.limits, python, packages_in(found.sys_path), {one: self.tools[one] for one in given})

    @property
    def waiting_slots(self) -> int:
        """Slots that are ready now."""
        self._life.check_begun()
        return self._pool.waiting

    @takes(RunOptions)
    async def execute(self, code: str | bytes | Path | RunRequest, **options: Unpack[RunOptions]) -> RunResult:
        """Run *code* and return how it ended; a program that fails is a result, never an exception.

        *contract*: the promised files; None compares `out/` before and after.
        *timeout_s*: wall seconds from the program's first instruction. *inputs*: files and
        folders, found by the program beside user_code.py. *out*: a folder that `out/` starts
        as a copy of. *tools*: ids of the bundle's tools that it may call, None for all. *user_id*
        is for the tools to know. *exec_id*: an id of the caller's own. *limits*: lower limits of this run alone, a
        dict such as `{"memory_bytes": "256M"}`, or a `Limits` of which only what is not the default counts. *keep*:
        False removes the run's folder once the result is made, which holds 16 MiB of its artifacts. Instead of code
        and options a `RunRequest` may be given. Raises `InvalidRequest` (nothing was started), `Unavailable`,
        `SetupFailed`. If the caller is cancelled, so is the run.
        """
        run = await self.start(code, **options)
        try:
            return await run.result()
        except asyncio.CancelledError:
            await run.cancel()
            raise

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
        check = functools.partial(accept, asked, self.limits, self.tools)
        request = await asyncio.to_thread(check) if asked.inputs else check()  # a folder's disk may answer late
        if request.before is not None:
            request = replace(request, sent=await asyncio.to_thread(fingerprint_before, request.before))
        feed = Feed()
        self._life.check()  # a folder was read meanwhile
        run = Run(request, feed, self._life)
        turn = self._turns.ask()
        run.waits_for(turn)
        task = asyncio.create_task(self._run(request, run, turn, feed, on_output), name=f"run-{request.exec_id}")
        run.started(task)
        self._runs.add(run)
        task.add_done_callback(lambda _: self._runs.discard(run))
        return run

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
        return ordered(lambda code: self.execute(code, **options), each(programs), at_once)

    def _options_of(self, request: AcceptedRun) -> Options:
        return self._options if request.limits == self.limits else self._options_under(request.limits)

    def _store_lost(
        self,
        request: AcceptedRun,
        conduct: Conduct,
        lease: Lease,
        folder: RunFolder,
        timings: Mapping[str, Any],
        began: float,
        error: Exception,
    ) -> None:
        lost = LostRun(
            request=request,
            conduct=conduct,
            slot=lease.slot,
            folder=folder,
            limits=request.limits,
            timings=timings,
            began=began,
            error=error,
        )
        with suppress(IsorunError):  # `recovery` ends it once this host has gone
            try:
                store_lost(lost)
            except SetupFailed:  # mostly a full disk: what came out of the run makes room for the record that says so
                folder.make_room()
                store_lost(lost)

    async def _run(
        self, request: AcceptedRun, run: Run, turn: "asyncio.Future[bool]", feed: Feed, on_output: OnOutput | None
    ) -> RunResult:
        accepted, began = utc_now(), time.monotonic()
        try:
            async with self._turns.taken(turn) as is_ours:
                if is_ours:
                    return await self._conducted(request, run, feed, on_output, accepted, began)
                result = await asyncio.to_thread(self._unstarted, request, accepted, began)
                feed.publish(_outcome(result, 0.0))
                return result
        except BaseException:
            feed.publish(Event(kind="outcome", at_s=0.0, data={"status": "error"}))  # else who watches waits for ever
            raise

    def _unstarted(self, request: AcceptedRun, accepted: str, began: float) -> RunResult:
        folder = self._new_folder(request)
        try:
            result = unstarted(request, folder, accepted, began)
        except BaseException:
            folder.discard()
            raise
        return result if request.keep else without_folder(result, folder)

    def _new_folder(self, request: AcceptedRun) -> RunFolder:
        about = {"prog_name": request.prog_name, "turn": request.turn, "timeout_s": request.timeout_s}
        about |= {} if request.keep else {"keep": False}
        return RunFolder.create(self.root, request.exec_id, self._host, about)

    async def _conducted(
        self, request: AcceptedRun, run: Run, feed: Feed, on_output: OnOutput | None, accepted: str, began: float
    ) -> RunResult:
        """One accepted run, to its stored result. Long because each failure on the way keeps what came before it."""
        queued_s = time.monotonic() - began
        folder = self._new_folder(request)
        try:
            _log.info("[solver.codegen] workdir=%s", folder.path)
            folder.append_infra("runtime", "INFO", f"[solver.codegen] workdir={folder.path}")
            for line in self._greeting:
                folder.append_infra("supervisor", "INFO", line)
            lease, hit = await self._pool.take(request.limits)
            try:
                conduct = Conduct(
                    request, lease.slot, folder, request.limits, feed, on_output, self._supervisor, self._owing
                )
                run.conducted_by(conduct)
                program = program_for(request, self._options_of(request))
                setup_s = time.monotonic() - began - queued_s
                timings = {"accepted": accepted, "queued_s": queued_s, "pool_hit": hit, "slot_s": setup_s}
                try:
                    ending = await conduct.run(program)
                except Exception as error:
                    if conduct.program_started:
                        self._store_lost(request, conduct, lease, folder, timings, began, error)
                    raise
                timings |= {"ended": utc_now(), "run_s": ending.run_s}
                try:
                    dead = DeadRun(
                        request=request,
                        ending=ending,
                        slot=lease.slot,
                        folder=folder,
                        limits=request.limits,
                        timings=timings,
                        given=digests_in_out(request, program),
                        launcher=self.backend.infra_log(),
                        began=began,
                        noticed=(*filter(None, (self._fallback,)), *self.backend.notices),
                        fallback=self._fallback,
                    )
                    result = await finish(dead, self._inspection, self._aside)
                except (OSError, SetupFailed) as error:
                    failure = failed(str(folder.path), error) if isinstance(error, OSError) else error
                    await asyncio.to_thread(folder.make_room)
                    self._store_lost(request, conduct, lease, folder, timings, began, failure)
                    raise failure from error
                except Exception as error:  # a backend of the caller's may raise anything; the run has ended
                    self._store_lost(request, conduct, lease, folder, timings, began, error)
                    raise
            finally:
                if not self._life.is_elsewhere:
                    self._pool.give_back(lease)
        except BaseException as error:
            if self._life.is_elsewhere:  # a fork's copy of this task is destroyed; the run is the parent's
                raise
            if run.program_started and request.keep:
                # What it printed is all there is to see of it. Without a result it is lost once this host has gone.
                with suppress(IsorunError):
                    folder.append_infra("runtime", "ERROR", f"the sandbox failed: {error!r}")
            else:
                folder.discard()
            raise
        await _publish_artifacts(feed, ending.run_s, result.artifacts)
        feed.publish(_outcome(result, ending.run_s))
        return result


def _outcome(result: RunResult, at_s: float) -> Event:
    return Event(kind="outcome", at_s=at_s, data={"status": result.status, "ok": result.ok})


async def _publish_artifacts(feed: Feed, at_s: float, artifacts: Sequence[Artifact]) -> None:
    for start in range(0, len(artifacts), _TOLD_AT_ONCE):
        if start:
            await asyncio.sleep(0)  # a run can leave ten thousand
        told = artifacts[start : start + _TOLD_AT_ONCE]
        about = ({"path": one.path, "bytes": one.bytes, "sha256": one.sha256} for one in told)
        feed.publish(*(Event(kind="artifact", at_s=at_s, data=data) for data in about))
