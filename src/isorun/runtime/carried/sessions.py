"""The sessions that a Runtime works with: whose turn it is, what a run starts from, and what is carried on.

Theory of operation. The runs of one session go one after the other, in the order in which they were started. In one
Runtime they queue as runs do that wait for a place (`Turns`, of one); then the run takes the session's lock, which
another process may have, and asks for it again and again. Only then does it ask for a place of its own, so that
a run that waits for its session holds up no other. The lock is given back when the run's files are carried.
"""

import asyncio
import functools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from isorun.backends.base import Slot
from isorun.core.errors import InvalidRequest
from isorun.core.guard.log import log_of
from isorun.core.limits import Limits
from isorun.core.outcome import Status
from isorun.runtime.aside import Aside, in_thread, to_its_end
from isorun.runtime.events import Event, Feed
from isorun.runtime.many.turns import Turns
from isorun.runtime.request import AcceptedRun, fingerprint_before
from isorun.store.sessions import HeldSession, not_kept, take

if TYPE_CHECKING:
    from isorun.runtime.accepted.handle import Run

_log = log_of("isorun")
_ASK_AGAIN_S = 0.02  # a blocking wait would hold a thread that the run before us needs to end
_SAY_S = 1.0


class Sessions:
    """The queues of one Runtime, one for each session that a run has or waits for."""

    def __init__(self) -> None:
        self._queues: dict[str, Turns] = {}
        self._runs: dict[str, int] = {}

    def ask(self, name: str) -> "asyncio.Future[bool]":
        """A turn with the session *name*, see `Turns.ask`; `held` gives it back."""
        self._runs[name] = self._runs.get(name, 0) + 1
        return self._queues.setdefault(name, Turns(1)).ask()

    def give_up_all(self) -> None:
        """Those who wait now get no turn."""
        for queue in self._queues.values():
            queue.give_up_all()

    @asynccontextmanager
    async def held(
        self, root: Path, request: AcceptedRun, turn: "asyncio.Future[bool]", run: "Run", feed: Feed
    ) -> AsyncIterator[tuple[AcceptedRun, HeldSession] | None]:
        """Wait for *turn* and the lock. The block has the session and *request* starting from its files; or None.

        None stands for a run that was cancelled meanwhile. Raises `InvalidRequest` (session_busy) where another
        process has the session for longer than the run's own time limit; and `SetupFailed`.
        """
        assert request.session is not None
        if not turn.done():
            feed.publish(_waiting(request.session))
        try:
            async with self._queues[request.session].taken(turn) as is_ours:
                session = await _taken(root, request, run, feed) if is_ours else None
                if session is None:
                    yield None
                    return
                try:
                    yield await in_thread(functools.partial(_starting_from, request, session)), session
                finally:
                    session.release()
        finally:
            self._left(request.session)

    def _left(self, name: str) -> None:
        self._runs[name] -= 1
        if not self._runs[name]:  # a service has a session for each of its users
            del self._runs[name], self._queues[name]


async def _taken(root: Path, request: AcceptedRun, run: "Run", feed: Feed) -> HeldSession | None:
    """The session once it is ours; None if the run is cancelled first."""
    assert request.session is not None
    given_up: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    run.waits_for(given_up)
    began, is_told, is_logged = time.monotonic(), False, False
    while (session := await _asked(root, request.session)) is None:
        waited = time.monotonic() - began
        if not is_told:
            is_told = True
            feed.publish(_waiting(request.session))
        if waited > request.timeout_s:
            raise InvalidRequest(
                f"session {request.session} was in use by another process for {waited:.0f} s, as long as this run may "
                "take; wait for the run there, or name another session",
                code="session_busy",
            )
        if waited > _SAY_S and not is_logged:
            is_logged = True
            _log.warning("session %s is in use by another process: waiting for it", request.session)
        await asyncio.wait({given_up}, timeout=_ASK_AGAIN_S)
        if given_up.done():
            return None
    return session


async def _asked(root: Path, name: str) -> HeldSession | None:
    found: list[HeldSession | None] = []
    try:
        await in_thread(lambda: found.append(take(root, name)))
    except asyncio.CancelledError:  # with a lock in hand that nobody would give back
        for session in filter(None, found):
            session.release()
        raise
    return found[0]


def _waiting(session: str) -> Event:
    return Event(kind="waiting", at_s=0.0, data={"session": session})


def _starting_from(request: AcceptedRun, session: HeldSession) -> AcceptedRun:
    """*request*, with the session's files in out/. An input takes the place of what has its name."""
    given = {file.path.removeprefix("work/").partition("/")[0] for file in request.inputs}
    found = fingerprint_before(session.path)
    sent = {path: digest for path, digest in found.items() if path.partition("/")[0] not in given}
    return replace(request, before=session.path, sent=sent)


class Carrying:
    """What is carried of one run's files, if it has a session: prepared while the sandbox stands, told with its result.

    *folder* is where the run's files are stored. A run that was lost changes nothing: its sandbox failed.
    """

    def __init__(
        self, session: HeldSession | None, request: AcceptedRun, limits: Limits, folder: Path, aside: Aside
    ) -> None:
        self._session, self._request, self._limits, self._folder = session, request, limits, folder
        self._aside = aside
        self._error: OSError | None = None
        self.notices: tuple[str, ...] = ()

    async def prepare(self, slot: Slot, status: Status, *, large: bool) -> None:
        """Copy the dead run's files. A failure is raised by `check`: the run itself has ended, and has a result."""
        session, request = self._session, self._request
        if session is not None and status is not Status.LOST:
            try:
                copy = functools.partial(session.prepare, slot.out, self._limits, request.sent)
                copy = functools.partial(copy, work=slot.work, known=request.in_work)
                reason = await to_its_end(self._aside.do(copy, large=large))
                self.notices = (reason,) if reason else ()
            except OSError as error:
                self._error = error

    async def commit(self) -> None:
        """Let the copy be what the session has from now on."""
        if self._session is not None and self._error is None:
            try:
                await in_thread(self._session.commit)
            except OSError as error:
                self._error = error

    def check(self) -> None:
        """Raises `SetupFailed` if the files could not be carried: the session is then as it was."""
        if self._session is not None and self._error is not None:
            raise not_kept(self._session, self._error, self._folder) from self._error
