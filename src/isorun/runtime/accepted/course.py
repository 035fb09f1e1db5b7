"""The way of an accepted run: its turn, its slot, its end, its files, its result.

It owns nothing. What it works with belongs to the Runtime, which opens it before the first run and closes it after
the last one.
"""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isorun.backends.base import Backend, Program
from isorun.core import signatures
from isorun.core.errors import InvalidRequest, IsorunError, SetupFailed
from isorun.core.guard.life import Life
from isorun.core.guard.log import log_of
from isorun.core.limits import Limits
from isorun.core.result import Artifact, RunResult
from isorun.core.share import Owing
from isorun.core.text import one_line
from isorun.runtime.accepted.handle import Run
from isorun.runtime.aside import Aside, is_large
from isorun.runtime.carried.saved import save_files
from isorun.runtime.carried.sessions import Carrying, Sessions
from isorun.runtime.events import Event, Feed
from isorun.runtime.inspection.inspection import Inspection
from isorun.runtime.many.turns import Turns, unstarted
from isorun.runtime.output import OnOutput
from isorun.runtime.pool import Lease, Pool
from isorun.runtime.request import AcceptedRun
from isorun.runtime.run import Conduct, Options, digests_in_out, program_for
from isorun.runtime.services import Supervisors
from isorun.runtime.toolstream import call_limits
from isorun.store.folder import Lease as HostLease
from isorun.store.folder import RunFolder, failed, utc_now
from isorun.store.sessions import HeldSession
from isorun.store.unkept import without_folder
from isorun.store.upkeep import Upkeep

if TYPE_CHECKING:
    from isorun.supervisor.client import Supervisor

_log = log_of("isorun")
_AFTER_S = 0.001  # from a run's end to the next folder: its caller has the result first
_TOLD_AT_ONCE = 100  # artifacts, between two turns of the loop


def check_preloads(backend: Backend, needed: Sequence[str]) -> None:
    """Raises `InvalidRequest` (invalid_preload) if one of *needed* failed; it may be known with the first slot only."""
    for name, why in backend.failed_preloads.items():
        if name in needed:
            text = f"preload {name} failed: {one_line(why)}; {backend.environment.python} cannot import it"
            raise InvalidRequest(f"{text}: install it there, or leave it out", code="invalid_preload")


def options_under(options: Options, limits: Limits, *, has_tools: bool) -> Options:
    """*options*, of a run that has *limits*."""
    calls = call_limits(limits, has_tools=has_tools)
    return replace(options, frame_bytes=calls.frame_bytes, frame_values=calls.values, cpus=limits.cpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """A run whose turn has come. *accepted* is when it was asked for, and *began* the same by `time.monotonic`."""

    request: AcceptedRun
    run: Run
    feed: Feed
    on_output: OnOutput | None
    accepted: str
    began: float
    session: HeldSession | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The way of each run of one Runtime, whose things these are.

    *options* hold under *limits*, with the tools of the bundle; *needed* are the preloads that were asked for by name,
    *greeting* is what each run's infra.log begins with, *fallback* says why `auto` took another backend than its first.
    """

    root: Path
    host: HostLease
    life: Life
    limits: Limits
    options: Options
    needed: Sequence[str]
    backend: Backend
    fallback: str
    supervisors: Supervisors
    greeting: Sequence[str]
    owing: Owing
    turns: Turns
    sessions: Sessions
    pool: Pool
    aside: Aside
    inspection: Inspection
    upkeep: Upkeep

    async def run(
        self, request: AcceptedRun, run: Run, turn: "asyncio.Future[bool]", feed: Feed, on_output: OnOutput | None
    ) -> RunResult:
        """The result of *request*, stored and told to *feed*, once *turn* has come. Raises what the sandbox raised."""
        accepted, began = utc_now(), time.monotonic()
        try:
            async with AsyncExitStack() as stack:
                session = None
                if request.session is not None:
                    waiting = self.sessions.held(self.root, request, turn, run, feed)
                    held = await stack.enter_async_context(waiting)
                    if held is None:
                        return await self._given_up(request, feed, accepted, began)
                    request, session = held
                    turn = self.turns.ask()
                    run.waits_for(turn)
                if await stack.enter_async_context(self.turns.taken(turn)):
                    begun = _Begun(
                        request=request,
                        run=run,
                        feed=feed,
                        on_output=on_output,
                        accepted=accepted,
                        began=began,
                        session=session,
                    )
                    return await self._conducted(begun)
                return await self._given_up(request, feed, accepted, began)
        except BaseException:
            feed.publish(Event(kind="outcome", at_s=0.0, data={"status": "error"}))  # else who watches waits for ever
            raise
        finally:
            self.upkeep.due()

    async def _given_up(self, request: AcceptedRun, feed: Feed, accepted: str, began: float) -> RunResult:
        result = await asyncio.to_thread(self._unstarted, request, accepted, began)
        feed.publish(_outcome(result, 0.0))
        return result

    def _unstarted(self, request: AcceptedRun, accepted: str, began: float) -> RunResult:
        folder = self._new_folder(request, conducted=False)
        try:
            result = unstarted(request, folder, accepted, began)
        except BaseException:
            folder.discard()
            raise
        return result if request.keep else without_folder(result, folder)

    def _new_folder(self, request: AcceptedRun, *, conducted: bool) -> RunFolder:
        about = {"prog_name": request.prog_name, "turn": request.turn, "timeout_s": request.timeout_s}
        about |= {} if request.prog_name else {"caller": request.caller}
        about |= {} if request.keep else {"keep": False}
        return RunFolder.create(self.root, request.exec_id, self.host, about, conducted=conducted)

    async def _conducted(self, begun: _Begun) -> RunResult:
        request, queued_s = begun.request, time.monotonic() - begun.began
        supervisor = await self.supervisors.of(request)
        program = program_for(request, self._options_for(request.limits, supervisor))
        with ExitStack() as stack:
            # A slot that waits stores the program while its folder is made; nothing of it runs before there is one.
            ahead = self.pool.take_waiting(request.limits, loopback=request.loopback)
            if ahead is not None:
                stack.callback(self._give_back, ahead)
                await ahead.slot.store(program)
            folder = stack.enter_context(self._new_folder(request, conducted=True))
            return await self._in_folder(begun, folder, queued_s, supervisor, program, ahead)

    async def _in_folder(
        self,
        begun: _Begun,
        folder: RunFolder,
        queued_s: float,
        supervisor: "Supervisor | None",
        program: Program,
        ahead: Lease | None,
    ) -> RunResult:
        """One accepted run, to its stored result. Long because each failure on the way keeps what came before it.

        *ahead*: its slot, if one waited, which has the program's files already.
        """
        request, run, feed, began = begun.request, begun.run, begun.feed, begun.began
        carrying = Carrying(begun.session, request, self.limits, folder.out, self.aside)
        try:
            _log.info("[solver.codegen] workdir=%s", folder.path)
            folder.append_infra("runtime", "INFO", f"[solver.codegen] workdir={folder.path}")
            for line in self.greeting:
                folder.append_infra("supervisor", "INFO", line)
            lease, hit = ahead, True
            if lease is None:
                lease, hit = await self.pool.take(request.limits, loopback=request.loopback)
            self.inspection.expect(request.contract)
            try:
                check_preloads(self.backend, self.needed)
                conduct = Conduct(
                    request, lease.slot, folder, request.limits, feed, begun.on_output, supervisor, self.owing
                )
                run.conducted_by(conduct)
                setup_s = time.monotonic() - began - queued_s
                timings = {"accepted": begun.accepted, "queued_s": queued_s, "pool_hit": hit, "slot_s": setup_s}
                try:
                    ending = await conduct.run(program)
                except Exception as error:
                    if conduct.program_started:
                        self._store_lost(request, conduct, lease, folder, timings, began, error)
                    raise
                finally:
                    conduct.freezing.over()
                timings |= {"ended": utc_now(), "run_s": ending.run_s, "frozen_s": ending.frozen_s}
                try:
                    large = is_large(os.fstatvfs(lease.slot.out), ending.output.total)
                    await carrying.prepare(lease.slot, ending.status, large=large)
                    from isorun.runtime.finish import DeadRun, finish  # a cold start's first byte is out without it

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
                        noticed=(*filter(None, (self.fallback,)), *self.backend.notices, *carrying.notices),
                        fallback=self.fallback,
                    )
                    result = await finish(dead, self.inspection, self.aside, large=large)
                except (OSError, SetupFailed) as error:
                    failure = failed(str(folder.path), error) if isinstance(error, OSError) else error
                    await asyncio.to_thread(folder.make_room)
                    self._store_lost(request, conduct, lease, folder, timings, began, failure)
                    raise failure from error
                except Exception as error:  # a backend of the caller's may raise anything; the run has ended
                    self._store_lost(request, conduct, lease, folder, timings, began, error)
                    raise
                await carrying.commit()
                conduct.output = None  # the result has it, and the caller may keep the run
            finally:
                self._give_back(lease)
        except BaseException as error:
            if self.life.is_elsewhere:  # a fork's copy of this task is destroyed; the run is the parent's
                raise
            if run.program_started and request.keep:
                # What it printed is all there is to see of it. Without a result it is lost once this host has gone.
                with suppress(IsorunError):
                    folder.append_infra("runtime", "ERROR", f"the sandbox failed: {error!r}")
            else:
                folder.discard()
            raise
        carrying.check()
        if request.saving is not None:
            await self.aside.do(save_files, request, folder, large=large)  # if it fails, the run's folder stays
        if not request.keep:
            result = await asyncio.to_thread(without_folder, result, folder)
        await _publish_artifacts(feed, ending.run_s, result.artifacts)
        feed.publish(_outcome(result, ending.run_s))
        return result

    def _give_back(self, lease: Lease) -> None:
        """Only once, and never a fork's copy of it."""
        if not (lease.is_given_back or self.life.is_elsewhere):
            self.pool.give_back(lease)
            asyncio.get_running_loop().call_later(_AFTER_S, self.host.make_ahead)

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
        from isorun.runtime.accepted.lost import LostRun, store_lost  # as `finish`

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

    def _options_for(self, limits: Limits, supervisor: "Supervisor | None") -> Options:
        if limits == self.limits and (supervisor is not None) == self.supervisors.has_bundle:
            return self.options
        options = options_under(self.options, limits, has_tools=supervisor is not None)
        return (
            options
            if supervisor is None or self.supervisors.has_bundle
            else replace(options, about=signatures.about(supervisor.tools))
        )


def _outcome(result: RunResult, at_s: float) -> Event:
    return Event(kind="outcome", at_s=at_s, data={"status": result.status, "ok": result.ok})


async def _publish_artifacts(feed: Feed, at_s: float, artifacts: Sequence[Artifact]) -> None:
    for start in range(0, len(artifacts), _TOLD_AT_ONCE):
        if start:
            await asyncio.sleep(0)  # a run can leave ten thousand
        told = artifacts[start : start + _TOLD_AT_ONCE]
        about = ({"path": one.path, "bytes": one.bytes, "sha256": one.sha256} for one in told)
        feed.publish(*(Event(kind="artifact", at_s=at_s, data=data) for data in about))
